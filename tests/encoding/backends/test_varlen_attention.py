"""Texts end to end, without padding: the vectors of the library's padded pass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.backends.base import Task
from msmarco_qdrant.encoding.backends.torch import TorchBackend
from msmarco_qdrant.encoding.backends.varlen_attention import (
    VarlenPooling,
    group_runs,
    supports_varlen,
)
from msmarco_qdrant.encoding.pretrained import load_model
from msmarco_qdrant.encoding.tokens import Tokenized
from tests.encoding.conftest import Library, Tiny
from tests.encoding.test_bi_encoder import RECIPES, TEXTS, _passages, _recipe_id
from tests.encoding.tiny_models import (
    HIDDEN,
    MAX_POSITIONS,
    Architecture,
    Edit,
    Recipe,
    randomize,
    save_plain,
    save_tiny,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

NO_PROMPTS: dict[Task, int | None] = {"query": None, "document": None}
# Tokens of the texts of a batch: by descending length as they come, and otherwise.
BATCHES = [
    [1],
    [48],
    [1, 1, 1],
    [5, 5, 5, 5],
    [48, 30, 30, 7, 3, 3, 3, 1, 1],
    [1, 9, 2, 9, 9, 1],
    list(range(24, 0, -1)),
]
MODES: list[str | list[str]] = [
    "mean",
    "cls",
    "max",
    "weightedmean",
    "lasttoken",
    "mean_sqrt_len_tokens",
    ["mean"],
    ["mean", "max"],
    ["cls", "mean", "weightedmean"],
]


def _mode_id(mode: str | list[str]) -> str:
    return mode if isinstance(mode, str) else "+".join(mode)


every_mode = pytest.mark.parametrize("mode", MODES, ids=_mode_id)


def _batch(lengths: Sequence[int]) -> Tokenized:
    """Texts of token ids beyond the special ones, no two alike."""
    ids = (np.arange(sum(lengths)) * 7 + 3 * len(lengths)) % 90 + 5
    return Tokenized.from_lengths(ids.astype(np.int32), list(lengths))


def _padded(model: SentenceTransformer, batch: Tokenized) -> NDArray[np.float32]:
    """The library's own modules, over rows of equal length."""
    ids, mask = batch.padded(int(model.tokenizer.pad_token_id))
    features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    with torch.inference_mode():
        vectors: torch.Tensor = model(features)["sentence_embedding"]
    return vectors.numpy()


def _backend(directory: Path) -> TorchBackend:
    return TorchBackend(load_model(str(directory), "cpu"), NO_PROMPTS, "float32")


def _pooled(mode: str | list[str], *, include_prompt: bool = True) -> Edit:
    """A change of a model's pooling."""

    def edit(model: SentenceTransformer) -> None:
        from sentence_transformers.sentence_transformer.modules import Pooling

        model[1] = Pooling(HIDDEN, cast("Any", mode), include_prompt=include_prompt)

    return edit


# ---- the same vectors as with padding --------------------------------------------------------


