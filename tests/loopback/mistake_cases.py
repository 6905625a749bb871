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
CASES: list[tuple[str, Call, Mistake, Fields]] = [
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
    ("scroll of nothing", lambda c: c.scroll(NAME, limit=0), Mistake.INVALID_FIELD, _LIMIT),
    (
        "order without an index",
        lambda c: c.scroll(NAME, order_by="seq"),
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
            ("UpdateVectors", grpc.UpdatePointVectors),
            ("UpdateBatch", grpc.UpdateBatchPoints),
            ("CreateFieldIndex", grpc.CreateFieldIndexCollection),
            ("DeleteFieldIndex", grpc.DeleteFieldIndexCollection),
        )
    ),
]
