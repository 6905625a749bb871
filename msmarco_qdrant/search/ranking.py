"""Rankings: fusion of a dense and a BM25 ranking, and the best passage of each group.

The fusion of the engines does not fit. Their convex combination lacks the query's best BM25 score,
and counts a passage missing from one ranking as 0 there. The weights of their reciprocal rank
fusion divide the ranks: `1 / (rank / w + k - 1)`. At k=60 a larger weight therefore makes a
ranking's scores more alike instead of heavier (qdrant-client 1.20 and Edge 0.9).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import Any, TypeAlias, TypeVar

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.encoder_types import Similarity
from msmarco_qdrant.core.field_path import field_values, flatten
from msmarco_qdrant.core.records import Meta
from msmarco_qdrant.core.search_types import Fusion, Hit, ScoredPoint

_Ranking: TypeAlias = Sequence[ScoredPoint]
_Grouped = TypeVar("_Grouped", Hit, ScoredPoint)
_Scores: TypeAlias = dict[PointId, float]


def fuse(
    dense: _Ranking, bm25: _Ranking, fusion: Fusion, *, depth: int, similarity: Similarity
) -> list[ScoredPoint]:
    """Fuse two rankings of the same candidates.

    Args:
        dense: Every candidate with its dense score and payload, the best first.
        bm25: Candidates that share a token with the query, with their BM25 score, the best first.
        fusion: Method and weights.
        depth: Number of best points of each ranking that count for "rrf" and "dbsf".
        similarity: Kind of the dense score.

    Returns:
        The candidates by their fused score, the best first; ties keep the order of `dense`. A
        point missing from `dense` was written or deleted between the two queries, and is omitted.
    """
    if fusion.method == "convex":
        scores = _convex_scores(dense, bm25, fusion.weight, similarity)
    else:
        scale = partial(_reciprocal_ranks, k=fusion.k) if fusion.method == "rrf" else _scale
        scores = _weighted_sum(scale(dense[:depth]), scale(bm25[:depth]), fusion.weight)
    fused = [ScoredPoint(p.id, scores[p.id], p.payload) for p in dense if p.id in scores]
    return sorted(fused, key=lambda point: -point.score)


def _convex_scores(
    dense: _Ranking, bm25: _Ranking, weight: float, similarity: Similarity
) -> _Scores:
    best_dense = dense[0].score if dense and similarity == "dot" and dense[0].score > 0 else 1.0
    best_bm25 = bm25[0].score if bm25 else 1.0
    scaled_bm25 = {point.id: point.score / best_bm25 for point in bm25}
    return {
        point.id: weight * point.score / best_dense + (1 - weight) * scaled_bm25.get(point.id, 0.0)
        for point in dense
    }


def _reciprocal_ranks(ranking: _Ranking, k: int) -> _Scores:
    return {point.id: 1 / (k + rank) for rank, point in enumerate(ranking, start=1)}


def _scale(ranking: _Ranking) -> _Scores:
    """Scale scores to 0 at three standard deviations below the mean, and 1 at three above it."""
    values = [point.score for point in ranking]
    width = 6 * stdev(values) if len(values) > 1 else 0.0
    if width == 0.0:
        return {point.id: 0.5 for point in ranking}
    least = fmean(values) - width / 2
    return {point.id: (point.score - least) / width for point in ranking}


def _weighted_sum(dense: _Scores, bm25: _Scores, weight: float) -> _Scores:
    """Add weighted scores; equal weights give the plain sum."""
    return {
        id_: 2 * weight * dense.get(id_, 0.0) + 2 * (1 - weight) * bm25.get(id_, 0.0)
        for id_ in {**dense, **bm25}
    }


def best_per_group(hits: Iterable[_Grouped], field: str) -> list[_Grouped]:
    """Omit each hit whose groups all have a better hit.

    Args:
        hits: Hits or points with `meta`, the best first.
        field: The field of `meta` whose values are the groups (see `core/field_path.py`). A list
            counts as each of its values.

    Returns:
        The remaining hits in their order; hits without the field are omitted.
    """
    seen: set[tuple[str, Any]] = set()
    best = []
    for hit in hits:
        meta = hit.meta if isinstance(hit, Hit) else hit.payload.get("meta")
        groups = _groups(meta if isinstance(meta, dict) else {}, field)
        if not groups <= seen:
            best.append(hit)
            seen |= groups
    return best


def _groups(meta: Meta, field: str) -> set[tuple[str, Any]]:
    """Return the values of a field, marking booleans, as 1 equals True in Python."""
    values = flatten(field_values(meta, field))
    scalars = (item for item in values if isinstance(item, str | int | float))
    return {("bool" if isinstance(item, bool) else "", item) for item in scalars}
