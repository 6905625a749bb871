"""The first line of an error of another library, for an error of one line."""

from __future__ import annotations

_MAX_CHARS = 500


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; its class without a message."""
    lines = str(error).strip().splitlines()
    return lines[0][:_MAX_CHARS] if lines else type(error).__name__
