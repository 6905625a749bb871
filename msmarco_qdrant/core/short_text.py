"""Texts cut to be shown."""

from __future__ import annotations

_SHOWN_CHARACTERS = 80


def shorten(text: str, limit: int = _SHOWN_CHARACTERS) -> str:
    """Return at most so many characters of a text, with an ellipsis for the rest."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
