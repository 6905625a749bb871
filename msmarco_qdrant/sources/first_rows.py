"""The first rows of a source: one whose rows all fail alike has another shape than was detected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.content import named_source
from msmarco_qdrant.sources.shapes import Shape

_T = TypeVar("_T")

_REJECTS_ALIKE = 1000


def unless_all_fail(
    shape: Shape, items: Iterator[_T], rows: Callable[[_T], Iterable[Passage | Reject]]
) -> Iterator[_T]:
    """Yield items, but none before one of their rows is a passage, or rejected differently.

    Args:
        shape: The shape of the source.
        items: What is read of it.
        rows: Returns the rows of an item.

    Raises:
        SourceError: If the first 1,000 rows fail alike, or all rows of a shorter source.
    """
    held: list[_T] = []
    rejects = _FirstRejects(shape)
    for item in items:
        held.append(item)
        if rejects.look_at(rows(item)):
            break
    else:
        rejects.end()
    yield from held
    yield from items


class _FirstRejects:
    """The rejects at the start of a source, before its first passage."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._first: Reject | None = None
        self._count = 0

    def look_at(self, rows: Iterable[Passage | Reject]) -> bool:
        """Count the next rows; return True if the source has more than one kind of rows."""
        for row in rows:
            if isinstance(row, Passage):
                return True
            self._first = self._first or row
            if _kind_of(row.reason) != _kind_of(self._first.reason):
                return True
            self._count += 1
            if self._count == _REJECTS_ALIKE:
                self._refuse(f"its first {self._count:,} rows")
        return False

    def end(self) -> None:
        """Refuse a source of nothing else, unless it has only one row."""
        if self._count > 1:
            self._refuse(f"its {self._count:,} rows")

    def _refuse(self, rows: str) -> None:
        if self._first is not None:
            raise SourceError(
                f"{named_source(self._shape.source)} ({self._shape.description}): none of {rows} "
                f"is a passage; line {self._first.line}: {self._first.reason}"
            )


def _kind_of(reason: str) -> str:
    """Return a reason without what differs between rows: places and values."""
    return re.split(r"[:,]", reason, maxsplit=1)[0]
