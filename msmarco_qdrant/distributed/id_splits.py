"""Splits of a collection: ranges of point ids with about the same number of points. Without I/O.

Engines count no ids in a range, but return the first ones from any id on. So a range is halved as
long as the density of its first points promises more than a split's worth. Pids that are numbers
are mostly dense, and uuid5 are uniform, so a few requests are enough for each split. A wrong
estimate makes a split larger or smaller; no id is left out, and none is in two splits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.id_ranges import END, UUIDS, IdRange, id_at, id_position

PROBED = 100
"""Number of ids that a `FirstIds` returns."""

FirstIds: TypeAlias = Callable[[PointId], Sequence[PointId]]
"""Returns the first `PROBED` stored ids from an id on, fewer only if these are all."""

_SPLITS_PER_WORKER = 8  # so that the last ones end at about the same time
_SMALLEST, _LARGEST = 4096, 131_072


def split_points(points: int, workers: int) -> int:
    """Return the points of a split: several for each worker, but neither tiny nor huge."""
    wanted = points // (max(1, workers) * _SPLITS_PER_WORKER)
    return min(max(wanted, _SMALLEST), _LARGEST)


def plan_id_ranges(first_ids: FirstIds, points: int, size: int) -> list[IdRange]:
    """Divide all ids into neighboring ranges.

    Args:
        first_ids: Reads stored ids.
        points: Number of points, about.
        size: Points of a range, about.

    Returns:
        The ranges in the order of ids; the first and the last have no bound.
    """
    most = 4 * (points // size) + 64
    segments = [*_read(first_ids, 0, UUIDS), *_read(first_ids, UUIDS, END)]
    while len(segments) < most:
        found = [segment.estimate(points) for segment in segments]
        is_low = 2 * sum(found) < points  # points hide behind the sparse start of a segment
        chosen = [
            not segment.is_whole and (is_low or estimate > size)
            for segment, estimate in zip(segments, found, strict=True)
        ]
        if not any(chosen):
            break
        segments = [
            part
            for segment, is_halved in zip(segments, chosen, strict=True)
            for part in (segment.halves(first_ids) if is_halved else (segment,))
        ]
    bounds = [None, *map(id_at, _cuts(segments, points, size)), None]
    return [IdRange(start, stop) for start, stop in itertools.pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class _Segment:
    """Positions from that of a point on.

    Attributes:
        first: Positions of the first points, at least one.
        stop: The position after the last.
        is_whole: True if these are all its points.
    """

    first: tuple[int, ...]
    stop: int
    is_whole: bool

    def estimate(self, most: int) -> int:
        """Estimate the number of points by the density of the first ones."""
        if self.is_whole:
            return len(self.first)
        width = self.first[-1] - self.first[0] + 1
        return min(most, len(self.first) * (self.stop - self.first[0]) // width)

    def halves(self, first_ids: FirstIds) -> Iterator[_Segment]:
        """Yield the halves that have points."""
        middle = (self.first[0] + self.stop) // 2
        inside = tuple(position for position in self.first if position < middle)
        yield _Segment(inside, middle, is_whole=len(inside) < len(self.first))
        yield from _read(first_ids, middle, self.stop)

    def pieces(self, most: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield places to cut at, and the points from each to the next."""
        if not self.is_whole:
            yield self.first[0], self.estimate(most)
            return
        for start in range(0, len(self.first), size):
            yield self.first[start], len(self.first[start : start + size])


def _read(first_ids: FirstIds, start: int, stop: int) -> Iterator[_Segment]:
    """Yield the segment of all points between two positions, if there are any."""
    found = [id_position(id_) for id_ in first_ids(id_at(start))]
    inside = tuple(position for position in found if position < stop)
    if inside:
        is_whole = len(inside) < len(found) or len(found) < PROBED
        yield _Segment(inside, stop, is_whole)


def _cuts(segments: Sequence[_Segment], points: int, size: int) -> Iterator[int]:
    """Yield the positions at which ranges begin, but for the first."""
    held = 0
    for segment in segments:
        for position, weight in segment.pieces(points, size):
            if held and held + weight > size:
                yield position
                held = 0
            held += weight
