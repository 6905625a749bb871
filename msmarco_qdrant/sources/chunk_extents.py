"""Parts of files that are the chunks of a `Corpus`, so that several processes can make them.

A chunk of lines ends at the last line end within its size, so the next one begins where it ends:
all cuts of a file are found without reading it whole. Parquet is cut by the numbers of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO, overload

from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.sources.corpus import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Chunk,
    LineChunk,
    Reading,
    chunk_rows,
)
from msmarco_qdrant.sources.extents import Extent, SourceFile, next_line, open_bytes, read_range
from msmarco_qdrant.sources.files import open_source
from msmarco_qdrant.sources.lines import block_size, read_blocks

_SEARCH_BYTES = 1 << 16


def chunk_extents(file: SourceFile, reading: Reading) -> Iterator[Extent]:
    """Yield an extent for each chunk of a file.

    Raises:
        SourceError: If it cannot be read.
        UsageError: If only its start explains it, as of a compressed file.
    """
    whole = file.whole
    if whole.kind == "lines":
        start = 0
        for stop in _line_cuts(whole, block_size(CHUNK_BYTES, reading.max_line_bytes)):
            yield replace(whole, start=start, stop=stop, bytes=stop - start)
            start = stop
    elif whole.kind == "groups":
        for start in range(0, file.rows, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, file.rows)
            size = whole.bytes * (stop - start) // file.rows
            yield replace(whole, kind="rows", start=start, stop=stop, bytes=size)
    else:
        raise UsageError(
            "source must be uncompressed TSV, JSON lines or Parquet to be encoded on Ray, got "
            f"{whole.source}, which only one process can read: decompress or convert it, or encode "
            "it without Ray"
        )


def _line_cuts(whole: Extent, size: int) -> Iterator[int]:
    """Yield the end of each chunk of a file of lines."""
    start = 0
    with open_source(whole.path) as raw:
        try:
            while start < whole.stop:
                stop = min(start + size, whole.stop)
                cut = _after_last_line(raw, start, stop)
                if cut is None:  # a line that is too long, or the last one without an end
                    cut = min(next_line(whole.path, stop), whole.stop)
                yield cut
                start = cut
        except OSError as exc:
            raise SourceError(f"reading {whole.source} failed: {exc}") from exc


def _after_last_line(raw: BinaryIO, start: int, stop: int) -> int | None:
    """Return the offset after the last line end between two offsets, None without one."""
    while stop > start:
        first = max(start, stop - _SEARCH_BYTES)
        raw.seek(first)
        if (found := raw.read(stop - first).rfind(b"\n")) >= 0:
            return first + found + 1
        stop = first
    return None


def read_chunks(extent: Extent, reading: Reading, rows_before: int) -> Iterator[Chunk]:
    """Yield the chunks of one or several neighboring extents of `chunk_extents`.

    Args:
        extent: The extent.
        reading: How its file is read.
        rows_before: Lines, or rows of Parquet, of its file before it.

    Raises:
        SourceError: If it cannot be read, or its file was cut since it was listed.
    """
    if extent.kind == "rows":
        yield from chunk_rows(read_range(extent, reading))
        return
    limit = reading.max_line_bytes
    with open_bytes(extent) as stream:
        for block in read_blocks(stream, CHUNK_BYTES, limit, rows_before):
            yield LineChunk(extent.source, extent.form, block, limit, reading.fields)


class LateChunks(Sequence[Chunk]):
    """The chunks of some extents, which are read when one is needed: few are.

    Args:
        extents: The extents.
        reading: How their files are read.
        rows_before: For each, the lines or rows of its file before it.
        count: Number of chunks.

    Raises:
        SourceError: When they are read, if a file was changed since they were counted.
    """

    def __init__(
        self, extents: Sequence[Extent], reading: Reading, rows_before: Sequence[int], count: int
    ) -> None:
        self._extents = extents
        self._reading = reading
        self._rows_before = rows_before
        self._count = count
        self._chunks: list[Chunk] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Chunk: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Chunk]: ...
    def __getitem__(self, index: int | slice) -> Chunk | Sequence[Chunk]:
        if self._chunks is None:
            found = [
                chunk
                for extent, before in zip(self._extents, self._rows_before, strict=True)
                for chunk in read_chunks(extent, self._reading, before)
            ]
            if len(found) != self._count:
                raise changed_source()
            self._chunks = found
        return self._chunks[index]


def changed_source() -> SourceError:
    """Return the error of a source that something writes to."""
    return SourceError(
        "the source was changed while it was read: run the same encode again once nothing writes "
        "to it"
    )
