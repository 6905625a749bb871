"""Queries to a shard of Qdrant Edge: searches, and reads of given points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import qdrant_edge

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.search_types import PointQuery
from msmarco_qdrant.errors import SchemaError
from msmarco_qdrant.stores.edge.convert import payload_selector, query_request
from msmarco_qdrant.stores.payload import to_id


class _Read(NamedTuple):
    """A point that was read, in the form of one that was found."""

    id: Any
    score: float
    payload: dict[str, Any] | None
    vector: Any


def search_points(
    shard: qdrant_edge.EdgeShard, queries: Sequence[PointQuery]
) -> Sequence[Sequence[Any]]:
    """Return the points that answer each query, as the engine has them.

    Raises:
        SchemaError: For a query by the vector of a point that does not exist.
    """
    requests, later, reads = [], {}, {}
    for place, query in enumerate(queries):
        if query.nearest is None and query.ids is not None and query.meta_filter is None:
            reads[place] = _read_points(shard, query)  # a search for them takes four times as long
        elif (
            query.diversity is not None and (found := _find_candidates(query, queries)) is not None
        ):
            later[place] = found
        else:
            requests.append(_request(shard, query))
    answers = shard.query_batch(qdrant_edge.QueryBatchRequest(requests)) if requests else ()
    if not reads and not later:
        return answers
    others = iter(answers)
    known: dict[int, Sequence[Any]] = {
        place: reads[place] if place in reads else next(others)
        for place in range(len(queries))
        if place not in later
    }
    for place, source in later.items():
        known[place] = _order_candidates(shard, queries[place], known[source])
    return [known[place] for place in range(len(queries))]


def _find_candidates(query: PointQuery, queries: Sequence[PointQuery]) -> int | None:
    """Return the place of a query that finds the points that another one orders by diversity."""
    wanted = query.nearest, query.effort, query.meta_filter, query.ids
    for place, one in enumerate(queries):
        is_plain = one.diversity is None and one.score_threshold is None and not one.candidates
        is_whole = one.limit > query.depth and not one.offset
        is_same = wanted == (one.nearest, one.effort, one.meta_filter, one.ids)
        if is_plain and is_whole and is_same:
            return place
    return None


def _order_candidates(
    shard: qdrant_edge.EdgeShard, query: PointQuery, candidates: Sequence[Any]
) -> Sequence[Any]:
    """Answer a query by diversity among these points: finding them again takes as long again."""
    ids = [one.id for one in candidates[: query.depth]]
    return shard.query(_request(shard, query, ids)) if ids else ()


def _request(
    shard: qdrant_edge.EdgeShard, query: PointQuery, among: Sequence[Any] | None = None
) -> qdrant_edge.QueryRequest:
    """Return the request of a query; the point whose vector it searches for is left out."""
    nearest = query.nearest
    if nearest is None or not isinstance(nearest.vector, int | UUID):
        return query_request(query, among=among)
    return query_request(query, _read_vector(shard, nearest.vector, nearest.using), among)


def _read_points(shard: qdrant_edge.EdgeShard, query: PointQuery) -> list[_Read]:
    vectors = [query.vector] if query.vector is not None else False
    ids: list[Any] = [*(query.ids or ())]
    chosen = payload_selector(query.fields)
    records = shard.retrieve(ids, with_payload=chosen, with_vector=vectors)
    return [_Read(one.id, 0.0, one.payload, one.vector) for one in records[: query.limit]]


def _read_vector(shard: qdrant_edge.EdgeShard, id_: PointId, name: str) -> Sequence[float]:
    for one in shard.retrieve([id_], with_payload=False, with_vector=[name]):
        vectors: Any = one.vector or {}
        if to_id(one.id) == id_ and name in vectors:
            found: Sequence[float] = vectors[name]
            return found
    raise SchemaError(f"no point {id_} with the vector '{name}'")
