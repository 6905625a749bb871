"""README is short and true: its links have targets, its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.pages import README, output_of, sessions, without_last_digits


@pytest.mark.slow
def test_the_commands_print_the_shown_output(tmp_path: Path) -> None:
    """With the packaged model."""
    commands = [*sessions(README.split("## On the command line")[1].split("\n## ")[0])]
    assert ["cat", "msmarco-qdrant", "msmarco-qdrant"] == [line.split()[0] for line, _ in commands]
    document = commands[0][1].split("END\n")[0]
    (tmp_path / "films.jsonl").write_text(document)
    for command, shown in commands[1:]:
        output = output_of(command, tmp_path, tmp_path / "home")
        assert without_last_digits(shown.strip()) == without_last_digits(
            output.strip() if shown.strip() else ""
        ), command


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_links_have_targets(path: Path) -> None:
    """Every link to a file of the project and to a section."""
    for target, section in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", path.read_text()):
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        if section:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.MULTILINE)
            anchors = {heading.lower().replace(" ", "-").replace("`", "") for heading in headings}
            assert section in anchors, f"{target}#{section}"
