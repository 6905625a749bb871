"""Steps of a search, without the I/O that executes them.

The generators below yield a step (`Encode`, `Query`, ...), are sent its result, and return hits.
The blocking and the asyncio client thus share them.

One `Searcher`, and so one model, serves a search from its first to its last step. Each query to
the engine names the vectors of that model. If the alias points to a collection of another model,
the engine refuses the query: no result mixes two models.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.field_path import root_key
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.search_types import (
    Fusion,
    Hit,
    Nearest,
    PointQuery,
    ScoredPoint,
    SearchEffort,
    SearchMode,
)
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.bm25 import Bm25Encoder
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.filter_checks import FilterChecks
from msmarco_qdrant.search.options import SearchRequest
from msmarco_qdrant.search.ranking import best_per_group, fuse
from msmarco_qdrant.search.step import Encode, Query, Retrieve, Score, Steps
from msmarco_qdrant.search.ties import (
    clip_cosines,
    is_open,
    merge_rounded,
    sort_by_id,
    sort_by_pid,
    sort_hits,
    wider_limits,
    with_tied,
)
from msmarco_qdrant.stores.filters import to_qdrant
from msmarco_qdrant.stores.foreign import ForeignPoints, pid_problem
from msmarco_qdrant.stores.payload import HIT_FIELDS, SPARSE_VECTOR, point_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# A group's best passage may hide others of the same group.
_PASSAGES_PER_GROUP = 4
_EXACT = SearchEffort(exact=True)


@dataclass(frozen=True, slots=True, eq=False)
class _QueryVectors:
    """Vectors of a query; None where its mode needs none or the query has none."""

    dense: Nearest | None
    bm25: Nearest | None


class Searcher:
    """Searches one collection with one model.

    Args:
        metadata: The collection's metadata.
        encoder: The encoder of that collection; None to search by "bm25" only.
        collection: The collection's name, for messages.
        indexed: True if the engine has payload indexes, so that a filter may lack one.
        foreign: Counts the points that are not passages.
    """

    def __init__(
        self,
        metadata: CollectionMetadata,
        encoder: Encoder | None,
        *,
        collection: str,
        indexed: bool,
        foreign: ForeignPoints,
    ) -> None:
        self.metadata = metadata
        self._foreign = foreign
        self._encoder = encoder
        self._filters = FilterChecks(collection, foreign.dsn, indexed=indexed)

    @property
    def bm25_only(self) -> bool:
        """True if no encoder was given."""
        return self._encoder is None

    @property
    def encoder(self) -> Encoder:
        """The encoder of queries.

        Raises:
            UsageError: If no encoder was given.
        """
        if self._encoder is None:
            raise UsageError("this client was opened with bm25_only: it has no encoder")
        return self._encoder

    def search(self, queries: Sequence[str], request: SearchRequest) -> Steps[list[list[Hit]]]:
        """Return the hits of each query."""
        given = request.meta_filter
        if given is not None:
            chosen = to_qdrant(given)  # once, for all the queries
            yield from self._filters.check_indexes(chosen, request.limits)
            request = replace(request, meta_filter=chosen)
        found = yield from self._search(queries, request)
        if given is not None:
            yield from self._filters.check_fields(given, found)
        return found

    def _search(self, queries: Sequence[str], request: SearchRequest) -> Steps[list[list[Hit]]]:
        vectors = yield from self._encode(queries, request.mode)
        if request.group_by is not None and request.rerank_depth is None:
            return (yield from self._search_groups(vectors, request, request.group_by))
        found = yield from self._retrieve(vectors, request, request.first_stage_limit)
        if request.rerank_depth is not None:
            found = yield from _rerank(queries, found)
        if request.group_by is not None:
            found = [best_per_group(hits, request.group_by) for hits in found]
        return [_renumber(hits[: request.limit]) for hits in found]

    def rank(
        self,
        queries: Sequence[str],
        pids: Sequence[Sequence[str]],
        mode: SearchMode,
        fusion: Fusion,
        *,
        rerank: bool,
    ) -> Steps[list[list[Hit]]]:
        """Return for each query those of its pids that the collection holds, the best first."""
        ids = [[point_id(pid) for pid in dict.fromkeys(given)] for given in pids]
        vectors = yield from self._encode(queries, mode)
        plans = [_score_queries(one, given) for one, given in zip(vectors, ids, strict=True)]
        rankings = yield from self._query(plans)
        if mode == "bm25":  # its ranking omits passages without a word of the query
            payloads = yield from _retrieve_payloads(ids)
        else:
            payloads = [_payloads(*answers[:1]) for answers in rankings]
        found = [
            self._to_hits(self._rank_points(answers, mode, stored, fusion))
            for answers, stored in zip(rankings, payloads, strict=True)
        ]
        if rerank:
            found = yield from _rerank(queries, found)
        return [_renumber(hits) for hits in found]

    def _encode(self, queries: Sequence[str], mode: SearchMode) -> Steps[list[_QueryVectors]]:
        dense: Sequence[Nearest | None] = [None] * len(queries)
        bm25: Sequence[Nearest | None] = [None] * len(queries)
        if mode != "dense":
            bm25 = [self._encode_bm25(query) for query in queries]
        if mode != "bm25":
            vectors: NDArray[np.float32] = yield Encode(self.encoder, queries)
            dense = [Nearest(vector, self.metadata.encoder.vector_name) for vector in vectors]
        return [_QueryVectors(*both) for both in zip(dense, bm25, strict=True)]

    def _encode_bm25(self, query: str) -> Nearest | None:
        weights = self._bm25.encode_query(query)
        return Nearest(weights, SPARSE_VECTOR) if weights.indices else None

    def _retrieve(
        self, vectors: Sequence[_QueryVectors], request: SearchRequest, limit: int
    ) -> Steps[list[list[Hit]]]:
        """Return the best hits of each query, without reranking.

        Points that are not passages are left out, and as many others are retrieved.
        """
        found: list[list[Hit]] = [[] for _ in vectors]
        unfinished, wanted = list(range(len(vectors))), limit
        while unfinished:
            asked = [vectors[index] for index in unfinished]
            rankings = yield from self._retrieve_points(asked, request, wanted)
            for index, points in zip(unfinished, rankings, strict=True):
                found[index] = self._to_hits(points)[:limit]
            unfinished = [
                index
                for index, points in zip(unfinished, rankings, strict=True)
                if len(found[index]) < limit and len(points) == wanted < request.max_limit
            ]
            wanted = min(2 * wanted, request.max_limit)
        return found

    def _retrieve_points(
        self,
        vectors: Sequence[_QueryVectors],
        request: SearchRequest,
        limit: int,
        fields: Sequence[str] = HIT_FIELDS,
    ) -> Steps[list[list[ScoredPoint]]]:
        """Return the best points of each query, with payload fields; ties by pid."""
        if request.mode == "hybrid":
            rankings = yield from self._rank_all(vectors, request, limit, ())
            rankings = [[*with_tied(points, limit)] for points in rankings]
            rankings = yield from _with_payloads(vectors, rankings, fields)
            return [sort_by_pid(points)[:limit] for points in rankings]
        asked = min(limit + 1, request.max_limit)
        rankings = yield from self._rank_all(vectors, request, asked, fields)
        tied = [i for i, points in enumerate(rankings) if is_open(points, limit, asked)]
        if tied:
            settled = yield from self._settle([vectors[i] for i in tied], request, limit, fields)
            for index, points in zip(tied, settled, strict=True):
                rankings[index] = points
        return [sort_by_pid(points)[:limit] for points in rankings]

    def _settle(
        self,
        vectors: Sequence[_QueryVectors],
        request: SearchRequest,
        limit: int,
        fields: Sequence[str],
    ) -> Steps[list[list[ScoredPoint]]]:
        """Return the best points of queries with equal scores at the limit, chosen by pid."""
        found: list[list[ScoredPoint]] = [[] for _ in vectors]
        tied = list(range(len(vectors)))
        for wider in wider_limits(limit, request.max_limit):
            if tied:
                asked = [vectors[index] for index in tied]
                ranked = yield from self._rank_all(asked, request, wider, ("pid",))
                for index, points in zip(tied, ranked, strict=True):
                    found[index] = points
                tied = [index for index in tied if is_open(found[index], limit, wider)]
        best = [sort_by_pid(points)[:limit] for points in found]
        return (yield from _with_payloads(vectors, best, fields))

    def _rank_all(
        self,
        vectors: Sequence[_QueryVectors],
        request: SearchRequest,
        limit: int,
        fields: Sequence[str],
    ) -> Steps[list[list[ScoredPoint]]]:
        """Return the ranking of each query, which for "hybrid" may be longer than the limit."""
        plans = [_point_queries(one, request, limit, fields) for one in vectors]
        answers = yield from self._query(plans)
        return [self._to_ranking(each, request.mode, request.fusion, limit) for each in answers]

    def _query(
        self, plans: Sequence[Sequence[PointQuery]]
    ) -> Steps[list[list[Sequence[ScoredPoint]]]]:
        """Query the engine; cosines are in [-1, 1], and ties in the order of point ids."""
        answers = yield from _query(plans)
        return [
            [self._tidy(query, points) for query, points in zip(plan, found, strict=True)]
            for plan, found in zip(plans, answers, strict=True)
        ]

    def _tidy(self, query: PointQuery, points: Sequence[ScoredPoint]) -> Sequence[ScoredPoint]:
        encoder = self.metadata.encoder
        if query.nearest is None or query.nearest.using != encoder.vector_name:
            return sort_by_id(points)
        if encoder.similarity == "cosine":
            points = clip_cosines(points)
        return sort_by_id(merge_rounded(sort_by_id(points)))

    def _to_hits(self, points: Sequence[ScoredPoint]) -> list[Hit]:
        """Convert points to hits, in the same order; those that are not passages are left out."""
        passages = [(p.score, self._foreign.passage(p.id, p.payload)) for p in points]
        own = [(score, passage) for score, passage in passages if passage is not None]
        return [
            Hit(rank, passage.pid, score, passage.text, passage.meta)
            for rank, (score, passage) in enumerate(own, start=1)
        ]

    def _search_groups(
        self, vectors: Sequence[_QueryVectors], request: SearchRequest, field: str
    ) -> Steps[list[list[Hit]]]:
        """Return the best hit of each group; retrieve more until there are enough groups.

        Only pids and the field are retrieved for that, and the rest of the best afterwards.
        """
        found: list[list[ScoredPoint]] = [[] for _ in vectors]
        unfinished = list(range(len(vectors)))
        limit = request.limit
        while unfinished:
            limit = min(limit * _PASSAGES_PER_GROUP, request.max_limit)
            asked = [vectors[i] for i in unfinished]
            fields = ("pid", root_key(field))
            ranked = yield from self._retrieve_points(asked, request, limit, fields)
            for index, points in zip(unfinished, ranked, strict=True):
                found[index] = best_per_group(self._own(points), field)
            unfinished = [
                index
                for index, points in zip(unfinished, ranked, strict=True)
                if len(found[index]) < request.limit and len(points) == limit < request.max_limit
            ]
            if any(ranked) and not any(found):
                _log.warning("no passage found has the field '%s' to group by", field)
        best = [points[: request.limit] for points in found]
        whole = yield from _with_payloads(vectors, best, HIT_FIELDS)
        return [_renumber(self._to_hits(points)) for points in whole]

    def _own(self, points: Sequence[ScoredPoint]) -> list[ScoredPoint]:
        """Return the points that have their pid; count the others."""
        problems = [(point, pid_problem(point.id, point.payload)) for point in points]
        for point, problem in problems:
            if problem is not None:
                self._foreign.add(point.id, problem)
        return [point for point, problem in problems if problem is None]

    def _to_ranking(
        self, answers: Sequence[Sequence[ScoredPoint]], mode: SearchMode, fusion: Fusion, limit: int
    ) -> list[ScoredPoint]:
        """Make one ranking of the engine's answers; a query of stop words has no BM25 answer."""
        if mode != "hybrid":
            return [*answers[0]] if answers else []
        dense, bm25 = (*answers, [], [])[:2]
        depth, similarity = max(fusion.depth, limit), self.metadata.encoder.similarity
        return fuse(dense, bm25, fusion, depth=depth, similarity=similarity)

    def _rank_points(
        self,
        answers: Sequence[Sequence[ScoredPoint]],
        mode: SearchMode,
        payloads: Mapping[PointId, dict[str, Any]],
        fusion: Fusion,
    ) -> list[ScoredPoint]:
        """Rank given points; one without a token of the query has a BM25 score of 0."""
        ranked = self._to_ranking(answers, mode, fusion, len(payloads))
        scores = {point.id: point.score for point in ranked if point.id in payloads}
        if mode == "bm25":
            scores |= {id_: 0.0 for id_ in payloads if id_ not in scores}
        return sort_by_pid([ScoredPoint(i, score, payloads[i]) for i, score in scores.items()])

    @cached_property
    def _bm25(self) -> Bm25Encoder:
        return Bm25Encoder(self.metadata.bm25)


