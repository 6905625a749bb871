"""Shape of a source: its format and fields, decided by its content and its first rows."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from msmarco_qdrant.core.records import Meta, Passage, Reject
from msmarco_qdrant.core.source_types import Format
from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.content import STDIN, Content, named_source, read_content
from msmarco_qdrant.sources.delimited import Record, read_records
from msmarco_qdrant.sources.fields import Fields
from msmarco_qdrant.sources.lines import RAW_BYTES_KEPT, Line, read_lines
from msmarco_qdrant.sources.parquet import arrow_names, arrow_rows
from msmarco_qdrant.sources.rows import (
    RowError,
    decode_utf8,
    json_meta,
    json_object,
    parse_fields,
    parse_json,
    parse_tsv,
    show_fields,
)
from msmarco_qdrant.sources.table import Sample, Table, find_table

LineFormat: TypeAlias = Literal["tsv", "jsonl"]
LineParser: TypeAlias = Callable[[str], tuple[str, str, Meta]]

FORMATS: tuple[str, ...] = get_args(Format)
_OBJECT = re.compile(rb'\{\s*(?:["}]|\Z)')
_ARRAY = re.compile(rb'\[\s*(?:[\[{"\]\d-]|\Z)')


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The shape of a source, whose rows are not yet read.

    Attributes:
        source: Name of the source.
        content: Its content.
        fields: The fields of id, text and title.
        lines: "tsv" or "jsonl" if each line is a row of its own, else None.
        table: The columns of any other table of text; None without one.
        description: The shape in one line, without the name.
    """

    source: str
    content: Content
    fields: Fields
    lines: LineFormat | None
    table: Table | None
    description: str

    def rows(self, max_line_bytes: int) -> Iterator[Passage | Reject]:
        """Yield a passage or a reject for each row."""
        if self.lines is not None:
            lines = read_lines(self.content.stream, max_line_bytes)
            kept = (line for line in lines if line.data or line.problem)
            parse = line_parser(self.lines, self.fields)
            return (parse_line(self.source, line, parse) for line in kept)
        if self.table is not None:
            return _table_rows(self.source, self.table, self.content.stream, max_line_bytes)
        return arrow_rows(self.source, self.content, self.fields)


def detect_shape(source: str, raw: io.BufferedReader, form: Format, fields: Fields) -> Shape:
    """Return the shape of a source, without consuming its rows.

    Args:
        source: Its name, for messages.
        raw: Its bytes, from `open_source`.
        form: A format instead of the one detected.
        fields: The names of id, text and title to look for.

    Raises:
        SourceError: If the content has no rows, or its id or text is unknown.
        MissingExtraError: For Parquet, Arrow or zstd without pyarrow.
    """
    content = read_content(source, raw, as_text=form != "auto")
    _require_format(source, content, form)
    lines: LineFormat | None = None
    table = None
    if content.kind != "text":
        names = arrow_names(source, content, fields)
        kind = content.kind.partition(" ")[0].title()
        words = f"{kind}: {_used(names, fields)}; {len(names)} columns" if names else kind
    elif form == "jsonl" or (form == "auto" and _is_json(source, content)):
        lines = "jsonl"
        words = _describe_json(content, fields)
    else:
        table = _table(source, content, form, fields)
        lines = "tsv" if table is None else None
        words = f"TSV: {fields.kind}, text; 2 columns" if table is None else table.description
        if not content.head.strip() and content.is_whole:
            words = "empty"
    packed = f"; {content.compression}" if content.compression else ""
    return Shape(source, content, fields, lines, table, words + packed)


def line_parser(form: LineFormat, fields: Fields) -> LineParser:
    """Return the function that parses lines of a format."""
    if form == "tsv":
        return parse_tsv if fields.kind == "pid" else partial(parse_tsv, kind=fields.kind)
    return partial(parse_json, names=fields)


def parse_line(source: str, line: Line, parse: LineParser) -> Passage | Reject:
    """Parse a line to a passage or a reject."""
    reason = line.problem
    if reason is None:
        try:
            pid, text, meta = parse(decode_utf8(line.data))
        except RowError as exc:
            reason = str(exc)
    if reason is not None:
        return Reject(source, line.number, reason, line.data[:RAW_BYTES_KEPT], line.length)
    return Passage(pid, text, meta, source, line.number, line.data)


# ---- text ----------------------------------------------------------------------------------------