def _assert_as_padded(directory: Path, theirs: SentenceTransformer) -> None:
    backend = _backend(directory)
    assert not backend.needs_padding
    for lengths in BATCHES:
        batch = _batch(lengths)
        found = backend.launch(batch, "document").result()
        assert np.float32 == found.dtype
        np.testing.assert_allclose(found, _padded(theirs, batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=_recipe_id)
def test_every_recipe_is_as_if_padded(recipe: Recipe, tiny: Tiny, library: Library) -> None:
    """Texts of one length and of many, one alone, and of a single token: equal to 1e-5."""
    _assert_as_padded(tiny(recipe), library(tiny(recipe)))


@every_mode
@pytest.mark.parametrize("architecture", ["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_every_way_of_pooling_is_as_if_padded(
    mode: str | list[str], architecture: Architecture, tmp_path: Path, library: Library
) -> None:
    """Ours, and those of the library without padding."""
    directory = save_tiny(tmp_path / "model", Recipe(architecture), _pooled(mode))
    _assert_as_padded(directory, library(directory))


@every_mode
@pytest.mark.usefixtures("in_float32")
def test_pooling_without_the_prompt(
    mode: str | list[str], tmp_path: Path, library: Library
) -> None:
    """Such a model is padded, and queries and passages are as the library encodes them.

    Without padding, sentence-transformers 6.0 and 6.1 pool the first token of the prompt ("cls").
    """
    recipe = Recipe("distilbert", prompts={"query": "how big ", "document": "what is a "})
    directory = save_tiny(tmp_path / "model", recipe, _pooled(mode, include_prompt=False))
    assert _backend(directory).needs_padding
    encoder = load_encoder(directory, device="cpu", tokens_per_batch=128)
    theirs = library(directory)
    queries = theirs.encode_query(TEXTS, normalize_embeddings=True)
    passages = theirs.encode_document(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), queries, rtol=0, atol=1e-5)
    np.testing.assert_allclose(_passages(encoder, TEXTS), passages, rtol=0, atol=1e-5)
    cast("Any", theirs[1]).include_prompt = True  # the model is of this test alone
    pooled = theirs.encode_query(TEXTS, normalize_embeddings=True)
    assert (mode == "lasttoken") == bool(np.abs(queries - pooled).max() < 1e-5)


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("lengths", BATCHES, ids=str)
def test_pooling_without_runs_is_the_same(mode: str, lengths: list[int]) -> None:
    """As a GPU is given it, by each token's text and the texts' edges alone."""
    batch = _batch(lengths)
    tokens = torch.randn(1, len(batch.ids), 8, generator=torch.Generator().manual_seed(0))
    rows = torch.repeat_interleave(torch.arange(len(batch)), torch.from_numpy(batch.lengths))
    features: dict[str, Any] = {
        "token_embeddings": tokens,
        "seq_idx": rows.int()[None],
        "cu_seq_lens_q": torch.from_numpy(batch.offsets.astype(np.int32)),
    }
    edges = batch.offsets.tolist()
    texts = [tokens[0, start:stop] for start, stop in itertools.pairwise(edges)]
    expected = torch.stack([text[0] if mode == "cls" else text.mean(dim=0) for text in texts])
    for given_features in (features, {**features, "runs": group_runs(batch)}):
        found = VarlenPooling(mode)(given_features)
        torch.testing.assert_close(found["sentence_embedding"], expected, rtol=0, atol=1e-6)
        assert tokens is found["token_embeddings"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_mean_is_summed_in_float32(dtype: torch.dtype) -> None:
    """A thousand tokens of one value have that value as their mean, in half precision too."""
    batch = _batch([1000, 1])
    features = {
        "token_embeddings": torch.full((1, 1001, 2), 100.0, dtype=dtype),
        "seq_idx": torch.tensor([[0] * 1000 + [1]], dtype=torch.int32),
        "cu_seq_lens_q": torch.tensor([0, 1000, 1001], dtype=torch.int32),
    }
    for given_features in (features, {**features, "runs": group_runs(batch)}):
        pooled = VarlenPooling("mean")(given_features)["sentence_embedding"]
        assert dtype == pooled.dtype
        assert [[100.0] * 2] * 2 == pooled.tolist()


# ---- what it is made of ----------------------------------------------------------------------


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=30))
def test_runs_are_neighbors_of_equal_length(lengths: list[int]) -> None:
    """As a plain grouping gives them; together they hold every token once, in order."""
    batch = _batch(lengths)
    runs = group_runs(batch)
    groups = [(length, len(list(texts))) for length, texts in itertools.groupby(lengths)]
    assert groups == [(run.length, run.texts) for run in runs]
    places = [place for run in runs for place in range(sum(lengths))[run.tokens]]
    assert list(range(sum(lengths))) == places


