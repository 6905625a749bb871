"""Pass 1 and 2 over a source, by tasks: its rows are counted, and repeated pids are found."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.distributed.cluster import import_ray, start_in_order
from msmarco_qdrant.distributed.dedup import partition_count
from msmarco_qdrant.distributed.files import SourceFiles
from msmarco_qdrant.distributed.keys import KeyChunk, KeyReader, Repeats
from msmarco_qdrant.distributed.machine import named_sources
from msmarco_qdrant.distributed.split_files import SplitFiles
from msmarco_qdrant.distributed.splits import (
    CountedSplit,
    Split,
    SplitCount,
    bounded_partitions,
    lines_before,
)
from msmarco_qdrant.distributed.stale import StaleFiles, find_stale
from msmarco_qdrant.errors import WorkerError
from msmarco_qdrant.sources.corpus import Reading

_log = logging.getLogger(__name__)

_TASK_RETRIES = 5
_LOST_OBJECTS_RETRIES = 3


class CountedSource:
    """A source in splits, and what was counted of each; call `count` first.

    Args:
        source: The source.
        splits: Its splits, numbered from 0.
        files: Keeps what is known of each.

    Attributes:
        source: The same.
        files: The same.
        numbers: Numbers of the splits.
        stale: The passages of a collection that the source lacks; None if they were not searched.
        started: When this was made, by `time.perf_counter`.
    """

    def __init__(self, source: SourceFiles, splits: Sequence[Split], files: SplitFiles) -> None:
        self.source = source
        self.files = files
        self.numbers = range(len(splits))
        self.stale: StaleFiles | None = None
        self.started = time.perf_counter()
        self._splits = splits
        self._counts: Sequence[SplitCount] = ()
        self._lines: Sequence[Sequence[int]] = ()

    def count(self, stored: int = 0, passages: Iterable[tuple[PointId, str]] | None = None) -> None:
        """Read all keys: count the rows, and find those whose pid came before them.

        Args:
            stored: Passages of the collection.
            passages: The id and the pid of each, to find those that the source lacks; None if that
                is not needed.

        Raises:
            SourceError: If a file cannot be read.
            WorkerError: If too many nodes are lost.
        """
        wanted = partition_count(self.source.bytes, stored)
        partitions = bounded_partitions(wanted, len(self._splits))
        if passages is not None:
            self.stale = StaleFiles(self.files.folder, partitions)
            self.stale.add(passages)
        self._counts = _count_and_find_repeats(
            self._splits, self.source, partitions, self.files.add_repeats, self.stale
        )
        self._lines = lines_before(self._splits, self._counts)

    @property
    def rows(self) -> int:
        """Rows of the source."""
        return sum(count.rows for count in self._counts)

    @property
    def passages(self) -> int:
        """Passages among them, repeated ones included."""
        return sum(count.passages for count in self._counts)

    @property
    def first_reject(self) -> str:
        """File and reason of the first reject, "" without one."""
        return next((count.first_reject for count in self._counts if count.first_reject), "")

    def split(self, number: int) -> CountedSplit:
        """Return a split with its counts."""
        return CountedSplit(
            self._splits[number],
            self._lines[number],
            self._counts[number].rows,
            self.files.repeats(number),
        )

    def blocks(self, number: int) -> list[Any]:
        """Return the references of a split's tables, none for files."""
        return self.source.blocks_of(self._splits[number].extents)


@contextmanager
def open_counting(source: SourceFiles, splits: Sequence[Split]) -> Iterator[CountedSource]:
    """Yield a source to be counted; what is known of it is kept in a folder until the end."""
    with tempfile.TemporaryDirectory(prefix="msmarco-qdrant-") as folder:
        yield CountedSource(source, splits, SplitFiles(Path(folder)))


def _count_and_find_repeats(
    splits: Sequence[Split],
    source: SourceFiles,
    partitions: int,
    on_repeats: Callable[[int, Any], None],
    stale: StaleFiles | None = None,
) -> list[SplitCount]:
    """Read the keys of all splits, and find the rows whose pid came before them.

    Args:
        splits: The splits.
        source: The source that they are of.
        partitions: Number of partitions of the keys.
        on_repeats: Called with the number of a split and some of its rows; a row may come twice.
        stale: The passages of the collection, to find those that the source lacks; None if that is
            not needed.

    Returns:
        The counts of each split.

    Raises:
        SourceError: If a file cannot be read.
        WorkerError: If nodes were lost too often.
    """
    ray = import_ray()
    for _ in range(_LOST_OBJECTS_RETRIES):
        try:
            counts, chunks = _read_all_keys(splits, source, partitions)
            for partition, (repeats, missing) in enumerate(_find_all_repeats(chunks, stale)):
                for number, rows in repeats.by_split():
                    on_repeats(number, rows)
                if stale is not None:
                    stale.put(partition, missing)
        except ray.exceptions.RayTaskError as exc:
            raise exc.cause from None
        except ray.exceptions.RayError as exc:  # of a lost node: and its arrays with it
            _log.warning("the keys are read again: a node was lost (%s)", type(exc).__name__)
            reason = exc
            continue
        return counts
    raise WorkerError(f"too many nodes were lost while the keys were read: {reason}") from reason


def _read_all_keys(
    splits: Sequence[Split],
    source: SourceFiles,
    partitions: int,
) -> tuple[list[SplitCount], list[list[Any]]]:
    """Return the counts of each split, and for each partition the references of its chunks."""
    ray = import_ray()
    counts: list[SplitCount] = []
    chunks: list[list[Any]] = [[] for _ in range(partitions)]
    calls = (
        (split, source.reading, partitions, *source.blocks_of(split.extents)) for split in splits
    )
    options = {"num_returns": "streaming", "max_retries": _TASK_RETRIES}
    for *found, last in start_in_order(_read_keys, calls, **options):
        for number, reference in enumerate(found):
            chunks[number % partitions].append(reference)
        counts.append(ray.get(last))
    return counts, chunks


def _read_keys(
    split: Split, reading: Reading, partitions: int, *blocks: Any
) -> Iterator[KeyChunk | SplitCount]:
    with named_sources():
        reader = KeyReader(split, reading, partitions, blocks)
        yield from reader.chunks()
        yield reader.count()


def _find_all_repeats(
    chunks: Sequence[Sequence[Any]], stale: StaleFiles | None
) -> Iterator[tuple[Repeats, Any]]:
    """Yield for each partition the repeats of the source, and the passages that it lacks."""
    calls = (
        (None if stale is None else stale.candidates(partition), *some)
        for partition, some in enumerate(chunks)
    )
    found = start_in_order(_find_repeats, calls, max_retries=_TASK_RETRIES)
    yield from map(import_ray().get, found)


def _find_repeats(stored: Any, *chunks: KeyChunk) -> tuple[Repeats, Any]:
    if stored is None:
        return Repeats.of(chunks), None
    return Repeats.of(chunks), find_stale(stored, (chunk.keys for chunk in chunks))
