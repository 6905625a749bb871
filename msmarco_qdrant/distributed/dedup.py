"""First occurrences of pids in a source that several processes read.

The first occurrence in the source's order counts, as in an ingest by one process; the order in
which splits are read does not matter. Pass 1 reads the splits: the key of each passage goes to the
file of its partition. Pass 2 reads the files of one partition after the other, so that no process
holds all keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msmarco_qdrant.core.pid_set import KEY_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY_TYPE = np.dtype(f"S{KEY_BYTES}")
"""The NumPy type of an array of `pid_key` values."""

_PARTITION_BYTES = 128 * 2**20
_PARTITION_PASSAGES = 400_000
_HIGH_BYTES = 8


def partition_count(source_bytes: int, stored: int = 0) -> int:
    """Return the number of partitions that keeps each small.

    A partition has the keys of 128 MiB of source on average: 400,000 MS MARCO passages, which take
    about 40 MiB while they are sorted.

    Args:
        source_bytes: Size of the source.
        stored: Passages of the collection, if they are divided into the same partitions.
    """
    return max(1, -(-source_bytes // _PARTITION_BYTES), -(-stored // _PARTITION_PASSAGES))


def partitions_of(keys: NDArray[np.bytes_], partitions: int) -> NDArray[np.uint32]:
    """Return the partition of each key, `(n,)`; equal keys have the same partition.

    Args:
        keys: `pid_key` of each passage, `KEY_TYPE` `(n,)`.
        partitions: Number of partitions.
    """
    return (_halves(keys)[0] % np.uint64(partitions)).astype(np.uint32)


def find_repeats(
    keys: NDArray[np.bytes_], splits: NDArray[np.uint32], rows: NDArray[np.uint64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Find every occurrence of a key but the first in the source's order.

    Args:
        keys: All keys of a partition in any order, also with one occurrence given twice, as an
            interrupted task may have written it.
        splits: The split of each, numbered in the source's order.
        rows: The position of each in its split.

    Returns:
        The splits and rows of the repeats, in the source's order.
    """
    high, low = _halves(keys)
    order = np.lexsort((rows, splits, low, high))
    high, low, splits, rows = high[order], low[order], splits[order], rows[order]
    same_key = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    same_place = (splits[1:] == splits[:-1]) & (rows[1:] == rows[:-1])
    found = np.flatnonzero(same_key & ~same_place) + 1
    splits, rows = splits[found], rows[found]
    order = np.lexsort((rows, splits))
    return splits[order], rows[order]


def _halves(keys: NDArray[np.bytes_]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the first 8 bytes of each key and the others, as numbers."""
    raw = np.ascontiguousarray(keys, dtype=KEY_TYPE).view(np.uint8).reshape(-1, KEY_BYTES)
    low = np.zeros((len(raw), _HIGH_BYTES), dtype=np.uint8)
    low[:, : KEY_BYTES - _HIGH_BYTES] = raw[:, _HIGH_BYTES:]
    high = np.ascontiguousarray(raw[:, :_HIGH_BYTES])
    return high.view("<u8").ravel().astype(np.uint64), low.view("<u8").ravel().astype(np.uint64)
