"""Maximal marginal relevance of hits, for the interfaces that ask for it by these parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.diversity import select_diverse

if TYPE_CHECKING:
    from msmarco_qdrant.core.example import VectorLike


def select_by_mmr(
    hits: Sequence[Hit], query: VectorLike, limit: int, relevance: float
) -> list[Hit]:
    """Select hits that are similar to the query and different from each other.

    Args:
        hits: Candidates with their vectors.
        query: The vector of the query, `(dimension,)`.
        limit: The most hits to select, 1 or more.
        relevance: Weight of the similarity to the query, 0 to 1; the rest is that of the
            difference to the hits selected before.

    Raises:
        UsageError: If a number is out of range.
    """
    import numpy as np

    if not 0 <= relevance <= 1:
        raise UsageError(f"the weight of the relevance must be 0 to 1, got {relevance}")
    if limit < 1:
        raise UsageError(f"the number of hits must be 1 or more, got {limit}")
    if not hits:
        return []
    vectors = np.array([hit.vector for hit in hits], np.float32)
    scores = (vectors @ np.asarray(query, np.float32)).astype(np.float64)
    order = select_diverse(scores, vectors, 1 - relevance, limit)
    return [hits[index] for index in order]
