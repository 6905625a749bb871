"""Parts of files that hold whole rows, so that several processes can read one file.

Lines are cut at line ends, Parquet at its row groups. A file that only its start explains
(compressed, CSV, Arrow) is one part. Read in order, the parts of a file give the same rows, with
the same line numbers, as a `Corpus` of it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from msmarco_qdrant.core.encoder_types import Similarity
from msmarco_qdrant.core.records import EncodedPassage, Passage, Reject
from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.content import read_content
from msmarco_qdrant.sources.corpus import Corpus, Reading, check_first_rows
from msmarco_qdrant.sources.file_path import to_path
from msmarco_qdrant.sources.files import open_source
from msmarco_qdrant.sources.lines import read_lines
from msmarco_qdrant.sources.parquet import (
    group_rows,
    parquet_groups,
    python_rows,
    range_rows,
    row_of_fields,
)
from msmarco_qdrant.sources.rejects import duplicate_pid_reason, reject_passage
from msmarco_qdrant.sources.shapes import LineFormat, detect_shape, line_parser, parse_line
from msmarco_qdrant.sources.vector_shards import VectorShards, shard_rows

ExtentKind: TypeAlias = Literal["lines", "groups", "rows", "file", "shard", "block"]
Row: TypeAlias = Passage | EncodedPassage | Reject

_SEARCH_BYTES = 1 << 16
_ROWS_PER_SLICE = 1024


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of a file.

    Attributes:
        source: Path of the file, as it was given.
        path: Its absolute path, for processes with another current directory.
        kind: "lines" (bytes of a file of lines), "groups" (row groups of Parquet), "rows" (rows of
            it), "file" (all of it), "shard" (a file of vectors) or "block" (an Arrow table, without
            a file).
        start: The first byte, row group or row, or the number of the block.
        stop: The byte, row group, row or block after the last.
        bytes: Its size.
        form: Of lines, their format.
        similarity: Of a file of vectors, what they are scaled for.
    """

    source: str
    path: str
    kind: ExtentKind
    start: int
    stop: int
    bytes: int
    form: LineFormat = "tsv"
    similarity: Similarity = "cosine"

    @property
    def is_first(self) -> bool:
        """True if it begins its file."""
        return self.start == 0

    @classmethod
    def of_block(cls, number: int, size: int) -> Extent:
        """Return the extent of an Arrow table of so many bytes."""
        return cls("", "", "block", number, number + 1, size)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file, and where it may be cut.

    Attributes:
        whole: The extent of the whole file.
        groups: Of Parquet, the bytes of each row group.
        rows: Of Parquet, the number of its rows.
    """

    whole: Extent
    groups: Sequence[int] = ()
    rows: int = 0


def list_files(corpus: Corpus) -> list[SourceFile]:
    """Return the files of a corpus, and where each may be cut.

    Raises:
        SourceError: If one cannot be read, or its first 1,000 rows fail alike.
    """
    for source in corpus.sources:
        check_first_rows(source, corpus.reading)
    return [_source_file(source, corpus.reading) for source in corpus.sources]


def list_shards(shards: VectorShards) -> list[SourceFile]:
    """Return the files of a folder of vectors."""
    similarity = shards.encoder.similarity
    return [
        SourceFile(_whole(str(path), "shard", 1, path.stat().st_size, similarity=similarity))
        for path in shards.paths
    ]


def _source_file(source: str, reading: Reading) -> SourceFile:
    size = to_path(source).stat().st_size
    with open_source(source) as raw:
        shape = detect_shape(source, raw, reading.format, reading.fields)
        if shape.lines is not None and shape.content.compression is None:
            return SourceFile(_whole(source, "lines", size, size, form=shape.lines))
        if shape.content.kind == "parquet":
            found = parquet_groups(source, shape.content)
            groups = [size for _, size in found]
            whole = _whole(source, "groups", len(groups), sum(groups))
            return SourceFile(whole, groups, sum(rows for rows, _ in found))
    return SourceFile(_whole(source, "file", 1, size))


def _whole(source: str, kind: ExtentKind, stop: int, size: int, **more: Any) -> Extent:
    return Extent(source, str(to_path(source).absolute()), kind, 0, stop, size, **more)


def next_line(source: str, offset: int) -> int:
    """Return the offset of the first line that begins at an offset or after it.

    Raises:
        SourceError: If the file cannot be read.
    """
    if offset == 0:
        return 0
    at = offset - 1
    with open_source(source) as raw:
        try:
            raw.seek(at)
            while part := raw.read(_SEARCH_BYTES):
                if (found := part.find(b"\n")) >= 0:
                    return at + found + 1
                at += len(part)
        except OSError as exc:
            raise SourceError(f"reading {source} failed: {exc}") from exc
    return at


def read_extent(
    extent: Extent, reading: Reading, rows_before: int, blocks: Iterator[Any]
) -> Iterator[Row]:
    """Yield the rows of an extent.

    Args:
        extent: The extent.
        reading: How its file is read.
        rows_before: Lines, or rows of Parquet, of its file before it. If they are not known, any
            number above 0 gives rows that are right but for their line.
        blocks: The tables of this extent and the next ones, if they are of kind "block".

    Raises:
        SourceError: If it cannot be read, or its file was cut since it was listed.
    """
    if extent.kind == "shard":
        yield from shard_rows(to_path(extent.path), extent.similarity, extent.source)
    elif extent.kind == "block":
        yield from _block_rows(next(blocks), reading, rows_before)
    elif extent.kind == "file":
        yield from _file_rows(extent, reading)
    elif extent.kind == "groups":
        with open_source(extent.path) as raw:
            content = read_content(extent.source, raw)
            groups = range(extent.start, extent.stop)
            yield from group_rows(extent.source, content, reading.fields, groups, rows_before)
    elif extent.kind == "rows":
        yield from read_range(extent, reading)
    else:
        yield from _line_rows(extent, reading, rows_before)


def read_range(extent: Extent, reading: Reading) -> Iterator[Passage | Reject]:
    """Yield the rows of an extent of kind "rows".

    Raises:
        SourceError: If it cannot be read.
    """
    with open_source(extent.path) as raw:
        content = read_content(extent.source, raw)
        rows = range(extent.start, extent.stop)
        yield from range_rows(extent.source, content, reading.fields, rows)


def _block_rows(table: Any, reading: Reading, rows_before: int) -> Iterator[Row]:
    number, fields = rows_before, reading.fields
    for batch in table.to_batches(max_chunksize=_ROWS_PER_SLICE):
        for row in python_rows(batch):
            number += 1
            yield row_of_fields("", number, row, fields)


def _file_rows(extent: Extent, reading: Reading) -> Iterator[Passage | Reject]:
    source = extent.source
    with open_source(extent.path) as raw:
        try:
            shape = detect_shape(source, raw, reading.format, reading.fields)
            yield from shape.rows(reading.max_line_bytes)
        except OSError as exc:
            raise SourceError(f"reading {source} failed: {exc}") from exc


def _line_rows(extent: Extent, reading: Reading, lines_before: int) -> Iterator[Row]:
    parse = line_parser(extent.form, reading.fields)
    with open_bytes(extent) as stream:
        for line in read_lines(stream, reading.max_line_bytes, lines_before):
            if line.data or line.problem:
                yield parse_line(extent.source, line, parse)


def count_lines(extent: Extent) -> int:
    """Return the number of lines of an extent, a last one without an end included."""
    lines, last = 0, b"\n"
    with open_bytes(extent) as stream:
        while part := stream.read1(1 << 20):
            lines += part.count(b"\n")
            last = part[-1:]
    return lines + (last != b"\n")


@contextmanager
def open_bytes(extent: Extent) -> Iterator[io.BufferedReader]:
    """Open the bytes of an extent as a stream."""
    with open_source(extent.path) as raw:
        try:
            raw.seek(extent.start)
            yield io.BufferedReader(_Part(raw, extent), 1 << 18)
        except OSError as exc:
            raise SourceError(f"reading {extent.source} failed: {exc}") from exc


class _Part(io.RawIOBase):
    """The bytes of an extent."""

    def __init__(self, raw: io.BufferedReader, extent: Extent) -> None:
        self._raw = raw
        self._extent = extent
        self._left = extent.stop - extent.start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        size = self._raw.readinto1(memoryview(buffer)[: self._left])
        if not size and self._left:
            raise SourceError(
                f"{self._extent.source} has become shorter since it was opened: "
                "run the same command again once nothing writes to it"
            )
        self._left -= size
        return size


class ExtentRows:
    """The rows of several extents, those that repeat an earlier pid as rejects.

    Args:
        extents: The extents.
        reading: How their files are read.
        rows_before: For each, the lines or rows of its file before it.
        repeats: Numbers of the rows, counted from 0 over all extents, whose pid came before them.
        rows: Number of rows.
        blocks: The tables of the extents that are blocks.

    Raises:
        SourceError: While it is read, if a file was changed since its rows were counted.

    Attributes:
        size: The number of rows.
        position: Rows read so far.
        descriptions: Empty.
    """

    descriptions: tuple[str, ...] = ()

    def __init__(
        self,
        extents: Sequence[Extent],
        reading: Reading,
        rows_before: Sequence[int],
        repeats: Iterable[int],
        rows: int,
        blocks: Sequence[Any] = (),
    ) -> None:
        self._extents = extents
        self._reading = reading
        self._rows_before = rows_before
        self._repeats = repeats
        self._blocks = blocks
        self.size = rows
        self.position = 0

    def __iter__(self) -> Iterator[Row]:
        """Yield every row of every extent in order."""
        repeats = iter(self._repeats)
        repeat = next(repeats, None)
        self.position = 0
        blocks = iter(self._blocks)
        for extent, rows_before in zip(self._extents, self._rows_before, strict=True):
            for row in read_extent(extent, self._reading, rows_before, blocks):
                if self.position == repeat:
                    repeat = next(repeats, None)
                    yield _as_repeat(row)
                else:
                    yield row
                self.position += 1
        if self.position != self.size:
            raise _changed(self._extents[-1].source)


def _as_repeat(row: Row) -> Reject:
    passage = row.passage if isinstance(row, EncodedPassage) else row
    if isinstance(passage, Reject):
        raise _changed(passage.source)
    return reject_passage(passage, duplicate_pid_reason(passage))


def _changed(source: str) -> SourceError:
    return SourceError(
        f"{source or 'the dataset'} was changed while it was read: run the same command again once "
        "nothing writes to it"
    )
