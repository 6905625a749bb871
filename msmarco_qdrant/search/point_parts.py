"""Parts of points, and queries for those of given points: payloads, vectors and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.search_types import Nearest, PointQuery, ScoredPoint, SearchEffort
from msmarco_qdrant.search.step import Query, Retrieve, Steps
from msmarco_qdrant.stores.payload import HIT_FIELDS

_EXACT = SearchEffort(exact=True)


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of points to retrieve.

    Attributes:
        fields: Payload fields.
        vector: Name of the dense vector, None for none.
    """

    fields: Sequence[str] = HIT_FIELDS
    vector: str | None = None


NO_PARTS = Parts(())
ALL_PARTS = Parts()


@dataclass(frozen=True, slots=True, eq=False)
class QueryVectors:
    """Vectors of a query; None where its mode needs none or the query has none."""

    dense: Nearest | None
    bm25: Nearest | None


def score_queries(
    vectors: QueryVectors, ids: Sequence[PointId], parts: Parts = ALL_PARTS
) -> list[PointQuery]:
    """Make queries that score given points by each vector.

    Payloads come with the scores of the model, so that both are of one collection.
    """
    both = ((vectors.dense, parts), (vectors.bm25, NO_PARTS))
    return [
        PointQuery(nearest, len(ids), _EXACT, ids=ids, fields=wanted.fields, vector=wanted.vector)
        for nearest, wanted in both
        if nearest is not None and ids
    ]


def send_queries(plans: Sequence[Sequence[PointQuery]]) -> Steps[list[list[Sequence[ScoredPoint]]]]:
    """Send several lists of queries in one batch, and return the answers of each list."""
    queries = [*chain.from_iterable(plans)]
    answers: Iterator[Sequence[ScoredPoint]] = iter((yield Query(queries)) if queries else ())
    return [[*islice(answers, len(plan))] for plan in plans]


def with_parts(
    vectors: Sequence[QueryVectors],
    rankings: Sequence[Sequence[ScoredPoint]],
    parts: Parts,
) -> Steps[list[list[ScoredPoint]]]:
    """Add parts to points; omit points deleted since the first query.

    The query names the model's vectors, so that payloads and scores are of one collection. There
    is none for "bm25", where the points get payloads alone.
    """
    ids = [[point.id for point in ranked] for ranked in rankings]
    if all(one.dense is None for one in vectors):
        stored = yield from retrieve_payloads(ids)
        return [
            [replace(p, payload=payloads[p.id]) for p in ranked if p.id in payloads]
            for ranked, payloads in zip(rankings, stored, strict=True)
        ]
    plans = [
        score_queries(replace(one, bm25=None), given, parts)
        for one, given in zip(vectors, ids, strict=True)
    ]
    answers = yield from send_queries(plans)
    found = [{point.id: point for plan in each for point in plan} for each in answers]
    return [
        [replace(points[p.id], score=p.score) for p in ranked if p.id in points]
        for ranked, points in zip(rankings, found, strict=True)
    ]


def payloads_of(answer: Sequence[ScoredPoint] = ()) -> dict[PointId, dict[str, Any]]:
    """Return the payload of each point."""
    return {point.id: point.payload for point in answer}


def retrieve_payloads(
    ids: Sequence[Sequence[PointId]],
) -> Steps[list[dict[PointId, dict[str, Any]]]]:
    """Return for each list of ids the payloads of those that exist."""
    wanted = list(dict.fromkeys(id_ for given in ids for id_ in given))
    payloads: Mapping[PointId, dict[str, Any]] = (yield Retrieve(wanted)) if wanted else {}
    return [{id_: payloads[id_] for id_ in given if id_ in payloads} for given in ids]
