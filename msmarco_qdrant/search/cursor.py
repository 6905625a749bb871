"""The cursor of a page of hits, with which the next page is requested.

It is opaque to users: URL-safe base64 of a JSON list. It holds the last hits of a page, so that the
next page starts after them even if passages were written or deleted between the two requests.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeGuard

from msmarco_qdrant.errors import UsageError

_VERSION: Final = 1
_STANDARD: Final = str.maketrans("-_", "+/")
_MOST: Final = 100_000  # characters


@dataclass(frozen=True, slots=True)
class Cursor:
    """The end of a page.

    Attributes:
        position: Number of hits up to the end of the page.
        last: Score and pid of its last hits, the last one first.
        search: Digest of query and options, which the request of the next page must repeat.
        model: Start of the fingerprint of the collection's model.
    """

    position: int
    last: Sequence[tuple[float, str]]
    search: str
    model: str

    def __str__(self) -> str:
        values = [_VERSION, self.position, self.last, self.search, self.model]
        text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_cursor(text: object) -> Cursor:
    """Parse a cursor as `Hits.cursor` returned it.

    Raises:
        UsageError: For anything else.
    """
    cursor = _parse(text) if isinstance(text, str) and len(text) <= _MOST else None
    if cursor is None:
        shown = text if not isinstance(text, str) or len(text) <= 40 else f"{text[:39]}…"
        raise UsageError(f"cursor must be the cursor of a page of hits, unchanged, got {shown!r}")
    return cursor


@lru_cache(maxsize=64)  # each property of a request's page parses it
def _parse(text: str) -> Cursor | None:
    values = _decode(text)
    if not _is_valid(values):
        return None
    _, position, last, search, model = values
    return Cursor(position, [(score, pid) for score, pid in last], search, model)


def _decode(text: str) -> Any:
    """Return the JSON value of a cursor, None if it is not one."""
    try:
        padded = text.translate(_STANDARD) + "=" * (-len(text) % 4)
        return json.loads(binascii.a2b_base64(padded, strict_mode=True).decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _is_valid(values: Any) -> TypeGuard[list[Any]]:
    kinds = [int, int, list, str, str]
    if not isinstance(values, list) or [*map(type, values)] != kinds:
        return False
    version, position, last, *_ = values
    return bool(version == _VERSION and position >= 1 and last and all(map(_is_hit, last)))


def _is_hit(value: Any) -> bool:
    if not isinstance(value, list) or [*map(type, value)] != [float, str]:
        return False
    return math.isfinite(value[0])
