"""Checks of the points of one physical collection, and their repair.

Each point has at most one fault, the first in the order below; once that is repaired, the point is
checked again. Only what is certain is repaired in place. A point whose passage cannot be restored
loses its `text_digest` instead: the next ingest of that passage then writes it again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.stores import AdminCollection, Collection
from msmarco_qdrant.stores.foreign import has_seq, pid_problem
from msmarco_qdrant.stores.payload import SeqClock

FIELDS = ("pid", "text", "meta", "text_digest", "meta_digest", "seq")
PointFault: TypeAlias = Literal[
    "foreign-point",
    "lost-pid",
    "lost-content",
    "lost-seq",
    "wrong-text-digest",
    "wrong-meta-digest",
    "bad-vector",
]
MARK = ""
"""The `text_digest` of a point that the next ingest must write again: no text has it."""

_PAGE = 100  # of texts and vectors
_MAX_ROUNDS = 4  # three kinds of fault are repaired; another client may damage a point again
_EXAMPLES = 5
_NORM_TOLERANCE = 1e-3


@dataclass(slots=True)
class FaultyPoints:
    """The points with one kind of fault: their number, some of them, and the repaired ones."""

    count: int = 0
    examples: list[str] = field(default_factory=list)
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class _Fault:
    """A fault of a point: its kind, its description, and the fields that repair or mark it."""

    kind: PointFault
    text: str
    fields: Mapping[str, Any] | None = None
    is_repair: bool = False


class PointChecker:
    """Reads every point of a collection and finds faults.

    Args:
        collection: The collection.
        admin: The same collection, to repair it.
        encoder: The encoder of its vectors.
        last_seq: The highest `seq` in use.
    """

    def __init__(
        self,
        collection: Collection,
        admin: AdminCollection,
        encoder: EncoderInfo,
        last_seq: int,
    ) -> None:
        self._collection = collection
        self._admin = admin
        self._encoder = encoder
        self._clock = SeqClock(last_seq)
        self.faults: defaultdict[PointFault, FaultyPoints] = defaultdict(FaultyPoints)

    def check(
        self, *, repair: bool, remove: bool, on_progress: Callable[[int], None] = lambda _done: None
    ) -> int:
        """Check all points page by page; returns their number.

        Args:
            repair: Repair or mark points in place.
            remove: Delete foreign points.
            on_progress: Called with the points done.
        """
        done = 0
        for page in in_batches(self._collection.scan(FIELDS), _PAGE):
            self._check_page(dict(page), repair=repair, remove=remove)
            done += len(page)
            on_progress(done)
        self._collection.flush()
        return done

    def _check_page(
        self, points: Mapping[PointId, Mapping[str, Any]], *, repair: bool, remove: bool
    ) -> None:
        """Check points, and those that were repaired again: each may have a further fault."""
        for _ in range(_MAX_ROUNDS):
            found = dict(self._find(points))
            self._count(found)
            if repair:
                self._repair(points, found)
            if remove:
                self._remove(points, found)
            repaired = [id_ for id_, fault in found.items() if fault.is_repair]
            if not repair or not repaired:
                return
            points = self._collection.retrieve(repaired, FIELDS)

    def _find(
        self, points: Mapping[PointId, Mapping[str, Any]]
    ) -> Iterator[tuple[PointId, _Fault]]:
        vectors = self._admin.dense_vectors([*points], self._encoder.vector_name)
        for id_, payload in points.items():
            fault = (
                _pid_fault(id_, payload)
                or _content_fault(payload)
                or self._seq_fault(payload)
                or _digest_fault(payload)
                or self._vector_fault(vectors.get(id_), payload)
            )
            if fault is not None:
                yield id_, fault

    def _seq_fault(self, payload: Mapping[str, Any]) -> _Fault | None:
        if has_seq(payload):
            return None
        fields = {"seq": self._clock.next()}
        return _Fault("lost-seq", f"pid {payload['pid']!r}", fields, is_repair=True)

    def _vector_fault(
        self, vector: Sequence[float] | None, payload: Mapping[str, Any]
    ) -> _Fault | None:
        problem = self._vector_problem(vector)
        if problem is None:
            return None
        return _Fault("bad-vector", f"pid {payload['pid']!r} ({problem})", {"text_digest": MARK})

    def _vector_problem(self, vector: Sequence[float] | None) -> str | None:
        if vector is None:
            return "no vector of the model"
        if len(vector) != self._encoder.dimension:
            return f"{len(vector)} dimensions"
        squares = math.fsum(float(value) ** 2 for value in vector)
        if not math.isfinite(squares):
            return "not finite"
        if self._encoder.similarity == "cosine" and abs(squares - 1) > 2 * _NORM_TOLERANCE:
            return f"length {math.sqrt(squares):.3g} instead of 1"
        return None

    def _count(self, found: Mapping[PointId, _Fault]) -> None:
        for fault in found.values():
            faulty = self.faults[fault.kind]
            faulty.count += 1
            if len(faulty.examples) < _EXAMPLES:
                faulty.examples.append(fault.text)

    def _repair(
        self, points: Mapping[PointId, Mapping[str, Any]], found: Mapping[PointId, _Fault]
    ) -> None:
        """Set the fields of faulty points, unless another client wrote them since."""
        ids = [
            id_
            for id_, fault in found.items()
            if fault.fields is not None
            and any(points[id_].get(name) != value for name, value in fault.fields.items())
        ]
        fields = [dict(found[id_].fields or {}) for id_ in ids]
        if ids:
            self._admin.set_payloads_if_seq(ids, fields, [_seq(points[id_]) for id_ in ids])
        for id_ in ids:
            self.faults[found[id_].kind].repaired += found[id_].is_repair

    def _remove(
        self, points: Mapping[PointId, Mapping[str, Any]], found: Mapping[PointId, _Fault]
    ) -> None:
        ids = [id_ for id_, fault in found.items() if fault.kind == "foreign-point"]
        if not ids:
            return
        self._admin.delete_if_seq(ids, [_seq(points[id_]) for id_ in ids])
        left = self._collection.retrieve(ids, ("pid",))
        self.faults["foreign-point"].repaired += len(ids) - len(left)


def _pid_fault(id_: PointId, payload: Mapping[str, Any]) -> _Fault | None:
    """Find a point that is not its pid's own; the pid of an integer id is certain."""
    problem = pid_problem(id_, payload)
    if problem is None:
        return None
    text, has_pid = payload.get("text"), isinstance(payload.get("pid"), str)
    is_ours = isinstance(text, str) and payload.get("text_digest") == text_digest(text)
    if is_ours and isinstance(id_, int) and not has_pid:
        return _Fault("lost-pid", f"point {id_} ({problem})", {"pid": str(id_)}, is_repair=True)
    return _Fault("foreign-point", f"point {id_} ({problem})")


def _content_fault(payload: Mapping[str, Any]) -> _Fault | None:
    missing = [
        name
        for name, kind in (("text", str), ("meta", dict))
        if not isinstance(payload.get(name), kind)
    ]
    if not missing:
        return None
    return _Fault(
        "lost-content", f"pid {payload['pid']!r} (no {missing[0]})", {"text_digest": MARK}
    )


def _digest_fault(payload: Mapping[str, Any]) -> _Fault | None:
    pid = f"pid {payload['pid']!r}"
    if payload.get("text_digest") != text_digest(payload["text"]):
        return _Fault("wrong-text-digest", pid, {"text_digest": MARK})
    digest = meta_digest(payload["meta"])
    if payload.get("meta_digest") == digest or _has_float(payload["meta"]):
        return None
    return _Fault("wrong-meta-digest", pid, {"meta_digest": digest}, is_repair=True)


def _has_float(value: object) -> bool:
    """True if a value contains a float, whose last digit an engine may have changed."""
    if isinstance(value, dict):
        return any(map(_has_float, value.values()))
    if isinstance(value, list):
        return any(map(_has_float, value))
    return isinstance(value, float)


def _seq(payload: Mapping[str, Any]) -> int | None:
    return payload["seq"] if has_seq(payload) else None
