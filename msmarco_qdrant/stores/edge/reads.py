"""Queries to a shard of Qdrant Edge: searches, and reads of given points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

import qdrant_edge

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.search_types import Nearest, PointQuery
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
    searches = [query for query in queries if not _is_read(query)]
    found = iter(_search(shard, searches))
    return [_read_points(shard, one) if _is_read(one) else next(found) for one in queries]


def _search(shard: qdrant_edge.EdgeShard, queries: Sequence[PointQuery]) -> Sequence[Sequence[Any]]:
    if not queries:
        return ()
    requests = [_request(shard, query) for query in queries]
    return shard.query_batch(qdrant_edge.QueryBatchRequest(requests))


def _request(shard: qdrant_edge.EdgeShard, query: PointQuery) -> qdrant_edge.QueryRequest:
    """Return the request of a query; the point whose vector it searches for is left out."""
    nearest = query.nearest
    if nearest is None or not isinstance(nearest.vector, int | UUID):
        return query_request(query)
    found = _read_vector(shard, nearest.vector, nearest.using)
    return query_request(replace(query, nearest=found), without=nearest.vector)


def _is_read(query: PointQuery) -> bool:
    """True for a query that only reads given points: a search for them takes four times as long."""
    return query.ids is not None and query.nearest is None and query.meta_filter is None


def _read_points(shard: qdrant_edge.EdgeShard, query: PointQuery) -> list[_Read]:
    vectors = [query.vector] if query.vector is not None else False
    ids: list[Any] = [*(query.ids or ())]
    chosen = payload_selector(query.fields)
    records = shard.retrieve(ids, with_payload=chosen, with_vector=vectors)
    return [_Read(one.id, 0.0, one.payload, one.vector) for one in records[: query.limit]]


def _read_vector(shard: qdrant_edge.EdgeShard, id_: PointId, name: str) -> Nearest:
    import numpy as np

    for one in shard.retrieve([id_], with_payload=False, with_vector=[name]):
        vectors: Any = one.vector or {}
        if to_id(one.id) == id_ and name in vectors:
            return Nearest(np.asarray(vectors[name], np.float32), name)
    raise SchemaError(f"no point {id_} with the vector '{name}'")
