"""Encoders and rerankers of users: checked when they are passed, and at each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msmarco_qdrant import (
    Passage,
    SearchClient,
    encode_corpus,
    ingest_passages,
    open_store,
    reembed_collection,
)
from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.encoding import Tokenized
from msmarco_qdrant.errors import EncodingError, MsmarcoQdrantError, UsageError
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker

PASSAGES = [Passage(str(number), f"river {number} in london") for number in range(5)]


class SentenceTransformer:
    """A class with the members that a library's model has, and none of ours."""

    def encode(self, texts: Sequence[str]) -> Any:
        """Never called."""
        raise NotImplementedError


class _Scores(WordOverlapReranker):
    def __init__(self, make: Callable[[int], Any]) -> None:
        super().__init__()
        self._make = make

    def scores(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """Return what the test wants."""
        return self._make(len(pairs))


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with passages."""
    place = str(tmp_path / "store")
    ingest_passages(PASSAGES, place, encoder=HashingEncoder(), optimize=False)
    return place


BAD_SCORES: dict[str, tuple[Callable[[int], Any], str]] = {
    "NaN": (lambda n: np.full(n, np.nan, "f4"), "returns the score nan for the query 'river'"),
    "inf": (lambda n: np.full(n, np.inf, "f4"), "returns the score inf for the query 'river'"),
    "one NaN": (lambda n: np.array([*range(n - 1), np.nan], "f4"), "returns the score nan"),
    "too few": (
        lambda n: np.zeros(n - 1, "f4"),
        "must return 5 scores for 5 pairs, got",
    ),
    "too many": (lambda n: np.zeros(n + 1, "f4"), "must return 5 scores for 5 pairs"),
    "two labels": (lambda n: np.zeros((n, 2), "f4"), "must return 5 scores for 5 pairs"),
    "one number": (lambda _: 1.0, "must return 5 scores for 5 pairs"),
    "nothing": (lambda _: None, "the reranker"),
    "texts": (lambda n: ["high"] * n, "must return one number per pair, got list"),
}


@pytest.mark.parametrize(("make", "reason"), BAD_SCORES.values(), ids=BAD_SCORES.keys())
def test_c10_scores_are_checked(make: Callable[[int], Any], reason: str, store: str) -> None:
    """A wrong score is an error, never a rank."""
    with (
        SearchClient.open(store, encoder=HashingEncoder(), reranker=_Scores(make)) as client,
        pytest.raises(EncodingError) as caught,
    ):
        client.search("river", limit=5, rerank_depth=5)
    assert reason in str(caught.value)


def test_c10_scores_of_other_types_are_taken(store: str) -> None:
    """A list of numbers and float64 are scores."""
    for make in (lambda n: [*range(n)], lambda n: np.arange(n, dtype=np.float64)):
        with SearchClient.open(store, encoder=HashingEncoder(), reranker=_Scores(make)) as client:
            assert client.search("river", limit=5, rerank_depth=5)[0].score == 4.0


def test_c10_objects_of_a_library_are_refused_at_open(store: str, tmp_path: Path) -> None:
    """A plain model is one clear error that says what to pass, before any work."""
    plain: Any = SentenceTransformer()
    calls: tuple[Callable[[], Any], ...] = (
        lambda: SearchClient.open(store, encoder=HashingEncoder(), reranker=plain),
        lambda: SearchClient.open(store, encoder=plain),
        lambda: ingest_passages(PASSAGES, tmp_path / "new", encoder=plain),
        lambda: encode_corpus(PASSAGES, tmp_path / "vectors", encoder=plain),
        lambda: reembed_collection(store, encoder=plain),
    )
    for call in calls:
        with pytest.raises(UsageError, match="got SentenceTransformer without"):
            call()
    assert not (tmp_path / "new").exists()


class _Vectors(HashingEncoder):
    """An encoder whose vectors a test makes."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        super().__init__()
        self._make = make

    def encode_queries(self, queries: Sequence[str]) -> Any:
        """Return what the test wants."""
        return self._make(super().encode_queries(queries))

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Return what the test wants."""
        for batch in super().encode_passages(passages):
            yield EncodedBatch(batch.positions, self._make(batch.vectors))


BAD_VECTORS: dict[str, Callable[[Any], Any]] = {
    "float64": lambda vectors: vectors.astype(np.float64),
    "too few": lambda vectors: vectors[:-1],
    "too short": lambda vectors: vectors[:, :-1],
    "a list": lambda vectors: vectors.tolist(),
    "nothing": lambda _: None,
}


@pytest.mark.parametrize("make", BAD_VECTORS.values(), ids=BAD_VECTORS.keys())
def test_c10_vectors_are_checked(make: Callable[[Any], Any], store: str, tmp_path: Path) -> None:
    """Vectors of another shape or type are an error in searches, ingests and encodes."""
    encoder = _Vectors(make)
    with (
        SearchClient.open(store, encoder=encoder) as client,
        pytest.raises(EncodingError, match="the encoder must return float32"),
    ):
        client.search("river")
    for call in (
        lambda: ingest_passages(PASSAGES, tmp_path / "new", encoder=encoder),
        lambda: encode_corpus(PASSAGES, tmp_path / "vectors", encoder=encoder),
    ):
        with pytest.raises(MsmarcoQdrantError, match="the encoder must return float32"):
            call()


def test_c10_a_query_vector_of_nan_is_an_error(store: str) -> None:
    """NaN finds nothing, or anything."""
    encoder = _Vectors(lambda vectors: vectors * np.float32("nan"))
    with (
        SearchClient.open(store, encoder=encoder) as client,
        pytest.raises(EncodingError, match="returns no finite vector for the query 'river'"),
    ):
        client.search("river")


def test_texts_that_are_cut_are_counted(store: str) -> None:
    """A tokenizer reports them; one that does not counts none."""
    with open_store(store) as opened:
        report = ingest_passages([Passage("x", "a b")], opened, encoder=HashingEncoder())
    assert report.cut == 0
