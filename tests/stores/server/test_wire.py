"""Points as messages: what qdrant-client itself would send, cut into requests of a size."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from msmarco_qdrant.core.collection_types import PointBatch, PointId, SparseVector
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.stores.payload import payload_of
from msmarco_qdrant.stores.server.wire import grpc_id, upsert_requests

USING = "dense-0a1b2c3d"
DIMENSIONS = (1, 2, 31, 32, 33, 384, 768, 4096)  # of one, two and three bytes of length

ids = st.integers(0, 2**64 - 1) | st.uuids()
floats = st.floats(allow_nan=False, allow_infinity=False, width=32)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([-(2**63), 2**63 - 1, -1, 0])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=15,
)
metas = st.dictionaries(st.text(), values, max_size=5)


@st.composite
def sparse_vectors(draw: st.DrawFn) -> SparseVector:
    """Token ids in ascending order with a weight each; or none."""
    indices = sorted(draw(st.sets(st.integers(0, 2**32 - 1), max_size=8)))
    weights = draw(st.lists(floats, min_size=len(indices), max_size=len(indices)))
    return SparseVector(indices, weights)


@st.composite
def passages(draw: st.DrawFn) -> tuple[PointId, SparseVector, dict[str, Any]]:
    """What is written of a passage, but for its dense vector."""
    passage = Passage(draw(st.text(min_size=1)), draw(st.text()), draw(metas))
    return draw(ids), draw(sparse_vectors()), payload_of(passage, draw(st.integers(0, 2**63 - 1)))


@st.composite
def batches(draw: st.DrawFn, max_size: int = 12) -> PointBatch:
    """A batch of any number of points."""
    points = draw(st.lists(passages(), max_size=max_size))
    seed = draw(st.integers(0, 2**32 - 1))
    dimension = draw(st.sampled_from(DIMENSIONS))
    dense = np.random.default_rng(seed).standard_normal((len(points), dimension), np.float32)
    return batch_of(points, dense)


def batch_of(
    points: list[tuple[PointId, SparseVector, dict[str, Any]]], dense: NDArray[Any]
) -> PointBatch:
    """Points by columns."""
    return PointBatch(
        using=USING,
        ids=[id_ for id_, _, _ in points],
        dense=dense,
        sparse=[sparse for _, sparse, _ in points],
        payloads=[payload for _, _, payload in points],
    )


def plain(number: int, meta: dict[str, Any] | None = None) -> tuple[PointId, SparseVector, Any]:
    """A point of a short text."""
    passage = Passage(str(number), f"text {number}", meta or {})
    return number, SparseVector([1, 7], [0.5, 1.5]), payload_of(passage, number)


def by_the_library(batch: PointBatch) -> Iterator[grpc.PointStruct]:
    """A batch's points as qdrant-client itself makes them of its models."""
    for id_, row, sparse, payload in zip(
        batch.ids, batch.dense, batch.sparse, batch.payloads, strict=True
    ):
        vector = {
            batch.using: row.tolist(),
            "bm25": models.SparseVector(indices=sparse.indices, values=sparse.values),
        }
        yield RestToGrpc.convert_point_struct(
            models.PointStruct(
                id=id_ if isinstance(id_, int) else str(id_), vector=vector, payload=payload
            )
        )


def in_one(batch: PointBatch) -> grpc.UpsertPoints:
    """The one request that a batch becomes without limits."""
    (request,) = upsert_requests("things__0001", batch, max_points=10**9, max_bytes=10**12)
    return request


@settings(deadline=None, max_examples=30)
@given(batches())
def test_points_are_those_of_the_library(batch: PointBatch) -> None:
    """Bit by bit, whatever is in them; with `wait`, so that an answer means that they are safe."""
    expected = grpc.UpsertPoints(
        collection_name="things__0001", wait=True, points=by_the_library(batch)
    )
    if not batch.ids:
        assert [] == list(upsert_requests("c", batch, max_points=1, max_bytes=1))
        return
    assert expected == in_one(batch)
    assert expected.SerializeToString(deterministic=True) == in_one(batch).SerializeToString(
        deterministic=True
    )


