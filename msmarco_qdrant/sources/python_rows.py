"""Passages made in Python: of objects, dictionaries, tuples, data frames and Arrow tables.

A dictionary has the fields that a row of a file has (see `fields.py`); one row of a data frame or a
table is a dictionary of its columns. No library is imported for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.sources.fields import PASSAGE, Fields
from msmarco_qdrant.sources.parquet import python_rows, row_of_fields
from msmarco_qdrant.sources.rejects import check_row

_ROWS_PER_SLICE = 1024
_PAIR, _TRIPLE = 2, 3
_EXPECTED = "Passage values, dictionaries, tuples (pid, text), data frames or Arrow tables"


_SINGLE = (Passage, Reject, tuple, dict)


class Table(Protocol):
    """A DataFrame of pandas or Polars, or a table or record batch of Arrow."""

    @property
    def columns(self) -> Any:
        """The columns."""


RowLike: TypeAlias = Passage | Reject | Mapping[str, Any] | tuple[Any, ...] | Table
"""One passage, or a table of passages."""

Rows: TypeAlias = Iterable[RowLike] | Table
"""Passages of Python code."""


class PythonRows:
    """The rows of a source made in Python; can be iterated as often as the source itself.

    Args:
        source: The source.
        fields: Names of the fields of dictionaries.

    Raises:
        UsageError: If it cannot be a source of passages.
    """

    def __init__(self, source: Rows, fields: Fields = PASSAGE) -> None:
        if isinstance(source, Passage):
            raise UsageError("passages must be a list, also for one passage")
        if isinstance(source, Mapping):
            raise UsageError(
                "passages must be a list, also for one dictionary, got "
                f"{with_article(type(source).__name__)}; of a dataset with several "
                "splits pass one split"
            )
        if isinstance(source, str | bytes) or not (
            isinstance(source, Iterable) or _table_rows(source) is not None
        ):
            kind = with_article(type(source).__name__)
            files = "; ingest_passages reads files" if isinstance(source, str) else ""
            raise UsageError(f"passages must be {_EXPECTED}, got {kind}{files}")
        self._source = source
        self._fields = fields
        self._named = "" if fields == PASSAGE else "a name of a field, or skip_field,"
        self._number = 0

    def __iter__(self) -> Iterator[Passage | Reject]:
        """Yield each row as a passage or a reject; rows are counted from 1.

        Raises:
            UsageError: For an item that is none of the accepted kinds.
        """
        self._number = 0
        return self._rows(self._source)

    def _rows(self, source: Any) -> Iterator[Passage | Reject]:
        rows = _table_rows(source)
        for item in source if rows is None else rows:
            if not isinstance(item, _SINGLE) and _table_rows(item) is not None:
                yield from self._rows(item)
                continue
            self._number += 1
            yield self._row(item)

    def _row(self, item: Any) -> Passage | Reject:
        if isinstance(item, Passage | Reject):
            if self._named:
                raise UsageError(f"{self._named} is for rows with fields, got a Passage: omit it")
            return item
        if isinstance(item, tuple) and hasattr(item, "_asdict"):  # of DataFrame.itertuples
            item = item._asdict()
        if isinstance(item, Mapping | Exception):
            fields = {**item} if isinstance(item, Mapping) else item
            return row_of_fields("", self._number, fields, self._fields)
        if isinstance(item, tuple) and len(item) in (_PAIR, _TRIPLE):
            pid, text, *meta = item
            return check_row(Passage(pid, text, meta[0] if meta else {}, line=self._number))
        size = f" of {len(item)} values" if isinstance(item, tuple) else ""
        kind = with_article(type(item).__name__)
        raise UsageError(f"a source must yield {_EXPECTED}, got {kind}{size}")


def _table_rows(table: Any) -> Iterator[Mapping[str, Any] | Exception] | None:
    """Return the rows of a data frame or an Arrow table, None for anything else."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(table, arrow.Table):
        batches = table.to_batches(max_chunksize=_ROWS_PER_SLICE)
        return (row for batch in batches for row in python_rows(batch))
    if arrow is not None and isinstance(table, arrow.RecordBatch):
        return iter(python_rows(table))
    library = type(table).__module__.partition(".")[0]
    if library == "polars" and hasattr(table, "iter_rows"):
        rows: Iterator[dict[str, Any]] = table.iter_rows(named=True)
        return rows
    if library == "pandas" and hasattr(table, "iloc") and hasattr(table, "columns"):
        return _pandas_rows(table)
    return None


def _pandas_rows(frame: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a pandas DataFrame without missing values; a named index is a column."""
    name = frame.index.name
    if name is not None and name not in frame.columns:
        frame = frame.reset_index()
    for start in range(0, len(frame), _ROWS_PER_SLICE):
        for row in frame.iloc[start : start + _ROWS_PER_SLICE].to_dict(orient="records"):
            # pandas has NaN for a missing value of any type
            yield {k: v for k, v in row.items() if not (isinstance(v, float) and v != v)}  # noqa: PLR0124
