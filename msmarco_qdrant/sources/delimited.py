"""Rows of a table as text, TSV or CSV, by the shape that `table` has found."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from msmarco_qdrant.sources.lines import Line
from msmarco_qdrant.sources.rows import RowError, decode_utf8
from msmarco_qdrant.sources.table import Table

_END_IN_QUOTES = "unexpected end of data"
"""The message of `csv.Error` for a file that ends within a quoted cell."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a table: its cells by name, or the reason that it has none."""

    line: int
    cells: dict[str, str]
    problem: str | None
    raw: bytes


def read_records(lines: Iterable[Line], table: Table, max_bytes: int) -> Iterator[Record]:
    """Yield the rows of a table. A quoted cell may hold line ends; its row counts from its first.

    Args:
        lines: The lines of the file.
        table: Its shape.
        max_bytes: A longer row has a problem.
    """
    feed = _Feed(lines, max_bytes)
    rows = _csv_rows(feed, table.delimiter) if table.quoted else _plain_rows(feed, table.delimiter)
    is_first = table.has_header
    for row in rows:
        taken = feed.take()
        if isinstance(row, list) and not any(row):
            continue
        if is_first:
            is_first = False
            continue
        cells, problem = _named_cells(row, table) if isinstance(row, list) else ({}, row)
        yield Record(taken[0].number, cells, problem, b"\n".join(line.data for line in taken))


def _named_cells(row: list[str], table: Table) -> tuple[dict[str, str], str | None]:
    """Return the cells by name without empty ones that are meta; and the problem, if any."""
    if len(row) != len(table.columns):
        names = ", ".join(name or "-" for name in table.columns)
        return {}, f"a row must have {len(table.columns)} columns ({names}), got {len(row)}"
    kept = (*table.fields.ids, *table.fields.texts)
    named = zip(table.columns, row, strict=True)
    return {name: cell for name, cell in named if name and (cell or name in kept)}, None


class _Feed:
    """Lines as text, for `csv.reader`; it keeps those of the current row."""

    def __init__(self, lines: Iterable[Line], max_bytes: int) -> None:
        self._lines = iter(lines)
        self._max_bytes = max_bytes
        self._taken: list[Line] = []
        self._size = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        if line.problem:
            raise RowError(line.problem)
        self._size += len(line.data)
        if self._size > self._max_bytes:
            raise RowError(
                f"a row must have at most {self._max_bytes:,} bytes, got more: a quote in "
                f"{self.place} is not closed"
            )
        return f"{decode_utf8(line.data)}\n"

    @property
    def place(self) -> str:
        """The lines of the current row."""
        first, last = self._taken[0].number, self._taken[-1].number
        return f"line {first:,}" if first == last else f"lines {first:,} to {last:,}"

    def take(self) -> list[Line]:
        """Return the lines of the current row, and begin the next."""
        taken, self._taken, self._size = self._taken, [], 0
        return taken


def _csv_rows(feed: _Feed, delimiter: str) -> Iterator[list[str] | str]:
    """Yield the cells of each row, or its problem."""
    # The limit of a process, which is lower than the longest documents; it is only raised.
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 30))
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield _quote_problem(exc, feed.place)
        except RowError as exc:
            yield str(exc)


def _quote_problem(error: csv.Error, place: str) -> str:
    if str(error) == _END_IN_QUOTES:
        return f"a quote in {place} is not closed: the row extends to the end of the file"
    return f"broken quotes in {place}: {error}"


def _plain_rows(feed: _Feed, delimiter: str) -> Iterator[list[str] | str]:
    while True:
        try:
            yield next(feed).removesuffix("\n").split(delimiter)
        except StopIteration:
            return
        except RowError as exc:
            yield str(exc)
