"""Bodies of requests: read within bounds of size and time, decompressed, and parsed once.

The parser is pydantic's (`pydantic_core.from_json`): it refuses more than 200 levels, integers of
more than 4,300 digits, lone surrogates and NaN, whatever is in the body. While it parses, nothing
else of this process goes on; so what could hold a million lists or objects is refused before.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from msmarco_qdrant.service.http.problems import (
    MALFORMED,
    MEDIA,
    SLOW_BODY,
    TOO_LARGE,
    ProblemError,
    invalid,
)

JSON: Final = "application/json"
NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_BOM: Final = b"\xef\xbb\xbf"
_GZIP: Final = 16 + zlib.MAX_WBITS
_MEMBERS: Final = 1_000  # of one body; block-wise packers make one of 64 KiB or more
_LINE: Final = re.compile(rb"[^ \t\r\n][^\n]*")


async def read_body(request: Request, *, max_bytes: int, within_s: float) -> bytes:
    """A body, decompressed if it is sent as gzip.

    Raises:
        ProblemError: If it is larger than `max_bytes`, as sent or decompressed, is no gzip although
            it says so, is compressed in another way, or does not arrive in time.
    """
    decoder = _decoder(request, max_bytes)
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(within_s):
            return await _decoded(request.stream(), decoder, max_bytes)
    except TimeoutError:
        raise ProblemError(
            SLOW_BODY, f"Expected all of it within {within_s:g} seconds.", {"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise ProblemError(MALFORMED, "The body ended early.") from None


def media_type(request: Request, accepted: Sequence[str]) -> str:
    """The body's media type, which must be an accepted one, in UTF-8.

    Raises:
        ProblemError: If it is not.
    """
    given, *parameters = request.headers.get("content-type", "").split(";")
    charsets = [
        value.strip(' "').lower()
        for name, _, value in (one.partition("=") for one in parameters)
        if name.strip().lower() == "charset"
    ]
    kind = given.strip().lower()
    if kind not in accepted or any(one not in ("utf-8", "utf8") for one in charsets):
        raise ProblemError(
            MEDIA,
            f"Expected the header 'Content-Type: {accepted[0]}'"
            + (f", or one of {', '.join(accepted[1:])}" if accepted[1:] else "")
            + ", in UTF-8.",
            {"Accept-Post": ", ".join(accepted)},
        )
    return kind


def parse_json(body: bytes, *, brackets: int) -> Any:
    """The value that a body is.

    Args:
        body: All of it.
        brackets: How many `[` and `{` it may have, in strings too.

    Raises:
        ProblemError: If it is no JSON, or has more of them.
    """
    _check_brackets(body, brackets)
    try:
        return from_json(body.removeprefix(_BOM), allow_inf_nan=False)
    except ValueError as exc:
        raise ProblemError(MALFORMED, f"No JSON in UTF-8: {exc}.") from None


@dataclass(frozen=True, slots=True)
class Line:
    """A line's value, and its number, counted from 1."""

    number: int
    value: Any


def parse_lines(body: bytes, *, most: int, brackets: int) -> list[Line]:
    """The lines of a body, a value each; empty ones are left out.

    Args:
        body: All of them.
        most: How many there may be.
        brackets: How many `[` and `{` they may have, in strings too.

    Raises:
        ProblemError: If a line is no JSON, or there is more than may be.
    """
    _check_brackets(body, brackets)
    lines: list[Line] = []
    body = body.removeprefix(_BOM)
    number, seen = 1, 0
    for line in _LINE.finditer(body):  # empty ones cost nothing, however many
        number += body.count(b"\n", seen, line.start())
        seen = line.start()
        if len(lines) == most:
            raise invalid(f"Expected at most {most:,} lines: send the others as another batch.")
        try:
            lines.append(Line(number, from_json(line[0], allow_inf_nan=False)))
        except ValueError as exc:
            raise ProblemError(MALFORMED, f"Line {number} is no JSON in UTF-8: {exc}.") from None
    return lines


class IdentityDecoder:
    """Takes a body as it comes."""

    ended = True

    def feed(self, chunk: bytes, room: int) -> bytes:  # noqa: ARG002  # of the other one
        """The same bytes."""
        return chunk


class GzipDecoder:
    """Decompresses gzip of one member or several, never making more than there is room for."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP)
        self._members = 1

    @property
    def ended(self) -> bool:
        """Whether the last member was complete."""
        return self._inflate.eof and not self._inflate.unused_data

    def feed(self, chunk: bytes, room: int) -> bytes:
        """What a piece makes: at most `room` bytes and one, which tells that there are more.

        Raises:
            zlib.error: If it is damaged, no gzip, or of very many members.
        """
        made = bytearray()
        while chunk and len(made) <= room:
            if self._inflate.eof:
                self._next_member()
            made += self._inflate.decompress(chunk, room + 1 - len(made))
            chunk = self._inflate.unused_data or self._inflate.unconsumed_tail
        return bytes(made)

    def _next_member(self) -> None:
        self._members += 1
        if self._members > _MEMBERS:
            raise zlib.error(f"more than {_MEMBERS:,} members")
        self._inflate = zlib.decompressobj(_GZIP)


def _check_brackets(body: bytes, most: int) -> None:
    if (found := body.count(b"[") + body.count(b"{")) > most:
        raise invalid(
            f"{found:,} brackets ('[' and '{{', in strings too): expected at most {most:,}, with "
            "less in a body."
        )


def _decoder(request: Request, max_bytes: int) -> IdentityDecoder | GzipDecoder:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return IdentityDecoder()
    if coding in ("gzip", "x-gzip"):
        return GzipDecoder()
    raise ProblemError(
        MEDIA,
        f"Expected no Content-Encoding, or gzip, of at most {max_bytes:,} bytes.",
        {"Accept-Encoding": "gzip, identity"},
    )


async def _decoded(
    chunks: AsyncIterator[bytes], decoder: IdentityDecoder | GzipDecoder, max_bytes: int
) -> bytes:
    body, sent = bytearray(), 0
    try:
        async for chunk in chunks:
            sent += len(chunk)
            body += decoder.feed(chunk, max_bytes - len(body))
            if max(sent, len(body)) > max_bytes:
                raise _too_large(max_bytes)
    except zlib.error as exc:
        raise ProblemError(MALFORMED, f"No gzip that is taken: {exc}.") from None
    if not decoder.ended:
        raise ProblemError(MALFORMED, "The gzip ends early.")
    return bytes(body)


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError(
        TOO_LARGE,
        f"Expected at most {max_bytes:,} bytes, as sent and decompressed: send several bodies.",
        {"Connection": "close"},
    )
