"""Reading rows of Parquet and Arrow files, writing Parquet, by pyarrow (the extra `parquet`).

Written files have the string columns `pid`, `text` and `meta`. Meta is JSON text: a Parquet
struct cannot hold fields whose types differ between rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from msmarco_qdrant.core.meta_values import MetaValueError, plain_value
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import MissingExtraError, OutputError, SourceError
from msmarco_qdrant.sources.content import STDIN, Content
from msmarco_qdrant.sources.fields import Fields
from msmarco_qdrant.sources.lines import RAW_BYTES_KEPT, DamagedStreamError
from msmarco_qdrant.sources.rows import (
    RowError,
    describe_decode_error,
    json_meta,
    parse_fields,
    show_fields,
)

_BATCH_ROWS = 4096
# A row group is held in memory; 16,384 real passages are 6 million characters.
_GROUP_ROWS = 16_384
_GROUP_CHARACTERS = 16_000_000


def check_extra(feature: str) -> None:
    """Raise `MissingExtraError` for a feature if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401  # only checks that it is installed
    except ImportError as exc:
        raise MissingExtraError(feature, "parquet") from exc


def arrow_names(source: str, content: Content, fields: Fields) -> list[str]:
    """Return the names of the columns of a Parquet or Arrow source, without consuming it.

    Raises:
        SourceError: If it cannot be read, or has no column of the id or the text.
        MissingExtraError: Without pyarrow.
    """
    if content.kind == "arrow stream" and not content.stream.seekable():
        return []  # its schema cannot be read twice: each row is checked
    with _mapped_errors(source, content):
        file = _open(source, content)
        names = list(file.schema_arrow.names if content.kind == "parquet" else file.schema.names)
    if content.kind == "arrow stream":
        content.stream.seek(0)
    for what, known, option in (
        (fields.kind, fields.ids, "pid-field"),
        ("text", fields.texts, "text-field"),
    ):
        if set(known).isdisjoint(set(names) - fields.skip):
            raise SourceError(
                f"{source} has the columns {show_fields(names)}, none of them named "
                f"{' or '.join(known[:3])}: name the column of the {what} with --{option} "
                f"({option.replace('-', '_')} in Python)"
            )
    return names


def arrow_rows(source: str, content: Content, fields: Fields) -> Iterator[Passage | Reject]:
    """Yield a passage or a reject for each row of a Parquet or Arrow source."""
    number = 0
    with _mapped_errors(source, content):
        for batch in _batches(_open(source, content), content, fields):
            for row in python_rows(batch):
                number += 1
                yield row_of_fields(source, number, row, fields)


def parquet_groups(source: str, content: Content) -> list[tuple[int, int]]:
    """Return the rows and the bytes of each row group of a Parquet file.

    Raises:
        SourceError: If it cannot be read.
        MissingExtraError: Without pyarrow.
    """
    with _mapped_errors(source, content):
        metadata = _open(source, content).metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        return [(group.num_rows, group.total_byte_size) for group in groups]


def group_rows(
    source: str, content: Content, fields: Fields, groups: range, rows_before: int
) -> Iterator[Passage | Reject]:
    """Yield a passage or a reject for each row of some row groups of a Parquet file.

    Args:
        source: Name of the file.
        content: Its content.
        fields: The fields of id and text.
        groups: Numbers of the row groups.
        rows_before: Rows of the file before the first of them.
    """
    number = rows_before
    with _mapped_errors(source, content):
        file = _open(source, content)
        for batch in _parquet_batches(file, fields, row_groups=[*groups]):
            for row in python_rows(batch):
                number += 1
                yield row_of_fields(source, number, row, fields)


def range_rows(
    source: str, content: Content, fields: Fields, rows: range
) -> Iterator[Passage | Reject]:
    """Yield a passage or a reject for each of some neighboring rows of a Parquet file."""
    with _mapped_errors(source, content):
        file = _open(source, content)
        groups, at = _groups_of(file.metadata, rows)
        for batch in _parquet_batches(file, fields, row_groups=[*groups]):
            first, last = max(rows.start - at, 0), min(rows.stop - at, batch.num_rows)
            at += batch.num_rows
            if first < last:
                number = at - batch.num_rows + first
                for row in python_rows(batch.slice(first, last - first)):
                    number += 1
                    yield row_of_fields(source, number, row, fields)
            if at >= rows.stop:  # the rest of a row group may be long
                return


