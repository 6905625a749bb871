"""Diverse hits: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

Each next hit has the highest `(1 - diversity) * relevance - diversity * similarity`, where
`similarity` is the highest one to a hit before it. The best hit stays the first. Only the best
`CANDIDATES` hits are reordered, so that the pages of a search fit together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.stored_vectors import StoredVectors
from msmarco_qdrant.stores.payload import point_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CANDIDATES = 100
_ROUNDING = 1e-6  # of scores and cosines in float32


def candidate_request(request: SearchRequest) -> SearchRequest:
    """Return the search for the candidates of a page, the most relevant first."""
    limit = min(max(request.end, CANDIDATES), request.max_limit)
    if request.rerank_depth is not None:
        limit = min(limit, request.rerank_depth)
    return replace(request, limit=limit, offset=0, cursor=None, diversity=None)


def diversify(hits: Sequence[Hit], stored: StoredVectors, request: SearchRequest) -> list[Hit]:
    """Return the page of hits, after the best ones were reordered.

    Args:
        hits: Hits by descending relevance.
        stored: The vectors of the first `CANDIDATES`; a passage without one was deleted.
        request: The search.
    """
    import numpy as np

    page = slice(request.start, request.start + request.limit)
    head = [hit for hit in hits[:CANDIDATES] if point_id(hit.pid) in stored]
    if len(head) < 2 or page.start >= len(head):  # nothing to reorder
        return [*head, *hits[CANDIDATES:]][page]
    vectors = np.stack([stored[point_id(hit.pid)] for hit in head])
    if request.mode != "dense" or request.rerank_depth is not None:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)  # of zeros: similar to none
    relevance = np.asarray(_scale([hit.score for hit in head], request))
    order = select_diverse(relevance, vectors, request.diversity or 0.0, page.stop)
    chosen = [head[index] for index in order]
    return [*chosen, *hits[CANDIDATES:]][page]


def select_diverse(
    relevance: NDArray[np.float64], vectors: NDArray[np.float32], diversity: float, limit: int
) -> list[int]:
    """Return the positions of the candidates that are selected, the first selected one first.

    Args:
        relevance: `(n,)`.
        vectors: `(n, dimension)`, whose dot products are the similarities.
        diversity: 0 to 1.
        limit: The most to select. Of candidates that are equally good, the first is selected.
    """
    import numpy as np

    def similarity_to(one: int) -> NDArray[np.float64]:
        # Only the rows that are needed, and not by BLAS: on a busy processor its threads wait for
        # each other, longer than the engine takes for the search.
        row: NDArray[np.float32] = np.einsum("ij,j->i", vectors, vectors[one])
        return row.astype(np.float64)

    selected = [int(np.argmax(relevance))]
    nearest = similarity_to(selected[0])
    while len(selected) < min(limit, len(relevance)):
        gain = (1 - diversity) * relevance - diversity * nearest
        gain[selected] = -np.inf
        best = int(np.argmax(gain >= gain.max() - _ROUNDING))  # the first of equal ones
        selected.append(best)
        nearest = np.maximum(nearest, similarity_to(best))
    return selected


def _scale(scores: Sequence[float], request: SearchRequest) -> list[float]:
    """Return scores on the scale of cosines: as they are, or with 1 for the best.

    Scores of most cross-encoders are logits, so their logistic function is taken.
    """
    if request.rerank_depth is not None:
        if all(0 <= score <= 1 for score in scores):
            return [*scores]
        return [(1 + math.tanh(score / 2)) / 2 for score in scores]
    is_scaled = request.mode == "hybrid" and request.fusion.method == "convex"
    if request.mode == "dense" or is_scaled or scores[0] <= 0:
        return [*scores]
    return [score / scores[0] for score in scores]
