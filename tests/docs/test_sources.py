"""docs/sources.md: its sessions print what it shows, its tables match the program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from msmarco_qdrant.sources.fields import PASSAGE
from tests.cli.runner import command
from tests.docs.pages import page, rows

PAGE = page("sources.md")


def test_s2_sessions_print_the_shown_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block in order, with the files that it writes."""
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```\n(\$ .*?)```", PAGE, flags=re.DOTALL | re.MULTILINE):
        parts = re.split(r"^\$ (.+)\n", block, flags=re.MULTILINE)[1:]
        for line, shown in zip(parts[::2], parts[1::2], strict=True):
            if line.startswith("cat > "):
                Path(line.split()[2]).write_text(shown.removesuffix("END\n"))
            else:
                assert shown == command(*shlex.split(line)[1:]).out, line


def test_known_names_are_in_the_table() -> None:
    """In the order in which they are looked for."""
    table = dict(rows(PAGE, "value | fields"))
    assert ", ".join(PASSAGE.ids) == table["pid"]
    assert ", ".join(PASSAGE.texts) == table["text"]


def test_options_are_in_the_table() -> None:
    """Those that select how a source is read."""
    from msmarco_qdrant.cli.options import READING

    assert list(READING) == [name for _, name, _ in rows(PAGE, "option | in Python | meaning")]
