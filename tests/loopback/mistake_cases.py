"""Calls that are mistakes, and the rows of the table that they are refused with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qdrant_client import QdrantClient, grpc, models

from tests.loopback.conftest import NAME, point, point_alias
from tests.loopback.statuses import Mistake

Call = Callable[[QdrantClient], object]
Fields = Mapping[str, object]
_DENSE = {"dense": models.VectorParams(size=4, distance=models.Distance.DOT)}


def _upsert(wait: bool = True, **vectors: Any) -> Call:
    made = models.PointStruct(id=9, vector=vectors, payload={})
    return lambda client: client.upsert(NAME, [made], wait=wait)


def _query(vector: list[float] | models.SparseVector, using: str | None, **more: Any) -> Call:
    return lambda client: client.query_points(NAME, query=vector, using=using, **more)


def _stub(service: str, method: str, request: Any) -> Call:
    return lambda client: getattr(getattr(client, f"grpc_{service}"), method)(request)


_LIMIT = {"field": "limit", "problem": "value 0 invalid, must be 1 or larger"}
_LONG = "x" * 256
CASES: list[tuple[str, Call, Mistake, Fields]] = [
    (
        "unnamed collection",
        lambda c: c.create_collection("", _DENSE),
        Mistake.INVALID_FIELD,
        {
            "field": "collection_name",
            "problem": 'value "" invalid, must be from 1 to 255 characters',
        },
    ),
    (
        "long name",
        lambda c: c.create_collection(_LONG, _DENSE),
        Mistake.INVALID_FIELD,
        {
            "field": "collection_name",
            "problem": f'value "{_LONG}" invalid, must be from 1 to 255 characters',
        },
    ),
    (
        "vectors of no size",
        _stub(
            "collections",
            "Create",
            grpc.CreateCollection(
                collection_name="a",
                vectors_config=grpc.VectorsConfig(params=grpc.VectorParams(size=0)),
            ),
        ),
        Mistake.INVALID_FIELD,
        {"field": "vectors_config.size", "problem": "value 0 invalid, must be from 1 to 65536"},
    ),
    (
        "second creation",
        lambda c: c.create_collection(NAME, _DENSE),
        Mistake.COLLECTION_EXISTS,
        {"name": NAME},
    ),
    (
        "creation over an alias",
        lambda c: c.create_collection("passages", _DENSE),
        Mistake.NAME_IS_ALIAS,
        {"name": "passages"},
    ),
    (
        "update of no collection",
        lambda c: c.update_collection("no", metadata={"a": 1}),
        Mistake.NO_COLLECTION,
        {"name": "no"},
    ),
    (
        "update of no vector",
        lambda c: c.update_collection(
            NAME, vectors_config={"x": models.VectorParamsDiff(on_disk=True)}
        ),
        Mistake.NO_VECTOR_NAME,
        {"name": "x"},
    ),
    (
        "update of no sparse vector",
        lambda c: c.update_collection(
            NAME, sparse_vectors_config={"x": models.SparseVectorParams()}
        ),
        Mistake.NO_VECTOR_NAME,
        {"name": "x"},
    ),
    (
        "info of no collection",
        lambda c: c.get_collection("no"),
        Mistake.NO_COLLECTION,
        {"name": "no"},
    ),
    (
        "alias for no collection",
        lambda c: point_alias(c, "a", "no"),
        Mistake.NO_COLLECTION,
        {"name": "no"},
    ),
    (
        "alias for an alias",
        lambda c: point_alias(c, "a", "passages"),
        Mistake.NO_COLLECTION,
        {"name": "passages"},
    ),
    (
        "alias of a collection's name",
        lambda c: point_alias(c, NAME, NAME),
        Mistake.COLLECTION_EXISTS,
        {"name": NAME},
    ),
    (
        "renaming no alias",
        lambda c: c.update_collection_aliases(
            [
                models.RenameAliasOperation(
                    rename_alias=models.RenameAlias(old_alias_name="no", new_alias_name="new")
                )
            ]
        ),
        Mistake.NO_ALIAS,
        {"name": "no"},
    ),
    (
        "no action on aliases",
        _stub("collections", "UpdateAliases", grpc.ChangeAliases(actions=[grpc.AliasOperations()])),
        Mistake.MALFORMED_ALIAS,
        {},
    ),
    (
        "upsert to no collection",
        lambda c: c.upsert("no", [point(1)]),
        Mistake.NO_COLLECTION,
        {"name": "no"},
    ),
    ("upsert of nothing", lambda c: c.upsert(NAME, []), Mistake.EMPTY_UPDATE, {}),
    (
        "upsert of a short vector",
        _upsert(dense=[1.0, 2.0, 3.0]),
        Mistake.WRONG_DIMENSION_OF,
        {"expected": 4, "got": 3, "name": "dense"},
    ),
    (
        "the same without waiting",
        _upsert(wait=False, dense=[1.0] * 5),
        Mistake.WRONG_DIMENSION_OF,
        {"expected": 4, "got": 5, "name": "dense"},
    ),
    ("upsert of an unknown vector", _upsert(x=[1.0] * 4), Mistake.NO_VECTOR_NAME, {"name": "x"}),
    (
        "upsert of an unnamed vector",
        lambda c: c.upsert(NAME, [models.PointStruct(id=1, vector=[1.0] * 4)]),
        Mistake.NO_VECTOR_NAME,
        {"name": ""},
    ),
    ("upsert of dense as sparse", _upsert(bm25=[1.0] * 4), Mistake.WRONG_VECTOR_KIND, {}),
    (
        "upsert of sparse as dense",
        _upsert(dense=models.SparseVector(indices=[1], values=[1.0])),
        Mistake.WRONG_VECTOR_KIND,
        {},
    ),
    (
        "upsert of NaN, which a real server stores",
        _upsert(dense=[float("nan")] * 4),
        Mistake.BAD_INPUT,
        {"description": "Vector contains NaN values"},
    ),
    ("deletion of nothing", lambda c: c.delete(NAME, []), Mistake.EMPTY_UPDATE, {}),
    (
        "deletion without a selector",
        _stub("points", "Delete", grpc.DeletePoints(collection_name=NAME)),
        Mistake.NO_SELECTOR,
        {},
    ),
    (
        "payload without a selector",
        _stub("points", "SetPayload", grpc.SetPayloadPoints(collection_name=NAME)),
        Mistake.NO_PAYLOAD_SELECTOR,
        {},
    ),
    (
        "payload of no point",
        lambda c: c.set_payload(NAME, {"a": 1}, points=[1, 99]),
        Mistake.NO_POINT,
        {"id": 99},
    ),
    (
        "vectors of no point",
        lambda c: c.update_vectors(NAME, [models.PointVectors(id=99, vector={"dense": [1.0] * 4})]),
        Mistake.NO_POINT,
        {"id": 99},
    ),
    (
        "update to a short vector",
        lambda c: c.update_vectors(NAME, [models.PointVectors(id=1, vector={"dense": [1.0] * 3})]),
        Mistake.WRONG_DIMENSION,
        {"expected": 4, "got": 3},
    ),
    (
        "batch with nothing to do",
        _stub(
            "points",
            "UpdateBatch",
            grpc.UpdateBatchPoints(collection_name=NAME, operations=[grpc.PointsUpdateOperation()]),
        ),
        Mistake.NO_OPERATION,
        {},
    ),
    (
        "batch with what is not served",
        _stub(
            "points",
            "UpdateBatch",
            grpc.UpdateBatchPoints(
                collection_name=NAME,
                operations=[
                    grpc.PointsUpdateOperation(
                        delete_vectors=grpc.PointsUpdateOperation.DeleteVectors()
                    )
                ],
            ),
        ),
        Mistake.NOT_SERVED,
        {"rpc": "UpdateBatch with delete_vectors"},
    ),
    (
        "index without a type",
        _stub(
            "points",
            "CreateFieldIndex",
            grpc.CreateFieldIndexCollection(collection_name=NAME, field_name="a"),
        ),
        Mistake.NO_FIELD_TYPE,
        {},
    ),
    ("scroll of nothing", lambda c: c.scroll(NAME, limit=0), Mistake.INVALID_FIELD, _LIMIT),
    (
        "order without an index",
        lambda c: c.scroll(NAME, order_by="seq"),
        Mistake.NO_RANGE_INDEX,
        {"key": "seq"},
    ),
    (
        "order by a keyword",
        lambda c: c.scroll(NAME, order_by="pid"),
        Mistake.NO_RANGE_INDEX,
        {"key": "pid"},
    ),
    (
        "query in no order",
        lambda c: c.query_points(
            NAME, query=models.OrderByQuery(order_by=models.OrderBy(key="seq"))
        ),
        Mistake.NO_RANGE_INDEX,
        {"key": "seq"},
    ),
    ("query for nothing", _query([1.0] * 4, "dense", limit=0), Mistake.INVALID_FIELD, _LIMIT),
    (
        "query with a short vector",
        _query([1.0] * 3, "dense"),
        Mistake.WRONG_DIMENSION,
        {"expected": 4, "got": 3},
    ),
    ("query for an unknown vector", _query([1.0] * 4, "x"), Mistake.NO_VECTOR_NAME, {"name": "x"}),
    ("query for no vector", _query([1.0] * 4, None), Mistake.NO_VECTOR_NAME, {"name": ""}),
    (
        "prefetch with a short vector",
        lambda c: c.query_points(
            NAME,
            prefetch=models.Prefetch(query=[1.0] * 3, using="dense"),
            query=models.FusionQuery(fusion=models.Fusion.RRF),
        ),
        Mistake.WRONG_DIMENSION,
        {"expected": 4, "got": 3},
    ),
    (
        "groups of nothing",
        lambda c: c.query_points_groups(NAME, "pid", query=[1.0] * 4, using="dense", group_size=0),
        Mistake.INVALID_FIELD,
        {**_LIMIT, "field": "group_size"},
    ),
    *(
        (
            f"{method} of no collection",
            _stub("points", method, message(collection_name="no")),
            Mistake.NO_COLLECTION,
            {"name": "no"},
        )
        for method, message in (
            ("Delete", grpc.DeletePoints),
            ("Get", grpc.GetPoints),
            ("Scroll", grpc.ScrollPoints),
            ("Count", grpc.CountPoints),
            ("Query", grpc.QueryPoints),
            ("QueryBatch", grpc.QueryBatchPoints),
            ("QueryGroups", grpc.QueryPointGroups),
            ("SetPayload", grpc.SetPayloadPoints),
            ("OverwritePayload", grpc.SetPayloadPoints),
            ("DeletePayload", grpc.DeletePayloadPoints),
            ("ClearPayload", grpc.ClearPayloadPoints),
            ("UpdateVectors", grpc.UpdatePointVectors),
            ("UpdateBatch", grpc.UpdateBatchPoints),
            ("CreateFieldIndex", grpc.CreateFieldIndexCollection),
            ("DeleteFieldIndex", grpc.DeleteFieldIndexCollection),
        )
    ),
]
