"""Windows of passages: the first stage of an ingest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import EncodedPassage, Passage, Reject
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.extents import ExtentRows
from msmarco_qdrant.sources.rejects import check_row, duplicate_pid_reason, reject_passage
from msmarco_qdrant.sources.vector_shards import VectorShards

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A window's weight is its characters of text plus, for passages with vectors, their numbers.
# At most twelve windows are in memory. 8,192 real passages weigh 3 million characters, and their
# vectors of dimension 768 weigh 6 million.
_MAX_WINDOW_WEIGHT = 10_000_000

Row: TypeAlias = Passage | EncodedPassage | Reject
Rows: TypeAlias = Iterable[Passage | Reject] | VectorShards | ExtentRows


@dataclass(slots=True)
class Window:
    """Rows that are handled together.

    Attributes:
        passages: The valid ones.
        rejects: The others.
        start: Position of the source before the first row.
        end: Position of the source after the last row.
        vectors: Of passages that came with one, float32 `(dimension,)` by pid.
    """

    passages: list[Passage] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    start: int = 0
    end: int = 0
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)


class RowStream:
    """The rows of a source in order, each once.

    Args:
        rows: The source.

    Attributes:
        size: Size of the source in the unit of its position, None if it is unknown.
        is_empty: True if `take_rejects` found no passage.
        is_stored: True if the source is files.
    """

    def __init__(self, rows: Rows) -> None:
        self.is_empty = False
        stored = Corpus, VectorShards, ExtentRows
        self._source = rows if isinstance(rows, stored) else None
        self.is_stored = self._source is not None
        self.size = None if self._source is None else self._source.size
        self._rows: Iterator[Row] = iter(rows if self._source is not None else _checked(rows))

    @property
    def position(self) -> int:
        """Position of the source after the last row; 0 if it is unknown."""
        return 0 if self._source is None else self._source.position

    @property
    def descriptions(self) -> tuple[str, ...]:
        """The shape of each file in one line."""
        return self._source.descriptions if isinstance(self._source, Corpus) else ()

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that are not yet taken."""
        return self._rows

    def take_rejects(self) -> Iterator[Reject]:
        """Yield the rejects before the first passage."""
        for row in self._rows:
            if not isinstance(row, Reject):
                self._rows = chain([row], self._rows)
                return
            yield row
        self.is_empty = True


def _checked(rows: Iterable[object]) -> Iterator[Row]:
    """Validate rows made in Python."""
    return map(check_row, rows)


def split_into_windows(
    rows: RowStream, seen: PidSet, size: int, max_passages: int | None
) -> Iterator[Window]:
    """Split rows by count and by weight, and add their pids to `seen`."""
    window, weight = Window(start=rows.position, end=rows.position), 0
    for row in rows:
        weight += _add(window, row, seen)
        window.end = rows.position
        if len(window.passages) + len(window.rejects) >= size or weight >= _MAX_WINDOW_WEIGHT:
            yield window
            window, weight = Window(start=window.end, end=window.end), 0
        if max_passages is not None and len(seen) >= max_passages:
            break  # before the next row is read: a pipe may have none
    if window.passages or window.rejects:
        yield window


def _add(window: Window, row: Row, seen: PidSet) -> int:
    """Add a row to a window, and return its weight."""
    vector = None
    if isinstance(row, EncodedPassage):
        vector = row.vector
        row = row.passage
    passage: Passage | Reject = row
    if isinstance(passage, Passage) and not seen.add(passage.pid):
        passage = reject_passage(passage, duplicate_pid_reason(passage))
    if isinstance(passage, Reject):
        window.rejects.append(passage)
        return 0
    window.passages.append(passage)
    if vector is None:
        return len(passage.text)
    window.vectors[passage.pid] = vector
    return len(passage.text) + len(vector)
