"""Stale passages: those of a collection that no partition of the source has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.pid_set import pid_key
from msmarco_qdrant.distributed import stale
from msmarco_qdrant.distributed.dedup import KEY_TYPE, partitions_of
from msmarco_qdrant.distributed.stale import StaleFiles, find_stale
from msmarco_qdrant.stores.payload import point_id


@pytest.mark.parametrize("partitions", [1, 7])
def test_they_are_the_difference(
    partitions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of numbers, the largest one among them, and UUIDs; a repeated attempt replaces the first."""
    monkeypatch.setattr(stale, "_CHUNK", 16)
    stored = [*map(str, range(100)), str(2**64 - 1), *(f"p-{number}" for number in range(100))]
    source = [*map(str, range(30, 200)), *(f"p-{number}" for number in range(0, 100, 3))]
    keys = np.array([pid_key(pid) for pid in source], KEY_TYPE)
    parts = partitions_of(keys, partitions)
    files = StaleFiles(tmp_path, partitions)
    files.add((point_id(pid), pid) for pid in stored)
    for number in [*range(partitions), 0]:
        halves = np.array_split(keys[parts == number], 2)
        files.put(number, find_stale(files.candidates(number), halves))
    expected: set[PointId] = {point_id(pid) for pid in {*stored} - {*source}}
    found = [*files.ids()]
    assert (expected, len(expected)) == ({*found}, len(found))


def test_without_passages_none_is_stale(tmp_path: Path) -> None:
    """Nor is one without a source: then all are."""
    files = StaleFiles(tmp_path, 1)
    files.put(0, find_stale(files.candidates(0), []))
    assert [] == [*files.ids()]
    files.add([(5, "5")])
    files.put(0, find_stale(files.candidates(0), []))
    assert [5] == [*files.ids()]
