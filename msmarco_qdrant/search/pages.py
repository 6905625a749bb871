"""Pages of a ranking: where a page starts, and the cursor of its end.

A page by offset starts at a position. A page by cursor starts after the last hit of the page before
it; if this hit is no longer in the ranking, after the last but one, and so on. If none of the last
hits is, the page starts at the score of the last one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any, Final

from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.search_types import Hit, ScoredPoint
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.cursor import Cursor
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.ties import ROUNDING, rank_key
from msmarco_qdrant.stores.payload import point_id

_FREE: Final = frozenset(
    {"limit", "offset", "cursor", "score_threshold", "exact", "ef", "oversampling", "rescore"}
    | {"limits", "default_ef", "with_vectors", "with_meta", "with_text", "snippets"}
)
"""Options that do not change the order of hits: they may differ from page to page."""

_ORDERING: Final = tuple(
    one.name
    for one in fields(SearchRequest)
    if one.init and one.name not in _FREE and one.name != "meta_filter"
)
_ordering = attrgetter(*_ORDERING)

_KEPT: Final = 3  # hits in a cursor


def page_slice(
    ranking: Sequence[tuple[float, str]],
    request: SearchRequest,
    order: Callable[[float, str], Any] = rank_key,
) -> slice:
    """Return the part of a ranking that is the page.

    Args:
        ranking: Score and pid of all hits from the best one, by descending score and then by pid.
        request: The search.
        order: The sort key of the ranking, by score and pid.
    """
    after, start = request.after, request.start
    if after is not None:
        key = order(*_end_of(after, {pid: score for score, pid in ranking}, request))
        start = sum(order(score, pid) <= key for score, pid in ranking)
    return slice(start, start + request.limit)


def cut_page(hits: Sequence[Hit], request: SearchRequest) -> list[Hit]:
    """Return the hits of a page; see `page_slice`."""
    return list(hits[page_slice([(hit.score, hit.pid) for hit in hits], request)])


def cut_points(points: Sequence[ScoredPoint], request: SearchRequest) -> list[ScoredPoint]:
    """Return the points of a page, all of which have their pid; see `page_slice`."""
    return list(points[page_slice([(p.score, p.payload["pid"]) for p in points], request)])


def _end_of(
    after: Cursor, scores: Mapping[str, float], request: SearchRequest
) -> tuple[float, str]:
    """Return score and pid of the end of the page before, in the ranking of now.

    A write changes the BM25 and the fused scores of other passages too. The score of a vector or
    of a cross-encoder changes only with its own passage, and by rounding.

    Args:
        after: The end of the page before.
        scores: The scores in this ranking, of the last hits of that page at least.
        request: The search.
    """
    is_dense = request.mode == "dense" and request.merge != "rrf"
    is_own = is_dense or request.rerank_depth is not None
    for before, pid in after.last:
        now = scores.get(pid)
        if now is not None:
            is_rewritten = abs(now - before) > 4 * ROUNDING * max(1.0, abs(now))
            if not (is_own and is_rewritten):
                return now, pid
    return after.last[0]


def follows(before: Hit, request: SearchRequest) -> bool:
    """True if a page after this hit is the page: a cursor's last hit must be at its place."""
    after = request.after
    if after is None:
        return True
    score, pid = _end_of(after, {before.pid: before.score}, request)
    return pid == before.pid == after.last[0][1] and score == before.score


def page_bounds(points: Sequence[ScoredPoint], request: SearchRequest) -> tuple[int, int]:
    """Return the bounds of a page in a ranking without pids.

    They include all points with the scores of the first and the last one: pids order them.
    """
    after, first, last = request.after, request.start, request.end
    if after is not None:
        pids = {point_id(pid): pid for _, pid in after.last}
        scores = {pids[point.id]: point.score for point in points if point.id in pids}
        score, _ = _end_of(after, scores, request)
        first = sum(point.score > score for point in points)
        last = sum(point.score >= score for point in points) + request.limit
    while 0 < first < len(points) and points[first - 1].score == points[first].score:
        first -= 1
    while last < len(points) and points[last].score == points[last - 1].score:
        last += 1
    return first, last


def digest_options(request: SearchRequest, metadata: CollectionMetadata, collection: str) -> str:
    """Return a digest of what determines the order of hits, apart from the query.

    Args:
        request: The search.
        metadata: The collection's metadata.
        collection: The collection's name.
    """
    chosen: Any = request.meta_filter  # converted
    canonical = "null"
    if chosen is not None:
        canonical = json.dumps(_sort(json.loads(chosen.model_dump_json())))
    return _digest(collection, canonical, metadata.encoder.fingerprint, *_ordering(request))


@lru_cache(maxsize=64)  # most searches of a client have the same options
def _digest(collection: str, conditions: str, model: str, *values: Any) -> str:
    options = dict(zip(_ORDERING, values, strict=True))
    text = json.dumps([collection, options, conditions, model], default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()


def _sort(value: Any) -> Any:
    """Sort the conditions of a filter, whose order has no meaning."""
    if isinstance(value, dict):
        return {name: _sort(item) for name, item in sorted(value.items()) if item is not None}
    if isinstance(value, list):
        return sorted(map(_sort, value), key=json.dumps)
    return value


class PageCursors:
    """Cursors of the pages of one search; what they need of it is computed for the first.

    Args:
        request: The search.
        metadata: The collection's metadata.
        collection: The collection's name.
    """

    def __init__(
        self, request: SearchRequest, metadata: CollectionMetadata, collection: str
    ) -> None:
        self._request = request
        self._metadata = metadata
        self._collection = collection

    @cached_property
    def _options(self) -> str:
        return digest_options(self._request, self._metadata, self._collection)

    def fix(self) -> None:
        """Keep the options as they are now."""
        _ = self._options

    def check(self, after: Cursor, query: str) -> None:
        """Refuse a cursor of another search.

        Args:
            after: The cursor.
            query: The query.

        Raises:
            UsageError: If query, options, the collection or its model differ.
        """
        if after.model != self._model:
            raise UsageError(
                "cursor is of another model than the collection has now: search again without it"
            )
        if after.search != self._digest(query):
            raise UsageError(
                "cursor is of another search: repeat the collection, the query and the options of "
                "the search that returned it; only limit may differ"
            )

    def after(self, hits: Sequence[Hit], query: str) -> str | None:
        """Return the cursor of the end of a page; None after the last page."""
        request = self._request
        end = request.start + len(hits)
        is_last = request.rerank_depth is not None and end >= request.rerank_depth
        if len(hits) < request.end - request.start or not hits or is_last:
            return None
        last = [(hit.score, hit.pid) for hit in hits[: -_KEPT - 1 : -1]]
        return str(Cursor(end, last, self._digest(query), self._model))

    @property
    def _model(self) -> str:
        return self._metadata.encoder.fingerprint[:8]

    def _digest(self, query: str) -> str:
        return hashlib.sha256(f"{self._options} {query}".encode()).hexdigest()[:16]
