"""How a search goes, step by step, and who does the steps is another's affair.

The generators below yield what they need done (`Encode`, `Query`, ...), are sent what came of it,
and return hits. So the client that blocks and the one of an event loop search in the same way.

A search goes by one `Searcher`, and so by one model, from its first step to its last; every
question to the engine names that model's vectors. Where the collection's name leads to one of
another model by now, the engine refuses the question: no answer mixes two.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msmarco_qdrant.core.records import CollectionMetadata, PayloadIndex, PointId
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
from msmarco_qdrant.search.options import MAX_LIMIT, SearchRequest
from msmarco_qdrant.search.ranking import best_of_each, fuse
from msmarco_qdrant.stores.filters import index_advice, to_qdrant
from msmarco_qdrant.stores.payload import HIT_FIELDS, SPARSE_VECTOR, passage_of, point_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from qdrant_client import models

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# A group's best passage may hide others of the same group.
_PASSAGES_PER_GROUP = 4
_ADVISED = 1000  # fields, then no more: whoever searches may make up any number of them
_EXACT = SearchEffort(exact=True)


@dataclass(frozen=True, slots=True)
class Encode:
    """Wanted: float32 `(n, dimension)`, this encoder's vectors of these queries."""

    encoder: Encoder
    queries: Sequence[str]


