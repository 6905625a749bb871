"""Queries on the engine, and the conversions that reads and queries share."""

from __future__ import annotations

from typing import Any

from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from tests.loopback import checks, strict
from tests.loopback.engine import Engine


def with_payload(request: Any) -> Any:
    """Which payload fields are wanted; none when the request does not say."""
    if request.with_payload.WhichOneof("selector_options") is None:
        return False
    return GrpcToRest.convert_with_payload_selector(request.with_payload)


def with_vectors(request: Any) -> Any:
    """Which vectors are wanted; none when the request does not say."""
    if request.with_vectors.WhichOneof("selector_options") is None:
        return False
    return GrpcToRest.convert_with_vectors_selector(request.with_vectors)


def filter_of(request: Any, field: str = "filter") -> models.Filter | None:
    """A filter field of a request, or None when it is not set."""
    return GrpcToRest.convert_filter(getattr(request, field)) if request.HasField(field) else None


def record(one: models.Record) -> grpc.RetrievedPoint:
    """A point as gRPC answers it: a payload that was not asked for is empty."""
    return RestToGrpc.convert_record(one.model_copy(update={"payload": one.payload or {}}))


def hits(engine: Engine, name: str, request: grpc.QueryPoints) -> list[grpc.ScoredPoint]:
    """The scored points of one query."""
    checks.query(engine, name, request)
    strict.query(engine.shelves[name], request)
    rest = GrpcToRest.convert_query_points(request)
    rest.with_payload = with_payload(request)
    rest.with_vector = with_vectors(request)
    rest.params = _known(rest.params)
    keyed, rest.shard_key = engine.shelves[name].keyed, None
    rest.filter = keyed.read(request, rest.filter)
    prefetches: Any = rest.prefetch or ()
    for prefetch in prefetches:
        prefetch.filter = keyed.read(request, prefetch.filter)
    _strip(rest.prefetch)
    if rest.query is None and not rest.offset and (ids := _only_ids(rest.filter)) is not None:
        return _read(engine, name, rest, ids)
    (answer,) = engine.client.query_batch_points(name, [rest])
    return [RestToGrpc.convert_scored_point(one) for one in answer.points]


def _only_ids(chosen: models.Filter | None) -> list[Any] | None:
    """The ids of a filter that has no other condition."""
    if chosen is None or chosen.should or chosen.must_not or chosen.min_should:
        return None
    match chosen.must:
        case [models.HasIdCondition(has_id=ids)]:
            return ids
    return None


def _read(engine: Engine, name: str, rest: Any, ids: list[Any]) -> list[grpc.ScoredPoint]:
    """Points by their ids, as a server finds them: local mode would look at every point."""
    found = engine.client.retrieve(name, ids, rest.with_payload, rest.with_vector)
    return [
        RestToGrpc.convert_scored_point(
            models.ScoredPoint(
                id=one.id, version=0, score=0, payload=one.payload, vector=one.vector
            )
        )
        for one in found[: rest.limit]
    ]


def _known(params: models.SearchParams | None) -> models.SearchParams | None:
    """The one parameter that local mode reads; it warns about the others."""
    if params is None or params.idf is None:
        return None
    return models.SearchParams(idf=params.idf)


def _strip(prefetches: Any) -> None:
    """Take the parameters that local mode warns about out of every prefetch."""
    for one in prefetches or ():
        one.params = _known(one.params)
        _strip(one.prefetch)
