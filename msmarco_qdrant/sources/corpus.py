"""Files and streams of passages and queries.

The content of a file decides about its format, never its name: see `shapes` and `delimited`. A row
that cannot become a passage is yielded as a `Reject`.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import TypeAlias, TypeVar, cast

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import Passage, Query, Reject
from msmarco_qdrant.core.source_types import Format
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.sources.content import STDIN, named_source
from msmarco_qdrant.sources.fields import PASSAGE, QUERY, Fields, passage_fields
from msmarco_qdrant.sources.files import file_size, list_matching, open_source, read_text
from msmarco_qdrant.sources.first_rows import unless_all_fail
from msmarco_qdrant.sources.lines import Block, Line, read_blocks
from msmarco_qdrant.sources.python_rows import PythonRows, Rows
from msmarco_qdrant.sources.rows import RowError, decode_utf8, hashed_reason
from msmarco_qdrant.sources.shapes import (
    FORMATS,
    LineFormat,
    Shape,
    detect_shape,
    line_parser,
    parse_line,
)

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

MAX_LINE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20
CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class LineChunk:
    """Neighboring lines of a file, not yet split or parsed: cheap to read and to pickle."""

    source: str
    form: LineFormat
    block: Block
    max_line_bytes: int
    fields: Fields = PASSAGE

    def rows(self) -> list[Passage | Reject]:
        """Parse each line to a passage or a reject."""
        lines, parse = self.block.lines(self.max_line_bytes), line_parser(self.form, self.fields)
        source = self.source
        return [parse_line(source, line, parse) for line in lines if line.data or line.problem]

    def parse(self) -> Iterator[Passage | Reject]:
        """Parse one line after the other."""
        lines, parse = self.block.lines(self.max_line_bytes), line_parser(self.form, self.fields)
        return (parse_line(self.source, line, parse) for line in lines if line.data or line.problem)

    def digest(self) -> bytes:
        """Sha256 over the lines and their format, 32 bytes."""
        hashed = hashlib.sha256(self.block.data)
        last = self.block.last
        if last is not None and last.problem:
            last = last._replace(problem=hashed_reason(last.problem))
        hashed.update(repr((last, self.form, self.max_line_bytes)).encode())
        if self.fields != PASSAGE:
            hashed.update(self.fields.digest())
        return hashed.digest()


@dataclass(frozen=True, slots=True, eq=False)
class RowChunk:
    """Neighboring rows of a source without lines: Parquet, or passages made in Python."""

    passages: list[Passage | Reject]

    def rows(self) -> list[Passage | Reject]:
        """Return the rows."""
        return self.passages

    def parse(self) -> Iterator[Passage | Reject]:
        """Yield the rows."""
        return iter(self.passages)

    def digest(self) -> bytes:
        """Sha256 over the rows, 32 bytes."""
        values = [
            (row.pid, row.text, row.meta) if isinstance(row, Passage) else hashed_reason(row.reason)
            for row in self.passages
        ]
        return hashlib.sha256(repr(values).encode("utf-8", "backslashreplace")).digest()


Chunk: TypeAlias = LineChunk | RowChunk


@dataclass(frozen=True, slots=True)
class Reading:
    """Arguments of a `Corpus`, as its caller chose them: they decide how rows are read.

    Raises:
        UsageError: For an unknown format, an empty name, or a field that is used twice.
    """

    format: Format = "auto"
    pid_field: str | None = None
    text_field: str | None = None
    title_field: str | None = None
    skip_field: str | Sequence[str] = ()
    max_line_bytes: int = MAX_LINE_BYTES

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        skip = self.skip_field
        object.__setattr__(self, "skip_field", (skip,) if isinstance(skip, str) else tuple(skip))
        _ = self.fields

    @property
    def fields(self) -> Fields:
        """The fields of id, text and title."""
        return passage_fields(self.pid_field, self.text_field, self.title_field, self.skip_field)

    def require_default(self, source: object, *names: str) -> None:
        """Refuse arguments that only paths can have.

        Args:
            source: A source that is none of paths.
            names: The arguments; all by default.

        Raises:
            UsageError: If one has another value than its default.
        """
        for field in fields(self):
            if names and field.name not in names:
                continue
            if getattr(self, field.name) != field.default:
                advice = "pass it to Corpus" if isinstance(source, Corpus) else "omit it"
                kind = type(source).__name__
                raise UsageError(f"{field.name} needs paths, got a source of type {kind}: {advice}")


DEFAULT_READING = Reading()


class Corpus:
    """Passages of one or more files; can be iterated again, except for standard input.

    Args:
        sources: Paths; "-" is standard input.
        format: "tsv" (`pid<TAB>text` in every line; with `pid_field` or `text_field` a table
            without quotes), "csv" (with quotes; the delimiter is that of the first row), "jsonl",
            "parquet", "arrow", or "auto" to detect it by the content.
        max_line_bytes: A longer line becomes a reject.
        pid_field: The field, or the name or number of the column, with the pid; None for the known
            names, such as pid, id and docid.
        text_field: The same for the text; None for text, passage, contents and others.
        title_field: The same for the title, which is joined in front of the text; None for title.
        skip_field: Fields to leave out of `meta`, one name or several.

    Attributes:
        size: Bytes of all files, None with standard input or a pipe.
        position: Bytes of the files read so far, before decompression.
        descriptions: The shape of each source in one line; of standard input and pipes once they
            are read.
        reading: How its rows are read.

    Raises:
        SourceError: On construction, if a file is missing or cannot be read, or it is unknown
            which columns have the pid and the text. Also by the iteration, if the first 1,000 rows
            of a source fail alike, or all rows of a shorter one.
        MissingExtraError: For Parquet, Arrow or zstd without the extra `parquet`.
    """

    @suggest_keywords
    def __init__(
        self,
        sources: str | PathLike[str] | Sequence[str | PathLike[str]],
        *,
        format: Format = "auto",  # noqa: A002  # the option's name everywhere else
        max_line_bytes: int = MAX_LINE_BYTES,
        pid_field: str | None = None,
        text_field: str | None = None,
        title_field: str | None = None,
        skip_field: str | Sequence[str] = (),
    ) -> None:
        self.reading = Reading(
            format, pid_field, text_field, title_field, skip_field, max_line_bytes
        )
        if isinstance(sources, str | PathLike):
            sources = [sources]
        self._sources = [file for source in sources for file in list_matching(source)]
        if not self._sources:
            raise UsageError("sources must not be empty: pass a file, or '-' for standard input")
        self.position = 0
        if self._sources.count(STDIN) > 1:
            raise UsageError("sources must contain standard input ('-') at most once")
        if STDIN in self._sources and format == "parquet":
            raise UsageError("Parquet cannot be read from standard input: pass the file's path")
        self._sizes = [file_size(source) for source in self._sources]
        self.size = None if None in self._sizes else sum(size or 0 for size in self._sizes)
        self._described: dict[str, str] = {}
        for source, size in zip(self._sources, self._sizes, strict=True):
            if size is not None:  # a pipe can be opened only once, to read it
                with open_source(source) as raw:
                    self._shape(source, raw)

    @property
    def sources(self) -> Sequence[str]:
        """The sources."""
        return self._sources

    @property
    def descriptions(self) -> tuple[str, ...]:
        """The shape of each source in one line, as far as it is known."""
        named = ((source, self._described.get(source)) for source in self._sources)
        return tuple(f"{named_source(source)}: {words}" for source, words in named if words)

    @property
    def shapes(self) -> Mapping[str, str]:
        """The shape of each source, as far as it is known."""
        return self._described

    def __iter__(self) -> Iterator[Passage | Reject]:
        """Yield every row of every source in order, as a passage or as a reject."""
        return self._read_sources(self._rows)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows in chunks for subprocesses, lines not yet split or parsed.

        Equal content gives equal chunks.
        """
        return self._read_sources(self._chunks)

    def _read_sources(self, read: Callable[[Shape], Iterator[_T]]) -> Iterator[_T]:
        """Yield the items that `read` makes of every source in order, and update `position`."""
        done = 0
        for source, size in zip(self._sources, self._sizes, strict=True):
            with open_source(source) as raw:
                try:
                    for item in read(self._shape(source, raw)):
                        if self.size is not None:
                            self.position = done + raw.tell()
                        yield item
                except OSError as exc:
                    raise SourceError(f"reading {source} failed: {exc}") from exc
            done += size or 0
            self.position = done

    def _shape(self, source: str, raw: io.BufferedReader) -> Shape:
        shape = detect_shape(source, raw, self.reading.format, self.reading.fields)
        if source not in self._described:
            self._described[source] = shape.description
            _log.info("%s: %s", named_source(source), shape.description)
        return shape

    def _chunks(self, shape: Shape) -> Iterator[Chunk]:
        limit = self.reading.max_line_bytes
        chunks: Iterator[Chunk]
        if shape.lines is None:
            chunks = chunk_rows(shape.rows(limit))
        else:
            form, fields = shape.lines, shape.fields
            blocks = read_blocks(shape.content.stream, CHUNK_BYTES, limit)
            chunks = (LineChunk(shape.source, form, block, limit, fields) for block in blocks)
        return unless_all_fail(shape, chunks, lambda chunk: chunk.parse())

    def _rows(self, shape: Shape) -> Iterator[Passage | Reject]:
        return unless_all_fail(shape, shape.rows(self.reading.max_line_bytes), lambda row: [row])


