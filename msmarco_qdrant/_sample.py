"""A sample of a stream of points that is the same of the same points, in whatever order."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence

from msmarco_qdrant.records import PointId

_SIZE = 64


class Sample:
    """The points whose pids have the highest digests.

    Args:
        size: How many are kept at most.
    """

    def __init__(self, size: int = _SIZE) -> None:
        self._size = size
        self._kept: list[tuple[bytes, str, PointId]] = []

    def add(self, id_: PointId, pid: str) -> None:
        """Meet a point; each once."""
        one = (hashlib.blake2b(pid.encode(), digest_size=8).digest(), pid, id_)
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, one)
        elif one > self._kept[0]:
            heapq.heapreplace(self._kept, one)

    @property
    def ids(self) -> Sequence[PointId]:
        """The points that were kept."""
        return [id_ for *_, id_ in sorted(self._kept, reverse=True)]
