"""Point ids, digests and payloads, deterministic on every engine, so that writes are idempotent.

A payload contains

* ``pid``: the passage's id;
* ``text``: the exact text that was encoded;
* ``meta``: the user's own fields;
* ``text_digest``, ``meta_digest``: 32 hexadecimal digits each (blake2b, 128 bits);
* ``seq``: a monotonic clock, one value per write.
"""

from __future__ import annotations

import math
import re
import threading
import time
import uuid
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msmarco_qdrant.core.collection_types import PointBatch, PointId, SparseVector
from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.fast_init import fast_init
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import OrderedPoint, ScoredPoint
from msmarco_qdrant.errors import PidCollisionError

SCHEMA_VERSION = 1
LEAST_SEQ = -(2.0**63)
"""Lower bound of every number in `seq`: a point that is not above it has none."""
SPARSE_VECTOR = "bm25"
DIGEST_FIELDS = ("pid", "text_digest", "meta_digest")
HIT_FIELDS = ("pid", "text", "meta")
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "passages.msmarco-qdrant")
"""The namespace of uuid5 for pids that are not plain numbers. It must never change."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)
_MAX_NUMBER = 2**64 - 1
_PAGE, _PAGE_OF_TEXTS = 1000, 100
_new_scored, _new_ordered = fast_init(ScoredPoint), fast_init(OrderedPoint)


def point_id(pid: str) -> PointId:
    """Return the point id of a passage.

    A pid that is the canonical decimal form of an unsigned 64-bit integer is that integer; any
    other (`007`, `-7`, a UUID) is its uuid5. Two pids never share an integer, and share a uuid5
    with a probability of 2**-122 per pair.
    """
    if _NUMBER.fullmatch(pid) and (number := int(pid)) <= _MAX_NUMBER:
        return number
    return uuid.uuid5(NAMESPACE, pid)


def payload_of(passage: Passage, seq: int) -> dict[str, Any]:
    """Return the payload of a passage's point."""
    return {
        "pid": passage.pid,
        "text": passage.text,
        "meta": passage.meta,
        "text_digest": text_digest(passage.text),
        "meta_digest": meta_digest(passage.meta),
        "seq": seq,
    }


def check_pid(pid: str, payload: Mapping[str, Any]) -> None:
    """Check that no other pid has the point of a pid.

    Raises:
        PidCollisionError: If the point belongs to another pid.
    """
    found = payload.get("pid")
    if isinstance(found, str) and found != pid:
        raise PidCollisionError(
            f"the point of pid {pid!r} has pid {found!r}: another program wrote to the collection, "
            "or two pids share an id; nothing was overwritten"
        )


def seq_bound(seq: int) -> float:
    """Return the least float64 not below a `seq`: the engines compare ranges as float64."""
    bound = float(seq)
    return bound if bound >= seq else math.nextafter(bound, math.inf)


def page_size(fields: Sequence[str]) -> int:
    """Return the number of points to read at once: a text may have a megabyte."""
    return _PAGE_OF_TEXTS if "text" in fields else _PAGE


def to_id(point: Any) -> PointId:
    """Convert a point id of an engine: an int, a UUID or the text of a UUID."""
    if type(point) is int or isinstance(point, (int, uuid.UUID)):  # the first is faster
        return point
    return uuid.UUID(point)


def to_payloads(records: Iterable[Any]) -> dict[PointId, dict[str, Any]]:
    """Return the payloads of an engine's records by point id."""
    return {
        id_ if type(id_) is int else to_id(id_): record.payload or {}
        for record in records
        for id_ in (record.id,)
    }


def to_ordered(records: Iterable[Any]) -> list[OrderedPoint]:
    """Convert an engine's records in the order of a value."""
    return [
        _new_ordered(id_ if type(id_) is int else to_id(id_), one.order_value, one.payload or {})
        for one in records
        for id_ in (one.id,)
    ]


def to_float32(vector: Sequence[float]) -> Sequence[float]:
    """Round numbers to those of float32."""
    return array("f", vector)


def to_scored(
    points: Iterable[Any],
    to_vector: Callable[[Sequence[float]], Sequence[float]] | None = to_float32,
) -> list[ScoredPoint]:
    """Convert an engine's answer to one query, which names one vector at most.

    Args:
        points: The answer.
        to_vector: Converts the numbers of a vector, which may be those of a JSON text. None to
            leave vectors out.
    """
    if to_vector is None:
        return [
            _new_scored(id_ if type(id_) is int else to_id(id_), one.score, one.payload or {})
            for one in points
            for id_ in (one.id,)
        ]
    return [
        _new_scored(
            to_id(one.id),
            one.score,
            one.payload or {},
            to_vector(next(iter(vectors.values()))) if vectors else None,
        )
        for one in points
        for vectors in (one.vector,)  # engines convert it each time
    ]


def to_dense_vectors(records: Iterable[Any], name: str) -> dict[PointId, Sequence[float]]:
    """Return the dense vectors of a name of an engine's records."""
    vectors = ((to_id(record.id), (record.vector or {}).get(name)) for record in records)
    return {id_: vector for id_, vector in vectors if vector is not None}


def to_sparse_vectors(records: Iterable[Any]) -> dict[PointId, SparseVector]:
    """Return the sparse vectors of an engine's records, tokens in ascending order."""
    found = {}
    for record in records:
        if (sparse := (record.vector or {}).get(SPARSE_VECTOR)) is not None:
            found[to_id(record.id)] = sort_tokens(sparse.indices, sparse.values)
    return found


def to_point_batch(records: Iterable[Any], using: str) -> PointBatch:
    """Return an engine's records as a batch, without those that lack one of the vectors."""
    import numpy as np

    rows = list(records)
    sparse = to_sparse_vectors(rows)
    whole = [row for row in rows if to_id(row.id) in sparse and using in row.vector]
    dense = np.array([row.vector[using] for row in whole], dtype=np.float32)
    ids = [to_id(row.id) for row in whole]
    return PointBatch(
        using=using,
        ids=ids,
        dense=dense,
        sparse=[sparse[id_] for id_ in ids],
        payloads=[row.payload or {} for row in whole],
    )


def to_all_sparse_vectors(records: Iterable[Any]) -> dict[PointId, SparseVector]:
    """Return the same with an empty vector for records without one; engines may store none."""
    rows = list(records)
    return {to_id(row.id): SparseVector([], []) for row in rows} | to_sparse_vectors(rows)


def sort_tokens(indices: Sequence[int], values: Sequence[float]) -> SparseVector:
    """Return a sparse vector with its tokens in ascending order."""
    pairs = sorted(zip(indices, values, strict=True))
    return SparseVector([index for index, _ in pairs], [value for _, value in pairs])


class SeqClock:
    """The source of `seq`: nanoseconds since 1970, but always higher than any before.

    Args:
        last: The highest number in use, in case the system clock was set back.
        now: Returns the time in nanoseconds since 1970.
    """

    def __init__(self, last: int = 0, now: Callable[[], int] = time.time_ns) -> None:
        self._last = last
        self._now = now
        self._lock = threading.Lock()

    def next(self) -> int:
        """Return a number higher than every earlier one."""
        with self._lock:
            self._last = max(self._last + 1, self._now())
            return self._last
