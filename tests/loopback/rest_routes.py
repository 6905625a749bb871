"""The REST endpoints of the server: JSON bodies to the messages of its gRPC calls, answers back.

A route names the call that it stands for: the key's rights, faults and the record of requests are
those of the call, whichever way it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from pydantic import TypeAdapter, ValidationError
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import (
    GrpcToRest,
    RestToGrpc,
    grpc_payload_schema_to_field_type,
)
from qdrant_client.http.models import QueryResponse

from tests.loopback.snapshots_service import Download, read_upload
from tests.loopback.statuses import Mistake

_CONVERT: Any = RestToGrpc  # it is typed for generated classes, not for their values


class RestRequest(NamedTuple):
    """An HTTP request: the variables of its path, its query string, and its body."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    headers: Mapping[str, str]


class RestAnswer(NamedTuple):
    """An answer that is not JSON with `result`: its body as it is sent."""

    body: bytes
    content_type: str = "text/plain"
    status: int = 200


class Route(NamedTuple):
    """An endpoint.

    Attributes:
        method: of HTTP.
        pattern: its path; a segment in braces is a variable.
        rpc: the call that it stands for, as in `FaultPlan.inject`.
        decode: the call's message for a request.
        encode: the `result` of the JSON answer for the call's answer, or a `RestAnswer`.
        limited: whether the server's limit of a JSON body applies.
    """

    method: str
    pattern: str
    rpc: str
    decode: Callable[[RestRequest], Any]
    encode: Callable[[Any], Any]
    limited: bool = True

    def match(self, method: str, path: str) -> Mapping[str, str] | None:
        """The variables of a path, or None when it is not this route's."""
        wanted, found = self.pattern.split("/"), path.split("/")
        if method != self.method or len(wanted) != len(found):
            return None
        pairs = list(zip(wanted, map(unquote, found), strict=True))
        if any(form != text for form, text in pairs if not form.startswith("{")):
            return None
        return {form[1:-1]: text for form, text in pairs if form.startswith("{")}


def _body(kind: Any, request: RestRequest) -> Any:
    """The body as a model; a body that does not fit is the server's 400."""
    try:
        return TypeAdapter(kind).validate_json(request.body)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{first['msg']} at {'.'.join(map(str, first['loc']))}"
        raise Mistake.BAD_JSON.refusal(problem=problem) from error


def _common(request: RestRequest) -> dict[str, Any]:
    """The fields that come in the path and in the query string."""
    found: dict[str, Any] = {"collection_name": request.path["name"]}
    if "wait" in request.query:
        found["wait"] = request.query["wait"] == "true"
    if "timeout" in request.query:
        found["timeout"] = int(request.query["timeout"])
    if "ordering" in request.query:
        found["ordering"] = _CONVERT.convert_write_ordering(
            models.WriteOrdering(request.query["ordering"])
        )
    if (consistency := request.query.get("consistency")) is not None:
        factor: Any = int(consistency) if consistency.isdigit() else None
        found["read_consistency"] = _CONVERT.convert_read_consistency(
            factor or models.ReadConsistencyType(consistency)
        )
    return found


