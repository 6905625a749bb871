"""Blocks contain the lines of a stream, for all sizes of reads and damaged streams."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmarco_qdrant.sources.compression import decompress
from msmarco_qdrant.sources.lines import (
    Block,
    DamagedStreamError,
    Line,
    read_blocks,
    read_lines,
)

PIECES = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b"\xef\xbb\xbf", b"\n\n", b"a", b"1\ttext", b"\xff\x00", b"long" * 30]
)
CONTENTS = st.lists(PIECES | st.binary(max_size=5), max_size=40).map(b"".join)
LIMITS = st.integers(1, 60)
SIZES = st.integers(0, 200)


class Dribbling(io.BufferedIOBase):
    """A stream that returns a few bytes at a time, and raises the error of a damaged one."""

    def __init__(
        self, content: bytes, counts: Sequence[int], error: Exception | None = None
    ) -> None:
        self._content = io.BytesIO(content)
        self._counts = counts
        self._reads = 0
        self._error = error

    def read1(self, size: int = -1, /) -> bytes:
        """Return the next count of bytes, at most `size`."""
        self._reads += 1
        count = self._counts[self._reads % len(self._counts)]
        part = self._content.read(min(size, count))
        if not part and self._error is not None:
            raise self._error
        return part


COUNTS = st.lists(st.integers(1, 150), min_size=1, max_size=5)
ERRORS = st.sampled_from([None, DamagedStreamError("cut off")])


def lines_of(blocks: Sequence[Block], limit: int) -> list[Line]:
    """The lines of blocks."""
    return [line for block in blocks for line in block.lines(limit)]


@given(content=CONTENTS, size=SIZES, limit=LIMITS, counts=COUNTS, error=ERRORS)
def test_blocks_are_the_lines(
    content: bytes, size: int, limit: int, counts: Sequence[int], error: Exception | None
) -> None:
    """With number, bytes, length and problem, also of a stream damaged at its end."""
    expected = list(read_lines(Dribbling(content, counts, error), limit))
    blocks = list(read_blocks(Dribbling(content, counts, error), size, limit))
    assert expected == lines_of(blocks, limit)


@given(content=CONTENTS, size=SIZES, limit=LIMITS, counts=COUNTS, error=ERRORS)
def test_blocks_do_not_depend_on_how_bytes_arrive(
    content: bytes, size: int, limit: int, counts: Sequence[int], error: Exception | None
) -> None:
    """A later run needs equal blocks."""
    whole = list(read_blocks(Dribbling(content, [1 << 20], error), size, limit))
    assert whole == list(read_blocks(Dribbling(content, counts, error), size, limit))
    assert [] == [block for block in whole if not block.data and block.last is None]


@given(content=CONTENTS, size=SIZES, limit=LIMITS)
def test_blocks_are_bounded(content: bytes, size: int, limit: int) -> None:
    """By the size or the longest line allowed."""
    blocks = list(read_blocks(io.BytesIO(content), size, limit))
    assert [] == [block for block in blocks if len(block.data) > max(size, limit + 5)]


def test_a_stream_cut_off_behind_a_long_line_is_reported() -> None:
    """The line and the end of the stream are two problems."""
    stream = Dribbling(b"x" * 50 + b"\n", [100], DamagedStreamError("the file was cut off"))
    assert [
        Line(1, b"x" * 50, 50, "a line must have at most 10 bytes, got 50"),
        Line(2, b"", 0, "the file was cut off"),
    ] == lines_of(list(read_blocks(stream, 16, 10)), 10)


# ---- gzip ------------------------------------------------------------------------------------

CONTENT = b"".join(b"%d\tpassage %d\n" % (number, number * 7919) for number in range(20_000))
PACKED = gzip.compress(CONTENT, mtime=0)


def stream_of(packed: bytes) -> io.BufferedIOBase:
    """What is read of a file."""
    return decompress(io.BufferedReader(io.BytesIO(packed)), "gzip", "x")


def blocks_of(packed: bytes) -> list[Block]:
    """Its blocks of some KiB."""
    return list(read_blocks(stream_of(packed), 5000, 100))


def test_gzip_gives_the_blocks_of_its_content() -> None:
    """Compressing a source does not change its digests."""
    blocks = blocks_of(PACKED)
    assert list(read_blocks(io.BytesIO(CONTENT), 5000, 100)) == blocks
    assert list(read_lines(io.BytesIO(CONTENT), 100)) == lines_of(blocks, 100)
    assert CONTENT == b"".join(block.data for block in blocks)


def damaged(packed: bytes) -> bytes:
    """With its checksum changed."""
    return packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda packed: packed[: len(packed) // 2], "the gzip stream ends early"),
        (lambda packed: packed[:-4], "the gzip stream ends early"),
        (damaged, "the gzip stream is damaged: CRC"),
        (lambda packed: packed[:40_000] + b"\xff" * 40 + packed[40_040:], "is damaged"),
    ],
    ids=["half", "without its end", "another checksum", "spoiled in the middle"],
)
def test_spoiled_gzip_gives_what_came_before(spoil: Callable[[bytes], bytes], problem: str) -> None:
    """And a last line with the problem."""
    *lines, last = lines_of(blocks_of(spoil(PACKED)), 100)
    assert problem in str(last.problem)
    assert len(lines) + 1 == last.number
    assert lines == [line for line in lines if line.problem is None]
    expected = lines_of(blocks_of(PACKED), 100)
    sound = len(lines) if "ends early" in problem else min(len(lines), 1000)
    assert expected[:sound] == lines[:sound]
    assert sound > 100
