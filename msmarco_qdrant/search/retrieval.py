"""Retrieval of the best points and passages for query vectors; see `steps`.

Engines return points with equal scores in any order; here they are in the order of their pids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from msmarco_qdrant.core.fast_init import fast_init
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.search_types import (
    Fusion,
    Hit,
    PointQuery,
    ScoredPoint,
)
from msmarco_qdrant.search.point_parts import (
    ALL_PARTS,
    NO_PARTS,
    Parts,
    QueryVectors,
    send_queries,
    with_parts,
)
from msmarco_qdrant.search.ranking import fuse
from msmarco_qdrant.search.request import PAGES, SearchRequest
from msmarco_qdrant.search.step import Steps
from msmarco_qdrant.search.ties import (
    ROUNDING,
    clip_cosines,
    complete_tie,
    is_open,
    is_ranking,
    merge_rounded,
    sort_by_id,
    sort_by_pid,
    wider_limits,
    with_tied,
)
from msmarco_qdrant.stores.foreign import ForeignPoints, pid_problem
from msmarco_qdrant.stores.payload import HIT_FIELDS

_T = TypeVar("_T")
_WITH_PID = Parts(("pid",))
_new_hit, _new_query = fast_init(Hit), fast_init(PointQuery)


class Retriever:
    """Retrieves points and passages of one collection.

    Args:
        metadata: The collection's metadata.
        foreign: Counts the points that are not passages.

    Attributes:
        metadata: As given.
        foreign: As given.
        vector_name: Name of the dense vectors.
    """

    def __init__(self, metadata: CollectionMetadata, foreign: ForeignPoints) -> None:
        self.metadata = metadata
        self.foreign = foreign
        self.vector_name = metadata.encoder.vector_name
        self._is_cosine = metadata.encoder.similarity == "cosine"

    def retrieve(
        self, vectors: Sequence[QueryVectors], request: SearchRequest, limit: int
    ) -> Steps[list[list[Hit]]]:
        """Return the best hits of each query, without reranking.

        Points that are not passages are left out, and as many others are retrieved.
        """
        parts = self.parts_of(request)
        to_hits = partial(self.to_hits, parts=parts)
        return self._retrieve(vectors, request, limit, parts, to_hits)

    def retrieve_pids(
        self, vectors: Sequence[QueryVectors], request: SearchRequest, limit: int
    ) -> Steps[list[list[str]]]:
        """Return the pids of the same hits, in less time."""
        return self._retrieve(vectors, request, limit, _WITH_PID, self._to_pids)

    def _retrieve(
        self,
        vectors: Sequence[QueryVectors],
        request: SearchRequest,
        limit: int,
        parts: Parts,
        convert: Callable[[Sequence[ScoredPoint]], list[_T]],
    ) -> Steps[list[list[_T]]]:
        """Return the best passages of each query, converted from points with these parts."""
        found: dict[int, list[_T]] = {}
        wanted = limit
        while len(found) < len(vectors):
            places = [*range(len(vectors))]
            if found:
                places = [place for place in places if place not in found]
            asked = [*map(vectors.__getitem__, places)]
            rankings = yield from self.retrieve_points(asked, request, wanted, parts)
            for place, points in zip(places, rankings, strict=True):
                hits = convert(points)[:limit]
                if len(hits) == limit or not len(points) == wanted < request.max_limit:
                    found[place] = hits
            wanted = min(2 * wanted, request.max_limit)
        return [found[place] for place in range(len(vectors))]

    def retrieve_points(
        self,
        vectors: Sequence[QueryVectors],
        request: SearchRequest,
        limit: int,
        parts: Parts,
    ) -> Steps[list[list[ScoredPoint]]]:
        """Return the best points of each query, with these parts; ties by pid."""
        if request.mode == "hybrid":
            rankings = yield from self.rank_all(vectors, request, limit, NO_PARTS)
            rankings = [[*with_tied(points, limit)] for points in rankings]
            rankings = yield from with_parts(vectors, rankings, parts)
            return [sort_by_pid(points)[:limit] for points in rankings]
        asked = min(limit + 1, request.max_limit)
        rankings = yield from self.rank_all(vectors, request, asked, parts)
        tied = []
        for index, points in enumerate(rankings):
            if is_open(points, limit, asked):
                tied.append(index)
            else:
                rankings[index] = sort_by_pid(points)[:limit]
        if tied:
            open_ = [vectors[i] for i in tied]
            settled = yield from self.settle(open_, [rankings[i] for i in tied], request, limit)
            best = [sort_by_pid(points)[:limit] for points in settled]
            whole = yield from with_parts(open_, best, parts)
            for index, points in zip(tied, whole, strict=True):
                rankings[index] = sort_by_pid(points)[:limit]
        return rankings

    def settle(
        self,
        vectors: Sequence[QueryVectors],
        rankings: Sequence[Sequence[ScoredPoint]],
        request: SearchRequest,
        limit: int,
    ) -> Steps[list[list[ScoredPoint]]]:
        """Return rankings with all points that have the score of the limit, and their pids."""
        found = [[*points] for points in rankings]
        tied = list(range(len(vectors)))
        limits = [*wider_limits(limit, request.max_limit)]
        if request.is_page and limit < PAGES < request.max_limit:
            limits.insert(0, PAGES + 1)  # with the same candidates as the other pages
        for wider in limits:
            if tied:
                asked = [vectors[index] for index in tied]
                ranked = yield from self.rank_all(asked, request, wider, _WITH_PID)
                for index, points in zip(tied, ranked, strict=True):
                    found[index] = complete_tie(rankings[index], points, limit)
                tied = [
                    i
                    for i, points in zip(tied, ranked, strict=True)
                    if is_open(points, limit, wider)
                ]
        return found

    def rank_all(
        self,
        vectors: Sequence[QueryVectors],
        request: SearchRequest,
        limit: int,
        parts: Parts,
        *,
        skipped: int = 0,
    ) -> Steps[list[list[ScoredPoint]]]:
        """Return the ranking of each query, which for "hybrid" may be longer than the limit.

        Args:
            vectors: The vectors of each query.
            request: The search.
            limit: Number of best points.
            parts: Parts of the points to return, only payload fields for "hybrid".
            skipped: Number of best points to leave out, not for "hybrid".
        """
        plans = [_point_queries(one, request, limit, parts, skipped) for one in vectors]
        answers = yield from self.query(plans)
        least = request.first_threshold
        rankings = []
        for each in answers:
            points = [*each[0]] if each else []
            if request.mode == "hybrid":
                points = self.fuse_answers(each, request.fusion, request.depth(limit))
            if least is not None:
                points = [point for point in points if point.score >= least]
            rankings.append(points)
        return rankings

    def fusion_inputs(
        self, vectors: Sequence[QueryVectors], request: SearchRequest, limit: int
    ) -> Steps[list[tuple[Sequence[ScoredPoint], Sequence[ScoredPoint]]]]:
        """Return what "hybrid" fuses: all candidates by dense score, and those by BM25 score."""
        plans = [_point_queries(one, request, limit, NO_PARTS) for one in vectors]
        answers = yield from self.query(plans)
        return [(both[0], both[1] if len(both) > 1 else []) for both in answers]

    def query(
        self, plans: Sequence[Sequence[PointQuery]]
    ) -> Steps[list[list[Sequence[ScoredPoint]]]]:
        """Query the engine; cosines are in [-1, 1], and ties in the order of point ids."""
        answers = yield from send_queries(plans)
        for plan, found in zip(plans, answers, strict=True):
            found[:] = map(self._tidy, plan, found)
        return answers

    def _tidy(self, query: PointQuery, points: Sequence[ScoredPoint]) -> Sequence[ScoredPoint]:
        if query.nearest is None or query.nearest.using != self.vector_name:
            return sort_by_id(points)
        if self._is_cosine:
            points = clip_cosines(points)
        if is_ranking(points):
            return points
        return sort_by_id(merge_rounded(sort_by_id(points)))

    def parts_of(self, request: SearchRequest) -> Parts:
        """Return the parts of the hits of a search; vectors only for hits that stay."""
        is_last = request.rerank_depth is None and not request.diversity
        vector = self.vector_name if request.with_vectors and is_last else None
        fields = request.fields
        return ALL_PARTS if fields is HIT_FIELDS and vector is None else Parts(fields, vector)

    def to_hits(self, points: Sequence[ScoredPoint], parts: Parts = ALL_PARTS) -> list[Hit]:
        """Convert points to hits, in the same order; those that are not passages are left out.

        Args:
            points: The points.
            parts: Their parts; a hit has no text or `meta` that is not among them.
        """
        absent: dict[str, Any] = {}
        if parts.fields is not HIT_FIELDS:
            empty: dict[str, Any] = {"text": "", "meta": {}}
            absent = {name: value for name, value in empty.items() if name not in parts.fields}
        hits: list[Hit] = []
        rank, is_passage, has_vectors = 0, self.foreign.is_passage, parts.vector is not None
        for point in points:
            stored = absent | point.payload if absent else point.payload
            if is_passage(point.id, stored):
                rank += 1
                vector = tuple(point.vector) if has_vectors and point.vector is not None else None
                pid, text, meta = stored["pid"], stored["text"], stored["meta"]
                hits.append(_new_hit(rank, pid, point.score, text, meta, vector))
        return hits

    def _to_pids(self, points: Sequence[ScoredPoint]) -> list[str]:
        """Return the pids of points, in the same order, without points that are not passages."""
        pids = [point.payload.get("pid") for point in points]
        if pids == [str(point.id) if type(point.id) is int else None for point in points]:
            return pids  # most answers: the checks below take five times as long
        return [point.payload["pid"] for point in self.own(points)]

    def own(self, points: Sequence[ScoredPoint]) -> list[ScoredPoint]:
        """Return the points that have their pid; count the others."""
        problems = [(point, pid_problem(point.id, point.payload)) for point in points]
        for point, problem in problems:
            if problem is not None:
                self.foreign.add(point.id, problem)
        return [point for point, problem in problems if problem is None]

    def fuse_answers(
        self, answers: Sequence[Sequence[ScoredPoint]], fusion: Fusion, depth: int
    ) -> list[ScoredPoint]:
        """Fuse the engine's answers; a query of stop words has no BM25 answer."""
        dense, bm25 = (*answers, [], [])[:2]
        similarity = self.metadata.encoder.similarity
        return fuse(dense, bm25, fusion, depth=depth, similarity=similarity)


