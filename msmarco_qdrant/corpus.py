"""Files and streams of passages and queries.

Passages come as TSV (``pid<TAB>text``, MS MARCO's `collection.tsv`), as JSON lines
(``{"pid" | "_id" | "id", "text", "title"?, ...}``, BEIR's `corpus.jsonl` included) or as Parquet
with the same names for columns. The first two may be compressed with gzip. A row that cannot
become a passage is yielded as a `Reject`; the others go on.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from msmarco_qdrant._lines import RAW_BYTES_KEPT, Line, open_maybe_gzip, peek_content, read_lines
from msmarco_qdrant.errors import MissingExtraError, SourceError, UsageError
from msmarco_qdrant.records import Meta, Passage, Query, Reject

Format: TypeAlias = Literal["auto", "tsv", "jsonl", "parquet"]

STDIN = "-"
MAX_LINE_BYTES = 1 << 20
_PID_FIELDS = ("pid", "_id", "id")
_SUFFIXES: Mapping[str, Format] = {
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_PARQUET_BATCH_ROWS = 4096


_Parser: TypeAlias = Callable[[str], tuple[str, str, Meta]]


class _RowError(ValueError):
    """Why a row cannot become a passage."""


class Corpus:
    """Passages of one or more files, to be iterated once or more.

    Args:
        sources: Paths; "-" is standard input, which can be read only once.
        format: "tsv", "jsonl", "parquet", or "auto" to go by each name, then by content.
        max_line_bytes: A longer line becomes a reject.

    Raises:
        SourceError: On construction, for a file that is missing or cannot be read.
        MissingExtraError: For Parquet without the extra `parquet`.
    """

    def __init__(
        self,
        sources: str | PathLike[str] | Sequence[str | PathLike[str]],
        *,
        format: Format = "auto",  # noqa: A002  # the option's name everywhere else
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        if format not in get_args(Format):
            known = ", ".join(get_args(Format))
            raise UsageError(f"format {format!r} is unknown: expected one of {known}")
        if isinstance(sources, str | PathLike):
            sources = [sources]
        self._sources = [str(source) for source in sources]
        if not self._sources:
            raise UsageError("no source was given: name a file, or '-' for standard input")
        self._format = format
        self._max_line_bytes = max_line_bytes
        self._position = 0
        sizes = [_size_of(source) for source in self._sources]
        known_sizes = [size for size in sizes if size is not None]
        self.size: int | None = sum(known_sizes) if len(known_sizes) == len(sizes) else None

    @property
    def position(self) -> int:
        """Bytes of the files consumed so far (compressed, where they are)."""
        return self._position

    def __iter__(self) -> Iterator[Passage | Reject]:
        """Yield every row of every source in order, as a passage or as a reject."""
        done = 0
        for source in self._sources:
            with _opened(source) as raw:
                try:
                    for row in self._rows(source, raw):
                        if self.size is not None:
                            self._position = done + raw.tell()
                        yield row
                except OSError as exc:
                    raise SourceError(f"reading {source} failed: {exc}") from exc
            done += _size_of(source) or 0
            self._position = done

    def _rows(self, source: str, raw: io.BufferedReader) -> Iterator[Passage | Reject]:
        form = _format_of(source, raw) if self._format == "auto" else self._format
        if form == "parquet":
            return _parquet_rows(source, raw)
        parse = _parse_tsv if form == "tsv" else _parse_json
        lines = read_lines(open_maybe_gzip(raw), self._max_line_bytes)
        return (_row(source, line, parse) for line in lines if line.data or line.problem)


def read_queries(source: str | PathLike[str]) -> Iterator[Query]:
    """Yield the queries of a file: TSV (``qid<TAB>text``) or JSON lines (``_id``, ``text``).

    Raises:
        SourceError: For a file that cannot be read, or a line that is no query: a query that is
            left out would change every mean without a word.
    """
    name = str(source)
    _size_of(name)
    with _opened(name) as raw:
        form = _format_of(name, raw)
        if form == "parquet":
            raise SourceError(f"{name} is Parquet; queries come as TSV or JSON lines")
        parse = _parse_tsv if form == "tsv" else _parse_json
        for line in read_lines(open_maybe_gzip(raw), MAX_LINE_BYTES):
            if not line.data and not line.problem:
                continue
            row = _row(name, line, parse)
            if isinstance(row, Reject):
                raise SourceError(f"{name}:{row.line}: no query stands there: {row.reason}")
            yield Query(row.pid, row.text)


# ---- opening -------------------------------------------------------------------------------


def _size_of(source: str) -> int | None:
    """The file's size in bytes, None for what has none (standard input, a pipe)."""
    if source == STDIN:
        return None
    path = Path(source)
    if path.is_dir():
        raise SourceError(f"{source} is a directory: name the files in it")
    try:
        status = path.stat()
        with path.open("rb"):
            pass
    except FileNotFoundError as exc:
        raise SourceError(f"no such file: {source} (seen from {Path.cwd()})") from exc
    except OSError as exc:
        raise SourceError(f"cannot read {source}: {exc.strerror}") from exc
    return status.st_size if path.is_file() else None


