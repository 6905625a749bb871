"""Escapes for characters that change what a terminal or a page shows."""

from __future__ import annotations

import re

# C0 and C1 controls with DEL, line separators, marks and overrides of the text direction, lone
# surrogates, the byte order mark. Joiners (U+200C, U+200D) are part of scripts and emoji.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufeff]"
)


def escape_controls(text: str) -> str:
    r"""Return a text as one line with its control characters escaped, such as ``\x1b``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def escape_surrogates(text: str) -> str:
    r"""Return a text with its lone surrogates escaped, so that any encoding can store it.

    Its lines and other control characters stay.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def escape_json_controls(document: str) -> str:
    r"""Return a JSON document with the control characters of its strings escaped, as ``\u009b``.

    Line ends between its values stay.
    """
    return _CONTROL.sub(lambda found: _json_escape(found[0]), document)


def _json_escape(character: str) -> str:
    return character if character == "\n" else f"\\u{ord(character):04x}"
