"""README is short and true: its links have targets, its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.pages import README, lasting, output_of, page, sessions


@pytest.mark.slow
@pytest.mark.parametrize("text", [README, page("first-search.md")], ids=["README", "first search"])
def test_the_commands_print_the_shown_output(text: str, tmp_path: Path) -> None:
    """With the packaged model; an ingest whose output is not shown may print any."""
    commands = sessions(text.split("## On the command line")[1].split("\n## ", maxsplit=1)[0])
    assert ["cat", "msmarco-qdrant", "msmarco-qdrant"] == [line.split()[0] for line, _ in commands]
    (tmp_path / "films.jsonl").write_text(commands[0][1].split("END\n")[0])
    for command, shown in commands[1:]:
        output = output_of(command, tmp_path, tmp_path / "home")
        if shown.strip():
            assert lasting(shown) == lasting(output), command


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