def _point_queries(
    vectors: _QueryVectors, request: SearchRequest, limit: int, fields: Sequence[str]
) -> list[PointQuery]:
    """Make the engine's queries; for "hybrid", both score the union of both best lists."""
    both = tuple(nearest for nearest in (vectors.dense, vectors.bm25) if nearest is not None)
    if request.mode != "hybrid":
        effort = request.effort(limit)
        return [
            PointQuery(nearest, limit, effort, request.meta_filter, fields=fields)
            for nearest in both
        ]
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


def _score_queries(
    vectors: _QueryVectors, ids: Sequence[PointId], fields: Sequence[str] = HIT_FIELDS
) -> list[PointQuery]:
    """Make queries that score given points by each vector.

    Payloads come with the scores of the model, so that both are of one collection.
    """
    both = ((vectors.dense, fields), (vectors.bm25, ()))
    return [
        PointQuery(nearest, len(ids), _EXACT, ids=ids, fields=wanted)
        for nearest, wanted in both
        if nearest is not None and ids
    ]


def _query(plans: Sequence[Sequence[PointQuery]]) -> Steps[list[list[list[ScoredPoint]]]]:
    """Send several lists of queries in one batch, and return the answers of each list."""
    queries = [query for plan in plans for query in plan]
    answers: Iterator[list[ScoredPoint]] = iter((yield Query(queries)) if queries else ())
    return [[next(answers) for _ in plan] for plan in plans]


