"""Ranges of point ids in the order in which engines read them: numbers, then UUIDs."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from msmarco_qdrant.core.collection_types import PointId

UUIDS = 2**64
"""The position of the first UUID."""
END = UUIDS + 2**128
"""The position after the last one."""

_T = TypeVar("_T")


def id_position(id_: PointId) -> int:
    """Return the position of an id in the order of all ids that can be."""
    return id_ if isinstance(id_, int) else UUIDS + id_.int


def id_at(position: int) -> PointId:
    """Return the id of a position below `END`."""
    return position if position < UUIDS else uuid.UUID(int=position - UUIDS)


@dataclass(frozen=True, slots=True)
class IdRange:
    """The ids from one to another.

    Attributes:
        start: The first id; None for the first of all.
        stop: The id after the last; None for no bound.
    """

    start: PointId | None = None
    stop: PointId | None = None

    def until_stop(self, points: Iterable[tuple[PointId, _T]]) -> Iterator[tuple[PointId, _T]]:
        """Yield the points, which come in the order of ids, before `stop`."""
        if self.stop is None:
            return iter(points)
        stop = id_position(self.stop)
        return takewhile(lambda point: id_position(point[0]) < stop, points)
