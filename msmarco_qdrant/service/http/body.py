"""Bodies of requests: read within bounds of size and time, decompressed, and parsed once.

FastAPI would read a body of any size, for any time. The parser here is pydantic's
(`pydantic_core.from_json`), which refuses more than 200 levels, integers of more than 4,300 digits,
lone surrogates and NaN. While it parses, nothing else of this process runs; so a body that may hold
a million lists or objects is refused before.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Sequence
from email.message import Message
from typing import Any, Final

from fastapi import Request
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from msmarco_qdrant.service.http import problems
from msmarco_qdrant.service.http.problems import ProblemError, invalid

JSON: Final = "application/json"
NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_BOM: Final = b"\xef\xbb\xbf"
_GZIP: Final = 16 + zlib.MAX_WBITS
_CHUNK: Final = 2**16
_MAX_MEMBERS: Final = 1_000  # of one body; block-wise packers make one of 64 KiB or more
_LINE: Final = re.compile(rb"[^ \t\r\n][^\n]*")


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """Return a body, decompressed if it is sent as gzip.

    Raises:
        ProblemError: If it is larger than `max_bytes`, as sent or decompressed, is not the gzip
            that its header announces, has another encoding, or does not arrive in time.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("gzip", "x-gzip", "identity", ""):
        raise ProblemError(
            problems.MEDIA,
            "Content-Encoding must be gzip or missing.",
            {"Accept-Encoding": "gzip, identity"},
        )
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        detail = f"The body must arrive within {timeout_s:g} seconds."
        raise ProblemError(problems.SLOW_BODY, detail, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise ProblemError(problems.MALFORMED, "The body ended early.") from None
    if encoding in ("identity", ""):
        return bytes(body)
    return await asyncio.to_thread(_decompress, bytes(body), max_bytes)


def media_type(request: Request, accepted: Sequence[str]) -> str:
    """Return the body's media type.

    Raises:
        ProblemError: If it is not an accepted one, in UTF-8.
    """
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    found = header.get_content_type()
    if found not in accepted or header.get_content_charset("utf-8") not in ("utf-8", "utf8"):
        raise ProblemError(
            problems.MEDIA,
            f"Content-Type must be {' or '.join(accepted)}, in UTF-8.",
            {"Accept-Post": ", ".join(accepted)},
        )
    return found


def parse_json(body: bytes, *, max_brackets: int) -> Any:
    """Return the value of a body in JSON.

    Raises:
        ProblemError: If it is not JSON, or has more than `max_brackets` of `[` and `{`, those in
            strings counted.
    """
    _check_brackets(body, max_brackets)
    try:
        return from_json(body.removeprefix(_BOM), allow_inf_nan=False)
    except ValueError as exc:
        raise ProblemError(problems.MALFORMED, f"The body must be JSON in UTF-8: {exc}.") from None


def parse_lines(
    body: bytes, *, max_lines: int, max_brackets: int
) -> tuple[list[Any], Sequence[int]]:
    """Return the values of a body with one per line, and the number of each line, from 1.

    Empty lines are left out.

    Raises:
        ProblemError: If a line is not JSON, or there are more lines or brackets than allowed.
    """
    _check_brackets(body, max_brackets)
    values: list[Any] = []
    numbers: list[int] = []
    body = body.removeprefix(_BOM)
    number, seen = 1, 0
    for line in _LINE.finditer(body):  # empty lines cost nothing, however many
        number += body.count(b"\n", seen, line.start())
        seen = line.start()
        if len(values) == max_lines:
            raise invalid(f"A batch must have at most {max_lines:,} lines: send several batches.")
        try:
            values.append(from_json(line[0], allow_inf_nan=False))
        except ValueError as exc:
            detail = f"Line {number} must be JSON in UTF-8: {exc}."
            raise ProblemError(problems.MALFORMED, detail) from None
        numbers.append(number)
    return values, numbers


def _decompress(packed: bytes, max_bytes: int) -> bytes:
    """Return what gzip of one member or several holds, and never make more than allowed."""
    member, members, made = zlib.decompressobj(_GZIP), 1, bytearray()
    for start in range(0, len(packed), _CHUNK):
        chunk = packed[start : start + _CHUNK]
        while chunk:
            if member.eof:
                member, members = zlib.decompressobj(_GZIP), members + 1
            if members > _MAX_MEMBERS:
                raise ProblemError(
                    problems.MALFORMED, f"gzip must have at most {_MAX_MEMBERS:,} members."
                )
            try:
                made += member.decompress(chunk, max_bytes + 1 - len(made))
            except zlib.error as exc:
                raise ProblemError(problems.MALFORMED, f"The gzip is damaged: {exc}.") from None
            if len(made) > max_bytes:
                raise _too_large(max_bytes)
            chunk = member.unused_data or member.unconsumed_tail
    if not member.eof:
        raise ProblemError(problems.MALFORMED, "The gzip ends early.")
    return bytes(made)


def _check_brackets(body: bytes, most: int) -> None:
    if (found := body.count(b"[") + body.count(b"{")) > most:
        raise invalid(
            f"A body must have at most {most:,} brackets ('[' and '{{', in strings too), got "
            f"{found:,}: send fewer passages, or meta with fewer lists."
        )


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError(
        problems.TOO_LARGE,
        f"A body must have at most {max_bytes:,} bytes, as sent and decompressed: send several.",
        {"Connection": "close"},
    )
