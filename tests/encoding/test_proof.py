"""Models without the library: which shapes are compact, that proofs hold, and when they do not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.encoding import load_encoder, opened_model, proof
from msmarco_qdrant.encoding.backends import fused
from msmarco_qdrant.encoding.backends.cache import mark_used, model_cache, prune
from msmarco_qdrant.encoding.backends.fused import FusedBackend, FusedForward
from msmarco_qdrant.encoding.backends.numpy_forward import NumpyForward
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.compact import CompactModel, read_compact
from msmarco_qdrant.encoding.file_digests import code_sha256
from msmarco_qdrant.encoding.pretrained import load_model
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError
from tests.encoding.conftest import Library, Tiny
from tests.encoding.tiny_models import ARCHITECTURES, WORDS, Architecture, Recipe, save_tiny

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

pytestmark = pytest.mark.usefixtures("in_float32")

COMPACT = [
    *(Recipe(architecture) for architecture in ARCHITECTURES if architecture != "electra"),
    Recipe("bert", pooling="cls", similarity="dot"),
    Recipe("roberta", normalize=True),
    Recipe("mpnet"),
]
# The tiny Electra's embeddings are smaller than its layers.
OTHER = [Recipe(dense=True), Recipe("roberta", layer_norm=True), Recipe("electra")]
TEXTS = ["london", "how cold is the iceberg in the north", " ".join(WORDS)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return model_cache("proofs")


def proofs(folder: Path) -> list[Path]:
    """The files of a cache."""
    return sorted(folder.glob("*.json"))


def vectors(directory: Path, texts: Sequence[str] = TEXTS) -> np.ndarray:
    """Vectors of passages by a newly loaded encoder, which runs no module of the library."""
    encoder = load_encoder(directory, device="cpu")
    assert isinstance(encoder._require_backends()[0], FusedBackend)
    return encoder.encode(texts)


@pytest.mark.parametrize("recipe", COMPACT, ids=lambda one: f"{one.architecture}-{one.pooling}")
def test_every_form_gives_the_library_s_vectors(
    recipe: Recipe, tiny: Tiny, library: Library, cache: Path
) -> None:
    """A first load, a load from the proof, and NumPy: equal to 1e-5."""
    directory = tiny(recipe)
    expected = library(directory).encode(TEXTS, normalize_embeddings=recipe.similarity != "dot")

    first = vectors(directory)
    (path,) = proofs(cache)
    os.utime(path, (100, 100))
    again = vectors(directory)
    assert 100 < path.stat().st_mtime  # so that it is kept
    compact = read_compact(directory)
    assert compact is not None
    tokens = load_encoder(directory, device="cpu").tokenizer(TEXTS)
    raw = np.stack(
        [
            NumpyForward(compact)(tokens.ids[start:stop])
            for start, stop in zip(tokens.offsets, tokens.offsets[1:], strict=False)
        ]
    )
    length = np.linalg.norm(raw, axis=1, keepdims=True) if recipe.similarity != "dot" else 1

    for found in (first, again, raw / length):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("recipe", OTHER, ids=["dense", "layer_norm", "narrow"])
def test_other_modules_stay_the_library_s(recipe: Recipe, tiny: Tiny, cache: Path) -> None:
    """They are not compact, so nothing is proven, and the library runs them."""
    encoder = load_encoder(tiny(recipe), device="cpu")

    assert not isinstance(encoder._require_backends()[0], FusedBackend)
    assert [] == proofs(cache)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_act", "relu"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("model_type", "deberta"),
        ("num_hidden_layers", 3),
    ],
)
def test_other_settings_are_not_compact(
    name: str, value: object, tiny: Tiny, tmp_path: Path
) -> None:
    """A setting that the forward passes do not compute, and layers that the file lacks."""
    copy = Path(shutil.copytree(tiny(Recipe("bert")), tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text("utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {name: value}), "utf-8")

    assert read_compact(copy) is None


def test_mpnet_s_biases_are_the_library_s(tiny: Tiny) -> None:
    """For all distances, also beyond the last one that has a bias of its own."""
    directory = tiny(Recipe("mpnet"))
    compact = read_compact(directory)
    assert compact is not None
    encoder = AutoModel.from_pretrained(directory).encoder
    with torch.inference_mode():
        expected = encoder.compute_position_bias(torch.empty(1, 300, 32))[0]

    np.testing.assert_array_equal(compact.score_biases(300), expected.numpy())


def test_a_wrong_epsilon_is_found_by_the_comparison(tmp_path: Path, cache: Path) -> None:
    """DistilBERT ignores a setting that others read: vectors differ, so the library runs it."""
    directory = save_tiny(tmp_path / "model", Recipe())
    config = json.loads((directory / "config.json").read_text("utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 5.0}), "utf-8")

    encoder = load_encoder(directory, device="cpu")

    assert not isinstance(encoder._require_backends()[0], FusedBackend)
    assert [] == proofs(cache)


def test_a_changed_model_has_no_proof(tmp_path: Path, cache: Path) -> None:
    """Other weights or another configuration are compared anew."""
    directory = save_tiny(tmp_path / "model", Recipe("bert"))
    before = vectors(directory)
    weights = load_file(directory / "model.safetensors")
    save_file({name: one * 1.5 for name, one in weights.items()}, directory / "model.safetensors")

    assert not np.allclose(before, vectors(directory), atol=1e-3)
    assert 2 == len(proofs(cache))


def test_a_damaged_proof_is_made_again(tiny: Tiny, cache: Path) -> None:
    """A file cut off, of another form, or with another word in its tokenizer is not used."""
    expected = vectors(tiny(Recipe()))
    (path,) = proofs(cache)
    whole = path.read_bytes()
    for content in (whole[:100], b"{}", b"", whole.replace(b"london", b"lundon")):
        path.write_bytes(content)
        np.testing.assert_array_equal(expected, vectors(tiny(Recipe())))
        assert whole == path.read_bytes()


def test_a_model_changed_while_it_is_loaded_has_no_proof(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokenizer may be of the former files."""
    directory = save_tiny(tmp_path / "model", Recipe("bert"))

    def load(location: str, device: str | None) -> SentenceTransformer:
        model = load_model(location, device)
        (directory / "tokenizer_config.json").write_text('{"do_lower_case": false}', "utf-8")
        return model

    monkeypatch.setattr(opened_model, "load_model", load)
    load_encoder(directory, device="cpu")

    assert [] == proofs(cache)


