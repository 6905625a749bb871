"""Every folder gives vectors, or one line with the reason; see `model_folders`."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet

from msmarco_qdrant.encoding import load_encoder, load_reranker
from msmarco_qdrant.errors import ModelNotFoundError
from tests.encoding.conftest import Tiny, TinyPairs
from tests.encoding.model_folders import (
    BASE,
    LOADED,
    REFUSED,
    Edit,
    drop_weights,
    edit_weights,
    rewrite,
    write_tokenizer,
)
from tests.encoding.tiny_cross_encoders import PairRecipe
from tests.encoding.tiny_models import MAX_POSITIONS, Recipe, texts_of_lengths

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@pytest.fixture
def model(tiny: Tiny, tmp_path: Path) -> Path:
    """A model of its own for the test to change."""
    return Path(shutil.copytree(tiny(BASE), tmp_path / "m"))


def mostly_slow(cases: Mapping[str, Any]) -> list[ParameterSet]:
    """Each fifth of the cases, and the others for the slow run."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            id=name,
            marks=() if number % 5 == 0 else pytest.mark.slow,
        )
        for number, (name, case) in enumerate(cases.items())
    ]


@pytest.mark.parametrize(("edit", "reason"), mostly_slow(REFUSED))
def test_s1_c8_a_folder_is_refused_with_the_reason(edit: Edit, reason: str, model: Path) -> None:
    """One line that names the folder and the next step; nothing is made up."""
    edit(model)
    with pytest.raises(ModelNotFoundError) as caught:
        load_encoder(model, device="cpu")
    message = str(caught.value)
    assert reason in message
    assert "\n" not in message
    assert str(model) in message or "similarity must be" in message


@pytest.mark.parametrize("edit", mostly_slow(LOADED))
def test_c8_a_folder_loads(edit: Edit, model: Path) -> None:
    """Its vectors are finite and differ, also for a text longer than the model reads."""
    edit(model)
    encoder = load_encoder(model, device="cpu", precision="float32")
    vectors = encoder.encode_queries(["big city", "cold iceberg", "snow " * 900])
    assert vectors.shape == (3, 32)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert encoder.info.fingerprint.startswith("2-")


