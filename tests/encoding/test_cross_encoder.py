"""Cross-encoders of the family's architectures, against the library's own scores."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from msmarco_qdrant.encoding import load_reranker
from msmarco_qdrant.encoding.cross_encoder import CrossEncoderReranker
from msmarco_qdrant.encoding.pair_tokenizers import (
    FastPairTokenizer,
    LibraryPairTokenizer,
    build_pair_tokenizer,
)
from msmarco_qdrant.errors import EncodingError, ModelNotFoundError, UsageError
from msmarco_qdrant.testing import WordOverlapReranker
from tests.encoding.conftest import Tiny, TinyPairs
from tests.encoding.tiny_cross_encoders import PairRecipe, save_tiny_pairs
from tests.encoding.tiny_models import (
    ARCHITECTURES,
    Architecture,
    Recipe,
    _word_piece,
    texts_of_lengths,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder
    from transformers import PreTrainedModel

    from msmarco_qdrant.encoding import Reranker

# Of very different lengths: empty, around the model's 48 tokens, far beyond them.
TEXTS = texts_of_lengths([1, 3, 90, 20, 2, 45, 46, 47, 48, 0, 30, 5, 200, 12, 7])
QUERIES = ["how big is london", "cold", "", TEXTS[2]]
PAIRS = [(QUERIES[row % len(QUERIES)], text) for row, text in enumerate(TEXTS)]
SMALL = 128  # tokens a batch, so that a few pairs already make several

# Random weights give the pairs above scores whose standard deviation is 0.2 to 0.4; bfloat16 has
# eight bits, and moved none of them by more than 0.02.
BFLOAT16_TOLERANCE = 0.03

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def _load_library(directory: Path) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    model: CrossEncoder = CrossEncoder(str(directory), device="cpu")
    return model


@cache
def _library(directory: Path) -> CrossEncoder:
    """The library's model, loaded once; read only."""
    return _load_library(directory)


def _predicted(directory: Path, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = _library(directory).predict(list(pairs), show_progress_bar=False)
    return scores


def _reranker(directory: Path, tokens_per_batch: int = SMALL) -> CrossEncoderReranker:
    reranker = load_reranker(directory, device="cpu", tokens_per_batch=tokens_per_batch)
    return cast("CrossEncoderReranker", reranker)


# ---- the same scores as the library's --------------------------------------------------------


@every_architecture
@pytest.mark.usefixtures("in_float32")
def test_scores_in_float32_are_the_library_s(
    architecture: Architecture, tiny_pairs: TinyPairs
) -> None:
    """Without bfloat16 they are equal to 1e-5, in the order of the pairs."""
    directory = tiny_pairs(PairRecipe(architecture))
    reranker = _reranker(directory)
    scores = reranker.scores(PAIRS)
    assert ("float32", "float32") == (reranker.precision, scores.dtype.name)
    assert (len(PAIRS),) == scores.shape
    expected = _predicted(directory, PAIRS)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.15  # far more than the tolerances


@every_architecture
@pytest.mark.usefixtures("in_bfloat16")
def test_scores_in_bfloat16_are_near(architecture: Architecture, tiny_pairs: TinyPairs) -> None:
    """With bfloat16, packed weights included, they differ by what its eight bits lose."""
    directory = tiny_pairs(PairRecipe(architecture))
    reranker = _reranker(directory)
    assert reranker.precision == "bfloat16"
    expected = _predicted(directory, PAIRS)
    np.testing.assert_allclose(reranker.scores(PAIRS), expected, rtol=0, atol=BFLOAT16_TOLERANCE)


def _high(model: PreTrainedModel) -> None:
    """Logits around 12, as good passages have them."""
    head = cast("Any", model).classifier
    getattr(head, "out_proj", head).bias.data.fill_(12)


@every_architecture
@pytest.mark.usefixtures("in_bfloat16")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_best_do_not_tie(precision: Any, architecture: Architecture, tmp_path: Path) -> None:
    """The head is in float32: between 8 and 16, bfloat16 has steps of 0.0625, and float16 0.0078.

    Two passages that differ have different scores in each precision.
    """
    directory = save_tiny_pairs(tmp_path / "high", PairRecipe(architecture), _high)
    reranker = load_reranker(directory, device="cpu", precision=precision)
    pairs = [("how big is london", text) for text in texts_of_lengths(range(2, 42))]
    expected = _predicted(directory, pairs)
    scores = reranker.scores(pairs)
    assert 8 < scores.min() < scores.max() < 16
    assert (len(pairs), len(pairs)) == (len({*expected.tolist()}), len({*scores.tolist()}))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=BFLOAT16_TOLERANCE)