def test_a_model_changed_while_its_proof_is_read_is_compared(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights may be of the later files."""
    directory = save_tiny(tmp_path / "model", Recipe("bert"))
    vectors(directory)

    def read(place: Path) -> CompactModel | None:
        (directory / "config.json").touch()
        (directory / "extra.json").write_text("{}", "utf-8")
        return read_compact(place)

    monkeypatch.setattr(opened_model, "read_compact", read)
    vectors(directory)

    assert 2 == len(proofs(cache))


def test_a_proof_is_of_these_versions_and_this_code(
    tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of a library or other code compares again."""
    vectors(tiny(Recipe("bert")))
    before = proof._describe_code()
    for name in ("torch", "code"):
        monkeypatch.setattr(proof, "_describe_code", lambda name=name: before | {name: "other"})
        vectors(tiny(Recipe("bert")))

    assert {"code", "torch", "transformers"} <= {*before}
    assert 3 == len(proofs(cache))


def test_the_digest_of_the_code_is_of_every_module(tmp_path: Path) -> None:
    """Also of one in a folder below; a copy elsewhere has the same."""
    package = Path(proof.__file__).parent
    for name in ("copy", "changed"):
        shutil.copytree(package, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "changed/backends/packed_linear.py").open("a") as module:
        module.write("# changed\n")

    assert code_sha256() == code_sha256(tmp_path / "copy")
    assert code_sha256() != code_sha256(tmp_path / "changed")


def test_a_model_changed_before_its_first_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, or in bfloat16, the library loads a proven model at the first batch."""
    directory = save_tiny(tmp_path / "model", Recipe("bert"))
    vectors(directory)
    monkeypatch.setattr(BiEncoder, "_fused_precision", lambda *_: None)
    encoder = load_encoder(directory, device="cpu")
    weights = load_file(directory / "model.safetensors")
    save_file({name: one * 1.5 for name, one in weights.items()}, directory / "model.safetensors")

    with pytest.raises(EncodingError, match=r"the files of .* have changed since the model"):
        encoder.encode(TEXTS)


def test_a_proven_model_is_loaded_from_the_files_that_were_opened(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub may have a newer version; its vectors would be called those of the opened one."""
    directory = tiny(Recipe("bert"))
    expected = vectors(directory)
    monkeypatch.setattr(BiEncoder, "_fused_precision", lambda *_: None)
    monkeypatch.setattr(opened_model, "find_model_directory", lambda _: directory)
    encoder = BiEncoder("organization/model-of-the-hub")

    np.testing.assert_allclose(expected, encoder.encode(TEXTS), rtol=0, atol=1e-5)
    assert encoder._opened.compact is None  # the weights are in memory once


@pytest.mark.parametrize("kind", ["bfloat16", "no pad id", "adapter", "other package"])
def test_files_that_are_not_compact_leave_the_model_to_the_library(
    kind: str, tmp_path: Path, cache: Path
) -> None:
    """NumPy lacks bfloat16; settings may be null; adapters and other packages' code may change."""
    directory = save_tiny(tmp_path / "model", Recipe("roberta"))
    if kind == "bfloat16":
        weights = load_file(directory / "model.safetensors")
        half = {name: one.to(torch.bfloat16) for name, one in weights.items()}
        save_file(half, directory / "model.safetensors", {"format": "pt"})
    elif kind == "no pad id":
        config = json.loads((directory / "config.json").read_text("utf-8"))
        text = json.dumps(config | {"pad_token_id": None})
        (directory / "config.json").write_text(text, "utf-8")
    elif kind == "adapter":
        (directory / "adapter_config.json").write_text("{}", "utf-8")
    else:
        modules = json.loads((directory / "modules.json").read_text("utf-8"))
        modules[1]["type"] = "my_package.Pooling"
        (directory / "modules.json").write_text(json.dumps(modules), "utf-8")

    assert read_compact(directory) is None
    if kind in ("bfloat16", "no pad id"):
        encoder = load_encoder(directory, device="cpu")
        assert [] == proofs(cache)
        assert kind == "no pad id" or np.isfinite(encoder.encode(TEXTS)).all()


def test_an_error_of_the_comparison_leaves_the_model_to_the_library(
    tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before, a model of any shape can be loaded."""

    def fail(*_: object) -> bool:
        raise RuntimeError("shape '[1, 3, 5]' is invalid")

    monkeypatch.setattr(proof, "_agrees", fail)

    assert np.isfinite(load_encoder(tiny(Recipe("bert")), device="cpu").encode(TEXTS)).all()
    assert [] == proofs(cache)


@pytest.mark.parametrize(("architecture", "name"), [("roberta", "<pad>"), ("mpnet", "\u6c34")])
def test_the_name_of_padding_in_a_text_shifts_positions_as_in_the_library(
    architecture: Architecture, name: str, tiny: Tiny, library: Library
) -> None:
    """RoBERTa does not count these tokens, nor MPNet those of id 1, here unknown words."""
    directory = tiny(Recipe(architecture))
    texts = [f"london {name} how cold", f"the {name} {name} iceberg", "london", name]
    expected = library(directory).encode(texts, normalize_embeddings=True)
    compact = read_compact(directory)
    assert compact is not None

    tokens = load_encoder(directory, device="cpu").tokenizer(texts[:1])
    raw = NumpyForward(compact)(tokens.ids)
    np.testing.assert_allclose(vectors(directory, texts), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(raw / np.linalg.norm(raw), expected[0], rtol=0, atol=1e-5)


def test_a_gpu_of_any_kind_runs_the_library_s_model(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as Intel's, which `device=None` means; `device="cpu"` does not."""
    directory = tiny(Recipe("bert"))
    vectors(directory)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)

    assert not isinstance(load_encoder(directory)._require_backends()[0], FusedBackend)
    assert np.isfinite(vectors(directory)).all()


def test_a_user_without_a_home_has_no_cache(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a directory named '~' would lie in the working directory."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)

    assert np.isfinite(vectors(tiny(Recipe("bert")))).all()
    assert not Path("~").exists()


def test_other_prompts_are_compared_anew(tiny: Tiny, cache: Path) -> None:
    """A prompt changes tokens, so each of two programs with other prompts has its own proof."""
    plain = vectors(tiny(Recipe()))
    prompts = Prompts("how ", "what is ")
    prompted = [
        load_encoder(tiny(Recipe()), device="cpu", prompts=prompts).encode(TEXTS) for _ in range(2)
    ]

    assert not np.allclose(plain, prompted[0], atol=1e-3)
    np.testing.assert_allclose(prompted[0], prompted[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(plain, vectors(tiny(Recipe())), rtol=0, atol=1e-6)
    assert 2 == len(proofs(cache))


def test_an_unwritable_cache_is_no_fault(tiny: Tiny, cache: Path) -> None:
    """The next start compares again."""
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file", "utf-8")

    assert np.isfinite(vectors(tiny(Recipe()))).all()


def test_one_query_of_a_proven_model_imports_neither_torch_nor_the_library(tiny: Tiny) -> None:
    """So a search from the command line starts at once; several queries are worth torch."""
    directory = tiny(Recipe("bert"))
    expected = load_encoder(directory, device="cpu").encode_queries(["how big is london"])
    code = (
        "import json, sys; from msmarco_qdrant import load_encoder;"
        f"encoder = load_encoder({str(directory)!r});"
        "vector = encoder.encode_queries(['how big is london'])[0].tolist();"
        "early = sorted({'torch', 'transformers', 'sentence_transformers'} & {*sys.modules});"
        "both = encoder.encode_queries(['how big is paris', 'cold north']);"
        "print(json.dumps([vector, early, 'torch' in sys.modules, repr(encoder)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    vector, early, later, shown = json.loads(done.stdout)
    np.testing.assert_allclose(vector, expected[0], rtol=0, atol=1e-5)
    assert [] == early
    assert later
    assert "; on cpu in " in shown  # a measurement chooses the precision


def test_files_that_were_not_used_for_longest_are_pruned(tmp_path: Path) -> None:
    """A cache does not grow for ever."""
    for age in range(5):
        (tmp_path / f"{age}.json").touch()
        os.utime(tmp_path / f"{age}.json", (100 - age, 100 - age))

    mark_used(tmp_path / "4.json")
    mark_used(tmp_path / "5.json")  # that another process has removed
    prune(tmp_path, "*.json", 3)

    assert ["0.json", "1.json", "4.json"] == sorted(path.name for path in tmp_path.iterdir())


def test_proofs_of_former_models_are_removed(
    tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the last ones."""
    monkeypatch.setattr(proof, "_KEPT_FILES", 1)
    load_encoder(tiny(Recipe("bert")), device="cpu")
    (first,) = proofs(cache)
    os.utime(first, (100, 100))
    load_encoder(tiny(Recipe("roberta")), device="cpu")
    assert 1 == len(proofs(cache))
    assert [first] != proofs(cache)


# ---- workers ---------------------------------------------------------------------------------


@pytest.fixture
def compact(tiny: Tiny) -> CompactModel:
    """A compact model."""
    found = read_compact(tiny(Recipe("bert")))
    assert found is not None
    return found


def test_workers_compute_alone_and_leave_others_their_threads(compact: CompactModel) -> None:
    """A worker has one thread of torch; this thread, and threads started later, keep theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        backend = FusedBackend(compact, workers=2)
        counts = [
            backend._pools["document"].submit(torch.get_num_threads).result() for _ in range(4)
        ]
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [1] * 4 == counts
        assert [3, 3] == [torch.get_num_threads(), *later]
    finally:
        torch.set_num_threads(before)


def test_batches_in_several_workers_are_those_of_one(compact: CompactModel) -> None:
    """Buffers are per thread and grow with a batch, so batches do not mix."""
    random = np.random.default_rng(1)
    batches = [
        Tokenized.from_rows([random.integers(5, 40, size).tolist() for size in sizes])
        for sizes in ([3], [9, 4, 17], [40] * 8, [1, 2], [33, 8])
    ]
    backend, one = FusedBackend(compact, workers=3), FusedForward(compact)
    launched = [(batch, backend.launch(batch, "document")) for batch in batches * 5]

    for batch, running in launched:
        np.testing.assert_allclose(one(batch), running.result(), rtol=0, atol=1e-6)


def test_a_failed_pass_is_an_encoding_error(compact: CompactModel) -> None:
    """An id beyond the vocabulary is one line with the size of the batch."""
    batch = Tokenized.from_rows([[10**6, 1]])

    with pytest.raises(EncodingError, match="1 texts of 2 tokens failed on cpu"):
        FusedBackend(compact, workers=1).launch(batch, "document").result()


@pytest.mark.parametrize("count", [1, 160])
def test_queries_do_not_wait_for_passages(count: int, compact: CompactModel) -> None:
    """They have threads of their own, as many as passages: also a batch of many queries."""
    backend, busy = FusedBackend(compact, workers=2), threading.Event()
    batch = Tokenized.from_rows([[5, 6, 7, 8, 9, 10]] * count)
    try:
        for task in ("document", "document", "query"):
            backend._pools[task].submit(busy.wait)
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(backend.launch(batch, "query").result).result(30)
        assert (count, 32) == found.shape
    finally:
        busy.set()


def test_one_worker_per_core_that_torch_may_use(
    compact: CompactModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OMP_NUM_THREADS limits them; one batch waits, so that no worker does."""
    monkeypatch.setattr(fused, "usable_cores", lambda: 64)

    assert torch.get_num_threads() + 1 == FusedBackend(compact).max_in_flight
