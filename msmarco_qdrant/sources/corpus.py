"""Files and streams of passages and queries.

Passages come as TSV (``pid<TAB>text``, MS MARCO's `collection.tsv`), as JSON lines
(``{"pid" | "_id" | "id", "text", "title"?, ...}``, BEIR's `corpus.jsonl` included) or as Parquet
with the same names for columns. The first two may be compressed with gzip. A row that cannot
become a passage is yielded as a `Reject`; the others go on.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, cast, get_args

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
from msmarco_qdrant.sources.rows import RowError, decode_utf8, parse_json, parse_tsv

_T = TypeVar("_T")

Format: TypeAlias = Literal["auto", "tsv", "jsonl", "parquet"]

STDIN = "-"
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
    """Neighboring lines of a file, not yet split or parsed: cheap to read and to send."""

    source: str
    form: Format
    block: Block
    max_line_bytes: int

    def rows(self) -> list[Passage | Reject]:
        """Each line as a passage, or as a reject."""
        parse = _PARSERS[self.form]
        lines = self.block.lines(self.max_line_bytes)
        return [_row(self.source, line, parse) for line in lines if line.data or line.problem]

    def digest(self) -> bytes:
        """Sha256 over the lines and how they are parsed, 32 bytes."""
        told = hashlib.sha256(self.block.data)
        told.update(repr((self.block.last, self.form, self.max_line_bytes)).encode())
        return told.digest()


@dataclass(frozen=True, slots=True, eq=False)
class RowChunk:
    """Neighboring rows of a source that has no lines: Parquet, or passages made in Python."""

    passages: list[Passage | Reject]

    def rows(self) -> list[Passage | Reject]:
        """The rows as they are."""
        return self.passages

    def digest(self) -> bytes:
        """Sha256 over the rows."""
        told = [
            (row.pid, row.text, row.meta) if isinstance(row, Passage) else row.reason
            for row in self.passages
        ]
        return hashlib.sha256(repr(told).encode("utf-8", "backslashreplace")).digest()


Chunk: TypeAlias = LineChunk | RowChunk


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
        if self._sources.count(STDIN) > 1:
            raise UsageError("standard input was named twice; it can be read only once")
        if STDIN in self._sources and format == "parquet":
            raise UsageError("Parquet cannot be read from standard input: name the file")
        self._sizes = [_size_of(source) for source in self._sources]
        known_sizes = [size for size in self._sizes if size is not None]
        self.size: int | None = sum(known_sizes) if len(known_sizes) == len(self._sizes) else None
        for source, size in zip(self._sources, self._sizes, strict=True):
            if size is not None:  # a pipe can be looked into only once, when its turn comes
                self._check_form(source)

    @property
    def position(self) -> int:
        """Bytes of the files consumed so far (compressed, where they are)."""
        return self._position

    def __iter__(self) -> Iterator[Passage | Reject]:
        """Yield every row of every source in order, as a passage or as a reject."""
        return self._each(self._rows)

    def chunks(self) -> Iterator[Chunk]:
        """The same rows in chunks, lines not yet split or parsed, to be sent elsewhere.

        The same content gives the same chunks.
        """
        return self._each(self._chunks)

    def _each(self, read: Callable[[str, io.BufferedReader], Iterator[_T]]) -> Iterator[_T]:
        """What `read` makes of every source in order, its place told by `position`."""
        done = 0
        for source, size in zip(self._sources, self._sizes, strict=True):
            with _opened(source) as raw:
                try:
                    for item in read(source, raw):
                        if self.size is not None:
                            self._position = done + raw.tell()
                        yield item
                except OSError as exc:
                    raise SourceError(f"reading {source} failed: {exc}") from exc
            done += size or 0
            self._position = done

    def _chunks(self, source: str, raw: io.BufferedReader) -> Iterator[Chunk]:
        form = self._form_of(source, raw)
        if form == "parquet":
            return _row_chunks(parquet_rows(source, raw))
        limit = self._max_line_bytes
        blocks = read_blocks(open_maybe_gzip(raw), _CHUNK_BYTES, limit)
        return (LineChunk(source, form, block, limit) for block in blocks)

    def _rows(self, source: str, raw: io.BufferedReader) -> Iterator[Passage | Reject]:
        form = self._form_of(source, raw)
        if form == "parquet":
            return parquet_rows(source, raw)
        return (_row(source, line, _PARSERS[form]) for line in self._lines(raw))

    def _lines(self, raw: io.BufferedReader) -> Iterator[Line]:
        lines = read_lines(open_maybe_gzip(raw), self._max_line_bytes)
        return (line for line in lines if line.data or line.problem)

    def _form_of(self, source: str, raw: io.BufferedReader) -> Format:
        form = _format_of(source, raw) if self._format == "auto" else self._format
        if form == "parquet" and source == STDIN:
            raise SourceError("Parquet cannot be read from standard input: name the file")
        return form

    def _check_form(self, source: str) -> None:
        """Refuse now, before anything is created for it, what could not be read later."""
        with _opened(source) as raw:
            form = self._form_of(source, raw)
            if form == "parquet":
                open_parquet(source, raw)
            elif form == "jsonl":
                _refuse_array(source, raw)


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
        parse = _PARSERS[form]
        for line in read_lines(open_maybe_gzip(raw), MAX_LINE_BYTES):
            if not line.data and not line.problem:
                continue
            row = _row(name, line, parse)
            if isinstance(row, Reject):
                reason = _PID.sub("qid", row.reason)
                raise SourceError(f"{name}:{row.line}: no query stands there: {reason}")
            yield Query(row.pid, row.text)


def read_pids(source: str | PathLike[str]) -> Iterator[str]:
    """Yield the pids of a file, one a line; "-" is standard input. Empty lines are skipped.

    Raises:
        SourceError: For a file that cannot be read, or a line that is no pid.
    """
    name = str(source)
    _size_of(name)
    with _opened(name) as raw:
        for line in read_lines(open_maybe_gzip(raw), MAX_LINE_BYTES):
            if not line.data and not line.problem:
                continue
            try:
                yield _pid(line)
            except RowError as exc:
                raise SourceError(f"{name}:{line.number}: no pid stands there: {exc}") from exc


def _pid(line: Line) -> str:
    if line.problem:
        raise RowError(line.problem)
    if b"\t" in line.data:
        raise RowError("it holds a tab; give one pid a line, without the text")
    if line.data.startswith(b"{"):
        raise RowError("it looks like a JSON object; give one pid a line, as `jq -r .pid` does")
    return decode_utf8(line.data)


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
        if path.is_file():  # to open and close a named pipe would end its writer
            with path.open("rb"):
                pass
    except FileNotFoundError as exc:
        raise SourceError(
            f"no such file: {source} (seen from {Path.cwd()}); check the path, or pass '-' for "
            "standard input"
        ) from exc
    except OSError as exc:
        raise SourceError(f"cannot read {source}: {exc.strerror}") from exc
    return status.st_size if path.is_file() else None


@contextmanager
def _opened(source: str) -> Iterator[io.BufferedReader]:
    if source == STDIN:
        # Not sys.stdin: Python aborts at exit if a thread still waits in that, as after Ctrl-C.
        with open(0, "rb", closefd=False) as stdin:  # a descriptor has no path
            yield make_peekable(stdin)
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115  # closed below, whatever happens
    except OSError as exc:
        raise SourceError(f"cannot read {source}: {exc.strerror}") from exc
    with file:
        yield make_peekable(file)


def _format_of(source: str, raw: io.BufferedReader) -> Format:
    name = source.removesuffix(".gz")
    by_name = _SUFFIXES.get(Path(name).suffix.lower())
    if by_name is not None:
        return by_name
    head = peek_content(raw).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    _refuse_array(source, raw)
    return "jsonl" if head.startswith(b"{") else "tsv"


def _refuse_array(source: str, raw: io.BufferedReader) -> None:
    if peek_content(raw).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        raise SourceError(f"{source} is a JSON array; expected one object a line (jq -c '.[]')")


# ---- lines ---------------------------------------------------------------------------------


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
    """The rows of a source in chunks; the same rows give the same chunks."""
    return rows.chunks() if isinstance(rows, Corpus) else _row_chunks(rows)


def _row_chunks(rows: Iterable[Passage | Reject]) -> Iterator[RowChunk]:
    iterator = iter(rows)
    while part := list(islice(iterator, _CHUNK_ROWS)):
        yield RowChunk(part)


def as_rows(
    source: Iterable[Passage | Reject] | str | PathLike[str] | Sequence[str | PathLike[str]],
) -> Iterable[Passage | Reject]:
    """A `Corpus` for a path or several, and an iterable of passages as it is.

    Raises:
        SourceError: For a path that cannot be read.
        UsageError: For what is neither.
    """
    if isinstance(source, str | PathLike):
        return Corpus(source)
    if not isinstance(source, Iterable):
        raise UsageError(f"a {type(source).__name__} is no source: pass paths, or passages")
    if isinstance(source, Sequence) and source and isinstance(source[0], str | PathLike):
        return Corpus(cast("Sequence[str | PathLike[str]]", source))
    return cast("Iterable[Passage | Reject]", source)