@pytest.mark.parametrize("architecture", ["bert", "electra"])
@pytest.mark.parametrize("activation", ["none", "identity", "legacy"])
@pytest.mark.usefixtures("in_float32")
def test_the_model_s_own_activation(
    activation: Any, architecture: Architecture, tiny_pairs: TinyPairs
) -> None:
    """A sigmoid where the configuration says nothing, none where it says so, old or new."""
    directory = tiny_pairs(PairRecipe(architecture, activation=activation))
    scores = _reranker(directory).scores(PAIRS)
    np.testing.assert_allclose(scores, _predicted(directory, PAIRS), rtol=0, atol=1e-5)
    assert (activation == "none") == bool(((scores > 0) & (scores < 1)).all())


@pytest.mark.usefixtures("in_float32")
def test_a_directory_that_the_library_saved(tiny_pairs: TinyPairs, tmp_path: Path) -> None:
    """With modules.json and a prompt of its own, as a trained one of today is published."""
    directory = tmp_path / "saved"
    model = _load_library(tiny_pairs(PairRecipe("electra", activation="none")))
    model.prompts["ask"] = "what is "
    model.default_prompt_name = "ask"
    model.save_pretrained(str(directory), create_model_card=False)
    expected = _predicted(directory, PAIRS)
    assert isinstance(build_pair_tokenizer(_library(directory)), LibraryPairTokenizer)
    np.testing.assert_allclose(_reranker(directory).scores(PAIRS), expected, rtol=0, atol=1e-5)
    unprompted = _predicted(tiny_pairs(PairRecipe("electra", activation="none")), PAIRS)
    assert np.abs(unprompted - expected).max() > 1e-3


@every_architecture
def test_tokens_are_the_library_s(architecture: Architecture, tiny_pairs: TinyPairs) -> None:
    """The fast way is taken for every architecture, with segments where the model has them."""
    model = _library(tiny_pairs(PairRecipe(architecture)))
    fast, library = build_pair_tokenizer(model), LibraryPairTokenizer(model)
    assert isinstance(fast, FastPairTokenizer)
    mine, theirs = fast(PAIRS), library(PAIRS)
    assert theirs.tokens.equals(mine.tokens)
    assert (architecture in ("bert", "electra")) == (mine.segments is not None)
    if mine.segments is not None and theirs.segments is not None:
        assert theirs.segments.equals(mine.segments)
        assert {0, 1} == set(mine.segments.ids.tolist())


def test_pairs_are_cut_from_the_longer_text(tiny_pairs: TinyPairs) -> None:
    """At the model's length: a long passage loses its end and a short query nothing."""
    reranker = _reranker(tiny_pairs(PairRecipe()))
    assert 48 == int(reranker._tokenize(PAIRS).tokens.lengths.max())
    [long] = texts_of_lengths([60])
    pairs = [("big", long), ("big", f"{long} snow"), ("big", f"snow {long}"), ("cold", long)]
    scores = reranker.scores(pairs)
    # Rows of one product may differ in the last bit.
    assert float(scores[0]) == pytest.approx(float(scores[1]), abs=1e-6)
    assert np.diff(np.sort(scores[1:])).min() > 1e-4