@pytest.mark.parametrize(("name", "lines"), [("vocab_projector.bias", 0), ("own.bias", 1)])
def test_s1_unused_weights_are_one_line(
    name: str, lines: int, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The library's table is not shown; heads of other tasks are not worth a line."""
    edit_weights(model, lambda it: it.update({name: it["embeddings.LayerNorm.bias"].clone()}))
    load_encoder(model, device="cpu")
    assert not any("LOAD REPORT" in text for text in caplog.messages)
    assert sum(f"not used, such as {name}" in text for text in caplog.messages) == lines


def test_c8_split_weights_give_the_same_vectors(tiny: Tiny, model: Path) -> None:
    """Parts with their index are the same weights."""
    LOADED["c8 split pytorch_model.bin"](model)
    whole, split = (
        load_encoder(path, device="cpu", precision="float32") for path in (tiny(BASE), model)
    )
    texts = texts_of_lengths([3, 9, 30])
    np.testing.assert_allclose(whole.encode_queries(texts), split.encode_queries(texts), atol=1e-6)


# ---- lengths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["distilbert", "bert", "electra", "roberta"])
def test_c4_texts_are_cut_to_the_positions(
    architecture: str, tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A maximum length beyond the positions is one warning, and no IndexError."""
    recipe = Recipe(architecture)  # type: ignore[arg-type]
    model = Path(shutil.copytree(tiny(recipe), tmp_path / "m"))
    rewrite(model / "tokenizer_config.json", model_max_length=256)
    rewrite(model / "sentence_bert_config.json", max_seq_length=256)
    encoder = load_encoder(model, device="cpu")
    positions = MAX_POSITIONS - (2 if architecture == "roberta" else 0)
    assert encoder.info.max_seq_length == positions
    assert sum("positions for" in text for text in caplog.messages) == 1
    tokens = encoder.tokenizer(["snow " * 900, "snow"])
    assert positions == tokens.lengths[0]
    assert [True, False] == tokens.which_cut().tolist()
    assert np.isfinite(encoder.encode_queries(["snow " * 900])).all()


def test_c5_without_a_length_nothing_is_cut(tmp_path: Path) -> None:
    """A model with relative positions and a tokenizer without a length read whole texts."""
    encoder = load_encoder(save_t5(tmp_path), device="cpu")
    assert encoder.info.max_seq_length is None
    assert "maximum length" in encoder.info.assumed
    tokens = encoder.tokenizer(["snow " * 900])
    assert tokens.lengths[0] >= 900
    assert not tokens.which_cut().any()


def save_t5(folder: Path) -> Path:
    """Save a tiny T5 encoder whose tokenizer has no length."""
    from transformers import T5Config, T5EncoderModel

    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return _save(folder / "t5", lambda words: T5EncoderModel(T5Config(vocab_size=words, **sizes)))


def save_mamba(folder: Path) -> Path:
    """Save a tiny Mamba."""
    from transformers import MambaConfig, MambaModel

    sizes: dict[str, Any] = {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 2}
    return _save(folder / "mamba", lambda words: MambaModel(MambaConfig(vocab_size=words, **sizes)))


def _save(folder: Path, make: Callable[[int], PreTrainedModel]) -> Path:
    """Save a model made for the size of a small vocabulary."""
    from transformers import PreTrainedTokenizerFast

    from tests.encoding.tiny_models import SPECIAL, WORDS, randomize, word_piece

    tokens = [*SPECIAL.values(), *"abcdefghijklmnopqrstuvwxyz0123456789?", *WORDS]
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=word_piece(tokens, lowercase=True), **SPECIAL
    )
    model = make(len(tokenizer))
    randomize(model, 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("in_bfloat16")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("save", [save_t5, save_mamba])
def test_c3_models_that_read_weights_have_the_library_s_vectors(
    save: Callable[[Path], Path], precision: str, tmp_path: Path
) -> None:
    """T5 reads the dtype of its linear layers, Mamba their numbers, of packed ones too."""
    from sentence_transformers import SentenceTransformer

    texts, folder = ["big city", "cold iceberg"], save(tmp_path)
    encoder = load_encoder(folder, device="cpu", precision=precision)  # type: ignore[arg-type]
    vectors = encoder.encode_queries(texts)
    expected = SentenceTransformer(str(folder), device="cpu").encode(
        texts, normalize_embeddings=True
    )
    np.testing.assert_allclose(
        (vectors * expected).sum(axis=1), 1, atol=1e-5 if precision == "float32" else 1e-2
    )


# ---- rerankers ---------------------------------------------------------------------------------

RERANKERS: dict[str, tuple[Edit, str]] = {
    "no tokenizer": (lambda it: (it / "tokenizer.json").unlink(), "no tokenizer files in"),
    "empty tokenizer": (write_tokenizer, "its tokenizer has only 5 tokens"),
    "no head": (lambda it: drop_weights(it, "classifier"), "its files lack 2 of its weights"),
    "no layer": (lambda it: drop_weights(it, "layer.1."), "of its weights"),
    "pointer": (
        lambda it: (it / "model.safetensors").write_text("version https://git-lfs.github.com"),
        "is a Git LFS pointer",
    ),
    "config.json missing": (lambda it: (it / "config.json").unlink(), "no config.json in"),
}


@pytest.mark.parametrize(("edit", "reason"), mostly_slow(RERANKERS))
def test_s1_c8_a_reranker_is_refused_with_the_reason(
    edit: Edit, reason: str, tiny_pairs: TinyPairs, tmp_path: Path
) -> None:
    """A cross-encoder's folder is checked as a bi-encoder's is."""
    model = Path(shutil.copytree(tiny_pairs(PairRecipe()), tmp_path / "ce"))
    edit(model)
    with pytest.raises(ModelNotFoundError) as caught:
        load_reranker(model, device="cpu")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- what is assumed ---------------------------------------------------------------------------


def test_assumptions_are_said(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A plain folder is mean pooling and cosine by assumption; a saved one says both."""
    caplog.set_level(logging.INFO, "msmarco_qdrant.encoding")
    saved = load_encoder(model, device="cpu").info
    assert saved.encoding == "mean pooling, cosine similarity, no prompts, at most 48 tokens"
    LOADED["plain transformers"](model)
    plain = load_encoder(model, device="cpu").info
    assert plain.encoding.endswith("(assumed: pooling, similarity)")
    assert any(plain.encoding in text for text in caplog.messages)


def test_prompts_of_unknown_names_are_said(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are not used, which is a warning."""
    LOADED["prompts of other names"](model)
    load_encoder(model, device="cpu")
    assert any("search_query; none is used" in text for text in caplog.messages)


def test_edits_change_the_folder(tiny: Tiny, model: Path) -> None:
    """The first folder is an unchanged copy, so that the others differ from it alone."""
    names = sorted(path.name for path in model.rglob("*") if path.is_file())
    assert sorted(path.name for path in tiny(BASE).rglob("*") if path.is_file()) == names
    assert json.loads((model / "modules.json").read_text("utf-8"))
