"""The Points service, on the engine. The server calls it under its lock."""
# ruff: noqa: N802, ARG002  # the names and the arguments are those of the protobuf service

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from tests.loopback import checks, queries, strict
from tests.loopback.engine import Engine
from tests.loopback.statuses import Mistake, RefusalError

_BATCHED: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {
        "upsert": ("Upsert", grpc.UpsertPoints),
        "delete_points": ("Delete", grpc.DeletePoints),
        "overwrite_payload": ("OverwritePayload", grpc.SetPayloadPoints),
        "set_payload": ("SetPayload", grpc.SetPayloadPoints),
        "update_vectors": ("UpdateVectors", grpc.UpdatePointVectors),
    }
)


class PointsService(grpc.PointsServicer):
    """Writes, reads and queries of points."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _client(self) -> QdrantClient:
        return self._engine.client

    def Upsert(self, request: grpc.UpsertPoints, context: Any) -> grpc.PointsOperationResponse:
        """Insert or replace points, under a condition if one is given."""
        name = self._engine.resolve(request.collection_name)
        params = self._engine.shelves[name].config.params
        strict.upsert(self._engine.shelves[name], request)
        checks.dimensions(params, request.points)
        _refuse_empty(request.points)
        keyed = self._engine.shelves[name].keyed
        keys = keyed.written(request)
        converter: Any = GrpcToRest  # it is typed for the enum's class, not for its values
        mode = converter.convert_update_mode(request.update_mode)

        def apply() -> None:
            checks.vectors(params, request.points)
            points = [_point(point) for point in request.points]
            ids = [point.id for point in points]
            stored = [] if keys is None else self._client.retrieve(name, ids, with_payload=False)
            keyed.put(keys, ids, [one.id for one in stored])
            self._client.upsert(
                name,
                points,
                update_filter=queries.filter_of(request, "update_filter"),
                update_mode=mode,
            )

        return self._write(name, request, apply)

    def Delete(self, request: grpc.DeletePoints, context: Any) -> grpc.PointsOperationResponse:
        """Remove points by id or filter; one that is not there is no mistake."""
        name = self._engine.resolve(request.collection_name)
        strict.select(self._engine.shelves[name], request.points)
        keyed = self._engine.shelves[name].keyed
        chosen = _selector(request.points, Mistake.NO_SELECTOR)
        chosen = keyed.select(keyed.written(request), chosen)
        return self._write(name, request, lambda: self._client.delete(name, chosen))

    def UpdateVectors(
        self, request: grpc.UpdatePointVectors, context: Any
    ) -> grpc.PointsOperationResponse:
        """Replace named vectors of points that are there."""
        name = self._engine.resolve(request.collection_name)
        params = self._engine.shelves[name].config.params
        strict.upsert(self._engine.shelves[name], request, "update limit")
        _refuse_empty(request.points)
        ids = [GrpcToRest.convert_point_id(point.id) for point in request.points]
        keyed = self._engine.shelves[name].keyed
        keyed.select(keyed.written(request), models.PointIdsList(points=ids))

        def apply() -> None:
            checks.vectors(params, request.points)
            self._client.update_vectors(
                name,
                [GrpcToRest.convert_point_vectors(point) for point in request.points],
                update_filter=queries.filter_of(request, "update_filter"),
            )

        return self._write(name, request, apply)

    def OverwritePayload(
        self, request: grpc.SetPayloadPoints, context: Any
    ) -> grpc.PointsOperationResponse:
        """Replace payloads."""
        return self._write_payload(request, self._client.overwrite_payload)

    def SetPayload(
        self, request: grpc.SetPayloadPoints, context: Any
    ) -> grpc.PointsOperationResponse:
        """Set fields of payloads."""
        return self._write_payload(request, self._client.set_payload)

    def UpdateBatch(
        self, request: grpc.UpdateBatchPoints, context: Any
    ) -> grpc.UpdateBatchResponse:
        """Do several writes in order; the first that is refused ends the call."""
        self._engine.resolve(request.collection_name)
        results = []
        for operation in request.operations:
            kind = operation.WhichOneof("operation")
            if kind is None:
                raise Mistake.NO_OPERATION.refusal()
            if kind not in _BATCHED:
                raise Mistake.NOT_SERVED.refusal(rpc=f"UpdateBatch with {kind}")
            method, message = _BATCHED[kind]
            single = message(collection_name=request.collection_name, wait=request.wait)
            for field, value in getattr(operation, kind).ListFields():
                single.MergeFrom(message(**{field.name: value}))
            results.append(getattr(self, method)(single, context).result)
        return grpc.UpdateBatchResponse(result=results)

    def CreateFieldIndex(
        self, request: grpc.CreateFieldIndexCollection, context: Any
    ) -> grpc.PointsOperationResponse:
        """Keep a payload index; the same field again replaces it."""
        name = self._engine.resolve(request.collection_name)
        index = grpc.PayloadSchemaInfo(data_type=_schema_type(request))
        if request.HasField("field_index_params"):
            index.params.CopyFrom(request.field_index_params)
        self._engine.shelves[name].indexes[request.field_name] = index
        return self._index_changed(name, request)

    def DeleteFieldIndex(
        self, request: grpc.DeleteFieldIndexCollection, context: Any
    ) -> grpc.PointsOperationResponse:
        """Forget a payload index; one that is not there is no mistake."""
        name = self._engine.resolve(request.collection_name)
        self._engine.shelves[name].indexes.pop(request.field_name, None)
        return self._index_changed(name, request)

    def _index_changed(self, name: str, request: Any) -> grpc.PointsOperationResponse:
        if self._engine.shelves[name].keyed.lacks_shards(self._engine.version):
            raise Mistake.BAD_INPUT.refusal(description="Shard key not specified")
        return self._write(name, request, lambda: None)

    def Get(self, request: grpc.GetPoints, context: Any) -> grpc.GetResponse:
        """Answer points by id, those that are there."""
        name = self._engine.resolve(request.collection_name)
        records = self._client.retrieve(
            name,
            [GrpcToRest.convert_point_id(one) for one in request.ids],
            with_payload=queries.with_payload(request),
            with_vectors=queries.with_vectors(request),
        )
        found = [queries.record(one) for one in records]
        for record, answer in zip(records, found, strict=True):
            if (key := self._engine.shelves[name].keyed.key_of.get(record.id)) is not None:
                answer.shard_key.keyword = key
        return grpc.GetResponse(result=found)

    def Scroll(self, request: grpc.ScrollPoints, context: Any) -> grpc.ScrollResponse:
        """Answer a page of points, by id or in the order of an indexed field."""
        checks.limit(request)
        name = self._engine.resolve(request.collection_name)
        strict.scroll(self._engine.shelves[name], request)
        order_by = None
        if request.HasField("order_by"):
            self._engine.require_range_index(name, request.order_by.key)
            order_by = GrpcToRest.convert_order_by(request.order_by)
        offset = GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None
        records, following = self._client.scroll(
            name,
            scroll_filter=self._within(name, request),
            limit=request.limit if request.HasField("limit") else 10,
            order_by=order_by,
            offset=offset,
            with_payload=queries.with_payload(request),
            with_vectors=queries.with_vectors(request),
        )
        answer = grpc.ScrollResponse(result=[queries.record(one) for one in records])
        if following is not None:
            answer.next_page_offset.CopyFrom(RestToGrpc.convert_extended_point_id(following))
        return answer

    def Count(self, request: grpc.CountPoints, context: Any) -> grpc.CountResponse:
        """Count points, or those that fit a filter."""
        name = self._engine.resolve(request.collection_name)
        strict.count(self._engine.shelves[name], request)
        count = self._engine.count(name, self._within(name, request))
        return grpc.CountResponse(result=grpc.CountResult(count=count))

    def Facet(self, request: grpc.FacetCounts, context: Any) -> grpc.FacetResponse:
        """Count the values of an indexed key."""
        name = self._engine.resolve(request.collection_name)
        strict.facet(self._engine.shelves[name], request)
        self._engine.require_facet_index(name, request.key)
        found = self._client.facet(
            name,
            request.key,
            facet_filter=self._within(name, request),
            limit=request.limit if request.HasField("limit") else 10,
            exact=request.exact,
        )
        hits = [
            grpc.FacetHit(value=RestToGrpc.convert_facet_value(hit.value), count=hit.count)
            for hit in found.hits
        ]
        return grpc.FacetResponse(hits=hits)

    def Query(self, request: grpc.QueryPoints, context: Any) -> grpc.QueryResponse:
        """Answer one query."""
        name = self._engine.resolve(request.collection_name)
        return grpc.QueryResponse(result=queries.hits(self._engine, name, request))

    def QueryBatch(self, request: grpc.QueryBatchPoints, context: Any) -> grpc.QueryBatchResponse:
        """Answer several queries of one collection."""
        name = self._engine.resolve(request.collection_name)
        strict.batch(self._engine.shelves[name], request)
        return grpc.QueryBatchResponse(
            result=[
                grpc.BatchResult(result=queries.hits(self._engine, name, one))
                for one in request.query_points
            ]
        )

    def _within(self, name: str, request: Any) -> models.Filter | None:
        """The filter of a read, within the shards it names."""
        found = self._engine.shelves[name].keyed.read(request, queries.filter_of(request))
        return None if found is None else models.Filter.model_validate(found)

    def _write_payload(
        self, request: grpc.SetPayloadPoints, write: Callable[..., object]
    ) -> grpc.PointsOperationResponse:
        """Write the payload of selected points by a method of the local client."""
        name = self._engine.resolve(request.collection_name)
        strict.select(self._engine.shelves[name], request.points_selector)
        keyed = self._engine.shelves[name].keyed
        chosen = keyed.select(keyed.written(request), _selector(request.points_selector))
        payload = GrpcToRest.convert_payload(request.payload)
        return self._write(name, request, lambda: write(name, payload, chosen))

    def _write(
        self, name: str, request: Any, apply: Callable[[], object]
    ) -> grpc.PointsOperationResponse:
        """Apply a write and answer with its number.

        Without `wait` the real server answers once the write is in the WAL: what is wrong with it
        only when it is applied is logged there, and the client never hears of it.
        """
        shelf = self._engine.shelves[name]
        shelf.operations += 1
        shelf.optimize()
        try:
            apply()
        except (KeyError, ValueError, RefusalError):
            if request.wait:
                raise
        status = grpc.UpdateStatus.Completed if request.wait else grpc.UpdateStatus.Acknowledged
        return grpc.PointsOperationResponse(
            result=grpc.UpdateResult(operation_id=shelf.operations, status=status)
        )


def _point(point: grpc.PointStruct) -> models.PointStruct:
    """A point for local mode, which wants a vector where the server takes none."""
    if point.HasField("vectors"):
        return GrpcToRest.convert_point_struct(point)
    return models.PointStruct(
        id=GrpcToRest.convert_point_id(point.id),
        payload=GrpcToRest.convert_payload(point.payload),
        vector={},
    )


def _refuse_empty(points: Any) -> None:
    """Refuse a write of no points."""
    if not points:
        raise Mistake.EMPTY_UPDATE.refusal()


def _selector(
    selector: grpc.PointsSelector, missing: Mistake = Mistake.NO_PAYLOAD_SELECTOR
) -> models.PointsSelector:
    """Ids or a filter; a request must have one, and the ids must be some."""
    kind = selector.WhichOneof("points_selector_one_of")
    if kind is None:
        raise missing.refusal()
    if kind == "points":
        _refuse_empty(selector.points.ids)
    return GrpcToRest.convert_points_selector(selector)


def _schema_type(request: grpc.CreateFieldIndexCollection) -> Any:
    """The type of an index, from its params if those are given."""
    kind = request.field_index_params.WhichOneof("index_params")
    if kind is not None:
        return grpc.PayloadSchemaType.Value(kind.removesuffix("_index_params").capitalize())
    if request.HasField("field_type"):
        name = grpc.FieldType.Name(request.field_type).removeprefix("FieldType")
        return grpc.PayloadSchemaType.Value(name)
    raise Mistake.NO_FIELD_TYPE.refusal()
