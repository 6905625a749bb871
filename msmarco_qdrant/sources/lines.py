r"""Lines of a byte stream in bounded memory. Bad lines are reported, not raised.

Only ``\n`` ends a line: real MS MARCO text holds form feeds, U+2028 and lone carriage returns.
One ``\r`` before the ``\n`` and a leading byte order mark are dropped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

RAW_BYTES_KEPT = 4096
BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 18


_DAMAGE = re.compile(r"the \S+ stream (?:ends early|is damaged): ")


class DamagedStreamError(Exception):
    """A compressed stream is damaged or cut off; the message is the problem of its last line.

    `is_damage` recognizes the message.
    """


def is_damage(reason: str) -> bool:
    """True if a row is rejected because the rest of its source cannot be read."""
    return _DAMAGE.match(reason) is not None


class Line(NamedTuple):
    """A line without its ending.

    A bad line has a `problem`, its first 4 KiB at most as `data`, and its whole length in bytes as
    `length`.
    """

    number: int
    data: bytes
    length: int
    problem: str | None


class _LineSplitter:
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
        """Yield the last line, if it has no ending, or with a `problem`."""
        if problem is not None or self._pending_length:
            yield self._take(ended=False, problem=problem)

    def _extend(self, piece: bytes) -> None:
        self._pending_length += len(piece)
        self._last_byte = piece[-1:] or self._last_byte
        # Bytes beyond the limit are dropped, as the line is rejected anyway.
        space = max(self._max_bytes, RAW_BYTES_KEPT) + len(BOM) + 1 - len(self._pending)
        if space > 0:
            self._pending += piece[:space]

    def _take(self, *, ended: bool, problem: str | None = None) -> Line:
        data, length = self._pending, self._pending_length
        last_byte, self._last_byte = self._last_byte, b""
        self._pending, self._pending_length = b"", 0
        self._number += 1
        if self._number == 1 and data.startswith(BOM):
            data, length = data[len(BOM) :], length - len(BOM)
        if ended and last_byte == b"\r" and length:
            length -= 1
            data = data[:length]
        if problem is None and length > self._max_bytes:
            problem = f"a line must have at most {self._max_bytes:,} bytes, got {length:,}"
        return Line(self._number, data[:RAW_BYTES_KEPT] if problem else data, length, problem)


def read_lines(stream: io.BufferedIOBase, max_bytes: int, lines_before: int = 0) -> Iterator[Line]:
    """Yield the lines of `stream`.

    Args:
        stream: Any buffered binary stream, decompressed.
        max_bytes: A longer line has a problem and its first 4 KiB.
        lines_before: Lines of the same file before the stream's first byte.

    Yields:
        Every line. A truncated compressed stream yields its complete lines, then a last line with
        a `problem`. A damaged one may also lose the last read before the damage (64 KiB at most).
    """
    splitter, reader = _LineSplitter(max_bytes, lines_before), _StreamReader(stream)
    while chunk := reader.read1(_CHUNK):
        yield from splitter.feed(chunk)
    yield from splitter.end(reader.problem)


class Block(NamedTuple):
    """Neighboring lines of a stream, not yet split.

    `first` is the number of the first line, and `data` holds whole lines with their endings.
    `last` is the next line, if it is too long, has no ending, or has a problem.
    """

    first: int
    data: bytes
    last: Line | None = None

    def lines(self, max_bytes: int) -> Iterator[Line]:
        """Split the block, as `read_lines` splits a stream."""
        yield from _LineSplitter(max_bytes, self.first - 1).feed(self.data)
        if self.last is not None:
            yield self.last


def block_size(size: int, max_bytes: int) -> int:
    """Return the most bytes of a block: `size`, raised to the longest line allowed."""
    return max(size, max_bytes + len(BOM) + len(b"\r\n"))


def read_blocks(
    stream: io.BufferedIOBase, size: int, max_bytes: int, lines_before: int = 0
) -> Iterator[Block]:
    """Yield the lines of `stream` in blocks, which is much faster than one by one.

    Equal content gives equal blocks, independent of the sizes of reads; so does what is left of it
    after some blocks.

    Args:
        stream: Any buffered binary stream, decompressed.
        size: See `block_size`.
        max_bytes: See `read_lines`.
        lines_before: See `read_lines`.
    """
    reader = _StreamReader(stream)
    size = block_size(size, max_bytes)
    number, pending = lines_before + 1, b""
    while True:
        pending += reader.read(size - len(pending))
        if cut := pending.rfind(b"\n") + 1:
            yield Block(number, pending[:cut])
            number += pending.count(b"\n")
            pending = pending[cut:]
            continue
        splitter = _LineSplitter(max_bytes, number - 1)
        lines = [*splitter.feed(pending)]
        pending = b""
        while not lines and not reader.ended:  # the line is too long: only its length counts
            head, newline, pending = reader.read(size).partition(b"\n")
            lines += splitter.feed(head + newline)
        if lines:
            yield Block(number, b"", lines[0])
            number += 1
            continue
        for line in splitter.end(reader.problem):
            yield Block(number, b"", line)
        return


class _StreamReader:
    """Reads full buffers until the stream ends; `problem` describes a damaged stream."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
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
        """Return the bytes available, b"" at the end of the stream or at damage."""
        part = b""
        try:
            part = self._stream.read1(min(size, _CHUNK))
        except DamagedStreamError as exc:
            self.problem = str(exc)
        self.ended = not part
        return part


class FullFirstRead(io.RawIOBase):
    """A stream whose first read fills the whole buffer: a pipe may begin with a few bytes.

    An error is raised by the next read if the first one has got some bytes before it.
    """

    def __init__(self, stream: BinaryIO | io.BufferedIOBase | io.RawIOBase) -> None:
        self._read: Any = getattr(stream, "readinto1", getattr(stream, "readinto", None))
        self._started = False
        self._error: DamagedStreamError | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read bytes into a buffer and return their number."""
        if self._error is not None:
            raise self._error
        view, filled, size = memoryview(buffer), 0, 1
        while size and filled < len(view) and not (self._started and filled):
            try:
                size = self._read(view[filled:])
            except DamagedStreamError as exc:
                self._error = exc
                if not filled:
                    raise
                break
            filled += size
        self._started = True
        return filled