@contextmanager
def _opened(source: str) -> Iterator[io.BufferedReader]:
    if source == STDIN:
        stdin = sys.stdin.buffer
        yield stdin if isinstance(stdin, io.BufferedReader) else io.BufferedReader(stdin)  # type: ignore[arg-type]
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115  # closed below, whatever happens
    except OSError as exc:
        raise SourceError(f"cannot read {source}: {exc.strerror}") from exc
    with file:
        yield file


def _format_of(source: str, raw: io.BufferedReader) -> Format:
    name = source.removesuffix(".gz")
    by_name = _SUFFIXES.get(Path(name).suffix.lower())
    if by_name is not None:
        return by_name
    head = peek_content(raw).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"["):
        raise SourceError(f"{source} is a JSON array; expected one object a line (jq -c '.[]')")
    return "jsonl" if head.startswith(b"{") else "tsv"


# ---- lines ---------------------------------------------------------------------------------


def _row(source: str, line: Line, parse: _Parser) -> Passage | Reject:
    reason = line.problem
    if reason is None:
        try:
            pid, text, meta = parse(_decode(line.data))
        except _RowError as exc:
            reason = str(exc)
    if reason is not None:
        return Reject(source, line.number, reason, line.data[:RAW_BYTES_KEPT], line.length)
    return Passage(pid, text, meta, source, line.number)


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise _RowError(f"not UTF-8: byte 0x{data[exc.start]:02x} at offset {exc.start}") from exc


def _parse_tsv(line: str) -> tuple[str, str, Meta]:
    pid, tab, text = line.partition("\t")
    if not tab:
        raise _RowError("no tab: expected pid<TAB>text")
    return _checked_pid(pid), _checked_text(text), {}


