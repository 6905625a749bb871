"""One ranking out of a dense one and a BM25 one.

The engines fuse, too, but not as we need it: their convex combination does not know a query's best
BM25 score, a passage that one ranking lacks counts as 0 there, and the weights of their reciprocal
rank fusion divide the ranks: `1 / (rank / w + k - 1)`, so that at k=60 a larger weight makes a
ranking's scores more alike instead of heavier (qdrant-client 1.20 and Edge 0.9).

One best passage of each group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any, TypeAlias

from msmarco_qdrant.core.records import Meta, PointId, Similarity
from msmarco_qdrant.core.search_types import Fusion, FusionMethod, Hit, ScoredPoint

_Ranking: TypeAlias = Sequence[ScoredPoint]
_Scores: TypeAlias = dict[PointId, float]


def fuse(
    dense: _Ranking, bm25: _Ranking, fusion: Fusion, *, depth: int, similarity: Similarity
) -> list[ScoredPoint]:
    """Fuse the rankings of the same candidates.

    Args:
        dense: Every candidate by its dense score, the best first, with its payload.
        bm25: Those that share a token with the query by their BM25 score, the best first.
        fusion: How.
        depth: How many of the best of each ranking count, where only ranks and spread do.
        similarity: What the dense score is.

    Returns:
        The candidates by their fused score, the best first; ties as `dense` has them. One that is
        missing from `dense` was written or removed between the two queries, and is left out.
    """
    if fusion.method == "convex":
        scores = _convex(dense, bm25, fusion.weight, similarity)
    else:
        scores = _ADDED[fusion.method](dense[:depth], bm25[:depth], fusion)
    fused = [ScoredPoint(p.id, scores[p.id], p.payload) for p in dense if p.id in scores]
    return sorted(fused, key=lambda point: -point.score)


def _convex(dense: _Ranking, bm25: _Ranking, weight: float, similarity: Similarity) -> _Scores:
    best_dense = dense[0].score if dense and similarity == "dot" and dense[0].score > 0 else 1.0
    best_bm25 = bm25[0].score if bm25 else 1.0
    other = {point.id: point.score / best_bm25 for point in bm25}
    return {
        point.id: weight * point.score / best_dense + (1 - weight) * other.get(point.id, 0.0)
        for point in dense
    }


def _reciprocal_ranks(dense: _Ranking, bm25: _Ranking, fusion: Fusion) -> _Scores:
    def terms(ranking: _Ranking) -> _Scores:
        return {point.id: 1 / (fusion.k + rank) for rank, point in enumerate(ranking, start=1)}

    return _weighted_sum(terms(dense), terms(bm25), fusion.weight)


def _spread(dense: _Ranking, bm25: _Ranking, fusion: Fusion) -> _Scores:
    return _weighted_sum(_by_spread(dense), _by_spread(bm25), fusion.weight)


def _by_spread(ranking: _Ranking) -> _Scores:
    """0 at three standard deviations under the mean, 1 at three above it."""
    values = [point.score for point in ranking]
    width = 6 * stdev(values) if len(values) > 1 else 0.0
    if width == 0.0:
        return {point.id: 0.5 for point in ranking}
    least = fmean(values) - width / 2
    return {point.id: (point.score - least) / width for point in ranking}


def _weighted_sum(dense: _Scores, bm25: _Scores, weight: float) -> _Scores:
    """With equal weights the plain sum."""
    return {
        id_: 2 * weight * dense.get(id_, 0.0) + 2 * (1 - weight) * bm25.get(id_, 0.0)
        for id_ in {**dense, **bm25}
    }


_ADDED: Mapping[FusionMethod, Callable[[_Ranking, _Ranking, Fusion], _Scores]] = MappingProxyType(
    {"rrf": _reciprocal_ranks, "dbsf": _spread}
)


def best_of_each(hits: Iterable[Hit], field: str) -> list[Hit]:
    """Leave out every hit all of whose groups a better one has shown.

    Args:
        hits: The best first.
        field: The field of `meta` whose values are the groups; dots go into objects. A list counts
            as each of its values.

    Returns:
        The hits that stay, in their order; a hit without the field does not.
    """
    seen: set[tuple[str, Any]] = set()
    best = []
    for hit in hits:
        groups = _groups(hit.meta, field)
        if not groups <= seen:
            best.append(hit)
            seen |= groups
    return best


def _groups(meta: Meta, field: str) -> set[tuple[str, Any]]:
    """The values of a field with their kind, as 1 and True are equal to Python."""
    value: Any = meta
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    values = value if isinstance(value, list) else [value]
    kept = (one for one in values if isinstance(one, str | int | float))
    return {("bool" if isinstance(one, bool) else "", one) for one in kept}
