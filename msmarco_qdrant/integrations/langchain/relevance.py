"""Relevance scores of LangChain, which are 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msmarco_qdrant.encoding.checks import applies_sigmoid
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.client import SearchClient


def relevance_scale(client: SearchClient, options: Mapping[str, Any]) -> Callable[[float], float]:
    """Return the function from a score of a search to a relevance of 0 to 1.

    Args:
        client: The client that searches.
        options: The options of the search.

    Raises:
        UsageError: If the scores have no bounds.
    """
    if options.get("rerank_depth") is not None:
        if options.get("rerank_sigmoid") or applies_sigmoid(client.reranker):
            return float
        raise UsageError("relevance scores of reranked documents need rerank_sigmoid=True")
    mode, similarity = options.get("mode", "dense"), client.metadata.encoder.similarity
    merge = options.get("merge", "scores")  # of several collections
    if mode == "dense" and similarity == "cosine" and merge == "scores":
        return lambda cosine: (cosine + 1) / 2
    raise UsageError(
        "relevance scores of 0 to 1 exist for cosines (mode='dense') and for rerank_depth with "
        f"rerank_sigmoid=True, got mode={mode!r}, merge={merge!r} and {similarity} similarity: use "
        "similarity_search_with_score(..., score_threshold=...)"
    )
