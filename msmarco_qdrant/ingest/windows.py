"""Windows of passages: the first stage of an ingest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import EncodedPassage, Passage, Reject
from msmarco_qdrant.sources.corpus import Corpus
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
Rows: TypeAlias = Iterable[Passage | Reject] | VectorShards


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


def source_size(rows: Rows) -> int | None:
    """Return the size of a source in the unit of its position, None if it is unknown."""
    return rows.size if isinstance(rows, Corpus | VectorShards) else None


def split_into_windows(
    rows: Rows, seen: PidSet, size: int, max_passages: int | None
) -> Iterator[Window]:
    """Split rows by count and by weight, and add their pids to `seen`."""
    is_checked = isinstance(rows, Corpus | VectorShards)
    window, weight = Window(), 0
    for row in rows:
        weight += _add(window, row, seen, is_checked=is_checked)
        if isinstance(rows, Corpus | VectorShards):
            window.end = rows.position
        if len(window.passages) + len(window.rejects) >= size or weight >= _MAX_WINDOW_WEIGHT:
            yield window
            window, weight = Window(start=window.end, end=window.end), 0
        if max_passages is not None and len(seen) >= max_passages:
            break  # before the next row is read: a pipe may have none
    if window.passages or window.rejects:
        yield window


def _add(window: Window, row: Row, seen: PidSet, *, is_checked: bool) -> int:
    """Add a row to a window, and return its weight; own sources have checked their rows."""
    vector = None
    if is_checked and isinstance(row, EncodedPassage):
        vector = row.vector
        row = row.passage
    passage: Passage | Reject
    passage = row if is_checked and isinstance(row, Passage) else check_row(row)
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