@given(st.lists(floats, min_size=1, max_size=40))
def test_every_float_is_kept(row: list[float]) -> None:
    """Subnormal, negative zero, the largest: the same bits."""
    dense = np.asarray([row], np.float32)
    vectors = in_one(batch_of([plain(1)], dense)).points[0].vectors.vectors.vectors
    sent = np.asarray(vectors[USING].dense.data, np.float32)
    assert dense.tobytes() == sent.tobytes()


@pytest.mark.parametrize(
    "dense",
    [
        np.arange(24, dtype=np.float64).reshape(4, 6)[:, ::2],
        np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3)),
        np.arange(12, dtype=">f4").reshape(4, 3),
        np.arange(24, dtype=np.float32).reshape(8, 3)[::2],
        np.arange(12, dtype=np.float16).reshape(4, 3),
    ],
    ids=["float64 slice", "fortran", "big-endian", "rows apart", "float16"],
)
def test_any_layout_in_memory_will_do(dense: NDArray[Any]) -> None:
    """The bytes that are sent are those of little-endian float32 rows."""
    batch = batch_of([plain(number) for number in range(4)], dense)
    assert list(by_the_library(batch)) == list(in_one(batch).points)


def test_an_empty_sparse_vector_is_one() -> None:
    """A text of stop words has no token: the server must still see a sparse vector."""
    point = (1, SparseVector([], []), payload_of(Passage("1", "the"), 1))
    vectors = in_one(batch_of([point], np.ones((1, 3), np.float32))).points[0].vectors.vectors
    assert "sparse" == vectors.vectors["bm25"].WhichOneof("vector")


@pytest.mark.parametrize("id_", [0, 2**64 - 1, uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)])
def test_ids_are_those_of_the_library(id_: PointId) -> None:
    """Integers of 64 bits without a sign, and UUIDs."""
    expected = RestToGrpc.convert_extended_point_id(id_ if isinstance(id_, int) else str(id_))
    assert expected == grpc_id(id_)


@settings(deadline=None, max_examples=30)
@given(batches(), st.integers(1, 14), st.integers(1, 40_000))
def test_requests_keep_their_limits(batch: PointBatch, max_points: int, max_bytes: int) -> None:
    """Of points always, of bytes if there is more than one; every point once, in their order."""
    made = list(upsert_requests("things__0001", batch, max_points=max_points, max_bytes=max_bytes))
    for request in made:
        assert 1 <= len(request.points) <= max_points
        assert len(request.points) == 1 or request.ByteSize() <= max_bytes
        assert ("things__0001", True) == (request.collection_name, request.wait)
    sent = [point for request in made for point in request.points]
    assert list(by_the_library(batch)) == sent


@settings(deadline=None, max_examples=30)
@given(batches(), st.booleans(), st.integers(1, 14), st.integers(1, 40_000))
def test_requests_with_a_condition_keep_their_limits(
    batch: PointBatch, there: bool, max_points: int, max_bytes: int
) -> None:
    """The condition is counted; it names each of the request's points, and no other."""
    seen = [2**63 - 1 - row if there else None for row, _ in enumerate(batch.ids)]
    left = list(zip(batch.ids, seen, strict=True))
    for request in upsert_requests(
        "things__0001", batch, max_points=max_points, max_bytes=max_bytes, seen=seen
    ):
        assert 1 <= len(request.points) <= max_points
        assert len(request.points) == 1 or request.ByteSize() <= max_bytes
        part, left = left[: len(request.points)], left[len(request.points) :]
        assert RestToGrpc.convert_filter(as_seen(part)) == request.update_filter
        assert (grpc.UpdateMode.UpdateOnly if there else 0) == request.update_mode
    assert [] == left


def as_seen(points: list[tuple[PointId, int | None]]) -> models.Filter:
    """The condition of points that were all there, or all not."""
    ids: list[models.ExtendedPointId] = [
        one if isinstance(one, int) else str(one) for one, _ in points
    ]
    if points[0][1] is None:
        return models.Filter(must_not=[models.HasIdCondition(has_id=ids)])
    return models.Filter(
        should=[
            models.Filter(
                must=[
                    models.HasIdCondition(has_id=[id_]),
                    models.FieldCondition(key="seq", match=models.MatchValue(value=seq)),
                ]
            )
            for id_, (_, seq) in zip(ids, points, strict=True)
            if seq is not None
        ]
    )


