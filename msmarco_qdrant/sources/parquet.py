"""Reading and writing rows of Parquet files, by pyarrow (the extra `parquet`).

Written files have the string columns `pid`, `text` and `meta`. Meta is JSON text: a Parquet
struct cannot hold fields whose types differ between rows.
"""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import MissingExtraError, OutputError, SourceError
from msmarco_qdrant.sources.lines import RAW_BYTES_KEPT
from msmarco_qdrant.sources.rows import RowError, describe_decode_error, json_object, parse_fields

_BATCH_ROWS = 4096
# A row group is held in memory; 16,384 real passages are 6 million characters.
_GROUP_ROWS = 16_384
_GROUP_CHARACTERS = 16_000_000


def open_parquet(source: str, raw: io.BufferedReader) -> Any:
    """Open a Parquet file and check its columns."""
    check_extra(f"reading Parquet ({source})")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(raw)
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(f"{source} cannot be read as Parquet: {exc}") from exc


def check_extra(feature: str) -> None:
    """Raise `MissingExtraError` for a feature if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401  # only checks that it is installed
    except ImportError as exc:
        raise MissingExtraError(feature, "parquet") from exc


def parquet_rows(source: str, raw: io.BufferedReader) -> Iterator[Passage | Reject]:
    """Yield a passage or a reject for each row of a Parquet file."""
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
    """Convert a batch to rows; the exception for a row that Python cannot represent."""
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
        return Reject(
            source, number, describe_decode_error(fields), found[:RAW_BYTES_KEPT], len(found)
        )
    if isinstance(fields, Exception):
        return Reject(source, number, f"a value cannot be read: {fields}", b"", 0)
    present = {name: _plain(value) for name, value in fields.items() if value is not None}
    try:
        if isinstance(meta_text := present.get("meta"), str):
            present["meta"] = _meta(meta_text)
        pid, text, meta = parse_fields(present)
    except RowError as exc:
        raw = json.dumps(fields, default=repr).encode("utf-8", "replace")
        return Reject(source, number, str(exc), raw[:RAW_BYTES_KEPT], len(raw))
    return Passage(pid, text, meta, source, number)


def _meta(text: str) -> dict[str, Any]:
    try:
        return json_object(text)
    except RowError as exc:
        raise RowError(f"'meta' must be a JSON object as text: {exc}") from exc


def _plain(value: object) -> object:
    """Convert dates to ISO 8601, as a Qdrant datetime index requires; keep other values."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def write_parquet(passages: Iterable[Passage], file: BinaryIO) -> None:
    """Write passages, one row group in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"pid": pa.string(), "text": pa.string(), "meta": pa.string()})
    try:
        with pq.ParquetWriter(file, schema, compression="zstd", write_statistics=False) as writer:
            for group in _groups(passages):
                rows = [(p.pid, p.text, json.dumps(p.meta, ensure_ascii=False)) for p in group]
                columns = [list(column) for column in zip(*rows, strict=True)]
                writer.write_table(pa.table(columns, schema=schema))
    except pa.ArrowException as exc:
        raise OutputError(f"the passages cannot be written as Parquet: {exc}") from exc


def _groups(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    """Split by number of rows and by characters of text."""
    group: list[Passage] = []
    characters = 0
    for passage in passages:
        group.append(passage)
        characters += len(passage.text)
        if len(group) >= _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
