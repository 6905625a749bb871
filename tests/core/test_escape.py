"""Escapes of control characters."""

from __future__ import annotations

import json
import unicodedata

import pytest

from msmarco_qdrant.core.escape import escape_controls, escape_json_controls


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[2J\x1b]0;x\x07", r"\x1b[2J\x1b]0;x\x07"),
        ("a\nb\tc\x7f\x9b1m", r"a\nb\tc\x7f\x9b1m"),
        ("a\u2028b\u2029c\u202ed\u2066e", r"a\u2028b\u2029c\u202ed\u2066e"),
        ("\udcff\ud800", r"\udcff\ud800"),
        ("Mäuse 鯨 👩\u200d🚀 \u0645\u200c\u062e", "Mäuse 鯨 👩\u200d🚀 \u0645\u200c\u062e"),
    ],
)
def test_s11_controls_are_escaped(text: str, expected: str) -> None:
    """Scripts and emoji stay, with the joiners that they need."""
    assert expected == escape_controls(text)


def test_s11_every_control_character_of_unicode_is_escaped() -> None:
    """Categories Cc and Cs, line separators, and all that changes the text direction."""
    shown = [
        f"{code:x}"
        for code in range(0x110000)
        if (
            unicodedata.category(chr(code)) in {"Cc", "Cs", "Zl", "Zp"}
            or unicodedata.bidirectional(chr(code))
            in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        )
        and escape_controls(chr(code)) == chr(code)
    ]

    assert [] == shown


def test_s11_json_stays_equal() -> None:
    """The escapes are those of JSON, and line ends between values stay."""
    value = {"text": "\x1b\x7f\x9b\u202e\udcff\n", "more": ["ü"]}
    document = escape_json_controls(json.dumps(value, ensure_ascii=False, indent=2))

    assert value == json.loads(document)
    assert "\x7f" not in document
    assert 5 == document.count("\n")
