"""Splits of a source: parts of about one size, numbered in the source's order. Without I/O."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msmarco_qdrant.sources.extents import Extent, SourceFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SPLITS_PER_WORKER = 8  # so that the last ones end at about the same time
_SMALLEST, _LARGEST = 4 * 2**20, 256 * 2**20
_MAX_KEY_ARRAYS = 200_000  # a driver of Ray keeps some bytes for each


@dataclass(frozen=True, slots=True)
class Split:
    """Some neighboring rows of a source, read by one task.

    Attributes:
        number: Its number in the source's order, from 0.
        extents: The parts of files that it covers.
    """

    number: int
    extents: tuple[Extent, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return sum(extent.bytes for extent in self.extents)


@dataclass(frozen=True, slots=True)
class SplitCount:
    """Rows of a split, counted by pass 1.

    Attributes:
        lines: Lines, or rows of Parquet, of each extent, empty lines included.
        rows: Rows of all extents: passages and rejects.
        passages: Passages among them.
        first_reject: File and reason of the first reject, "" without one.
    """

    lines: tuple[int, ...]
    rows: int
    passages: int
    first_reject: str


@dataclass(frozen=True, slots=True, eq=False)
class CountedSplit:
    """A split, and what was counted of it.

    Attributes:
        split: The split.
        lines_before: For each extent, the lines or rows of its file before it.
        rows: Number of its rows.
        repeats: Its rows whose pid came before them, in ascending order.
    """

    split: Split
    lines_before: Sequence[int]
    rows: int
    repeats: NDArray[np.uint64]

    def extents(self) -> Iterator[tuple[Extent, int]]:
        """Yield each extent, and the lines or rows of its file before it."""
        return zip(self.split.extents, self.lines_before, strict=True)


def split_size(source_bytes: int, workers: int) -> int:
    """Return the bytes of a split: several for each worker, but neither tiny nor huge."""
    wanted = source_bytes // (max(1, workers) * _SPLITS_PER_WORKER)
    return min(max(wanted, _SMALLEST), _LARGEST)


def plan_splits(
    files: Sequence[SourceFile], size: int, next_line: Callable[[str, int], int]
) -> list[Split]:
    """Cut files into splits. The same files and size give the same splits.

    Args:
        files: The files in their order.
        size: Bytes of a split; a file that cannot be cut may be larger.
        next_line: Returns the offset of the first line of a file at or after an offset.
    """
    splits: list[Split] = []
    held: list[Extent] = []
    for extent in (part for file in files for part in _parts(file, size, next_line)):
        if held and sum(part.bytes for part in held) + extent.bytes > size:
            splits.append(Split(len(splits), tuple(held)))
            held = []
        held.append(extent)
    return [*splits, Split(len(splits), tuple(held))] if held else splits


def _parts(file: SourceFile, size: int, next_line: Callable[[str, int], int]) -> Iterator[Extent]:
    whole = file.whole
    if whole.kind == "lines":
        wanted = cut_points(whole.bytes, size)
        lines = (next_line(whole.path, cut) for cut in wanted)
        # A file that something writes to is read as far as it was when it was listed.
        cuts = sorted({0, *(line for line in lines if line < whole.stop), whole.stop})
        for start, stop in itertools.pairwise(cuts):
            yield replace(whole, start=start, stop=stop, bytes=stop - start)
    elif whole.kind == "groups":
        yield from _group_parts(file, size)
    elif whole.bytes or whole.kind == "block":
        yield whole


def _group_parts(file: SourceFile, size: int) -> Iterator[Extent]:
    start, held = 0, 0
    for number, weight in enumerate(file.groups):
        if held and held + weight > size:
            yield replace(file.whole, start=start, stop=number, bytes=held)
            start, held = number, 0
        held += weight
    if held:
        yield replace(file.whole, start=start, stop=len(file.groups), bytes=held)


def cut_points(total: int, size: int) -> Sequence[int]:
    """Return offsets that cut so many bytes into equal parts of at most `size` bytes."""
    parts = max(1, -(-total // size))
    return [total * part // parts for part in range(1, parts)]


def lines_before(splits: Sequence[Split], counts: Sequence[SplitCount]) -> list[tuple[int, ...]]:
    """Return for each extent of each split the lines of its file before it."""
    totals: defaultdict[str, int] = defaultdict(int)
    before: list[tuple[int, ...]] = []
    for split, count in zip(splits, counts, strict=True):
        starts = []
        for extent, lines in zip(split.extents, count.lines, strict=True):
            starts.append(0 if extent.is_first else totals[extent.path])
            totals[extent.path] = starts[-1] + lines
        before.append(tuple(starts))
    return before


def bounded_partitions(partitions: int, splits: int) -> int:
    """Return a number of partitions for which a driver can keep track of all arrays of keys."""
    return max(1, min(partitions, _MAX_KEY_ARRAYS // max(1, splits)))
