"""Retrieval of pages that do not start with the best hit; see `pages`.

The engine skips the hits before a page, where that gives the same page: if scores differ at its
start and its end, and a cursor's last hit is still at its place. Otherwise ids are retrieved from
the best one, and then the texts of the page.
"""

from __future__ import annotations

from collections.abc import Sequence

from msmarco_qdrant.core.search_types import Hit, ScoredPoint
from msmarco_qdrant.search.pages import cut_page, follows, page_bounds
from msmarco_qdrant.search.point_parts import NO_PARTS, QueryVectors, with_parts
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.retrieval import Retriever
from msmarco_qdrant.search.step import Steps
from msmarco_qdrant.search.ties import is_open, sort_by_pid, with_tied


class PageRetriever:
    """Retrieves pages of one collection.

    Args:
        retriever: The retriever of that collection.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def retrieve(
        self, vectors: Sequence[QueryVectors], request: SearchRequest
    ) -> Steps[list[list[Hit]]]:
        """Return the page of each query, without reranking."""
        if not request.start:
            return self._retriever.retrieve(vectors, request, request.limit)
        if request.mode == "hybrid" or self._has_foreign:
            return self._settle(vectors, request)
        return self._skip_or_settle(vectors, request)

    def _skip_or_settle(
        self, vectors: Sequence[QueryVectors], request: SearchRequest
    ) -> Steps[list[list[Hit]]]:
        found = yield from self._skip(vectors, request)
        pages = {place: hits for place, hits in enumerate(found) if hits is not None}
        if len(pages) < len(found):
            others = [place for place in range(len(found)) if place not in pages]
            settled = yield from self._settle([vectors[place] for place in others], request)
            pages.update(zip(others, settled, strict=True))
        return [pages[place] for place in range(len(found))]

    @property
    def _has_foreign(self) -> bool:
        """True if points were found that are not passages: they do not count as hits."""
        return self._retriever.foreign.count > 0

    def _skip(
        self, vectors: Sequence[QueryVectors], request: SearchRequest
    ) -> Steps[list[list[Hit] | None]]:
        """Return each page that the engine alone finds, None for the others.

        The hit before the page and the one after it are retrieved, too.
        """
        skipped, end = request.start - 1, min(request.end + 1, request.max_limit)
        rankings = yield from self._retriever.rank_all(
            vectors, request, end, self._retriever.parts_of(request), skipped=skipped
        )
        return [self._to_page(sort_by_pid(points), request) for points in rankings]

    def _to_page(self, points: Sequence[ScoredPoint], request: SearchRequest) -> list[Hit] | None:
        """Return the page in points that start with the hit before it; None to settle it."""
        if not points:
            return [] if request.after is None else None
        size = request.end - request.start
        for edge in (points[:2], points[size : size + 2]):
            if len(edge) > 1 and edge[0].score == edge[1].score:
                return None
        own = points[: size + 1]
        hits = self._retriever.to_hits(own, self._retriever.parts_of(request))
        if len(hits) < len(own) or not follows(hits[0], request):
            return None
        return hits[1:]

    def _settle(
        self, vectors: Sequence[QueryVectors], request: SearchRequest
    ) -> Steps[list[list[Hit]]]:
        """Return the page of each query, in the ranking from the best hit on."""
        end = request.end
        while vectors:
            has_foreign = self._has_foreign
            if has_foreign:
                found = yield from self._retriever.retrieve(vectors, request, end)
                pages = [cut_page(hits, request) for hits in found]
                is_whole = all(len(hits) < end for hits in found)
            else:
                rankings = yield from self._rank_ids(vectors, request, end)
                pages = yield from self._read(vectors, rankings, request)
                is_whole = all(len(points) < end for points in rankings)
            is_full = request.after is None or all(len(hits) == request.limit for hits in pages)
            if has_foreign == self._has_foreign:
                if is_full or is_whole or end == request.max_limit:
                    return pages
                end = min(2 * end, request.max_limit)  # other passages were written before it
        return []

    def _read(
        self,
        vectors: Sequence[QueryVectors],
        rankings: Sequence[Sequence[ScoredPoint]],
        request: SearchRequest,
    ) -> Steps[list[list[Hit]]]:
        """Read the page in each ranking of ids."""
        bounds = [page_bounds(points, request) for points in rankings]
        windows = [points[slice(*each)] for points, each in zip(rankings, bounds, strict=True)]
        parts = self._retriever.parts_of(request)
        whole = yield from with_parts(vectors, windows, parts)
        found = [self._retriever.to_hits(sort_by_pid(points), parts) for points in whole]
        if request.after is not None:
            return [cut_page(hits, request) for hits in found]
        starts = [request.start - first for first, _ in bounds]
        return [
            hits[start : start + request.limit] for hits, start in zip(found, starts, strict=True)
        ]

    def _rank_ids(
        self, vectors: Sequence[QueryVectors], request: SearchRequest, limit: int
    ) -> Steps[list[list[ScoredPoint]]]:
        """Return the best points of each query, and those with the score of the last one.

        They have no texts.
        """
        retriever = self._retriever
        if request.mode == "hybrid":
            rankings = yield from retriever.rank_all(vectors, request, limit, NO_PARTS)
            return [[*with_tied(points, limit)] for points in rankings]
        asked = min(limit + 1, request.max_limit)
        rankings = yield from retriever.rank_all(vectors, request, asked, NO_PARTS)
        tied = [i for i, points in enumerate(rankings) if is_open(points, limit, asked)]
        if tied:
            open_ = [vectors[i] for i in tied]
            ranked = [rankings[i] for i in tied]
            settled = yield from retriever.settle(open_, ranked, request, limit)
            for index, points in zip(tied, settled, strict=True):
                rankings[index] = points
        return [[*with_tied(points, limit)] for points in rankings]
