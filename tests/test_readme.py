"""README tells the truth: its Python runs, its tables are the program's."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from msmarco_qdrant.cli import cli
from msmarco_qdrant.ingest import ingest_passages
from msmarco_qdrant.records import Passage
from msmarco_qdrant.settings import Settings

from .conftest import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def rows(head: str) -> list[list[str]]:
    """The cells of the table that starts with a head, without their code marks."""
    table = README.split(f"| {head} |", 1)[1].split("\n\n", 1)[0]
    lines = table.strip().splitlines()[1:]
    lines = [line for line in lines if not line.startswith("| ---")]
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines]


def test_the_python_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the films of the text and the real model, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    films = [
        Passage(
            "m1",
            "Metropolis A silent film of 1927 about a city in which workers live below the ground.",
        ),
        Passage("m2", "Alien The crew of a freight spaceship brings a deadly creature on board."),
        Passage("m3", "A knight plays chess with Death while the plague is in the land."),
    ]
    ingest_passages(films, "./qdrant_data", collection="films", model="all-MiniLM-L6-v2")
    search, search_async, ingest = blocks("python")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(search, {})  # noqa: S102  # README's own code
    said = README.split(search)[1].split("```")[2].strip().splitlines()
    # the last digit of a score may differ between processors
    shape = re.compile(r"^(\d) 0\.(\d\d)\d* (.*)$")
    printed = output.getvalue().splitlines()
    assert [shape.match(line).groups() for line in said] == [  # type: ignore[union-attr]
        shape.match(line).groups()  # type: ignore[union-attr]
        for line in printed
    ]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(search_async, {})  # noqa: S102  # README's own code
        exec(ingest, {})  # noqa: S102  # README's own code
    assert output.getvalue() == "m2\nm3\n1\n"


def test_every_command_is_in_the_table() -> None:
    """And the table names no other."""
    named = {row[0].split()[0] for row in rows("command | what it does")}
    assert named == set(cli.commands)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    """And the table names no other."""
    told = {row[0]: row[1] for row in rows("variable | default | meaning")}
    prefix = str(Settings.model_config["env_prefix"])
    actual = {
        prefix + name.upper(): "" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert told == actual


def test_the_files_it_names_are_there() -> None:
    """Every link to a file of the project leads somewhere."""
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).stat().st_size > 0, link