# ---- batches ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_float32")
def test_scores_come_in_the_order_of_the_pairs(
    tiny_pairs: TinyPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of shuffled pairs, of pairs that come twice, and of several windows."""
    reranker = _reranker(tiny_pairs(PairRecipe()))
    expected = reranker.scores(PAIRS)
    order = np.random.default_rng(5).permutation(np.repeat(np.arange(len(PAIRS)), 2))
    for window in (4096, 4):
        monkeypatch.setattr("msmarco_qdrant.encoding.cross_encoder._WINDOW", window)
        scores = reranker.scores([PAIRS[row] for row in order])
        np.testing.assert_allclose(scores, expected[order], rtol=0, atol=1e-5)


def test_empty_texts_and_no_pairs(tiny_pairs: TinyPairs) -> None:
    """An empty passage or query has a score; no pairs, an empty array of float32."""
    reranker = _reranker(tiny_pairs(PairRecipe()))
    scores = reranker.scores([("big", ""), ("", "big"), ("", "")])
    assert np.isfinite(scores).all()
    assert 3 == len(set(scores.tolist()))
    scores = reranker.scores([])
    assert ("float32", (0,)) == (scores.dtype.name, scores.shape)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [None, "what is "])
def test_threads_get_what_one_would(
    prompt: str | None, tiny_pairs: TinyPairs, tmp_path: Path
) -> None:
    """Four threads on one reranker give the scores of a serial run, by either tokenizer."""
    model = _load_library(tiny_pairs(PairRecipe()))
    if prompt is not None:
        model.prompts["ask"], model.default_prompt_name = prompt, "ask"
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    reranker = _reranker(tmp_path / "saved")
    parts = [PAIRS[start:] + PAIRS[:start] for start in range(8)]
    expected = [reranker.scores(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(reranker.scores, parts))
    np.testing.assert_array_equal(expected, scores)


# ---- scores that are no scores ---------------------------------------------------------------


def _overflow_in_half_precision(model: PreTrainedModel) -> None:
    """What attention sums up is scaled by 2**30 and back: infinite in float16, in float32 equal."""
    layer = cast("Any", model).bert.encoder.layer[0].attention
    layer.self.value.weight.data *= 2.0**30
    layer.self.value.bias.data *= 2.0**30
    layer.output.dense.weight.data *= 2.0**-30


def _poison(model: PreTrainedModel) -> None:
    """The word "poison" has no embedding."""
    row = _word_piece().convert_tokens_to_ids("poison")
    cast("Any", model.get_input_embeddings()).weight.data[row] = float("nan")


def test_what_float16_cannot_hold_is_tried_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An overflow of half precision alone is no error: the scores are those of float32."""
    directory = save_tiny_pairs(tmp_path / "huge", PairRecipe(), _overflow_in_half_precision)
    reranker = load_reranker(directory, device="cpu", precision="float16")
    expected = _predicted(directory, PAIRS)
    np.testing.assert_allclose(reranker.scores(PAIRS), expected, rtol=1e-6)
    np.testing.assert_allclose(reranker.scores(PAIRS[:2]), expected[:2], rtol=1e-6)
    assert 1 == len([line for line in caplog.messages if "not finite in float16" in line])


@pytest.mark.usefixtures("in_bfloat16")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_score_that_is_not_finite_is_an_error(precision: Any, tmp_path: Path) -> None:
    """It names the pair; without it, the others of its batch are scored."""
    directory = save_tiny_pairs(tmp_path / "poisoned", PairRecipe(), _poison)
    reranker = load_reranker(directory, device="cpu", precision=precision)
    pairs = [("snow", "london"), ("snow", "cold poison"), ("river", "snow")]
    with pytest.raises(
        EncodingError, match=r"finite score for the query 'snow' and .* 'cold poison'"
    ):
        reranker.scores(pairs)
    assert np.isfinite(reranker.scores([pairs[0], pairs[2]])).all()


def test_a_forward_pass_that_fails(tiny_pairs: TinyPairs) -> None:
    """What torch raises comes as ours, and says how much was asked of it."""
    reranker = _reranker(tiny_pairs(PairRecipe("distilbert")))
    embeddings = cast("Any", reranker._forward._model)[0].model.distilbert.embeddings
    embeddings.position_embeddings = embeddings.word_embeddings.from_pretrained(
        embeddings.position_embeddings.weight[:8]  # longer pairs have no positions now
    )
    with pytest.raises(EncodingError, match=f"over {len(PAIRS)} pairs of .* failed on cpu"):
        reranker.scores(PAIRS)


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", ["how big is london", ("how big", "london"), ["how", "big"]])
def test_invalid_pairs_are_refused(pairs: Any, tiny_pairs: TinyPairs) -> None:
    """A single string or pair is a wrong call."""
    rerankers: list[Reranker] = [_reranker(tiny_pairs(PairRecipe())), WordOverlapReranker()]
    for reranker in rerankers:
        with pytest.raises(UsageError, match="a list of pairs"):
            reranker.scores(pairs)


def test_a_bi_encoder_of_the_catalog() -> None:
    """By any of its names; the error names cross-encoders."""
    for name in ("all-MiniLM-L6-v2", "sentence-transformers/msmarco-MiniLM-L-6-v3", "BM25"):
        with pytest.raises(UsageError, match=r"does not score pairs. Use a cross-encoder"):
            load_reranker(name)


def test_a_directory_of_a_bi_encoder(tiny: Tiny) -> None:
    """The library would give it a head of random weights."""
    for recipe in (Recipe("bert"), Recipe("electra", pooling="cls")):
        directory = tiny(recipe)
        plain = directory.with_name(f"{directory.name}-plain")
        for path, reason in (
            (directory, "it is a bi-encoder, which does not score pairs"),
            (plain, r"is not a cross-encoder but a .*Model"),
        ):
            with pytest.raises(ModelNotFoundError, match=reason):
                load_reranker(path, device="cpu")


def test_a_classifier_of_two_labels(tiny_pairs: TinyPairs) -> None:
    """Two scores a pair are no order."""
    with pytest.raises(ModelNotFoundError, match="num_labels must be 1 for reranking, got 2"):
        load_reranker(tiny_pairs(PairRecipe(labels=2)), device="cpu")


def test_unknown_models_are_refused(tmp_path: Path) -> None:
    """As for an encoder."""
    with pytest.raises(ModelNotFoundError, match="no model directory at"):
        load_reranker(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="does not hold a usable model"):
        load_reranker(tmp_path / "empty", device="cpu")
    with pytest.raises(ModelNotFoundError, match="cannot load the model nobody/no-such"):
        load_reranker("nobody/no-such", device="cpu")
    with pytest.raises(UsageError, match="model must be a name"):
        load_reranker("")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "must not be int8 or fp8 for a reranker, got 'int8'"),
        ({"precision": "float8"}, "precision must be .*, got 'float8'"),
        ({"tokens_per_batch": 0}, "must be 1 or more"),
        ({"device": "cuda:99"}, "does not exist"),
    ],
)
def test_invalid_options_are_refused(
    options: dict[str, Any], message: str, tiny_pairs: TinyPairs
) -> None:
    """A wrong call, before anything is loaded."""
    with pytest.raises(UsageError, match=message):
        load_reranker(tiny_pairs(PairRecipe()), **options)


# ---- names -----------------------------------------------------------------------------------


def test_the_name_of_a_directory(
    tiny_pairs: TinyPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its full path, also where a directory has a published name: it comes before the hub."""
    directory = tmp_path / "ms-marco-MiniLM-L6-v2"
    shutil.copytree(tiny_pairs(PairRecipe()), directory)
    monkeypatch.chdir(tmp_path)
    reranker = load_reranker("ms-marco-MiniLM-L6-v2", device="cpu")
    assert str(directory.resolve()) == reranker.model
    reranker.warm_up()
