"""The first stage of an ingest: rows of a source to windows of passages that may go in."""

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

# A window's weight is its characters of text and, where they came with it, its vectors' numbers.
# Twelve windows are alive at most, in the stages and between them; of real passages 8,192 are
# 3 million characters, and their vectors of 768 are 6 million numbers.
_WINDOW_WEIGHT = 10_000_000

Row: TypeAlias = Passage | EncodedPassage | Reject
Rows: TypeAlias = Iterable[Passage | Reject] | VectorShards


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are handled together, and the source's position before and behind them.

    Attributes:
        passages: Those that may go in.
        rejects: The others.
        start: The source's position before the first.
        end: Its position behind the last.
        vectors: Of passages that came with one, float32 `(dimension,)` by pid.
    """

    passages: list[Passage]
    rejects: list[Reject]
    start: int
    end: int
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def source_size(rows: Rows) -> int | None:
    """The size of a source in whatever it counts its position, None if that is unknown."""
    return rows.size if isinstance(rows, Corpus | VectorShards) else None


def split_into_windows(
    rows: Rows, seen: PidSet, size: int, max_passages: int | None
) -> Iterator[Window]:
    """Cut rows into windows, by count and by weight, and note the pids in `seen`."""
    is_checked = isinstance(rows, Corpus | VectorShards)
    window, weight = Window([], [], 0, 0), 0
    position = 0
    for row in rows:
        weight += _add(window, row, seen, is_checked=is_checked)
        if isinstance(rows, Corpus | VectorShards):
            position = rows.position
        if len(window.passages) + len(window.rejects) >= size or weight >= _WINDOW_WEIGHT:
            yield _ended(window, position)
            window, weight = Window([], [], position, position), 0
        if max_passages is not None and len(seen) >= max_passages:
            break  # before another row is taken: a pipe may have no more to give
    if window.passages or window.rejects:
        yield _ended(window, position)


def _add(window: Window, row: Row, seen: PidSet, *, is_checked: bool) -> int:
    """Put a row where it belongs; the weight of what is kept."""
    vector = None
    if is_checked and isinstance(row, EncodedPassage):
        vector = row.vector
        row = row.passage
    admitted = _admitted(row, seen, is_checked=is_checked)
    if isinstance(admitted, Reject):
        window.rejects.append(admitted)
        return 0
    window.passages.append(admitted)
    if vector is None:
        return len(admitted.text)
    window.vectors[admitted.pid] = vector
    return len(admitted.text) + len(vector)


def _ended(window: Window, position: int) -> Window:
    return Window(window.passages, window.rejects, window.start, position, window.vectors)


def _admitted(row: Row, seen: PidSet, *, is_checked: bool) -> Passage | Reject:
    """The passage, or a reject if it cannot go in; our own sources have checked theirs."""
    passage = row if is_checked and isinstance(row, Passage) else check_row(row)
    if isinstance(passage, Reject) or seen.add(passage.pid):
        return passage
    return reject_passage(passage, duplicate_pid_reason(passage))
