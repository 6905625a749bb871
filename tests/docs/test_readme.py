"""README tells the truth: its Python runs, its tables are the program's."""

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


def said_after(block: str) -> str:
    """The block without a language that follows a block, "" if there is none."""
    follows = README.split(f"```python\n{block}```\n\n", 1)[-1]
    return follows.removeprefix("```\n").split("```")[0] if follows.startswith("```\n") else ""


def without_last_digits(output: str) -> list[str]:
    """Its lines with scores of two digits: the last one may differ between processors."""
    return re.sub(r"(0\.\d\d)\d+", r"\1", output).splitlines()


def test_the_python_runs_and_prints_what_it_says(
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
    unsaid = iter(["m2\nm3\n", "1\n"])  # what no block of the text tells
    for block in blocks("python"):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(block, {})  # noqa: S102  # README's own code
        said = said_after(block) or next(unsaid)
        assert without_last_digits(said) == without_last_digits(output.getvalue())
    assert [] == list(unsaid)


def test_the_change_of_a_model_goes_as_it_says(tmp_path: Path) -> None:
    """Each command in a process of its own, with stand-ins that are loaded by name from a cache."""
    sample = ROOT / "msmarco_qdrant" / "cli" / "sample" / "passages.tsv"
    for name in (V2, V3, SMALL):
        model = save_stand_in(tmp_path / "models", name, [sample.read_text()])
        _cache(tmp_path / "home", f"sentence-transformers/{name}", model)
    place = tmp_path / "here"
    place.mkdir()
    shutil.copy(sample, place)

    (ingest,) = re.findall(r"`(msmarco-qdrant ingest .+)`", CHANGE)
    assert "300 read: 300 written" in said_by(ingest, place, tmp_path / "home")
    for command, told in sessions(CHANGE):
        said = said_by(command, place, tmp_path / "home")
        assert without_times(told) == without_times(said), command


def sessions(text: str) -> list[tuple[str, str]]:
    """The commands of a text and what each says, as it tells it."""
    shown = "".join(re.findall(r"^```\n(\$ .*?)```", text, flags=re.DOTALL | re.MULTILINE))
    parts = re.split(r"^\$ (.+)\n", shown, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def said_by(command: str, place: Path, home: Path) -> str:
    """What a shell shows of a command, in a directory and with the models of a cache."""
    cache = environment_of_cache(home)
    environment = {
        **cache,
        "COLUMNS": "80",
        "HF_HUB_VERBOSITY": "error",  # or it tells each time that it is offline
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
    """Its lines without seconds, and without those that tell every ten seconds how far it is."""
    lines = re.sub(r"\d+\.\d s$", "s", output.strip(), flags=re.MULTILINE)
    return [line for line in without_last_digits(lines) if " passages/s" not in line]


def test_the_python_is_typed(tmp_path: Path) -> None:
    """As mypy has it with the project's settings, which are strict; it remembers the package."""
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
    told = {row[0]: row[1] for row in rows("variable | default | meaning")}
    prefix = str(Settings.model_config["env_prefix"])
    actual = {
        prefix + name.upper(): "" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert told == actual


def test_every_extra_is_in_the_table_with_what_it_brings() -> None:
    """And the table names no other; those for work on the project are left out."""
    told = {row[0]: row[1] for row in rows("`pip install 'msmarco-qdrant[...]'` | brings | for")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(extras) - {"bench", "dev"} == set(told)
    for name in set(told) - {"offline"}:  # which is told by its model
        brought = {re.split("[><=]", requirement)[0] for requirement in extras[name]}
        assert brought == set(told[name].split(", "))


def test_the_files_it_names_are_there() -> None:
    """Every link to a file of the project leads somewhere."""
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).stat().st_size > 0, link


def test_the_sections_it_points_to_are_there() -> None:
    """Every link to a section has a heading."""
    headings = re.findall(r"^#+ (.+)$", README, flags=re.MULTILINE)
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert links
    assert set() == set(links) - {heading.lower().replace(" ", "-") for heading in headings}
