"""Rows of a Parquet file. The one adapter to pyarrow, the extra `parquet`."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterator
from typing import Any

from msmarco_qdrant._fields import RowError, not_utf8, parse_fields
from msmarco_qdrant._lines import RAW_BYTES_KEPT
from msmarco_qdrant.errors import MissingExtraError, SourceError
from msmarco_qdrant.records import Passage, Reject

_BATCH_ROWS = 4096


def open_parquet(source: str, raw: io.BufferedReader) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as exc:
        raise MissingExtraError(f"reading Parquet ({source})", "parquet") from exc
    try:
        return pq.ParquetFile(raw)
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(f"{source} cannot be read as Parquet: {exc}") from exc


def parquet_rows(source: str, raw: io.BufferedReader) -> Iterator[Passage | Reject]:
    file = open_parquet(source, raw)
    import pyarrow as pa

    try:
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for fields in _python_rows(batch):
                number += 1
                yield _row(source, number, fields)
    except pa.ArrowException as exc:
        raise SourceError(f"{source} cannot be read as Parquet: {exc}") from exc


def _python_rows(batch: Any) -> list[dict[str, Any] | Exception]:
    """A batch's rows; for one with a value that Python cannot hold, what was raised."""
    try:
        rows: list[dict[str, Any] | Exception] = batch.to_pylist()
    except (ValueError, OverflowError) as exc:  # not UTF-8, nanoseconds, a year after 9999
        if batch.num_rows == 1:
            return [exc]
        rows = [row for n in range(batch.num_rows) for row in _python_rows(batch.slice(n, 1))]
    return rows


def _row(source: str, number: int, fields: dict[str, Any] | Exception) -> Passage | Reject:
    if isinstance(fields, UnicodeDecodeError):
        found = fields.object
        return Reject(source, number, not_utf8(fields), found[:RAW_BYTES_KEPT], len(found))
    if isinstance(fields, Exception):
        return Reject(source, number, f"a value cannot be read: {fields}", b"", 0)
    present = {name: _plain(value) for name, value in fields.items() if value is not None}
    try:
        pid, text, meta = parse_fields(present)
    except RowError as exc:
        raw = json.dumps(fields, default=repr).encode("utf-8", "replace")
        return Reject(source, number, str(exc), raw[:RAW_BYTES_KEPT], len(raw))
    return Passage(pid, text, meta, source, number)


def _plain(value: object) -> object:
    """Dates as ISO 8601, as a Qdrant datetime index wants them; anything else as it is."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