def _require_format(source: str, content: Content, form: Format) -> None:
    """Refuse binary content as text, and the other way round."""
    if form == "auto":
        return
    wanted = form if form in ("parquet", "arrow") else "text"
    if not content.kind.startswith(wanted):
        raise SourceError(
            f"{named_source(source)} is {content.kind.title()}, not {form}: omit the format"
            if content.kind != "text"
            else f"{named_source(source)} cannot be read as {wanted.title()}: it is text"
        )


def _is_json(source: str, content: Content) -> bool:
    """Return True for JSON lines; refuse JSON over several lines."""
    start = content.head.lstrip()
    name = named_source(source)
    if _ARRAY.match(start) and not _is_pid(start):
        raise SourceError(
            f"{name} must have one JSON object per line, got an array: convert it with "
            f"{_jq(source, content, '.[]')}"
        )
    if not _OBJECT.match(start) or _is_pid(start):
        return False
    first = start.split(b"\n", 1)[0].strip()
    if first == b"{" or (
        b"\n" in start and first.endswith((b"{", b"[", b",")) and _has_quote(first)
    ):
        raise SourceError(
            f"{name} must have one JSON object per line, got one over several lines: convert it "
            f"with {_jq(source, content, '.')}"
        )
    return True


def _is_pid(start: bytes) -> bool:
    """Return True if a bracket begins a pid: a tab follows, before any quote or colon."""
    before, tab, _ = start.split(b"\n", 1)[0].partition(b"\t")
    return bool(tab) and not set(before) & set(b'":,')


def _has_quote(line: bytes) -> bool:
    return b'"' in line


def _jq(source: str, content: Content, path: str) -> str:
    """Return the command that writes one object per line."""
    command = f"jq -c '{path}'"
    if source == STDIN:
        return f"`{command}` before this command in the pipe"
    file = shlex.quote(source)
    unpack = {"gzip": "gzip -dc", "bzip2": "bzip2 -dc", "zstd": "zstd -dc"}
    if content.compression is not None:
        packed = unpack.get(content.compression, "xz -dc")
        return f"`{packed} {file} | {command} > lines.jsonl`"
    return f"`{command} {file} > lines.jsonl`"


def _describe_json(content: Content, fields: Fields) -> str:
    first = content.head.lstrip().split(b"\n", 1)[0]
    try:
        names = list(json_object(decode_utf8(first)))
    except RowError:  # cut off, or a reject
        return "JSON lines"
    return f"JSON lines: {_used(names, fields)}"


def _used(names: list[str], fields: Fields) -> str:
    """Return names of fields, and which of them are id and text if these have other names."""
    shown = show_fields(name for name in names if name not in fields.skip)
    id_ = next((name for name in fields.ids if name in names), None)
    text = next((name for name in fields.texts if name in names), None)
    title = next((name for name in fields.titles if name in names and text is not None), None)
    if (id_ in (None, fields.kind) and text in (None, "text")) or id_ is None or text is None:
        return shown
    joined = f"{title} and {text}" if title else text
    return f"{shown} ({fields.kind}: {id_}, text: {joined})"


def _table(source: str, content: Content, form: Format, fields: Fields) -> Table | None:
    if form == "tsv" and not fields.is_given:
        return None
    sample = Sample.of(source, content.head, is_whole=content.is_whole)
    if form == "auto" and sample.has_carriage_returns:
        raise SourceError(
            f"{named_source(source)} has lines that end with a carriage return alone: convert it "
            "with `tr '\\r' '\\n'`"
        )
    quoted = {"tsv": False, "csv": True}.get(form)
    return find_table(sample, fields, quoted=quoted)


def _table_rows(
    source: str, table: Table, stream: io.BufferedReader, max_bytes: int
) -> Iterator[Passage | Reject]:
    for record in read_records(read_lines(stream, max_bytes), table, max_bytes):
        try:
            pid, text, meta = parse_fields(_fields(record), table.fields)
        except RowError as exc:
            raw = record.raw
            yield Reject(source, record.line, str(exc), raw[:RAW_BYTES_KEPT], len(raw))
        else:
            yield Passage(pid, text, meta, source, record.line, record.raw)


def _fields(record: Record) -> dict[str, Any]:
    if record.problem is not None:
        raise RowError(record.problem)
    fields: dict[str, Any] = {**record.cells}
    if "meta" in fields:
        fields["meta"] = json_meta(fields["meta"])
    return fields
