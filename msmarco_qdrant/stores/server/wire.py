"""Points as gRPC messages, created from arrays.

`grpc.DenseVector(data=row)` converts every float to a Python object and back. Here the message is
parsed from the row's bytes instead: a packed repeated field is a sequence of little-endian values
(https://protobuf.dev/programming-guides/encoding/#packed), so a dense vector is a field's key, the
number of bytes, and those bytes. A test compares the result with qdrant-client's message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import grpc
from qdrant_client.conversions.conversion import payload_to_grpc

from msmarco_qdrant.core.collection_types import PointBatch, PointId, SparseVector
from msmarco_qdrant.stores.payload import SPARSE_VECTOR

_FLOAT32_BYTES = 4
_SPARSE_ENTRY_BYTES = 9  # a float32, and an index of up to 32 bits as a varint
_META_BYTES = 4  # for each byte as text, at most: "-1, " becomes 13 bytes, "0.5, " 11, "'', " 4
_OTHER_BYTES = 512  # ids, digests, seq and the keys of a point's fields
_CONDITION_BYTES = 96  # an id and a seq, as conditions


def upsert_requests(
    collection: str,
    batch: PointBatch,
    *,
    max_points: int,
    max_bytes: int,
    seen: Sequence[int | None] | None = None,
    shard_key: str | None = None,
) -> Iterator[grpc.UpsertPoints]:
    """Yield the requests that write a batch; each is answered when its points are durable.

    Args:
        collection: The physical collection's name.
        batch: Any number of points.
        max_points: The maximum of points per request.
        max_bytes: The maximum of bytes per request with more than one point.
        seen: The `seq` that each point must have to be replaced, or None for each if no such point
            may exist. Without it, any point is replaced.
        shard_key: The key of their shards, if the collection has such keys.

    Yields:
        Requests with `wait` set: the server answers after it has applied the points and synced
        its log.
    """
    rows = np.ascontiguousarray(batch.dense, dtype="<f4")
    condition = 0 if seen is None else _CONDITION_BYTES
    sizes = (size + condition for size in _sizes(batch))
    for start, stop in split_sizes(sizes, max_points, max_bytes):
        request = _request(collection, batch, rows, start, stop)
        if shard_key is not None:
            request.shard_key_selector.shard_keys.add(keyword=shard_key)
        if seen is not None:
            _restrict(request, batch.ids[start:stop], seen[start:stop])
        yield request


def split_sizes(sizes: Iterable[int], max_points: int, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Split a batch by count and by bytes; yield pairs of start and end.

    Args:
        sizes: The bytes of each point.
        max_points: The maximum of points per part.
        max_bytes: The maximum of bytes per part with more than one point.
    """
    start = stop = total = 0
    for stop, size in enumerate(sizes):
        if stop > start and (stop - start >= max_points or total + size > max_bytes):
            yield start, stop
            start, total = stop, 0
        total += size
    if total:
        yield start, stop + 1


def payload_bytes(payload: dict[str, Any]) -> int:
    """Return an upper bound of a point's bytes without vectors, faster than serializing it."""
    pid, text = str(payload.get("pid", "")), str(payload.get("text", ""))
    meta = payload.get("meta")
    return (
        (len(text) if text.isascii() else len(text.encode()))
        + len(pid.encode())
        + (_META_BYTES * len(str(meta).encode("utf-8", "surrogatepass")) if meta else 0)
        + _OTHER_BYTES
    )


def sparse_bytes(vector: SparseVector) -> int:
    """Return an upper bound of the bytes of a point's id and sparse vector."""
    return _OTHER_BYTES + _SPARSE_ENTRY_BYTES * len(vector.indices)


def grpc_id(point: PointId) -> grpc.PointId:
    """Return a point id as a message."""
    return grpc.PointId(num=point) if isinstance(point, int) else grpc.PointId(uuid=str(point))


def _request(
    collection: str, batch: PointBatch, rows: NDArray[np.float32], start: int, stop: int
) -> grpc.UpsertPoints:
    """Return a request with the points from `start` to `stop`, built without copies."""
    prefix = _dense_prefix(rows.shape[1])
    request = grpc.UpsertPoints(collection_name=collection, wait=True)
    for index in range(start, stop):
        point = request.points.add(
            id=grpc_id(batch.ids[index]), payload=payload_to_grpc(batch.payloads[index])
        )
        vectors = point.vectors.vectors.vectors
        vectors[batch.using].dense.MergeFromString(prefix + rows[index].tobytes())
        sparse = vectors[SPARSE_VECTOR].sparse
        sparse.indices.extend(batch.sparse[index].indices)
        sparse.values.extend(batch.sparse[index].values)
    return request


def _restrict(
    request: grpc.UpsertPoints, ids: Sequence[PointId], seen: Sequence[int | None]
) -> None:
    """Restrict a request to points whose stored `seq` is still the one seen."""
    if seen[0] is None:
        known = request.update_filter.must_not.add().has_id
        known.has_id.extend(map(grpc_id, ids))
        return
    request.update_mode = grpc.UpdateMode.UpdateOnly  # deleted points are not written
    for id_, seq in zip(ids, seen, strict=True):
        as_seen = request.update_filter.should.add().filter
        as_seen.must.add().has_id.has_id.append(grpc_id(id_))
        same = as_seen.must.add().field
        same.key, same.match.integer = "seq", seq


def _sizes(batch: PointBatch) -> Iterator[int]:
    dense = _FLOAT32_BYTES * batch.dense.shape[1]
    for sparse, payload in zip(batch.sparse, batch.payloads, strict=True):
        yield dense + _SPARSE_ENTRY_BYTES * len(sparse.indices) + payload_bytes(payload)


def _dense_prefix(dimension: int) -> bytes:
    """Return the bytes of a `DenseVector` before its floats: the field's key and length."""
    zeros: bytes = grpc.DenseVector(data=[0.0] * dimension).SerializeToString()
    return zeros[: len(zeros) - _FLOAT32_BYTES * dimension]
