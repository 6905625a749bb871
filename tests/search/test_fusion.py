"""One ranking out of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client.http import models
from qdrant_client.hybrid.fusion import distribution_based_score_fusion, reciprocal_rank_fusion

from msmarco_qdrant.core.search_types import Fusion, FusionMethod, ScoredPoint
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.ranking import fuse


def ranking(**scores: float) -> list[ScoredPoint]:
    """Points `a`, `b`, ... by falling score; their ids are their letters' numbers."""
    points = [ScoredPoint(ord(name), score, {"name": name}) for name, score in scores.items()]
    return sorted(points, key=lambda point: -point.score)


def fused(
    dense: Sequence[ScoredPoint],
    bm25: Sequence[ScoredPoint],
    fusion: Fusion,
    depth: int = 100,
    *,
    dot: bool = False,
) -> dict[str, float]:
    """Names and scores, in the order of the fusion."""
    points = fuse(dense, bm25, fusion, depth=depth, similarity="dot" if dot else "cosine")
    return {point.payload["name"]: point.score for point in points}


def test_a_convex_combination_takes_the_real_scores() -> None:
    """0.8 of the cosine and 0.2 of BM25 over the query's best; 0 without a shared token."""
    found = fused(ranking(a=0.9, b=0.5, c=0.4), ranking(b=20.0, c=5.0), Fusion())
    assert list(found) == ["a", "b", "c"]
    assert {"a": 0.72, "b": 0.6, "c": 0.37} == pytest.approx(found)


def test_a_dot_product_is_taken_over_the_best_one() -> None:
    """A dot product has no bound of its own."""
    found = fused(ranking(a=80.0, b=60.0), ranking(b=3.0), Fusion(dense_weight=0.5), dot=True)
    assert {"a": 0.5, "b": 0.875} == pytest.approx(found)


def test_without_a_bm25_ranking_the_dense_order_stays() -> None:
    """As for a query of stop words."""
    for method in get_args(FusionMethod):
        found = fused(ranking(a=0.9, b=0.5), [], Fusion(method))
        assert ["a", "b"] == list(found)


def test_reciprocal_ranks_count_from_one() -> None:
    """With equal weights the published formula; a larger weight for dense moves towards it."""
    dense, bm25 = ranking(a=0.9, b=0.5), ranking(b=7.0, c=2.0)
    dense_of_all = [*dense, *ranking(c=0.1)]
    found = fused(dense_of_all, bm25, Fusion("rrf"), depth=2)
    assert {"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 62} == pytest.approx(found)


def test_a_heavier_ranking_wins_with_reciprocal_ranks() -> None:
    """The whole weight on one ranking is that ranking, whatever the other says."""
    dense, bm25 = ranking(a=0.9, b=0.5), ranking(b=7.0, a=2.0)
    assert ["a", "b"] == list(fused(dense, bm25, Fusion("rrf", 0.9)))
    assert ["b", "a"] == list(fused(dense, bm25, Fusion("rrf", 0.1)))
    assert {"a": 2 / 61, "b": 2 / 62} == pytest.approx(fused(dense, bm25, Fusion("rrf", 1.0)))


@pytest.mark.parametrize(("method", "weight"), [("convex", 0.8), ("rrf", 0.5), ("dbsf", 0.5)])
def test_the_weight_in_force(method: FusionMethod, weight: float) -> None:
    """The method's own, unless one is given."""
    assert weight == Fusion(method).weight
    assert 0.25 == Fusion(method, 0.25).weight


def test_a_point_without_a_dense_score_is_left_out() -> None:
    """It was written or removed between the two queries."""
    for method in get_args(FusionMethod):
        found = fused(ranking(a=0.9), ranking(z=9.0, a=1.0), Fusion(method))
        assert ["a"] == list(found)


# Of quarters, sums are exact: the client's variance of equal scores is then zero, as ours.
SCORES = st.dictionaries(
    st.integers(0, 30), st.integers(-20, 200).map(lambda four: four / 4), min_size=2, max_size=20
)


@given(dense=SCORES, bm25=SCORES)
def test_as_the_clients_own_fusions(dense: dict[int, float], bm25: dict[int, float]) -> None:
    """RRF and DBSF of Qdrant's client give the same scores to the same two rankings."""
    depth = min(len(dense), len(bm25))
    rankings = [_ranked(dense)[:depth], _ranked(bm25)[:depth]]
    known = {point.id for point in rankings[0]}
    everything = [*rankings[0], *(p for p in rankings[1] if p.id not in known)]
    expected: dict[FusionMethod, list[models.ScoredPoint]] = {
        "rrf": reciprocal_rank_fusion(_theirs(rankings), limit=100, ranking_constant_k=61),
        "dbsf": distribution_based_score_fusion(_theirs(rankings), limit=100),
    }
    for method, theirs in expected.items():
        ours = fuse(everything, rankings[1], Fusion(method), depth=depth, similarity="cosine")
        scores = {point.id: point.score for point in ours}
        assert {point.id: point.score for point in theirs} == pytest.approx(scores, abs=1e-9)


def _ranked(given: dict[int, float]) -> list[ScoredPoint]:
    points = [ScoredPoint(id_, score, {}) for id_, score in given.items()]
    return sorted(points, key=lambda point: -point.score)


def _theirs(rankings: Sequence[Sequence[ScoredPoint]]) -> list[list[models.ScoredPoint]]:
    """New points each time: the client changes them."""
    return [
        [models.ScoredPoint(id=p.id, version=0, score=p.score, payload={}) for p in ranked]
        for ranked in rankings
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"method": "sum"},
        {"dense_weight": 1.01},
        {"dense_weight": float("nan")},
        {"depth": 0},
        {"depth": 10_001},
        {"k": 0},
        {"k": float("nan")},
        {"depth": 1.5},
        {"dense_weight": "0.5"},
        {"dense_weight": True},
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, object]) -> None:
    """When it is made, before anything is searched."""
    with pytest.raises(UsageError):
        Fusion(**options)  # type: ignore[arg-type]


def test_equal_fusions_have_one_text() -> None:
    """Cursors contain a digest of it, in every process: 1 is not 1.0 there, nor NumPy's 1."""
    numbers: list[dict[str, Any]] = [
        {"dense_weight": 1, "depth": np.int64(50), "k": np.int32(1)},
        {"dense_weight": np.float32(1), "depth": 50, "k": 1},
    ]
    assert {repr(Fusion("rrf", 1.0, 50, 1))} == {repr(Fusion("rrf", **each)) for each in numbers}
