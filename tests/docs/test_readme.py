"""README is true: its Python and its commands run, its tables match the program."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.settings import Settings
from tests.conftest import ROOT
from tests.encoding.test_loading import _cache
from tests.stand_ins import SMALL, V2, V3, environment_of_cache, save_stand_in

README = (ROOT / "README.md").read_text()
FILMS = README.split("$ cat > films.jsonl <<'END'\n")[1].split("END\n")[0]
CHANGE = README.split("## Changing the model with no downtime\n")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def rows(head: str) -> list[list[str]]:
    """The cells of the table that starts with a head, without their code marks."""
    table = README.split(f"| {head} |", 1)[1].split("\n\n", 1)[0]
    lines = table.strip().splitlines()[1:]
    lines = [line for line in lines if not line.startswith("| ---")]
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines]


def output_after(block: str) -> str:
    """The block without a language that follows a block, "" if there is none."""
    follows = README.split(f"```python\n{block}```\n\n", 1)[-1]
    return follows.removeprefix("```\n").split("```")[0] if follows.startswith("```\n") else ""


def without_last_digits(output: str) -> list[str]:
    """Return the lines with scores cut to two digits, as processors differ in the last one."""
    return re.sub(r"(0\.\d\d)\d+", r"\1", output).splitlines()


@pytest.mark.slow
def test_python_blocks_print_the_shown_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the films of the text and the real model, in a directory that holds another model."""
    monkeypatch.chdir(tmp_path)
    save_stand_in(tmp_path, V3, [FILMS])
    Path("films.jsonl").write_text(FILMS)
    ingest_passages(
        "films.jsonl",
        "./qdrant_data",
        collection="films",
        model="all-MiniLM-L6-v2",
        payload_indexes={"lang": "keyword", "year": "integer"},
    )
    not_shown = iter(["m2\nm3\n", "1\n"])  # blocks without an output in README
    for block in blocks("python"):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(block, {})  # noqa: S102  # README's own code
        shown = output_after(block) or next(not_shown)
        assert without_last_digits(shown) == without_last_digits(output.getvalue())
    assert [] == list(not_shown)


@pytest.mark.slow
def test_model_change_commands_print_the_shown_output(tmp_path: Path) -> None:
    """Each command in a process of its own, with stand-ins that are loaded by name from a cache."""
    sample = ROOT / "msmarco_qdrant" / "cli" / "sample" / "passages.tsv"
    for name in (V2, V3, SMALL):
        model = save_stand_in(tmp_path / "models", name, [sample.read_text()])
        _cache(tmp_path / "home", f"sentence-transformers/{name}", model)
    place = tmp_path / "here"
    place.mkdir()
    shutil.copy(sample, place)

    (ingest,) = re.findall(r"`(msmarco-qdrant ingest .+)`", CHANGE)
    assert "300 read: 300 written" in output_of(ingest, place, tmp_path / "home")
    for command, shown in sessions(CHANGE):
        output = output_of(command, place, tmp_path / "home")
        assert without_times(shown) == without_times(output), command


def sessions(text: str) -> list[tuple[str, str]]:
    """Return the commands of a text, each with its shown output."""
    shown = "".join(re.findall(r"^```\n(\$ .*?)```", text, flags=re.DOTALL | re.MULTILINE))
    parts = re.split(r"^\$ (.+)\n", shown, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def output_of(command: str, place: Path, home: Path) -> str:
    """Run a command in a shell and return its output."""
    cache = environment_of_cache(home)
    environment = {
        **cache,
        "COLUMNS": "80",
        "HF_HUB_VERBOSITY": "error",  # else it prints a warning each time that it is offline
        "MSMARCO_QDRANT_PRECISION": "float32",  # the same counts on every processor
        "PATH": f"{Path(sys.executable).parent}:{cache['PATH']}",
    }
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def without_times(output: str) -> list[str]:
    """Return the lines without durations and without progress lines."""
    lines = re.sub(r"\d+\.\d s$", "s", output.strip(), flags=re.MULTILINE)
    return [line for line in without_last_digits(lines) if " passages/s" not in line]


@pytest.mark.slow
def test_python_blocks_are_typed(tmp_path: Path) -> None:
    """Every block passes mypy with the project's strict settings."""
    files = [tmp_path / f"block_{number}.py" for number, _ in enumerate(blocks("python"))]
    for file, block in zip(files, blocks("python"), strict=True):
        file.write_text(block)
    command = [sys.executable, "-m", "mypy", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr), done.stdout


def test_every_command_is_in_the_table() -> None:
    """And the table names no other."""
    named = {row[0].split()[0] for row in rows("command | what it does")}
    assert named == set(cli.commands)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    """And the table names no other."""
    shown = {row[0]: row[1] for row in rows("variable | default | meaning")}
    prefix = str(Settings.model_config["env_prefix"])
    actual = {
        prefix + name.upper(): "" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert shown == actual


def test_every_extra_is_in_the_table_with_what_it_brings() -> None:
    """And the table names no other; those for work on the project are left out."""
    shown = {row[0]: row[1] for row in rows("`pip install 'msmarco-qdrant[...]'` | brings | for")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(extras) - {"bench", "dev"} == set(shown)
    for name in set(shown) - {"offline"}:  # README names its model instead
        brought = {re.split("[><=]", requirement)[0] for requirement in extras[name]}
        assert brought == set(shown[name].split(", "))


def test_linked_files_exist() -> None:
    """Every link to a file of the project has a target."""
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).stat().st_size > 0, link


def test_linked_sections_exist() -> None:
    """Every link to a section has a heading."""
    headings = re.findall(r"^#+ (.+)$", README, flags=re.MULTILINE)
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert links
    assert set() == set(links) - {heading.lower().replace(" ", "-") for heading in headings}