def _groups_of(metadata: Any, rows: range) -> tuple[range, int]:
    """Return the row groups that have some rows, and the number of rows before these groups."""
    first, before, at = 0, 0, 0
    for number in range(metadata.num_row_groups):
        if at >= rows.stop:
            return range(first, number), before
        if at <= rows.start:
            first, before = number, at
        at += metadata.row_group(number).num_rows
    return range(first, metadata.num_row_groups), before


def _open(source: str, content: Content) -> Any:
    """Open a source with pyarrow."""
    kind = content.kind.partition(" ")[0].title()
    check_extra(f"reading {kind} ({source})")
    import pyarrow as pa
    import pyarrow.parquet as pq

    if content.kind == "arrow stream":
        return pa.ipc.open_stream(content.stream)
    if source == STDIN:
        raise SourceError(f"{kind} cannot be read from standard input: pass the file's path")
    if content.compression is not None:
        raise SourceError(
            f"{source} is {kind} compressed by {content.compression}: decompress the file first"
        )
    if not content.stream.seekable():
        raise SourceError(f"{kind} cannot be read from a pipe: pass the file's path ({source})")
    return pq.ParquetFile(content.stream) if kind == "Parquet" else pa.ipc.open_file(content.stream)


@contextmanager
def _mapped_errors(source: str, content: Content) -> Iterator[None]:
    kind = content.kind.partition(" ")[0].title()
    check_extra(f"reading {kind} ({source})")
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, DamagedStreamError) as exc:
        raise SourceError(f"{source} cannot be read as {kind}: {exc}") from exc


def _batches(file: Any, content: Content, fields: Fields) -> Iterator[Any]:
    if content.kind == "parquet":
        yield from _parquet_batches(file, fields)
        return
    if content.kind == "arrow file":
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
    else:
        batches = iter(file)
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            yield batch.slice(start, _BATCH_ROWS)


def _parquet_batches(file: Any, fields: Fields, **chosen: Any) -> Iterator[Any]:
    names = [name for name in file.schema_arrow.names if name not in fields.skip]
    columns = names if fields.skip else None
    batches: Iterator[Any] = file.iter_batches(batch_size=_BATCH_ROWS, columns=columns, **chosen)
    return batches


def python_rows(batch: Any) -> list[dict[str, Any] | Exception]:
    """Convert a batch to rows; the exception for a row that Python cannot represent.

    Values of types that Python has not are left as Arrow's scalars: `plain_meta` converts them.
    """
    try:
        columns = [_python_values(column) for column in batch.columns]
    except (ValueError, OverflowError) as exc:  # not UTF-8
        if batch.num_rows == 1:
            return [exc]
        return [row for n in range(batch.num_rows) for row in python_rows(batch.slice(n, 1))]
    if not columns:
        return [{} for _ in range(batch.num_rows)]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _python_values(column: Any) -> list[Any]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if any(is_plain(kind) for is_plain in _plain_types()):
        values: list[Any] = column.to_pylist()
        return values
    return [value if value.is_valid else None for value in column]


def _plain_types() -> tuple[Callable[[Any], bool], ...]:
    import pyarrow as pa

    kinds = pa.types
    return (
        kinds.is_string,
        kinds.is_large_string,
        kinds.is_string_view,
        kinds.is_integer,
        kinds.is_floating,
        kinds.is_boolean,
        kinds.is_null,
    )


def row_of_fields(
    source: str, number: int, fields: dict[str, Any] | Exception, names: Fields
) -> Passage | Reject:
    """Return a row of a table as a passage, or as a reject; a field without a value is left out."""
    if isinstance(fields, UnicodeDecodeError):
        found = fields.object
        return Reject(
            source, number, describe_decode_error(fields), found[:RAW_BYTES_KEPT], len(found)
        )
    if isinstance(fields, Exception):
        return Reject(source, number, f"a value cannot be read: {fields}", b"", 0)
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        if isinstance(meta := present.get("meta"), str):
            present["meta"] = json_meta(meta)
        elif meta is not None:
            present["meta"] = plain_value(meta, "'meta'")
        pid, text, meta = parse_fields(present, names)
    except (RowError, MetaValueError) as exc:
        reason = str(exc)
    except (ValueError, OverflowError) as exc:  # a day after the year 9999, not UTF-8 in a list
        reason = f"a value cannot be read: {exc}"
    else:
        return Passage(pid, text, meta, source, number)
    raw = json.dumps(fields, default=_shown).encode("utf-8", "replace")
    return Reject(source, number, reason, raw[:RAW_BYTES_KEPT], len(raw))


def _shown(value: Any) -> str:
    """Return a value of Arrow for the rejects file."""
    try:
        return str(value)
    except (ValueError, OverflowError) as exc:
        return f"? ({exc})"


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
