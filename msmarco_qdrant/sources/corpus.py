"""Files and streams of passages and queries.

Passages are TSV (``pid<TAB>text``, MS MARCO's `collection.tsv`), JSON lines
(``{"pid" | "_id" | "id", "text", "title"?, ...}``, also BEIR's `corpus.jsonl`) or Parquet with
columns of these names. TSV and JSON lines may be compressed with gzip. A row that cannot become a
passage is yielded as a `Reject`.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, cast, get_args

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import Meta, Passage, Query, Reject
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.sources.lines import (
    RAW_BYTES_KEPT,
    Block,
    Line,
    make_peekable,
    open_maybe_gzip,
    peek_content,
    read_blocks,
    read_lines,
)
from msmarco_qdrant.sources.parquet import open_parquet, parquet_rows
from msmarco_qdrant.sources.rows import RowError, decode_utf8, hashed_reason, parse_json, parse_tsv

_T = TypeVar("_T")

Format: TypeAlias = Literal["auto", "tsv", "jsonl", "parquet"]

STDIN = "-"
_NO_PARQUET_STDIN = "Parquet cannot be read from standard input: pass the file's path"
MAX_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_CHUNK_ROWS = 1024
_PID = re.compile(r"\bpid\b")
_SUFFIXES: Mapping[str, Format] = {
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_Parser: TypeAlias = Callable[[str], tuple[str, str, Meta]]
_PARSERS: Mapping[Format, _Parser] = {"tsv": parse_tsv, "jsonl": parse_json}


@dataclass(frozen=True, slots=True, eq=False)
class LineChunk:
    """Neighboring lines of a file, not yet split or parsed: cheap to read and to pickle."""

    source: str
    form: Format
    block: Block
    max_line_bytes: int

    def rows(self) -> list[Passage | Reject]:
        """Parse each line to a passage or a reject."""
        parse = _PARSERS[self.form]
        lines = self.block.lines(self.max_line_bytes)
        return [_row(self.source, line, parse) for line in lines if line.data or line.problem]

    def digest(self) -> bytes:
        """Sha256 over the lines and their format, 32 bytes."""
        hashed = hashlib.sha256(self.block.data)
        last = self.block.last
        if last is not None and last.problem:
            last = last._replace(problem=hashed_reason(last.problem))
        hashed.update(repr((last, self.form, self.max_line_bytes)).encode())
        return hashed.digest()


@dataclass(frozen=True, slots=True, eq=False)
class RowChunk:
    """Neighboring rows of a source without lines: Parquet, or passages made in Python."""

    passages: list[Passage | Reject]

    def rows(self) -> list[Passage | Reject]:
        """Return the rows."""
        return self.passages

    def digest(self) -> bytes:
        """Sha256 over the rows, 32 bytes."""
        values = [
            (row.pid, row.text, row.meta) if isinstance(row, Passage) else hashed_reason(row.reason)
            for row in self.passages
        ]
        return hashlib.sha256(repr(values).encode("utf-8", "backslashreplace")).digest()


Chunk: TypeAlias = LineChunk | RowChunk


class Corpus:
    """Passages of one or more files; can be iterated again, except for standard input.

    Args:
        sources: Paths; "-" is standard input.
        format: "tsv", "jsonl", "parquet", or "auto" to detect it by name, then by content.
        max_line_bytes: A longer line becomes a reject.

    Attributes:
        size: Bytes of all files, None with standard input or a pipe.
        position: Bytes of the files read so far, before decompression.

    Raises:
        SourceError: On construction, if a file is missing or cannot be read.
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
            raise UsageError(f"format must be one of {known}, got {format!r}")
        if isinstance(sources, str | PathLike):
            sources = [sources]
        self._sources = [str(source) for source in sources]
        if not self._sources:
            raise UsageError("sources must not be empty: pass a file, or '-' for standard input")
        self._format = format
        self._max_line_bytes = max_line_bytes
        self.position = 0
        if self._sources.count(STDIN) > 1:
            raise UsageError("sources must contain standard input ('-') at most once")
        if STDIN in self._sources and format == "parquet":
            raise UsageError(_NO_PARQUET_STDIN)
        self._sizes = [_file_size(source) for source in self._sources]
        self.size = None if None in self._sizes else sum(size or 0 for size in self._sizes)
        for source, size in zip(self._sources, self._sizes, strict=True):
            if size is not None:  # a pipe can be opened only once, to read it
                self._check_format(source)

    def __iter__(self) -> Iterator[Passage | Reject]:
        """Yield every row of every source in order, as a passage or as a reject."""
        return self._read_sources(self._rows)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows in chunks for subprocesses, lines not yet split or parsed.

        Equal content gives equal chunks.
        """
        return self._read_sources(self._chunks)

    def _read_sources(self, read: Callable[[str, io.BufferedReader], Iterator[_T]]) -> Iterator[_T]:
        """Yield the items that `read` makes of every source in order, and update `position`."""
        done = 0
        for source, size in zip(self._sources, self._sizes, strict=True):
            with _open(source) as raw:
                try:
                    for item in read(source, raw):
                        if self.size is not None:
                            self.position = done + raw.tell()
                        yield item
                except OSError as exc:
                    raise SourceError(f"reading {source} failed: {exc}") from exc
            done += size or 0
            self.position = done

    def _chunks(self, source: str, raw: io.BufferedReader) -> Iterator[Chunk]:
        form = self._detect_format(source, raw)
        if form == "parquet":
            return _chunk_rows(parquet_rows(source, raw))
        limit = self._max_line_bytes
        blocks = read_blocks(open_maybe_gzip(raw), _CHUNK_BYTES, limit)
        return (LineChunk(source, form, block, limit) for block in blocks)

    def _rows(self, source: str, raw: io.BufferedReader) -> Iterator[Passage | Reject]:
        form = self._detect_format(source, raw)
        if form == "parquet":
            return parquet_rows(source, raw)
        lines = _nonempty_lines(raw, self._max_line_bytes)
        return (_row(source, line, _PARSERS[form]) for line in lines)

    def _detect_format(self, source: str, raw: io.BufferedReader) -> Format:
        form = _detect_format(source, raw) if self._format == "auto" else self._format
        if form == "parquet" and source == STDIN:
            raise SourceError(_NO_PARQUET_STDIN)
        return form

    def _check_format(self, source: str) -> None:
        """Refuse an unreadable file before the caller creates a collection for it."""
        with _open(source) as raw:
            form = self._detect_format(source, raw)
            if form == "parquet":
                open_parquet(source, raw)
            elif form == "jsonl":
                _refuse_array(source, raw)


def read_queries(source: str | PathLike[str]) -> Iterator[Query]:
    """Yield the queries of a file: TSV (``qid<TAB>text``) or JSON lines (``_id``, ``text``).

    Raises:
        SourceError: If the file cannot be read, a line is not a query, or a qid is repeated: to
            skip a line would change every mean without notice.
    """
    lines: dict[str, int | None] = {}
    name = str(source)
    _file_size(name)
    with _open(name) as raw:
        form = _detect_format(name, raw)
        if form == "parquet":
            raise SourceError(f"queries must be TSV or JSON lines, got Parquet: {name}")
        for line in _nonempty_lines(raw):
            row = _row(name, line, _PARSERS[form])
            if isinstance(row, Reject):
                reason = _PID.sub("qid", row.reason)
                raise SourceError(f"{name}:{row.line} is not a query: {reason}")
            if row.pid in lines:
                raise SourceError(
                    f"{name}:{row.line}: each query needs its own qid, got {row.pid!r} also in "
                    f"line {lines[row.pid]}"
                )
            lines[row.pid] = row.line
            yield Query(row.pid, row.text)


def read_pids(source: str | PathLike[str]) -> Iterator[str]:
    """Yield the pids of a file, one per line; "-" is standard input. Empty lines are skipped.

    Raises:
        SourceError: If the file cannot be read, or a line is not a pid.
    """
    name = str(source)
    _file_size(name)
    with _open(name) as raw:
        for line in _nonempty_lines(raw):
            try:
                yield _pid(line)
            except RowError as exc:
                raise SourceError(f"{name}:{line.number} is not a pid: {exc}") from exc


def _pid(line: Line) -> str:
    if line.problem:
        raise RowError(line.problem)
    if b"\t" in line.data:
        raise RowError("it holds a tab; write one pid per line, without the text")
    if line.data.startswith(b"{"):
        raise RowError("it looks like a JSON object; write one pid per line, as `jq -r .pid` does")
    return decode_utf8(line.data)


# ---- opening -------------------------------------------------------------------------------


def _file_size(source: str) -> int | None:
    """Return the file's size in bytes, None for standard input and pipes."""
    if source == STDIN:
        return None
    path = Path(source)
    if path.is_dir():
        raise SourceError(f"{source} is a directory: pass the files in it")
    try:
        status = path.stat()
    except FileNotFoundError as exc:
        raise SourceError(
            f"no such file: {source} (relative to {Path.cwd()}); check the path, or pass '-' for "
            "standard input"
        ) from exc
    except OSError as exc:
        raise SourceError(f"cannot read {source}: {exc.strerror}") from exc
    return status.st_size if path.is_file() else None


