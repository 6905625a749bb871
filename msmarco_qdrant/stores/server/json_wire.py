"""Points as JSON bodies for REST, created from arrays: the twin of `wire`.

The client's own way builds a model of each point and prints every float with 17 digits by Python.
Here a float32 becomes the shortest float64 that reads back as the same float32, nine digits or ten,
by arithmetic on arrays; pydantic's serializer prints it. That takes a tenth of the time, and two
thirds of the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from qdrant_client import models

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import PointBatch
from msmarco_qdrant.stores.convert import select_rows
from msmarco_qdrant.stores.filters import from_id
from msmarco_qdrant.stores.payload import SPARSE_VECTOR
from msmarco_qdrant.stores.server.wire import split_sizes

MAX_BODY_BYTES = 32 * 2**20
"""The server's limit unless it is configured (service.max_request_size_mb)."""

_AROUND_BYTES = 4096  # the body around points and conditions
_CONDITION_BYTES = 256  # an id and a seq, as conditions
_BOUND_GROWTH = 6
"""A text in JSON has at most this many times its bytes in UTF-8: a control character, `\\u0001`."""

_ROWS = 256  # to convert at once
_DIGITS = 9  # of a decimal that reads back as the same float32, with any exponent
_EXPONENTS = np.arange(-150, 129)  # of a float32, in base 2
# Rounded down, so that no number has fewer digits than it needs.
_SCALES = 10.0 ** (_DIGITS - 1 - np.floor((_EXPONENTS - 1) * np.log10(2.0)))


def upsert_bodies(
    batch: PointBatch,
    *,
    max_points: int,
    max_bytes: int,
    seen: Sequence[int | None] | None = None,
    shard_key: str | None = None,
) -> Iterator[bytes]:
    """Yield the bodies of requests that write a batch; see `wire.upsert_requests`.

    Args:
        batch: Any number of points.
        max_points: The maximum of points per body.
        max_bytes: The maximum of bytes per body with more than one point.
        seen: The `seq` that each point must have to be replaced, or None.
        shard_key: The key of their shards, if the collection has such keys.
    """
    points: list[bytes] = []
    sizes = _collect(_points(batch), points)
    most = min(max_bytes, MAX_BODY_BYTES) - _AROUND_BYTES
    for start, stop in split_sizes(sizes, max_points, most):
        condition = {} if seen is None else _condition(batch.ids[start:stop], seen[start:stop])
        if shard_key is not None:
            condition["shard_key"] = shard_key
        yield _body(points[start:stop], condition)
        points[start:stop] = [b""] * (stop - start)


def split_queries(
    requests: Sequence[models.QueryRequest],
) -> Iterator[Sequence[models.QueryRequest]]:
    """Split a batch of queries into bodies within the server's limit."""
    sizes = (len(request.model_dump_json(exclude_none=True)) for request in requests)
    for start, stop in split_sizes(sizes, max(1, len(requests)), bound_bytes(MAX_BODY_BYTES)):
        yield requests[start:stop]


def bound_bytes(max_bytes: int) -> int:
    """Return the limit of bytes in UTF-8 for which JSON keeps to the server's limit."""
    return min(max_bytes, MAX_BODY_BYTES // _BOUND_GROWTH)


def shortest_doubles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the same numbers as float64 with few decimal digits.

    Args:
        values: An array of any shape.

    Returns:
        An array of the shape; its values convert to the same float32. A number that cannot have
        few digits, such as infinity, keeps its own value.
    """
    wide = values.astype(np.float64)
    _, exponents = np.frexp(wide)
    scales = _SCALES[np.clip(exponents, -150, 128) + 150]
    with np.errstate(over="ignore"):  # the largest float32 may be rounded up
        short = np.rint(wide * scales) / scales
        return np.where(short.astype(np.float32) == values, short, wide)


def _points(batch: PointBatch) -> Iterator[bytes]:
    for rows in in_batches(range(len(batch.ids)), _ROWS):
        part = select_rows(batch, rows)
        dense = shortest_doubles(np.ascontiguousarray(part.dense, dtype=np.float32)).tolist()
        flat = list(chain.from_iterable(sparse.values for sparse in part.sparse))
        values = iter(shortest_doubles(np.array(flat, dtype=np.float32)).tolist())
        for id_, row, sparse, payload in zip(
            part.ids, dense, part.sparse, part.payloads, strict=True
        ):
            indices = list(sparse.indices)
            terms = {"indices": indices, "values": list(islice(values, len(indices)))}
            vectors = {part.using: row, SPARSE_VECTOR: terms}
            yield to_json({"id": from_id(id_), "vector": vectors, "payload": payload})


def _collect(found: Iterable[bytes], points: list[bytes]) -> Iterator[int]:
    """Keep each point, and yield its size: the split reads only as far as a body reaches."""
    for point in found:
        points.append(point)
        yield len(point) + _CONDITION_BYTES


def _body(points: Sequence[bytes], condition: dict[str, Any]) -> bytes:
    around = to_json({**condition, "points": []})
    return around.removesuffix(b"]}") + b",".join(points) + b"]}"


def _condition(ids: Sequence[Any], seen: Sequence[int | None]) -> dict[str, Any]:
    """Restrict a request to points whose stored `seq` is still the one seen."""
    if seen[0] is None:
        known = {"has_id": [from_id(id_) for id_ in ids]}
        return {"update_filter": {"must_not": [known]}}
    as_seen = [
        {"must": [{"has_id": [from_id(id_)]}, {"key": "seq", "match": {"value": seq}}]}
        for id_, seq in zip(ids, seen, strict=True)
    ]
    return {"update_filter": {"should": as_seen}, "update_mode": "update_only"}
