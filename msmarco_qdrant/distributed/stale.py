"""Passages of a collection that a source lacks, found partition by partition.

The keys of the passages that were in the collection before the ingest go to a file of the driver
per partition, before the source is read. The task that holds a partition's keys of the source
returns which of them are missing there. So no process holds all keys.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.pid_set import pid_key
from msmarco_qdrant.distributed.dedup import KEY_TYPE, partitions_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANDIDATE = np.dtype([("key", KEY_TYPE), ("high", "<u8"), ("low", "<u8"), ("is_uuid", "?")])
"""A passage of the collection: its `pid_key`, and its point id in two numbers."""

_CHUNK = 1 << 17
_LOW_BITS = 64


def find_stale(
    candidates: NDArray[np.void], keys: Iterable[NDArray[np.bytes_]]
) -> NDArray[np.void]:
    """Return the candidates whose key is not among those of the source.

    Args:
        candidates: `CANDIDATE` `(n,)`, of one partition.
        keys: Arrays of `pid_key` of the source's passages in that partition, `KEY_TYPE`.
    """
    known = np.concatenate([np.empty(0, KEY_TYPE), *keys])
    return candidates[~np.isin(candidates["key"], known)]


class StaleFiles:
    """Files of the driver for each partition: the candidates, and those that are stale.

    Args:
        folder: An empty directory.
        partitions: Number of partitions.
    """

    def __init__(self, folder: Path, partitions: int) -> None:
        self._folder = folder
        self._partitions = partitions

    def add(self, passages: Iterable[tuple[PointId, str]]) -> None:
        """Add passages of the collection by their ids and pids; some are in memory at a time."""
        found = iter(passages)
        while rows := [_row(id_, pid) for id_, pid in islice(found, _CHUNK)]:
            chunk = np.array(rows, CANDIDATE)
            parts = partitions_of(chunk["key"], self._partitions)
            for number in np.unique(parts).tolist():
                with self._candidates(number).open("ab") as file:
                    file.write(chunk[parts == number].tobytes())

    def candidates(self, number: int) -> NDArray[np.void]:
        """Return the candidates of a partition."""
        return _read(self._candidates(number))

    def put(self, number: int, stale: NDArray[np.void]) -> None:
        """Keep the stale ones of a partition, in place of those of an earlier attempt."""
        self._stale(number).write_bytes(stale.tobytes())

    def ids(self) -> Iterator[PointId]:
        """Yield the ids of all stale passages."""
        for number in range(self._partitions):
            for _, high, low, is_uuid in _read(self._stale(number)).tolist():
                yield uuid.UUID(int=high << _LOW_BITS | low) if is_uuid else low

    def _candidates(self, number: int) -> Path:
        return self._folder / f"candidates-{number}"

    def _stale(self, number: int) -> Path:
        return self._folder / f"stale-{number}"


def _row(id_: PointId, pid: str) -> tuple[bytes, int, int, bool]:
    number = id_ if isinstance(id_, int) else id_.int
    low = number & ((1 << _LOW_BITS) - 1)
    return pid_key(pid), number >> _LOW_BITS, low, not isinstance(id_, int)


def _read(path: Path) -> NDArray[np.void]:
    return np.fromfile(path, CANDIDATE) if path.exists() else np.empty(0, CANDIDATE)
