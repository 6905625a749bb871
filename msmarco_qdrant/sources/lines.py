r"""Lines of a byte stream in bounded memory, gzip or not, with whatever is wrong told, not raised.

A line ends at ``\n`` and at nothing else: real MS MARCO text holds form feeds, U+2028 and lone
carriage returns. One ``\r`` before the ``\n`` and a leading byte order mark are dropped.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

RAW_BYTES_KEPT = 4096
_CHUNK = 1 << 18
_PEEK = 64
_BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


class ByteStream(Protocol):
    """What lines are read from: `io.BufferedReader` and `gzip.GzipFile` both fit."""

    def read1(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, with one read of what lies below at most; b"" at the end."""
        ...


class Line(NamedTuple):
    """A line without its ending.

    `problem` says why its bytes cannot be used; they are then the first 4 KiB of it at most,
    and `length` is the whole length.
    """

    number: int
    data: bytes
    length: int
    problem: str | None


class _Reader:
    """Splits chunks into lines; holds at most one line of `max_bytes` and one chunk."""

    def __init__(self, max_bytes: int, number: int = 0) -> None:
        self._max_bytes = max_bytes
        self._pending = b""
        self._pending_length = 0
        self._last_byte = b""
        self._number = number

    def feed(self, chunk: bytes) -> Iterator[Line]:
        first, *rest = chunk.split(b"\n")
        self._extend(first)
        for piece in rest:
            yield self._take(ended=True)
            self._extend(piece)

    def end(self, problem: str | None = None) -> Iterator[Line]:
        """The last line, if it has no ending; with a `problem`, whatever of it had arrived."""
        if problem is not None or self._pending_length:
            yield self._take(ended=False, problem=problem)

    def _extend(self, piece: bytes) -> None:
        self._pending_length += len(piece)
        self._last_byte = piece[-1:] or self._last_byte
        # Past the limit nothing more is kept: the line will be refused whatever follows.
        room = max(self._max_bytes, RAW_BYTES_KEPT) + len(_BOM) + 1 - len(self._pending)
        if room > 0:
            self._pending += piece if len(piece) <= room else piece[:room]

    def _take(self, *, ended: bool, problem: str | None = None) -> Line:
        data, length = self._pending, self._pending_length
        last_byte, self._last_byte = self._last_byte, b""
        self._pending, self._pending_length = b"", 0
        self._number += 1
        if self._number == 1 and data.startswith(_BOM):
            data, length = data[len(_BOM) :], length - len(_BOM)
        if ended and last_byte == b"\r" and length:
            length -= 1
            data = data[:length]
        if problem is None and length > self._max_bytes:
            problem = f"the line has {length:,} bytes; {self._max_bytes:,} are accepted"
        return Line(self._number, data[:RAW_BYTES_KEPT] if problem else data, length, problem)


def read_lines(stream: ByteStream, max_bytes: int) -> Iterator[Line]:
    """Yield the lines of `stream`.

    Args:
        stream: What `open_maybe_gzip` returns, or any buffered binary stream.
        max_bytes: A longer line is yielded with a problem and its first 4 KiB.

    Yields:
        Every line. A compressed stream that ends early yields what came before, then one last
        line whose `problem` says so; of one that is damaged, the last read before the damage
        (256 KiB at most) may be lost with it.
    """
    reader, filling = _Reader(max_bytes), _Filling(stream)
    while chunk := filling.read1(_CHUNK):
        yield from reader.feed(chunk)
    yield from reader.end(filling.problem)


class Block(NamedTuple):
    """Neighboring lines of a stream, not yet split.

    `first` is the number of the first, `data` are whole lines with their endings, and `last` is
    the line behind them where that one is too long, has no ending, or is spoiled.
    """

    first: int
    data: bytes
    last: Line | None = None

    def lines(self, max_bytes: int) -> Iterator[Line]:
        """Split it, as `read_lines` splits a stream."""
        yield from _Reader(max_bytes, self.first - 1).feed(self.data)
        if self.last is not None:
            yield self.last


def read_blocks(stream: ByteStream, size: int, max_bytes: int) -> Iterator[Block]:
    """Yield the lines of `stream` in blocks, which is much faster than one by one.

    Where a block ends depends on the content alone, not on how it arrives.

    Args:
        stream: What `open_maybe_gzip` returns, or any buffered binary stream.
        size: Most bytes of a block; not less than a line may have.
        max_bytes: See `read_lines`.
    """
    filling = _Filling(stream)
    size = max(size, max_bytes + len(_BOM) + len(b"\r\n"))
    number, pending = 1, b""
    while True:
        pending += filling.read(size - len(pending))
        if cut := pending.rfind(b"\n") + 1:
            yield Block(number, pending[:cut])
            number += pending.count(b"\n")
            pending = pending[cut:]
            continue
        reader = _Reader(max_bytes, number - 1)
        lines = [*reader.feed(pending)]
        pending = b""
        while not lines and not filling.ended:  # more than a line may have: the rest is counted
            head, newline, pending = filling.read(size).partition(b"\n")
            lines += reader.feed(head + newline)
        if lines:
            yield Block(number, b"", lines[0])
            number += 1
            continue
        for line in reader.end(filling.problem):
            yield Block(number, b"", line)
        return


class _Filling:
    """Reads as much as is asked for, until the stream ends; `problem` tells of a spoiled one."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.ended = False
        self.problem: str | None = None

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and not self.ended:
            part = self.read1(size)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read1(self, size: int) -> bytes:
        """As much as has arrived, b"" at the end and where no more can be had."""
        part = b""
        try:
            # read1 hands out what it has: read would gather, and lose it when the stream is cut
            part = self._stream.read1(min(size, _CHUNK))
        except EOFError:
            self.problem = "the gzip stream ends early: the file was cut off"
        except (zlib.error, gzip.BadGzipFile) as exc:
            self.problem = f"the gzip stream is damaged: {exc}"
        self.ended = not part
        return part


class _Patient(io.RawIOBase):
    """A stream whose first read waits for a whole buffer: a pipe may begin with a few bytes."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        begun, self._begun = self._begun, True
        return self._stream.readinto1(buffer) if begun else self._stream.readinto(buffer)


def make_peekable(stream: io.BufferedIOBase) -> io.BufferedReader:
    """Wrap a pipe so that peeking shows enough to tell gzip and formats apart."""
    if isinstance(stream, io.BufferedReader) and stream.seekable():
        return stream
    return io.BufferedReader(_Patient(stream))


def open_maybe_gzip(raw: io.BufferedReader) -> ByteStream:
    """Wrap `raw` in a decompressor if its first bytes say gzip, whatever its name says."""
    return gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == _GZIP_MAGIC else raw


def peek_content(raw: io.BufferedReader) -> bytes:
    """The first few bytes of the content, decompressed if need be, without consuming them."""
    head = raw.peek(_PEEK)
    if head[:2] != _GZIP_MAGIC:
        return head[:_PEEK]
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _PEEK)
    except zlib.error:
        return b""  # damaged: reading it will say how
