"""Range of the scores of a search, outside of which a score threshold has no meaning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msmarco_qdrant.core.encoder_types import Similarity
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.search.request import SearchRequest


def check_threshold(threshold: float, request: SearchRequest, similarity: Similarity) -> None:
    """Refuse a threshold that every score meets, or none.

    Args:
        threshold: The least score of a hit.
        request: The search.
        similarity: The similarity of the collection's vectors.

    Raises:
        UsageError: With the range of the scores.
    """
    least, most, scores = _score_range(request, similarity)
    if not least <= threshold <= most:
        bounds = f"{least:g} to {most:.4g}" if most < math.inf else f"{least:g} or more"
        if least == -math.inf:
            bounds = f"at most {most:g}"
        raise UsageError(
            f"score_threshold must be {bounds}, the range of {scores}, got {threshold:g}"
        )


def _score_range(request: SearchRequest, similarity: Similarity) -> tuple[float, float, str]:
    """Return the least and the best possible score of a hit, and a name of the scores."""
    is_cosine = similarity == "cosine"
    if request.rerank_depth is not None:
        least, most = (0.0, 1.0) if request.rerank_sigmoid else (-math.inf, math.inf)
        return least, most, "reranked scores"
    if request.mode == "bm25":
        return 0.0, math.inf, "BM25 scores"
    if request.mode == "dense":
        most = 1.0 if is_cosine else math.inf
        return -most, most, "cosines" if is_cosine else "dot products"
    fusion = request.fusion
    if fusion.method == "convex":
        return -1.0 if is_cosine else -math.inf, 1.0, "scores of the fusion 'convex'"
    if fusion.method == "rrf":
        most = 2 / (fusion.k + 1)
        return 0.0, most, f"scores of the fusion 'rrf' with k={fusion.k}"
    return -math.inf, math.inf, "scores of the fusion 'dbsf'"