def check_first_rows(source: str, reading: Reading) -> None:
    """Read the start of a file.

    Raises:
        SourceError: As the iteration of a `Corpus`, for a file without a passage.
    """
    with open_source(source) as raw:
        try:
            shape = detect_shape(source, raw, reading.format, reading.fields)
            rows = shape.rows(reading.max_line_bytes)
            next(unless_all_fail(shape, rows, lambda row: [row]), None)
        except OSError as exc:
            raise SourceError(f"reading {source} failed: {exc}") from exc


def read_queries(source: str | PathLike[str]) -> Iterator[Query]:
    """Yield the queries of a file, in any format of a `Corpus`.

    The id is in a field or column qid, query_id, _id or id, the text in text or query; or they are
    TSV, ``qid<TAB>text``.

    Raises:
        SourceError: If the file cannot be read, a row is not a query, or a qid is repeated: to
            skip a row would change every mean without notice.
    """
    lines: dict[str, int | None] = {}
    name = str(source)
    file_size(name)
    with open_source(name) as raw:
        for row in detect_shape(name, raw, "auto", QUERY).rows(MAX_LINE_BYTES):
            if isinstance(row, Reject):
                raise SourceError(f"{name}:{row.line} is not a query: {row.reason}")
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
    for line in read_text(name, MAX_LINE_BYTES):
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