def _optional(convert: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else convert(value)


def _keys(model: Any) -> Any:
    return _optional(_CONVERT.convert_shard_key_selector, model)


def _filter(model: Any) -> Any:
    return _optional(_CONVERT.convert_filter, model)


def _payload_wanted(model: Any) -> Any:
    return _optional(_CONVERT.convert_with_payload_interface, model)


def _vectors_wanted(model: Any) -> Any:
    return _optional(_CONVERT.convert_with_vectors, model)


def _upsert(request: RestRequest) -> Any:
    body = _body(models.PointInsertOperations, request)
    return grpc.UpsertPoints(
        **_common(request),
        points=_CONVERT.convert_point_insert_operation(body),
        update_filter=_filter(body.update_filter),
        update_mode=_optional(_CONVERT.convert_update_mode, body.update_mode),
        shard_key_selector=_keys(body.shard_key),
    )


def _delete_points(request: RestRequest) -> Any:
    chosen = _body(models.PointsSelector, request)
    return grpc.DeletePoints(
        **_common(request),
        points=_CONVERT.convert_points_selector(chosen),
        shard_key_selector=_keys(chosen.shard_key),
    )


def _update_vectors(request: RestRequest) -> Any:
    body = _body(models.UpdateVectors, request)
    return grpc.UpdatePointVectors(
        **_common(request),
        points=list(map(_CONVERT.convert_point_vectors, body.points)),
        update_filter=_filter(body.update_filter),
        shard_key_selector=_keys(body.shard_key),
    )


def _overwrite_payload(request: RestRequest) -> Any:
    body = _body(models.SetPayload, request)
    chosen: Any = None
    if body.points is not None:
        chosen = models.PointIdsList(points=body.points)
    elif body.filter is not None:
        chosen = models.FilterSelector(filter=body.filter)
    return grpc.SetPayloadPoints(
        **_common(request),
        payload=_CONVERT.convert_payload(body.payload),
        points_selector=_optional(_CONVERT.convert_points_selector, chosen),
        key=body.key,
        shard_key_selector=_keys(body.shard_key),
    )


def _update_batch(request: RestRequest) -> Any:
    body = _body(models.UpdateOperations, request)
    operations = list(map(_CONVERT.convert_update_operation, body.operations))
    return grpc.UpdateBatchPoints(**_common(request), operations=operations)


def _get_points(request: RestRequest) -> Any:
    body = _body(models.PointRequest, request)
    return grpc.GetPoints(
        **_common(request),
        ids=list(map(_CONVERT.convert_extended_point_id, body.ids)),
        # REST's default is the payload, gRPC's is none
        with_payload=_payload_wanted(True if body.with_payload is None else body.with_payload),
        with_vectors=_vectors_wanted(body.with_vector),
    )


def _scroll(request: RestRequest) -> Any:
    body = _body(models.ScrollRequest, request)
    return grpc.ScrollPoints(
        **_common(request),
        filter=_filter(body.filter),
        limit=body.limit,
        offset=_optional(_CONVERT.convert_extended_point_id, body.offset),
        order_by=_optional(_CONVERT.convert_order_by_interface, body.order_by),
        shard_key_selector=_keys(body.shard_key),
        with_payload=_payload_wanted(True if body.with_payload is None else body.with_payload),
        with_vectors=_vectors_wanted(body.with_vector),
    )


def _count(request: RestRequest) -> Any:
    body = _body(models.CountRequest, request)
    return grpc.CountPoints(
        **_common(request),
        filter=_filter(body.filter),
        exact=body.exact,
        shard_key_selector=_keys(body.shard_key),
    )


def _facet(request: RestRequest) -> Any:
    body = _body(models.FacetRequest, request)
    return grpc.FacetCounts(
        **_common(request),
        key=body.key,
        filter=_filter(body.filter),
        limit=body.limit,
        exact=body.exact,
        shard_key_selector=_keys(body.shard_key),
    )


def _facets(answer: Any) -> Any:
    hits = map(GrpcToRest.convert_facet_value_hit, answer.hits)
    return {"hits": [hit.model_dump() for hit in hits]}


def _query(request: RestRequest) -> Any:
    return _query_points(request, _body(models.QueryRequest, request))


def _query_batch(request: RestRequest) -> Any:
    body = _body(models.QueryRequestBatch, request)
    searches = [_query_points(request, one) for one in body.searches]
    return grpc.QueryBatchPoints(**_common(request), query_points=searches)


def _query_points(request: RestRequest, model: models.QueryRequest) -> Any:
    message = _CONVERT.convert_query_request(model, request.path["name"])
    common = _common(request)
    if "read_consistency" in common:
        message.read_consistency.CopyFrom(common["read_consistency"])
    return message


def _create_collection(request: RestRequest) -> Any:
    body = _body(models.CreateCollection, request)
    return grpc.CreateCollection(
        **_common(request),
        vectors_config=_optional(_CONVERT.convert_vectors_config, body.vectors),
        sparse_vectors_config=_optional(_CONVERT.convert_sparse_vector_config, body.sparse_vectors),
        hnsw_config=_optional(_CONVERT.convert_hnsw_config_diff, body.hnsw_config),
        wal_config=_optional(_CONVERT.convert_wal_config_diff, body.wal_config),
        optimizers_config=_optional(
            _CONVERT.convert_optimizers_config_diff, body.optimizers_config
        ),
        quantization_config=_optional(
            _CONVERT.convert_quantization_config, body.quantization_config
        ),
        strict_mode_config=_optional(_CONVERT.convert_strict_mode_config, body.strict_mode_config),
        metadata=_optional(_CONVERT.convert_payload, body.metadata),
        shard_number=body.shard_number,
        on_disk_payload=body.on_disk_payload,
        replication_factor=body.replication_factor,
        write_consistency_factor=body.write_consistency_factor,
        sharding_method=_optional(_CONVERT.convert_sharding_method, body.sharding_method),
    )


def _create_shard_key(request: RestRequest) -> Any:
    body = _body(models.CreateShardingKey, request)
    key: Any = grpc.CreateShardKey(shard_key=_CONVERT.convert_shard_key(body.shard_key))
    return grpc.CreateShardKeyRequest(**_common(request), request=key)


def _update_collection(request: RestRequest) -> Any:
    body = _body(models.UpdateCollection, request)
    return _CONVERT.convert_update_collection(body, request.path["name"])


def _update_aliases(request: RestRequest) -> Any:
    body = _body(models.ChangeAliasesOperation, request)
    return grpc.ChangeAliases(actions=list(map(_CONVERT.convert_alias_operations, body.actions)))


def _create_index(request: RestRequest) -> Any:
    body = _body(models.CreateFieldIndex, request)
    message: Any = grpc.CreateFieldIndexCollection(**_common(request), field_name=body.field_name)
    if isinstance(body.field_schema, models.PayloadSchemaType):
        kind = _CONVERT.convert_payload_schema_type(body.field_schema)
        message.field_type = grpc_payload_schema_to_field_type(kind)
    elif body.field_schema is not None:
        params = _CONVERT.convert_payload_schema_params(body.field_schema)
        message.field_index_params.CopyFrom(params)
    return message


def _delete_index(request: RestRequest) -> Any:
    return grpc.DeleteFieldIndexCollection(**_common(request), field_name=request.path["field"])


def _named(kind: Any) -> Callable[[RestRequest], Any]:
    """A message with the collection's name alone."""
    return lambda request: kind(**_common(request))


def _empty(kind: Any) -> Callable[[RestRequest], Any]:
    """A message without fields."""
    return lambda _: kind()


def _update_result(answer: Any) -> Any:
    return GrpcToRest.convert_update_result(answer.result)


def _result(answer: Any) -> Any:
    """The answers of the Collections service: true or false."""
    return answer.result


def _records(answer: Any) -> Any:
    return list(map(GrpcToRest.convert_retrieved_point, answer.result))


def _page(answer: Any) -> Any:
    following = answer.next_page_offset if answer.HasField("next_page_offset") else None
    return models.ScrollResult(
        points=_records(answer), next_page_offset=_optional(GrpcToRest.convert_point_id, following)
    )


def _hits(answer: Any) -> Any:
    return QueryResponse(points=list(map(GrpcToRest.convert_scored_point, answer.result)))


def _version(answer: Any) -> RestAnswer:
    """The one JSON answer without `result`."""
    info = GrpcToRest.convert_health_check_reply(answer)
    return RestAnswer(info.model_dump_json(exclude_none=True).encode(), "application/json")


def _plain(text: str) -> Callable[[Any], RestAnswer]:
    return lambda _: RestAnswer(text.encode())


def _create_snapshot(request: RestRequest) -> Any:
    return grpc.CreateSnapshotRequest(collection_name=request.path["name"])


def _as_is(answer: Any) -> Any:
    return answer


def _cluster(answer: Any) -> Any:
    """What one node tells of a collection's shards."""
    return {
        "peer_id": answer.peer_id,
        "shard_count": answer.shard_count,
        "local_shards": [
            {
                "shard_id": one.shard_id,
                "points_count": one.points_count,
                "state": grpc.ReplicaState.Name(one.state),
                **({"shard_key": one.shard_key.keyword} if one.HasField("shard_key") else {}),
            }
            for one in answer.local_shards
        ],
        "remote_shards": [
            {
                "shard_id": one.shard_id,
                "peer_id": one.peer_id,
                "state": grpc.ReplicaState.Name(one.state),
            }
            for one in answer.remote_shards
        ],
        "shard_transfers": [],
    }


_HEALTH = _empty(grpc.HealthCheckRequest)
_ONE, _POINTS = "/collections/{name}", "/collections/{name}/points"
_SNAPSHOTS = "/collections/{name}/snapshots"
ROUTES = (
    Route("GET", "/", "Qdrant.HealthCheck", _HEALTH, _version),
    Route("GET", "/healthz", "Qdrant.HealthCheck", _HEALTH, _plain("healthz check passed")),
    Route("GET", "/livez", "Qdrant.HealthCheck", _HEALTH, _plain("healthz check passed")),
    Route("GET", "/readyz", "Qdrant.HealthCheck", _HEALTH, _plain("all shards are ready")),
    Route(
        "GET",
        "/collections",
        "Collections.List",
        _empty(grpc.ListCollectionsRequest),
        lambda answer: {"collections": [{"name": one.name} for one in answer.collections]},
    ),
    Route(
        "GET",
        "/aliases",
        "Collections.ListAliases",
        _empty(grpc.ListAliasesRequest),
        lambda answer: {"aliases": list(map(GrpcToRest.convert_alias_description, answer.aliases))},
    ),
    # before the collection named "aliases", as in the server
    Route("POST", "/collections/aliases", "Collections.UpdateAliases", _update_aliases, _result),
    Route(
        "GET",
        f"{_ONE}/exists",
        "Collections.CollectionExists",
        _named(grpc.CollectionExistsRequest),
        lambda answer: {"exists": answer.result.exists},
    ),
    Route(
        "GET",
        _ONE,
        "Collections.Get",
        _named(grpc.GetCollectionInfoRequest),
        lambda answer: GrpcToRest.convert_collection_info(answer.result),
    ),
    Route(
        "GET",
        f"{_ONE}/cluster",
        "Collections.CollectionClusterInfo",
        _named(grpc.CollectionClusterInfoRequest),
        _cluster,
    ),
    Route("POST", _SNAPSHOTS, "Snapshots.create", _create_snapshot, _as_is),
    Route("GET", _SNAPSHOTS, "Snapshots.list", _named(grpc.ListSnapshotsRequest), _as_is),
    Route(
        "DELETE",
        f"{_SNAPSHOTS}/{{snapshot}}",
        "Snapshots.delete",
        lambda request: grpc.DeleteSnapshotRequest(
            collection_name=request.path["name"], snapshot_name=request.path["snapshot"]
        ),
        _as_is,
    ),
    Route(
        "GET",
        f"{_SNAPSHOTS}/{{snapshot}}",
        "Snapshots.download",
        lambda request: Download(request.path["name"], request.path["snapshot"]),
        lambda content: RestAnswer(content, "application/octet-stream"),
    ),
    Route(
        "POST",
        f"{_SNAPSHOTS}/upload",
        "Snapshots.upload",
        lambda request: read_upload(request.path, request.query, request.headers, request.body),
        _as_is,
        limited=False,
    ),
    Route("PUT", _ONE, "Collections.Create", _create_collection, _result),
    Route("PUT", f"{_ONE}/shards", "Collections.CreateShardKey", _create_shard_key, _result),
    Route("PATCH", _ONE, "Collections.Update", _update_collection, _result),
    Route("DELETE", _ONE, "Collections.Delete", _named(grpc.DeleteCollection), _result),
    Route("PUT", f"{_ONE}/index", "Points.CreateFieldIndex", _create_index, _update_result),
    Route(
        "DELETE",
        f"{_ONE}/index/{{field}}",
        "Points.DeleteFieldIndex",
        _delete_index,
        _update_result,
    ),
    Route("PUT", _POINTS, "Points.Upsert", _upsert, _update_result),
    Route("POST", _POINTS, "Points.Get", _get_points, _records),
    Route("POST", f"{_POINTS}/scroll", "Points.Scroll", _scroll, _page),
    Route(
        "POST",
        f"{_POINTS}/count",
        "Points.Count",
        _count,
        lambda answer: {"count": answer.result.count},
    ),
    Route("POST", f"{_ONE}/facet", "Points.Facet", _facet, _facets),
    Route("POST", f"{_POINTS}/delete", "Points.Delete", _delete_points, _update_result),
    Route("PUT", f"{_POINTS}/vectors", "Points.UpdateVectors", _update_vectors, _update_result),
    Route(
        "PUT", f"{_POINTS}/payload", "Points.OverwritePayload", _overwrite_payload, _update_result
    ),
    Route(
        "POST",
        f"{_POINTS}/batch",
        "Points.UpdateBatch",
        _update_batch,
        lambda answer: list(map(GrpcToRest.convert_update_result, answer.result)),
    ),
    Route("POST", f"{_POINTS}/query", "Points.Query", _query, _hits),
    Route(
        "POST",
        f"{_POINTS}/query/batch",
        "Points.QueryBatch",
        _query_batch,
        lambda answer: list(map(_hits, answer.result)),
    ),
)
