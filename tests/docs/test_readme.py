"""README is short and true: its links have targets, its example runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.pages import README, lasting, output_of, outputs_of, page, sessions


def commands_of(text: str) -> Sequence[tuple[str, str]]:
    """A file that is made, an ingest and a search, each with its shown output."""
    commands = sessions(text.split("## On the command line")[1].split("\n## ", maxsplit=1)[0])
    assert ["cat", "msmarco-qdrant", "msmarco-qdrant"] == [line.split()[0] for line, _ in commands]
    return commands


@pytest.mark.slow
def test_the_commands_print_the_shown_output(tmp_path: Path) -> None:
    """With the packaged model, each in a shell; an ingest whose output is not shown prints any."""
    (_, films), *commands = commands_of(README)
    (tmp_path / "films.jsonl").write_text(films.split("END\n")[0])
    for line, shown in commands:
        output = output_of(line, tmp_path, tmp_path / "home")
        if shown.strip():
            assert lasting(shown) == lasting(output), line


@pytest.mark.slow
def test_the_commands_of_the_first_search_print_the_shown_output(tmp_path: Path) -> None:
    """All in one process."""
    (_, films), *commands = commands_of(page("first-search.md"))
    (tmp_path / "films.jsonl").write_text(films.split("END\n")[0])
    outputs = outputs_of([line for line, _ in commands], tmp_path, tmp_path / "home")
    for (line, shown), output in zip(commands, outputs, strict=True):
        if shown.strip():
            assert lasting(shown) == lasting(output), line


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