@pytest.mark.parametrize(
    ("count", "max_points", "expected"),
    [(0, 10, []), (1, 10, [1]), (10, 10, [10]), (11, 10, [10, 1]), (25, 10, [10, 10, 5])],
)
def test_a_batch_is_cut_by_points(count: int, max_points: int, expected: list[int]) -> None:
    """Full requests, and what is left."""
    batch = batch_of([plain(number) for number in range(count)], np.ones((count, 4), np.float32))
    made = upsert_requests("c", batch, max_points=max_points, max_bytes=10**9)
    assert expected == [len(request.points) for request in made]


def test_a_batch_is_cut_by_bytes() -> None:
    """A long text fills a request of its own, between short ones that share theirs."""
    points = [plain(number) for number in range(5)]
    points[2] = (2, SparseVector([], []), payload_of(Passage("2", "x" * 100_000), 2))
    batch = batch_of(points, np.ones((5, 4), np.float32))
    made = list(upsert_requests("c", batch, max_points=10, max_bytes=50_000))
    assert [[0, 1], [2], [3, 4]] == [[point.id.num for point in request.points] for request in made]
    assert made[1].ByteSize() > 50_000


def test_requests_of_passages_are_well_filled() -> None:
    """The bytes of a point are estimated: not so carefully that requests would be half empty."""
    tokens = SparseVector([*range(40)], [1.0] * 40)
    points: list[Any] = [
        (number, tokens, payload_of(Passage(str(number), "x" * 340), 1)) for number in range(3000)
    ]
    batch = batch_of(points, np.ones((3000, 768), np.float32))
    first, *_ = upsert_requests("c", batch, max_points=10**9, max_bytes=2**20)
    assert 0.8 * 2**20 < first.ByteSize() <= 2**20


@pytest.mark.parametrize(
    "meta",
    [
        {"a": [-1] * 3000},
        {"a": [0.5] * 3000},
        {"a": [None] * 3000},
        {"a": [[]] * 3000},
        {"a": [{}] * 3000},
        {"a": [""] * 3000},
        {"a": "\u00fc\U0001f600\x00" * 3000},
        {str(number): -number for number in range(3000)},
        {"a": [[[[[[[[-1]]]]]]]] * 400},
    ],
    ids=lambda meta: str(meta)[:20],
)
def test_metas_that_grow_as_messages_are_counted_in_full(meta: dict[str, Any]) -> None:
    """A number of one digit takes more bytes as a message than as text."""
    size = in_one(batch_of([plain(1, meta)], np.ones((1, 4), np.float32))).ByteSize()
    batch = batch_of([plain(number, meta) for number in range(2)], np.ones((2, 4), np.float32))
    made = list(upsert_requests("c", batch, max_points=10, max_bytes=math.ceil(1.9 * size)))
    assert 2 == len(made)


def test_points_of_next_to_nothing_are_counted_in_full() -> None:
    """Ids, digests and the names of fields are most of them."""
    points: list[Any] = [
        (
            uuid.UUID(int=2**128 - number),
            SparseVector([2**32 - 1], [1.0]),
            payload_of(Passage(str(uuid.UUID(int=number)), "x"), 2**62),
        )
        for number in range(1, 101)
    ]
    batch = batch_of(points, np.ones((100, 4), np.float32))
    for request in upsert_requests("c" * 60, batch, max_points=100, max_bytes=10_000):
        assert request.ByteSize() <= 10_000


def test_long_pids_are_counted() -> None:
    """A URL of thousands of characters may be a pid."""
    points: list[Any] = [
        (number, SparseVector([], []), payload_of(Passage(f"{number}" * 5000, "x"), 1))
        for number in range(4)
    ]
    batch = batch_of(points, np.ones((4, 4), np.float32))
    made = list(upsert_requests("c", batch, max_points=10, max_bytes=12_000))
    assert [2, 2] == [len(request.points) for request in made]
