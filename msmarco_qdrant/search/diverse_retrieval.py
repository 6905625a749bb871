"""Retrieval of diverse hits by the engine's own maximal marginal relevance; see `diversity`."""

from __future__ import annotations

from collections.abc import Sequence

from msmarco_qdrant.core.fast_init import fast_init
from msmarco_qdrant.core.search_types import Hit, PointQuery
from msmarco_qdrant.search.diversity import CANDIDATES
from msmarco_qdrant.search.point_parts import Parts, QueryVectors, send_queries
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.retrieval import Retriever
from msmarco_qdrant.search.step import Steps
from msmarco_qdrant.search.ties import clip_cosines, has_choice

_new_query = fast_init(PointQuery)


def retrieve_diverse(
    vectors: Sequence[QueryVectors], request: SearchRequest, retriever: Retriever
) -> Steps[list[list[Hit]] | None]:
    """Return the page of each query in the engine's order.

    Args:
        vectors: The vectors of each query.
        request: The search.
        retriever: The retriever of the collection.

    Returns:
        The hits. None if the engine orders other candidates than the best by their vectors alone;
        if it chose one of several with equal scores, which may be any of them; or if a point is
        not a passage, as it would count as a candidate. For a page every candidate is looked at,
        so that all pages have the same ones.
    """
    if not _can_order(request) or retriever.foreign.count:
        return None
    effort = request.effort(CANDIDATES, is_page=True)
    parts = Parts(request.fields, retriever.vector_name if request.with_vectors else None)
    looked_at = ("pid",) if request.is_page else ()
    chosen = request.meta_filter
    plans = [
        [
            _new_query(
                one.dense,
                request.end - request.start,
                effort,
                chosen,
                depth=CANDIDATES,
                fields=parts.fields,
                vector=parts.vector,
                offset=request.start,
                diversity=request.diversity,
            ),
            _new_query(one.dense, CANDIDATES + 1, effort, chosen, fields=looked_at),
        ]
        for one in vectors
    ]
    found = []
    for points, candidates in (yield from send_queries(plans)):
        hits = retriever.to_hits(clip_cosines(points), parts)
        is_own = not request.is_page or len(retriever.own(candidates)) == len(candidates)
        before = candidates if request.start else points  # pages before it have some
        if len(hits) < len(points) or not is_own or has_choice(before, candidates, CANDIDATES):
            return None
        found.append(hits)
    return found


def _can_order(request: SearchRequest) -> bool:
    """True if the engine can order the hits: candidates by their vectors alone."""
    is_plain = request.rerank_depth is None and request.group_by is None
    is_within = request.end <= CANDIDATES < request.max_limit
    return request.mode == "dense" and is_plain and is_within and request.score_threshold is None
