"""Points that are not passages of this package, which readers leave out.

Any client of a server can put a point into a collection, or overwrite the payload of one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.stores.names import base_name
from msmarco_qdrant.stores.payload import point_id

_log = logging.getLogger(__name__)


def foreign_reason(id_: PointId, payload: Mapping[str, Any]) -> str | None:
    """Return the reason why a payload is not that of a passage with this id, None if it is.

    Args:
        id_: The point's id.
        payload: Its fields, `HIT_FIELDS` at least.
    """
    reason = pid_problem(id_, payload)
    if reason is not None:
        return reason
    if not isinstance(payload.get("text"), str):
        return "no text"
    return None if isinstance(payload.get("meta"), dict) else "no meta"


def pid_problem(id_: PointId, payload: Mapping[str, Any]) -> str | None:
    """Return the reason why a payload has not the pid of its point, None if it has."""
    pid = payload.get("pid")
    if pid is None:
        return "no pid"
    if not isinstance(pid, str):
        return f"pid {pid!r}, which is not a string"
    return None if point_id(pid) == id_ else f"pid {pid!r}, which belongs to another point"


def has_seq(payload: Mapping[str, Any]) -> bool:
    """True if a payload has the `seq` of a write."""
    seq = payload.get("seq")
    return isinstance(seq, int) and not isinstance(seq, bool)


class ForeignPoints:
    """The points of one collection that a reader has left out. Thread-safe.

    Args:
        collection: The collection's name, physical or not, for the warning.
        dsn: The path or URL of its store, for the warning.

    Attributes:
        dsn: As given.
        count: Number of points left out so far, repeated ones included.
    """

    def __init__(self, collection: str, dsn: str | None = None) -> None:
        self._collection = base_name(collection)
        self.dsn = dsn
        self._lock = threading.Lock()
        self.count = 0

    def add(self, id_: PointId, reason: str) -> None:
        """Count a point; log a warning for the first."""
        with self._lock:
            self.count += 1
            is_first = self.count == 1
        if is_first:
            _log.warning(
                "collection '%s' has points that are not passages, such as point %s (%s): they "
                "are left out; list them with %s",
                *(self._collection, id_, reason),
                advised_command("check", self._collection, store=self.dsn),
            )

    def passage(self, id_: PointId, payload: Mapping[str, Any]) -> Passage | None:
        """Return the passage of a stored point with `HIT_FIELDS`; count it if it has none."""
        if not self.is_passage(id_, payload):
            return None
        return Passage(payload["pid"], payload["text"], payload["meta"])

    def is_passage(self, id_: PointId, payload: Mapping[str, Any]) -> bool:
        """True if a stored point with `HIT_FIELDS` is a passage; count it if not."""
        if (
            type(id_) is int
            and payload.get("pid") == str(id_)
            and type(payload.get("text")) is str
            and type(payload.get("meta")) is dict
        ):  # most points: the checks below take three times as long
            return True
        reason = foreign_reason(id_, payload)
        if reason is not None:
            self.add(id_, reason)
        return reason is None

    def is_written(self, id_: PointId, payload: Mapping[str, Any]) -> bool:
        """True if a point has its pid and a `seq`; count it if not."""
        reason = pid_problem(id_, payload) or (None if has_seq(payload) else "no seq")
        if reason is not None:
            self.add(id_, reason)
        return reason is None
