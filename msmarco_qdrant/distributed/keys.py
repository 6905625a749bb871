"""Pass 1 and 2 of a distributed ingest: the keys of a split's passages, and which repeat one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from msmarco_qdrant.core.pid_set import pid_key
from msmarco_qdrant.core.records import EncodedPassage, Reject
from msmarco_qdrant.distributed.dedup import KEY_TYPE, find_repeats, partitions_of
from msmarco_qdrant.distributed.splits import Split, SplitCount
from msmarco_qdrant.sources.corpus import Reading
from msmarco_qdrant.sources.extents import Extent, Row, count_lines, read_extent

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK_ROWS = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class KeyChunk:
    """Keys of some passages of one split.

    Attributes:
        split: Number of the split.
        keys: `pid_key` of each, `KEY_TYPE` `(n,)`.
        rows: The row of each in the split, from 0.
    """

    split: int
    keys: NDArray[np.bytes_]
    rows: NDArray[np.uint64]


class KeyReader:
    """Reads the keys of one split.

    Args:
        split: The split.
        reading: How its files are read.
        partitions: Number of partitions of the keys.
        blocks: The tables of a split without files.
    """

    def __init__(
        self, split: Split, reading: Reading, partitions: int, blocks: Sequence[Any] = ()
    ) -> None:
        self._split = split
        self._reading = reading
        self._partitions = partitions
        self._blocks = blocks
        self._rows = self._passages = 0
        self._first_reject = ""
        self._keys: list[bytes] = []
        self._places: list[int] = []
        self._lines: list[int] = []

    def chunks(self) -> Iterator[KeyChunk]:
        """Yield the keys of some passages at a time: a chunk for each partition in turn."""
        blocks = iter(self._blocks)
        for extent in self._split.extents:
            before = self._rows
            for row in read_extent(extent, self._reading, _any_lines(extent), blocks):
                self._add(row)
                if len(self._keys) == _CHUNK_ROWS:
                    yield from self._take()
            is_lines = extent.kind == "lines"
            self._lines.append(count_lines(extent) if is_lines else self._rows - before)
        yield from self._take()

    def count(self) -> SplitCount:
        """Return the counts; call it after `chunks`."""
        return SplitCount(tuple(self._lines), self._rows, self._passages, self._first_reject)

    def _add(self, row: Row) -> None:
        if isinstance(row, Reject):
            self._first_reject = self._first_reject or f"{row.source}: {row.reason}"
        else:
            passage = row.passage if isinstance(row, EncodedPassage) else row
            self._keys.append(pid_key(passage.pid))
            self._places.append(self._rows)
            self._passages += 1
        self._rows += 1

    def _take(self) -> Iterator[KeyChunk]:
        keys = np.array(self._keys, KEY_TYPE)
        rows = np.array(self._places, np.uint64)
        self._keys, self._places = [], []
        parts = partitions_of(keys, self._partitions)
        for number in range(self._partitions):
            chosen = np.flatnonzero(parts == number)
            yield KeyChunk(self._split.number, keys[chosen], rows[chosen])


def _any_lines(extent: Extent) -> int:
    """Return a number of lines before an extent, which is not yet known."""
    return 0 if extent.is_first else 1


@dataclass(frozen=True, slots=True, eq=False)
class Repeats:
    """Rows whose pid came before them: the split and the row of each, in the source's order."""

    splits: NDArray[np.uint32]
    rows: NDArray[np.uint64]

    @classmethod
    def of(cls, chunks: Iterable[KeyChunk]) -> Repeats:
        """Find them among all chunks of a partition."""
        held: Sequence[KeyChunk] = [*chunks]
        keys = np.concatenate([np.empty(0, KEY_TYPE), *(chunk.keys for chunk in held)])
        rows = np.concatenate([np.empty(0, np.uint64), *(chunk.rows for chunk in held)])
        numbers = np.repeat(
            np.array([chunk.split for chunk in held], np.uint32),
            [len(chunk.keys) for chunk in held],
        )
        return cls(*find_repeats(keys, numbers, rows))

    def by_split(self) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """Yield the rows of each split that has some."""
        numbers, starts = np.unique(self.splits, return_index=True)
        yield from zip(numbers.tolist(), np.split(self.rows, starts[1:]), strict=False)
