"""docs/sources.md: its sessions print what it shows, its tables match the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmarco_qdrant.sources.fields import PASSAGE
from tests.docs.pages import check_sessions, page, rows

PAGE = page("sources.md")


def test_s2_sessions_print_the_shown_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command in order, with the files that the page writes."""
    monkeypatch.chdir(tmp_path)
    check_sessions(PAGE)


def test_known_names_are_in_the_table() -> None:
    """In the order in which they are looked for."""
    table = dict(rows(PAGE, "value | fields"))
    assert ", ".join(PASSAGE.ids) == table["pid"]
    assert ", ".join(PASSAGE.texts) == table["text"]


def test_options_are_in_the_table() -> None:
    """Those that select how a source is read."""
    from msmarco_qdrant.cli.options import READING

    assert list(READING) == [name for _, name, _ in rows(PAGE, "option | in Python | meaning")]