def _parse_json(line: str) -> tuple[str, str, Meta]:
    try:
        fields = json.loads(line, parse_constant=_refuse_constant)
    except _RowError:
        raise
    except json.JSONDecodeError as exc:
        raise _RowError(f"broken JSON: {exc.msg} at column {exc.colno}") from exc
    except RecursionError as exc:
        raise _RowError("broken JSON: nested too deeply") from exc
    except ValueError as exc:  # an integer of more digits than Python converts
        raise _RowError(f"broken JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise _RowError(f"a JSON object was expected, found {_kind(fields)}")
    return _parse_fields(fields)


def _refuse_constant(name: str) -> None:
    raise _RowError(f"a non-finite number: {name}")


# ---- fields, of JSON and of Parquet --------------------------------------------------------


def _parse_fields(fields: dict[str, Any]) -> tuple[str, str, Meta]:
    pid_field = next((name for name in _PID_FIELDS if fields.get(name) is not None), None)
    if pid_field is None:
        raise _RowError("no pid: expected a field 'pid', '_id' or 'id'")
    pid = _checked_pid(fields[pid_field])
    text = _joined_text(fields)
    return pid, text, _collect_meta(fields, pid_field)


def _joined_text(fields: dict[str, Any]) -> str:
    """Title and text as BEIR joins them (beir.datasets.data_loader: title, a space, the text)."""
    if "text" not in fields:
        raise _RowError("no text: expected a field 'text'")
    text, title = fields["text"], fields.get("title")
    if not isinstance(text, str):
        raise _RowError(f"'text' is {_kind(text)}, expected a string")
    if title is not None and not isinstance(title, str):
        raise _RowError(f"'title' is {_kind(title)}, expected a string")
    return _checked_text(f"{title} {text}".strip() if title else text)


def _collect_meta(fields: dict[str, Any], pid_field: str) -> Meta:
    """The user's own fields: those inside an object 'meta', and all that have no other role."""
    inside = fields.get("meta")
    if inside is not None and not isinstance(inside, dict):
        raise _RowError(f"'meta' is {_kind(inside)}, expected an object")
    taken = {pid_field, "text", "title", "meta"}
    meta = {name: value for name, value in fields.items() if name not in taken}
    for name in inside or {}:
        if name in meta:
            raise _RowError(f"field '{name}' stands both inside and beside 'meta'")
    meta.update(inside or {})
    try:
        _check_value(meta, "")
    except RecursionError as exc:
        raise _RowError("broken JSON: nested too deeply") from exc
    return meta


def _checked_pid(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise _RowError(f"the pid is {_kind(value)}, expected a string or an integer")
    if not value:
        raise _RowError("no pid: it is empty")
    _check_string(value, "the pid")
    return value


def _checked_text(text: str) -> str:
    _check_string(text, "the text")
    if not text.strip():
        raise _RowError("the text is empty")
    return text


def _check_string(value: str, where: str) -> None:
    if "\x00" in value:
        raise _RowError(f"{where} holds a NUL byte")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        code = ord(value[exc.start])
        raise _RowError(f"{where} holds a lone surrogate, U+{code:04X}") from exc


def _check_value(value: object, where: str) -> None:  # noqa: C901  # a case a type
    """Refuse what a Qdrant payload would lose or change."""
    match value:
        case str():
            _check_string(value, where)
        case bool() | None:
            pass
        case int():
            if not -(2**63) <= value < 2**64:
                raise _RowError(f"{where}: {value} does not fit 64 bits; write it as a string")
        case float():
            if not math.isfinite(value):
                raise _RowError(f"{where}: a non-finite number: {value}")
        case dict():
            for name, inner in value.items():
                _check_string(name, f"a field name in {where or 'the row'}")
                _check_value(inner, f"{where}.{name}" if where else f"field '{name}'")
        case list():
            for index, inner in enumerate(value):
                _check_value(inner, f"{where}[{index}]")
        case _:
            raise _RowError(f"{where} is {_kind(value)}, which JSON does not have")


def _kind(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a float",
        str: "a string",
        list: "an array",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), f"a {type(value).__name__}")


# ---- Parquet -------------------------------------------------------------------------------


def _parquet_rows(source: str, raw: io.BufferedReader) -> Iterator[Passage | Reject]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as exc:
        raise MissingExtraError(f"reading Parquet ({source})", "parquet") from exc
    try:
        file = pq.ParquetFile(raw)
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
            for fields in batch.to_pylist():
                number += 1
                yield _parquet_row(source, number, fields)
    except pa.ArrowException as exc:
        raise SourceError(f"{source} cannot be read as Parquet: {exc}") from exc


def _parquet_row(source: str, number: int, fields: dict[str, Any]) -> Passage | Reject:
    present = {name: _plain(value) for name, value in fields.items() if value is not None}
    try:
        pid, text, meta = _parse_fields(present)
    except _RowError as exc:
        raw = json.dumps(fields, default=repr).encode("utf-8", "replace")
        return Reject(source, number, str(exc), raw[:RAW_BYTES_KEPT], len(raw))
    return Passage(pid, text, meta, source, number)


def _plain(value: object) -> object:
    """Dates as ISO 8601, as a Qdrant datetime index wants them; anything else as it is."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return value


def as_rows(
    source: Iterable[Passage | Reject] | str | PathLike[str],
) -> Iterable[Passage | Reject]:
    """A `Corpus` for a path, and anything else as it is."""
    return Corpus(source) if isinstance(source, str | PathLike) else source
