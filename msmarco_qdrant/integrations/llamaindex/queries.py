"""Queries of LlamaIndex as searches of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.search_types import Fusion, Hit
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.integrations.arguments import check_k, is_of_similar, to_options
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.mmr import select_by_mmr
from msmarco_qdrant.stores.filters import combine

with imports_of("llama_index", "the LlamaIndex integration", "llamaindex"):
    from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BY_WORDS = (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH)
_FUSED = (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SEMANTIC_HYBRID)
_BY_VECTOR = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
_MMR_OPTIONS = ("mmr_threshold", "mmr_prefetch_factor", "mmr_prefetch_k")


@dataclass(frozen=True, slots=True, eq=False)
class PlannedQuery:
    """A query as a call of a search client.

    Attributes:
        text: The query's text, for `search`.
        vector: The query's embedding, for `similar`; None for `search`.
        options: The other arguments of the call.
        limit: Number of hits to select by maximal marginal relevance; None to select all.
        relevance: Weight of the relevance in that selection.
    """

    text: str
    vector: Sequence[float] | None
    options: Mapping[str, Any]
    limit: int | None
    relevance: float

    def select(
        self, hits: Sequence[Hit], encode: Callable[[list[str]], NDArray[np.float32]]
    ) -> Sequence[Hit]:
        """Return the hits of the query, selected by maximal marginal relevance if it asks for it.

        Args:
            hits: The hits of the call.
            encode: Encodes queries.
        """
        if self.limit is None:
            return hits
        vector = encode([self.text])[0] if self.vector is None else self.vector
        return select_by_mmr(hits, vector, self.limit, self.relevance)


def plan_query(
    query: VectorStoreQuery, given: Mapping[str, Any], meta_filter: SearchFilter | None
) -> PlannedQuery:
    """Return the call of a search client for a query.

    Args:
        query: The query.
        given: Options of searches, and of the selection by maximal marginal relevance.
        meta_filter: The query's filter, combined with that of the options.

    Raises:
        UsageError: For an unknown mode or option, or a query without text that needs it.
    """
    selection = {name: given[name] for name in _MMR_OPTIONS if name in given}
    options = to_options({name: given[name] for name in given if name not in selection})
    options["meta_filter"] = combine(options.get("meta_filter"), meta_filter)
    options["limit"] = _limit(query)
    options.update(_mode_options(query))
    limit = None
    if query.mode == VectorStoreQueryMode.MMR:
        limit = options["limit"]
        options.update(limit=_fetched(limit, selection), with_vectors=True)
    vector = query.query_embedding if query.mode in _BY_VECTOR else None
    if vector is not None and not is_of_similar(options) and query.query_str:
        vector = None  # an option such as rerank_depth needs the text
    if vector is None and not query.query_str:
        raise UsageError(f"a query in the mode {query.mode.value} must have query_str")
    relevance = selection.get("mmr_threshold", query.mmr_threshold)
    return PlannedQuery(
        query.query_str or "", vector, options, limit, 0.5 if relevance is None else relevance
    )


def _limit(query: VectorStoreQuery) -> int:
    """Return the number of hits that the query's mode asks for."""
    limit: int = query.similarity_top_k
    if query.mode in _BY_WORDS and query.sparse_top_k is not None:
        limit = query.sparse_top_k
    if query.mode in _FUSED and query.hybrid_top_k is not None:
        limit = query.hybrid_top_k
    check_k(limit, "similarity_top_k, sparse_top_k or hybrid_top_k")
    return limit


def _mode_options(query: VectorStoreQuery) -> dict[str, Any]:
    """Return the options of a search that are the query's mode.

    Raises:
        UsageError: For a mode that does not exist here.
    """
    if query.mode in _BY_WORDS:
        return {"mode": "bm25"}
    if query.mode in _FUSED:
        options: dict[str, Any] = {"mode": "hybrid"}
        if query.alpha is not None:
            options["fusion"] = Fusion(dense_weight=query.alpha)
        if query.mode == VectorStoreQueryMode.SEMANTIC_HYBRID:
            options["rerank_depth"] = "auto"
        return options
    if query.mode in _BY_VECTOR:
        return {}
    known = ", ".join(mode.value for mode in (*_BY_VECTOR, *_BY_WORDS, *_FUSED))
    raise UsageError(f"the query mode must be one of {known}, got {query.mode.value}")


def _fetched(limit: int, selection: Mapping[str, Any]) -> int:
    """Return the number of hits to select from, as LlamaIndex's own store computes it."""
    factor, number = selection.get("mmr_prefetch_factor"), selection.get("mmr_prefetch_k")
    if factor is not None and number is not None:
        raise UsageError("pass either mmr_prefetch_factor or mmr_prefetch_k, not both")
    fetched = int(limit * (4 if factor is None else factor)) if number is None else number
    check_k(fetched, "the number of hits to select from")
    return max(int(fetched), limit)