def to_chunks(rows: Iterable[Passage | Reject]) -> Iterator[Chunk]:
    """Split the rows of a source into chunks; equal rows give equal chunks."""
    return rows.chunks() if isinstance(rows, Corpus) else chunk_rows(rows)


def chunk_rows(rows: Iterable[Passage | Reject]) -> Iterator[RowChunk]:
    """Split rows that are not lines into chunks."""
    return map(RowChunk, in_batches(rows, CHUNK_ROWS))


def as_rows(
    source: Rows | str | PathLike[str] | Sequence[str | PathLike[str]],
    reading: Reading = DEFAULT_READING,
) -> Iterable[Passage | Reject]:
    """Return a `Corpus` for one or more paths, and the rows of anything else made in Python.

    Args:
        source: The paths, or the rows.
        reading: How paths are read; its names of fields are also for dictionaries.

    Raises:
        SourceError: If a path cannot be read.
        UsageError: If the source is neither, or has no use for an argument.
    """
    first = source[0] if isinstance(source, Sequence) and source else source
    if isinstance(first, str | PathLike):
        return Corpus(cast("str | Sequence[str | PathLike[str]]", source), **asdict(reading))
    if isinstance(source, Corpus):
        reading.require_default(source)
        return source
    reading.require_default(source, "format")
    return PythonRows(cast("Rows", source), reading.fields)
