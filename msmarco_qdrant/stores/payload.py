"""Point ids, digests and payloads: the same on every engine, so that every write may be repeated.

A payload holds

* ``pid``: the passage's id;
* ``text``: exactly what was encoded;
* ``meta``: the user's own fields;
* ``text_digest``, ``meta_digest``: 32 hexadecimal digits each (blake2b, 128 bits);
* ``seq``: a clock that never goes back, one a write.
"""

from __future__ import annotations

import math
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from msmarco_qdrant.core.records import Passage, PointId, SparseVector, meta_digest, text_digest
from msmarco_qdrant.errors import PidCollisionError, StoreCorruptError

SCHEMA_VERSION = 1
SPARSE_VECTOR = "bm25"
DIGEST_FIELDS = ("pid", "text_digest", "meta_digest")
HIT_FIELDS = ("pid", "text", "meta")
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "passages.msmarco-qdrant")
"""Of the uuid5 that stands for a pid which is no plain number. Never change it."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)
_MAX_NUMBER = 2**64 - 1
_PAGE, _PAGE_OF_TEXTS = 1000, 100


def point_id(pid: str) -> PointId:
    """The id of the point that holds a passage.

    A pid that is the canonical decimal form of an unsigned 64-bit integer is that integer; any
    other (`007`, `-7`, a UUID) is its uuid5. Two pids never share an integer, and share a uuid5
    with a probability of 2**-122 a pair.
    """
    if _NUMBER.fullmatch(pid) and (number := int(pid)) <= _MAX_NUMBER:
        return number
    return uuid.uuid5(NAMESPACE, pid)


def payload_of(passage: Passage, seq: int) -> dict[str, Any]:
    """The payload of a passage's point."""
    return {
        "pid": passage.pid,
        "text": passage.text,
        "meta": passage.meta,
        "text_digest": text_digest(passage.text),
        "meta_digest": meta_digest(passage.meta),
        "seq": seq,
    }


def check_pid(pid: str, payload: Mapping[str, Any]) -> None:
    """Refuse to take another passage's point for this one.

    Raises:
        PidCollisionError: If the point belongs to another pid, or was not written by this package.
    """
    found = payload.get("pid")
    if found != pid:
        raise PidCollisionError(
            f"the point of pid {pid!r} holds pid {found!r}: the collection was written to by "
            "something else, or two pids share an id; nothing was overwritten"
        )


def payload_pid(id_: PointId, payload: Mapping[str, Any]) -> str:
    """The pid of a point that was found, which must be the one that its id stands for.

    Raises:
        PidCollisionError: If the point was not written by this package.
    """
    pid = payload.get("pid")
    if not isinstance(pid, str) or point_id(pid) != id_:
        raise PidCollisionError(
            f"the point {id_} holds pid {pid!r}, which is another point's: something else wrote "
            "to the collection"
        )
    return pid


def passage_of(id_: PointId, payload: Mapping[str, Any]) -> Passage:
    """The passage of a point that was found.

    Raises:
        PidCollisionError: If the point was not written by this package.
        StoreCorruptError: If its text or its meta is missing.
    """
    pid = payload_pid(id_, payload)
    text, meta = payload.get("text"), payload.get("meta")
    if not isinstance(text, str) or not isinstance(meta, dict):
        raise StoreCorruptError(
            f"the point of pid {pid!r} holds no text or no meta: something else wrote to the "
            "collection; ingest the passage again"
        )
    return Passage(pid, text, meta)


def seq_bound(seq: int) -> float:
    """The least float64 that is not under a `seq`, which ranges of the engines compare with."""
    bound = float(seq)
    return bound if bound >= seq else math.nextafter(bound, math.inf)


def page_size(fields: Sequence[str]) -> int:
    """How many points to read at once: whole texts may have a megabyte each."""
    return _PAGE_OF_TEXTS if "text" in fields else _PAGE


def sort_tokens(indices: Sequence[int], values: Sequence[float]) -> SparseVector:
    """A sparse vector as an engine gave it, whatever its order there."""
    pairs = sorted(zip(indices, values, strict=True))
    return SparseVector([index for index, _ in pairs], [value for _, value in pairs])


class SeqClock:
    """Numbers for `seq`: nanoseconds since 1970, but always higher than any before.

    Args:
        last: The highest number in use, so that a clock that was set back does no harm.
    """

    def __init__(self, last: int = 0) -> None:
        self._last = last
        self._lock = threading.Lock()

    def next(self) -> int:
        """A number higher than every earlier one."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns())
            return self._last