@contextmanager
def _open(source: str) -> Iterator[io.BufferedReader]:
    if source == STDIN:
        # Not sys.stdin: Python aborts at exit if a thread still reads it, as after Ctrl-C.
        with open(0, "rb", closefd=False) as stdin:  # a descriptor
            yield make_peekable(stdin)
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115  # closed below
    except OSError as exc:
        raise SourceError(f"cannot read {source}: {exc.strerror}") from exc
    with file:
        yield make_peekable(file)


def _detect_format(source: str, raw: io.BufferedReader) -> Format:
    name = source.removesuffix(".gz")
    by_name = _SUFFIXES.get(Path(name).suffix.lower())
    if by_name is not None:
        return by_name
    head = peek_content(raw)
    if head.startswith(b"PAR1"):
        return "parquet"
    _refuse_array(source, raw)
    return "jsonl" if head.startswith(b"{") else "tsv"


def _refuse_array(source: str, raw: io.BufferedReader) -> None:
    if peek_content(raw).startswith(b"["):
        raise SourceError(
            f"{source} must have one JSON object per line, got an array (jq -c '.[]')"
        )


def _nonempty_lines(raw: io.BufferedReader, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    lines = read_lines(open_maybe_gzip(raw), max_bytes)
    return (line for line in lines if line.data or line.problem)


def _row(source: str, line: Line, parse: _Parser) -> Passage | Reject:
    reason = line.problem
    if reason is None:
        try:
            pid, text, meta = parse(decode_utf8(line.data))
        except RowError as exc:
            reason = str(exc)
    if reason is not None:
        return Reject(source, line.number, reason, line.data[:RAW_BYTES_KEPT], line.length)
    return Passage(pid, text, meta, source, line.number, line.data)


def to_chunks(rows: Iterable[Passage | Reject]) -> Iterator[Chunk]:
    """Split the rows of a source into chunks; equal rows give equal chunks."""
    return rows.chunks() if isinstance(rows, Corpus) else _chunk_rows(rows)


def _chunk_rows(rows: Iterable[Passage | Reject]) -> Iterator[RowChunk]:
    return map(RowChunk, in_batches(rows, _CHUNK_ROWS))


def as_rows(
    source: Iterable[Passage | Reject] | str | PathLike[str] | Sequence[str | PathLike[str]],
) -> Iterable[Passage | Reject]:
    """Return a `Corpus` for one or more paths, and an iterable of passages unchanged.

    Raises:
        SourceError: If a path cannot be read.
        UsageError: If the source is neither.
    """
    if isinstance(source, str | PathLike):
        return Corpus(source)
    if not isinstance(source, Iterable):
        raise UsageError(f"a source must be paths or passages, got a {type(source).__name__}")
    if isinstance(source, Sequence) and source and isinstance(source[0], str | PathLike):
        return Corpus(cast("Sequence[str | PathLike[str]]", source))
    return cast("Iterable[Passage | Reject]", source)