def _with_payloads(
    vectors: Sequence[_QueryVectors],
    rankings: Sequence[Sequence[ScoredPoint]],
    fields: Sequence[str],
) -> Steps[list[list[ScoredPoint]]]:
    """Add the payloads of hits; omit points deleted since the first query.

    The query names the model's vectors, so that payloads and scores are of one collection.
    """
    ids = [[point.id for point in ranked] for ranked in rankings]
    if all(one.dense is None for one in vectors):
        stored = yield from _retrieve_payloads(ids)
    else:
        plans = [
            _score_queries(replace(one, bm25=None), given, fields)
            for one, given in zip(vectors, ids, strict=True)
        ]
        stored = [_payloads(*answers) for answers in (yield from _query(plans))]
    return [
        [replace(p, payload=payloads[p.id]) for p in ranked if p.id in payloads]
        for ranked, payloads in zip(rankings, stored, strict=True)
    ]


def _payloads(answer: Sequence[ScoredPoint] = ()) -> dict[PointId, dict[str, Any]]:
    return {point.id: point.payload for point in answer}


def _retrieve_payloads(
    ids: Sequence[Sequence[PointId]],
) -> Steps[list[dict[PointId, dict[str, Any]]]]:
    """Return for each list of ids the payloads of those that exist."""
    wanted = list(dict.fromkeys(id_ for given in ids for id_ in given))
    payloads: Mapping[PointId, dict[str, Any]] = (yield Retrieve(wanted)) if wanted else {}
    return [{id_: payloads[id_] for id_ in given if id_ in payloads} for given in ids]


def _rerank(queries: Sequence[str], found: Sequence[list[Hit]]) -> Steps[list[list[Hit]]]:
    """Sort hits by the scores of the cross-encoder; ties by pid."""
    pairs = [(query, hit.text) for query, hits in zip(queries, found, strict=True) for hit in hits]
    scores = iter((yield Score(pairs)).tolist() if pairs else ())
    scored = [[replace(hit, score=next(scores)) for hit in hits] for hits in found]
    return [sort_hits(hits) for hits in scored]


def _renumber(hits: Sequence[Hit]) -> list[Hit]:
    return [h if h.rank == rank else replace(h, rank=rank) for rank, h in enumerate(hits, start=1)]
