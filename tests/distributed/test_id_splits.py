"""Ranges of ids: all of them, none twice, of about one size, found with few requests."""

from __future__ import annotations

import bisect
import random
import uuid
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.id_ranges import END, UUIDS, IdRange, id_at, id_position
from msmarco_qdrant.distributed.id_splits import PROBED, plan_id_ranges, split_points
from msmarco_qdrant.stores.payload import point_id


class StoredIds:
    """Ids of a collection, and the number of requests for them."""

    def __init__(self, ids: Sequence[PointId]) -> None:
        self._positions = sorted(map(id_position, ids))
        self.requests = 0

    def first(self, start: PointId) -> Sequence[PointId]:
        """The first ids from one on."""
        self.requests += 1
        index = bisect.bisect_left(self._positions, id_position(start))
        return [*map(id_at, self._positions[index : index + PROBED])]

    def sizes(self, ranges: Sequence[IdRange]) -> list[int]:
        """The number of ids in each range; fails unless neighbors meet."""
        bounds = [ranges[0].start, *(one.stop for one in ranges)]
        assert [one.start for one in ranges] == bounds[:-1]
        assert (None, None) == (bounds[0], bounds[-1])
        points = [(id_at(position), None) for position in self._positions]
        found = []
        for one in ranges:
            after = points[bisect.bisect_left(self._positions, id_position(one.start or 0)) :]
            found.append(len([*one.until_stop(after)]))
        return found


def uuids(count: int) -> list[PointId]:
    """Ids of pids that are not numbers."""
    return [point_id(f"p{number}") for number in range(count)]


RNG = random.Random(1)
COLLECTIONS: dict[str, Sequence[PointId]] = {
    "dense numbers": range(50_000),
    "dense numbers from a large one on": range(10**15, 10**15 + 50_000),
    "every third number": range(0, 150_000, 3),
    "uuids": uuids(50_000),
    "both": [*range(20_000), *uuids(30_000)],
    "random numbers": [*{RNG.randrange(2**64) for _ in range(50_000)}],
    "two clusters and single ones": [
        *range(25_000),
        10**9,
        2**64 - 1,
        *range(10**18, 10**18 + 25_000),
    ],
    "dense ones hidden behind sparse ones": [
        *range(0, 10**9, 500_000),
        *range(10**9, 10**9 + 48_000),
    ],
}


@pytest.mark.parametrize("name", COLLECTIONS)
@pytest.mark.parametrize("size", [700, 6_000])
def test_ranges_have_about_one_size(name: str, size: int) -> None:
    """Also of pids that are neither dense nor uniform; each costs a few requests."""
    stored = StoredIds(COLLECTIONS[name])
    points = len(COLLECTIONS[name])
    ranges = plan_id_ranges(stored.first, points, size)
    sizes = stored.sizes(ranges)

    assert points == sum(sizes)
    assert max(sizes) <= 2.5 * size
    assert len(sizes) <= 4 * points / size + 2
    assert stored.requests <= 4 * len(sizes) + 250


@pytest.mark.parametrize("ids", [[], [0], [2**64 - 1, uuid.UUID(int=0)], [*range(250)]])
def test_a_few_points_have_ranges_of_the_exact_size(ids: Sequence[PointId]) -> None:
    """An empty collection has one, for what is written later."""
    stored = StoredIds(ids)
    sizes = stored.sizes(plan_id_ranges(stored.first, len(ids), 30))

    assert max(1, -(-len(ids) // 30)) <= len(sizes)
    assert max(sizes) <= 30


@given(
    st.lists(st.integers(0, END - 1).map(id_at), unique=True, max_size=300),
    st.integers(0, 1000),
    st.integers(1, 50),
)
def test_no_id_is_in_two_ranges_or_none(ids: list[PointId], points: int, size: int) -> None:
    """Whatever the number of points was, as it changes."""
    stored = StoredIds(ids)

    assert len(ids) == sum(stored.sizes(plan_id_ranges(stored.first, points, size)))


@given(st.integers(0, END - 1))
def test_positions_are_the_order_of_ids(position: int) -> None:
    """Numbers come first; each position has one id."""
    id_ = id_at(position)

    assert position == id_position(id_)
    assert isinstance(id_, int) == (position < UUIDS)


def test_a_worker_gets_several_splits() -> None:
    """Neither tiny nor huge ones."""
    assert (4096, 10_000, 131_072) == (
        split_points(1000, 1),
        split_points(160_000, 2),
        split_points(10**9, 8),
    )
