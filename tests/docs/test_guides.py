"""The guides are true: their Python and their commands run, their tables match the program."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import indent

import pytest

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.service.interfaces import Backlog
from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.settings import Settings
from tests.conftest import ROOT
from tests.docs.pages import (
    README,
    blocks,
    check_sessions,
    output_after,
    outputs_of,
    page,
    rows,
    sessions,
    without_last_digits,
    without_times,
)
from tests.encoding.test_loading import _cache
from tests.stand_ins import SMALL, V2, V3, save_stand_in

FILMS = page("first-search.md").split("$ cat > films.jsonl <<'END'\n")[1].split("END\n")[0]
CHANGE = page("model-change.md")
NOT_SHOWN = {"first-search.md": ["m2\nm3\n", "1\n"]}
"""Outputs of the Python blocks whose output a page does not show."""


@pytest.fixture(scope="module")
def made_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the collection `films`, with the real model, and with another model."""
    place = tmp_path_factory.mktemp("films")
    save_stand_in(place, V3, [FILMS])
    (place / "films.jsonl").write_text(FILMS)
    ingest_passages(
        str(place / "films.jsonl"),
        place / "qdrant_data",
        collection="films",
        model="all-MiniLM-L6-v2",
        payload_indexes={"lang": "keyword", "year": "integer"},
    )
    return place


@pytest.fixture
def films(made_films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of that directory, in which the test runs."""
    shutil.copytree(made_films, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("films")
@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "first-search.md",
        "your-data.md",
        "async.md",
        "models.md",
        "modes.md",
        "evaluate.md",
        "model-change.md",
    ],
)
def test_python_blocks_print_the_shown_output(name: str) -> None:
    """Those of a page in their order, over one collection."""
    text = README if name == "README.md" else page(name)
    not_shown = iter(NOT_SHOWN.get(name, []))
    assert blocks(text, "python")
    for block in blocks(text, "python"):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(block, {})  # noqa: S102  # the page's own code
        shown = output_after(text, block) or next(not_shown)
        assert without_last_digits(shown) == without_last_digits(output.getvalue())
    assert [] == list(not_shown)


@pytest.mark.slow
@pytest.mark.usefixtures("films")
@pytest.mark.parametrize(
    "name", ["your-data.md", "commands.md", "operations.md", "migrations.md", "speed.md"]
)
def test_commands_print_the_shown_output(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a page in their order, in one process."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MSMARCO_QDRANT_PRECISION", "float32")
    check_sessions(page(name))


def test_alerts_are_about_metrics_of_the_sidecar() -> None:
    """Each rule of the example has an expression over metrics that exist."""
    yaml = pytest.importorskip("yaml")
    (block,) = blocks(page("operations.md"), "yaml")
    rules = [rule for group in yaml.safe_load(block)["groups"] for rule in group["rules"]]
    exposed = Metrics(lambda: Backlog(0, 0.0)).text().decode()
    names = {re.split(r"[ {]", line)[0] for line in exposed.splitlines()}
    types = set(re.findall(r"^# TYPE (\S+) ", exposed, flags=re.MULTILINE))
    used = {rule["alert"]: set(re.findall(r"msmarco_qdrant_\w+", rule["expr"])) for rule in rules}
    for alert, found in used.items():
        assert found, alert
        assert {name.removesuffix("_bucket") for name in found} <= types | names, alert


def test_sizes_are_those_of_the_shown_formulas() -> None:
    """Gigabytes on disk and in memory, of each quantization."""
    text = page("operations.md")
    formulas = r"disk   = .* \(4 d \+ q d \+ ([\d,]+)\)\nmemory = .* \(q d \+ ([\d,]+)\) \+ 100 MB"
    (found,) = re.findall(formulas, text)
    on_disk, in_memory = (float(number.replace(",", "")) for number in found)
    counts = {"100,000": 1e5, "1 million": 1e6, "8.8 million": 8.8e6}
    head = (
        "passages | dimension | none: disk | memory | int8: disk | memory | turbo4: disk | memory"
    )
    table = rows(text, head)
    assert 6 == len(table)
    for name, dimension, *shown in table:
        count, floats = counts[name], int(dimension)
        expected = []
        for per_float in (0, 1, 0.5):
            expected.append(count * ((4 + per_float) * floats + on_disk) / 1e9)
            expected.append((count * (per_float * floats + in_memory) + 1e8) / 1e9)
        assert pytest.approx(expected, rel=0.03) == [float(cell) for cell in shown]


@pytest.mark.slow
def test_model_change_commands_print_the_shown_output(tmp_path: Path) -> None:
    """In one process, with stand-ins that are loaded by name from a cache of the hub."""
    sample = ROOT / "msmarco_qdrant" / "cli" / "sample" / "passages.tsv"
    for name in (V2, V3, SMALL):
        model = save_stand_in(tmp_path / "models", name, [sample.read_text()])
        _cache(tmp_path / "home", f"sentence-transformers/{name}", model)
    place = tmp_path / "here"
    place.mkdir()
    shutil.copy(sample, place)

    (ingest,) = re.findall(r"`(msmarco-qdrant ingest .+)`", CHANGE)
    commands = sessions(CHANGE)
    lines = [ingest, *(line for line, _ in commands)]
    first, *outputs = outputs_of(lines, place, tmp_path / "home")
    assert "300 read: 300 written" in first
    for (line, shown), output in zip(commands, outputs, strict=True):
        assert without_times(shown) == without_times(output), line


CONTINUED = ("haystack.md", "langchain.md", "llamaindex.md", "similar.md")
"""Pages whose blocks use names of the blocks before."""


@pytest.mark.slow
def test_python_blocks_are_typed(tmp_path: Path) -> None:
    """Every block, and the notebook, passes mypy with the project's strict settings."""
    texts = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
    found = ["\n".join(blocks(texts.pop(name), "python")) for name in CONTINUED]
    found += [block for text in (README, *texts.values()) for block in blocks(text, "python")]
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())
    cells = ["".join(one["source"]) for one in notebook["cells"] if one["cell_type"] == "code"]
    found.append(f"async def cells() -> None:\n{indent(chr(10).join(cells), '    ')}\n")
    files = [tmp_path / f"block_{number}.py" for number, _ in enumerate(found)]
    for file, block in zip(files, found, strict=True):
        file.write_text(block)
    command = [sys.executable, "-m", "mypy", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr), done.stdout


def test_every_command_is_in_the_table() -> None:
    """And the table names no other."""
    named = {row[0].split()[0] for row in rows(page("commands.md"), "command | what it does")}
    assert named == set(cli.commands)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    """And the table names no other."""
    table = rows(page("settings.md"), "variable | default | meaning")
    shown = {row[0]: row[1] for row in table}
    prefix = str(Settings.model_config["env_prefix"])
    actual = {
        prefix + name.upper(): "" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert shown == actual


def test_every_extra_is_in_the_table_with_what_it_brings() -> None:
    """And the table names no other; those for work on the project are left out."""
    table = rows(page("install.md"), "`pip install 'msmarco-qdrant[...]'` | brings | for")
    shown = {row[0]: row[1] for row in table}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(extras) - {"bench", "dev", "docs", "integrations"} == set(shown)
    for name in set(shown) - {"offline"}:  # the page names its model instead
        brought = {re.split("[><=]", requirement)[0] for requirement in extras[name]}
        assert brought == set(shown[name].split(", "))