# ---- other models ----------------------------------------------------------------------------


def _other(directory: Path, kind: str) -> Path:
    """A tiny model of another architecture, with the tokenizer of BERT's or RoBERTa's kind."""
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    bpe = kind in ("XLMRoberta", "Camembert")
    plain = save_plain(directory / "plain", Recipe("roberta" if bpe else "bert"))
    shape: Mapping[str, Any] = {
        "vocab_size": 400,
        "max_position_embeddings": MAX_POSITIONS,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "pad_token_id": 1 if bpe else 0,
    }
    if kind == "Albert":
        shape = {**shape, "embedding_size": 16}
    config = getattr(transformers, f"{kind}Config")(**shape)
    model = cast("Any", transformers.AutoModel).from_config(config)
    randomize(model, 0)
    model.save_pretrained(plain)
    modules = [Transformer(str(plain), max_seq_length=48), Pooling(HIDDEN, "mean")]
    whole = SentenceTransformer(modules=modules, device="cpu")
    whole.save_pretrained(str(directory / "model"), create_model_card=False)
    return directory / "model"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "varlen"),
    [("XLMRoberta", True), ("Camembert", True), ("MPNet", False), ("Albert", False)],
)
@pytest.mark.usefixtures("in_float32")
def test_other_architectures(kind: str, varlen: bool, tmp_path: Path, library: Library) -> None:
    """Known ones run without padding, others with it; the vectors are the library's."""
    directory = _other(tmp_path, kind)
    model = load_model(str(directory), "cpu")
    assert varlen == supports_varlen(model)
    assert varlen != TorchBackend(model, NO_PROMPTS, "float32").needs_padding
    encoder = load_encoder(directory, device="cpu", tokens_per_batch=128)
    theirs = library(directory).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(_passages(encoder, TEXTS), theirs, rtol=0, atol=1e-5)
    assert np.abs(theirs[0] - theirs[1]).max() > 1e-2


def _convolved(model: SentenceTransformer) -> None:
    from sentence_transformers.sentence_transformer.modules import CNN, Pooling

    cnn = CNN(HIDDEN, out_channels=8, kernel_sizes=[1, 3])
    randomize(cnn, 0)
    model[1] = cnn
    model.append(Pooling(16, "mean"))


def _weighted(model: SentenceTransformer) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling, WordWeights

    vocabulary = [f"word {number}" for number in range(len(model.tokenizer))]
    weights = {word: 0.5 + number / 50 for number, word in enumerate(vocabulary)}
    model[1] = WordWeights(vocabulary, weights)
    model.append(Pooling(HIDDEN, "mean"))


# A convolution at a text's end depends on padding, so its batches are single texts on both sides.
@pytest.mark.parametrize(("edit", "tokens"), [(_convolved, 1), (_weighted, 10_000)])
@pytest.mark.usefixtures("in_float32")
def test_modules_that_need_padding(
    edit: Edit, tokens: int, tmp_path: Path, library: Library
) -> None:
    """A model with one is padded, as the library does it."""
    directory = save_tiny(tmp_path / "model", Recipe("bert"), edit)
    assert not supports_varlen(load_model(str(directory), "cpu"))
    encoder = load_encoder(directory, device="cpu", tokens_per_batch=tokens)
    rows = 1 if tokens == 1 else 32
    theirs = library(directory).encode(TEXTS, batch_size=rows, normalize_embeddings=True)
    np.testing.assert_allclose(_passages(encoder, TEXTS), theirs, rtol=0, atol=1e-5)


def test_a_decoder_is_padded(tmp_path: Path) -> None:
    """A model whose tokens see only what precedes them is left to the library."""
    directory = save_tiny(tmp_path / "model", Recipe("bert"))
    model = load_model(str(directory), "cpu")
    cast("Any", model[0]).model.config.is_decoder = True
    assert not supports_varlen(model)