@dataclass(frozen=True, slots=True)
class Query:
    """Wanted: a list of `ScoredPoint` for each of these queries."""

    queries: Sequence[PointQuery]


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Wanted: a mapping of those of these ids that exist to what a hit shows of their payload."""

    ids: Sequence[PointId]


@dataclass(frozen=True, slots=True)
class Score:
    """Wanted: float32 `(n,)`, the cross-encoder's scores of these pairs of query and passage."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class GetPayloadIndexes:
    """Wanted: the collection's payload indexes, by field."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """Wanted: the steps for what the collection holds by now; the same, if that is unchanged."""

    used: Searcher


Step: TypeAlias = Encode | Query | Retrieve | Score | GetPayloadIndexes | Refresh
Steps: TypeAlias = Generator[Step, Any, _T]


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    """What a query is compared by; None for what its search does not need or it has not."""

    dense: Nearest | None
    bm25: Nearest | None


class Searcher:
    """The searches of one collection, by one model.

    Args:
        metadata: What the collection says of itself.
        encoder: The encoder of that collection; None to search by "bm25" only.
        indexed: Whether its engine has payload indexes, so that filters may lack one.
    """

    def __init__(
        self, metadata: CollectionMetadata, encoder: Encoder | None, *, indexed: bool
    ) -> None:
        self._metadata = metadata
        self._encoder = encoder
        self._indexed = indexed
        self._advised: set[str] = set()

    @property
    def metadata(self) -> CollectionMetadata:
        """What the collection says of itself."""
        return self._metadata

    @property
    def bm25_only(self) -> bool:
        """Whether there is no encoder."""
        return self._encoder is None

    @property
    def encoder(self) -> Encoder:
        """What encodes queries.

        Raises:
            UsageError: If there is none.
        """
        if self._encoder is None:
            raise UsageError("this client was opened with bm25_only: it has no encoder")
        return self._encoder

    def search(self, queries: Sequence[str], request: SearchRequest) -> Steps[list[list[Hit]]]:
        """The hits of each query."""
        if request.meta_filter is not None:
            chosen = to_qdrant(request.meta_filter)  # once, for all the queries
            yield from self._advise(chosen)
            request = replace(request, meta_filter=chosen)
        asked = yield from self._compared_by(queries, request.mode)
        if request.group_by is not None and request.rerank_depth is None:
            return (yield from self._grouped(asked, request, request.group_by))
        found = yield from self._ranked(asked, request, request.wanted)
        if request.rerank_depth is not None:
            found = yield from _reranked(queries, found)
        if request.group_by is not None:
            found = [best_of_each(hits, request.group_by) for hits in found]
        return [_numbered(hits[: request.limit]) for hits in found]

    def rank(
        self,
        queries: Sequence[str],
        pids: Sequence[Sequence[str]],
        mode: SearchMode,
        fusion: Fusion,
        *,
        rerank: bool,
    ) -> Steps[list[list[Hit]]]:
        """Of each query, those of its pids that the collection holds, the best first."""
        ids = [[point_id(pid) for pid in dict.fromkeys(given)] for given in pids]
        asked = yield from self._compared_by(queries, mode)
        plans = [_one_each(one, given) for one, given in zip(asked, ids, strict=True)]
        rankings = yield from _answers(plans)
        if mode == "bm25":  # which gives no answer for a passage without a word in common
            there = yield from _read(ids)
        else:
            there = [_payloads(*answers[:1]) for answers in rankings]
        found = [
            _to_hits(self._of_candidates(answers, mode, payloads, fusion))
            for answers, payloads in zip(rankings, there, strict=True)
        ]
        if rerank:
            found = yield from _reranked(queries, found)
        return [_numbered(hits) for hits in found]

    def _compared_by(self, queries: Sequence[str], mode: SearchMode) -> Steps[list[_Query]]:
        dense: Sequence[Nearest | None] = [None] * len(queries)
        bm25: Sequence[Nearest | None] = [None] * len(queries)
        if mode != "dense":
            bm25 = [self._by_words(query) for query in queries]
        if mode != "bm25":
            vectors: NDArray[np.float32] = yield Encode(self.encoder, queries)
            dense = [Nearest(vector, self._metadata.encoder.vector_name) for vector in vectors]
        return [_Query(*both) for both in zip(dense, bm25, strict=True)]

    def _by_words(self, query: str) -> Nearest | None:
        weights = self._bm25.encode_query(query)
        return Nearest(weights, SPARSE_VECTOR) if weights.indices else None

    def _ranked(
        self, asked: Sequence[_Query], request: SearchRequest, wanted: int
    ) -> Steps[list[list[Hit]]]:
        """The best so many of each query."""
        plans = [_queries(one, request, wanted) for one in asked]
        rankings = [
            self._one_ranking(answers, request.mode, request.fusion, wanted)[:wanted]
            for answers in (yield from _answers(plans))
        ]
        if request.mode == "hybrid":
            rankings = yield from _with_payloads(asked, rankings)
        return [_to_hits(points) for points in rankings]

    def _grouped(
        self, asked: Sequence[_Query], request: SearchRequest, field: str
    ) -> Steps[list[list[Hit]]]:
        """The best of each group: look deeper until there are as many groups as wanted."""
        found: list[list[Hit]] = [[] for _ in asked]
        open_places = list(range(len(asked)))
        wanted = request.limit
        while open_places:
            wanted = min(wanted * _PASSAGES_PER_GROUP, MAX_LIMIT)
            ranked = yield from self._ranked([asked[p] for p in open_places], request, wanted)
            for place, hits in zip(open_places, ranked, strict=True):
                found[place] = best_of_each(hits, field)
            open_places = [
                place
                for place, hits in zip(open_places, ranked, strict=True)
                if len(found[place]) < request.limit and len(hits) == wanted < MAX_LIMIT
            ]
            if any(ranked) and not any(found):
                _log.warning("no passage found has the field '%s' to group by", field)
        return [_numbered(hits[: request.limit]) for hits in found]

    def _one_ranking(
        self, answers: Sequence[list[ScoredPoint]], mode: SearchMode, fusion: Fusion, wanted: int
    ) -> list[ScoredPoint]:
        if mode == "hybrid":
            dense, bm25 = (*answers, [], [])[:2]  # a query of stop words has no second
            return fuse(
                dense,
                bm25,
                fusion,
                depth=max(fusion.depth, wanted),
                similarity=self._metadata.encoder.similarity,
            )
        return answers[0] if answers else []  # a query of stop words has nothing to look for

    def _of_candidates(
        self,
        answers: Sequence[list[ScoredPoint]],
        mode: SearchMode,
        payloads: Mapping[PointId, dict[str, Any]],
        fusion: Fusion,
    ) -> list[ScoredPoint]:
        """One ranking of given points; without a token in common the BM25 score is 0."""
        ranked = self._one_ranking(answers, mode, fusion, len(payloads))
        scores = {point.id: point.score for point in ranked if point.id in payloads}
        if mode == "bm25":
            scores |= {id_: 0.0 for id_ in payloads if id_ not in scores}
        return [ScoredPoint(id_, score, payloads[id_]) for id_, score in scores.items()]

    def _advise(self, chosen: models.Filter) -> Steps[None]:
        """Warn once of each field whose filter no payload index serves."""
        if not self._indexed or len(self._advised) >= _ADVISED:
            return
        if self._advised.issuperset(needed := index_advice(chosen, {})):
            return
        indexes: Mapping[str, PayloadIndex] = yield GetPayloadIndexes()
        self._advised.update(needed)
        for found in index_advice(chosen, indexes):
            _log.warning("%s", found)

    @cached_property
    def _bm25(self) -> Bm25Encoder:
        return Bm25Encoder(self._metadata.bm25)


def _queries(query: _Query, request: SearchRequest, wanted: int) -> list[PointQuery]:
    """What to ask the engine; for "hybrid" both scores of the best by either."""
    effort = request.effort(wanted)
    both = [nearest for nearest in (query.dense, query.bm25) if nearest is not None]
    if request.mode != "hybrid":
        return [PointQuery(one, wanted, effort, request.meta_filter) for one in both]
    depth = max(request.fusion.depth, wanted)
    return [
        PointQuery(
            nearest=one,
            limit=depth * len(both),
            effort=request.effort(depth),
            meta_filter=request.meta_filter,
            candidates=tuple(both),
            depth=depth,
            fields=(),  # payloads cost more than scores: they are read of the best alone
        )
        for one in both
    ]


def _one_each(query: _Query, ids: Sequence[PointId]) -> list[PointQuery]:
    """The scores of given points by each of what a query is compared by.

    Their payloads come with the scores of the model, so that both are of one collection.
    """
    both = ((query.dense, HIT_FIELDS), (query.bm25, ()))
    return [
        PointQuery(nearest, len(ids), _EXACT, ids=ids, fields=fields)
        for nearest, fields in both
        if nearest is not None and ids
    ]


def _answers(plans: Sequence[Sequence[PointQuery]]) -> Steps[list[list[list[ScoredPoint]]]]:
    """The answers to several lists of queries, asked in one batch."""
    queries = [query for plan in plans for query in plan]
    told: Iterator[list[ScoredPoint]] = iter((yield Query(queries)) if queries else ())
    return [[next(told) for _ in plan] for plan in plans]


def _with_payloads(
    asked: Sequence[_Query], rankings: Sequence[Sequence[ScoredPoint]]
) -> Steps[list[list[ScoredPoint]]]:
    """The same points with what a hit shows; one that was removed meanwhile is left out.

    They are asked for by the model's vectors: where those are not, the payloads are of another
    collection than the scores.
    """
    plans = [
        _one_each(replace(one, bm25=None), [point.id for point in ranked])
        for one, ranked in zip(asked, rankings, strict=True)
    ]
    there = [_payloads(*answers) for answers in (yield from _answers(plans))]
    return [
        [replace(p, payload=payloads[p.id]) for p in ranked if p.id in payloads]
        for ranked, payloads in zip(rankings, there, strict=True)
    ]


def _payloads(answer: Sequence[ScoredPoint] = ()) -> dict[PointId, dict[str, Any]]:
    return {point.id: point.payload for point in answer}


def _read(ids: Sequence[Sequence[PointId]]) -> Steps[list[dict[PointId, dict[str, Any]]]]:
    """Of each list of ids, those that exist, with what a hit shows."""
    payloads: Mapping[PointId, dict[str, Any]]
    payloads = yield Retrieve(list(dict.fromkeys(id_ for given in ids for id_ in given)))
    return [{id_: payloads[id_] for id_ in given if id_ in payloads} for given in ids]


def _reranked(queries: Sequence[str], found: Sequence[list[Hit]]) -> Steps[list[list[Hit]]]:
    """The same hits in the order of the cross-encoder; ties as they were."""
    pairs = [(query, hit.text) for query, hits in zip(queries, found, strict=True) for hit in hits]
    scores = iter((yield Score(pairs)).tolist() if pairs else ())
    scored = [[replace(hit, score=next(scores)) for hit in hits] for hits in found]
    return [sorted(hits, key=lambda hit: -hit.score) for hits in scored]


def _to_hits(points: Sequence[ScoredPoint]) -> list[Hit]:
    """Hits from the engine's answer, in its order.

    Raises:
        PidCollisionError: If a point was not written by this package.
        StoreCorruptError: If a point holds no text.
    """
    passages = [passage_of(point.id, point.payload) for point in points]
    return [
        Hit(rank=rank, pid=found.pid, score=point.score, text=found.text, meta=found.meta)
        for rank, (point, found) in enumerate(zip(points, passages, strict=True), start=1)
    ]


def _numbered(hits: Sequence[Hit]) -> list[Hit]:
    """The hits with the ranks that they have now."""
    return [
        hit if hit.rank == rank else replace(hit, rank=rank) for rank, hit in enumerate(hits, 1)
    ]