def _point_queries(
    vectors: QueryVectors,
    request: SearchRequest,
    limit: int,
    parts: Parts,
    skipped: int = 0,
) -> list[PointQuery]:
    """Make the engine's queries; for "hybrid", both score the union of both best lists."""
    if request.mode != "hybrid":
        nearest = vectors.dense or vectors.bm25
        if nearest is None:
            return []
        threshold = request.first_threshold
        query = _new_query(
            nearest,
            limit - skipped,
            request.effort(limit),
            request.meta_filter,
            fields=parts.fields,
            vector=parts.vector,
            offset=skipped,
            score_threshold=None if threshold is None else _lower(threshold),
        )
        return [query]
    both = tuple(nearest for nearest in (vectors.dense, vectors.bm25) if nearest is not None)
    depth = request.depth(limit)
    return [
        PointQuery(
            nearest=nearest,
            limit=depth * len(both),
            effort=request.effort(depth),
            meta_filter=request.meta_filter,
            candidates=both,
            depth=depth,
            fields=(),  # payloads cost more than scores: only those of the best are read
        )
        for nearest in both
    ]


def _lower(threshold: float) -> float:
    """Return a slightly lower threshold, as the engine compares before scores are rounded."""
    return threshold - 4 * ROUNDING * max(1.0, abs(threshold))
