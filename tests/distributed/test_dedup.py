"""First occurrences of pids, partition by partition."""

from __future__ import annotations

import random

import numpy as np
import pytest

from msmarco_qdrant.core.pid_set import PidSet, pid_key
from msmarco_qdrant.distributed.dedup import (
    KEY_TYPE,
    find_repeats,
    partition_count,
    partitions_of,
)


@pytest.mark.parametrize("partitions", [1, 3, 16])
def test_repeats_are_those_of_one_process(partitions: int) -> None:
    """Every partition, in any order of arrival, finds what a set in the source's order finds."""
    draw = random.Random(partitions)
    source = [
        (split, row, str(draw.randrange(400))) for split in range(7) for row in range(90 + split)
    ]
    seen = PidSet()
    expected = [(split, row) for split, row, pid in source if not seen.add(pid)]
    draw.shuffle(source)
    keys = np.array([pid_key(pid) for _, _, pid in source], dtype=KEY_TYPE)
    splits = np.array([split for split, _, _ in source], dtype=np.uint32)
    rows = np.array([row for _, row, _ in source], dtype=np.uint64)
    found: list[tuple[int, int]] = []
    chosen = partitions_of(keys, partitions)
    for number in range(partitions):
        own = chosen == number
        of_splits, of_rows = find_repeats(keys[own], splits[own], rows[own])
        part = list(zip(of_splits.tolist(), of_rows.tolist(), strict=True))
        assert sorted(part) == part
        found += part
    assert expected == sorted(found)


def test_an_occurrence_that_was_written_twice_is_no_repeat() -> None:
    """A task that was interrupted and started again may have written its keys twice."""
    keys = np.array([pid_key("a"), pid_key("a"), pid_key("a")], dtype=KEY_TYPE)
    splits, rows = np.array([0, 0, 1], np.uint32), np.array([4, 4, 2], np.uint64)
    found = find_repeats(keys, splits, rows)
    assert ([1], [2]) == (found[0].tolist(), found[1].tolist())


def test_keys_that_end_in_zero_bytes_are_compared_whole() -> None:
    """NumPy drops trailing zeros of byte strings when it reads them."""
    keys = np.array([b"x" * 13 + b"\0", b"x" * 12 + b"\0\0", b"x" * 13 + b"\0"], dtype=KEY_TYPE)
    found = find_repeats(keys, np.zeros(3, np.uint32), np.arange(3, dtype=np.uint64))
    assert [2] == found[1].tolist()


@pytest.mark.parametrize(("size", "expected"), [(0, 1), (1, 1), (2**27, 1), (2**30, 8)])
def test_partitions_grow_with_the_source(size: int, expected: int) -> None:
    """Each partition has the keys of at most 128 MiB of source, on average.

    So it is with the passages of a collection, however small the source is.
    """
    assert 25 == partition_count(0, stored=10_000_000)
    assert expected == partition_count(size)
