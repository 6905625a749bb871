"""The page of the sidecar is true: its commands run, its tables are complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from msmarco_qdrant.service.http import schemas, schemas_filter, schemas_search
from msmarco_qdrant.service.interfaces import Backlog
from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.settings import Settings
from tests.docs.pages import page, rows, sessions, without_last_digits
from tests.service.http.driver import Driver, drive
from tests.service.sidecars import TIMEOUT_S, asked_until, wait_until_ready

SECTION = page("sidecar.md")
ID = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The sidecar that the page starts, at a free port: its host and port, and where it runs."""
    (start,) = re.findall(r"^msmarco-qdrant (serve .+)$", SECTION, flags=re.MULTILINE)
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-m", "msmarco_qdrant", *start.split(), "--port", "0"],
            cwd=tmp_path,
            env={**os.environ, "MSMARCO_QDRANT_PRECISION": "float32"},
            stderr=file,
        ) as process,
    ):
        try:
            url = asked_until(lambda: _url_in(log.read_text(), process))
            with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
                wait_until_ready(client)
            yield url.removeprefix("http://"), tmp_path
        finally:
            process.kill()


@pytest.mark.slow
def test_sidecar_commands_print_the_shown_output(sidecar: tuple[str, Path]) -> None:
    """Each command in a shell, with the ids that the answers before it had."""
    if shutil.which("curl") is None:
        pytest.skip("README's commands need curl")
    address, place = sidecar
    ids: dict[str, str] = {}
    for command, shown in sessions(SECTION):
        for known, actual in ids.items():
            command = command.replace(known, actual)  # noqa: PLW2901
        command = command.replace("localhost:8080", address)  # noqa: PLW2901
        if command == "msmarco-qdrant spool list":
            asked_until(partial(_listed, command, place))
        if "games" in command:  # which finds what a file of the inbox brings in its time
            asked_until(partial(_found, "m3", command, place))
        output = _output_of(command, place)
        ids |= dict(zip(ID.findall(shown), ID.findall(output), strict=True))
        assert _comparable(shown) == _comparable(output), command


def _output_of(command: str, place: Path) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=place,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _found(pid: str, command: str, place: Path) -> bool | None:
    return f'"{pid}"' in _output_of(command, place) or None


def _listed(command: str, place: Path) -> bool | None:
    return "every row was rejected" in _output_of(command, place) or None


def _url_in(log: str, process: subprocess.Popen[bytes]) -> str | None:
    assert process.poll() is None, log
    found = re.search(r'"(http://127[^"]+)"}\n', log)
    return found[1] if found else None


def _comparable(output: str) -> list[str]:
    """Without what differs each time."""
    output = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "", output)
    without_ids = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", ID.sub("", output))
    return without_last_digits(without_ids.strip())


def test_every_setting_of_the_sidecar_is_in_the_table() -> None:
    """With its default and its description, and no other."""
    shown = {
        row[0]: row[1:3] for row in rows(SECTION, "setting of the sidecar | default | meaning")
    }
    prefix = str(Settings.model_config["env_prefix"])
    assert shown == {
        prefix + name.upper(): [
            "" if field.default is None else str(field.default),
            text.replace("`", ""),
        ]
        for name, field in SidecarSettings.model_fields.items()
        if name not in Settings.model_fields and (text := field.description)
    }


def test_every_metric_is_in_the_table() -> None:
    """And the table names no other."""
    metrics = Metrics(lambda: Backlog(0, 0.0))
    types = re.findall(r"^# TYPE (\S+) ", metrics.text().decode(), flags=re.MULTILINE)
    shown = {row[0] for row in rows(SECTION, "metric | value")}
    assert {name for name in types if not name.endswith("_created")} == shown


def test_every_parameter_of_a_search_is_in_the_table() -> None:
    """And the table names no other."""
    shown = " ".join(row[0] for row in rows(SECTION, "parameter | value"))
    names = re.findall(r"[a-z_]+", shown.replace(" or ", " "))
    assert [*schemas_search.SearchIn.model_fields] == names


def test_every_request_is_in_the_table() -> None:
    """And the table names no other."""

    async def use(driver: Driver) -> set[str]:
        paths = (await driver.client.get("/openapi.json")).json()["paths"]
        return {f"{method.upper()} {path}" for path in paths for method in paths[path]}

    shown = {row[0].split("?")[0] for row in rows(SECTION, "request | answers")}
    actual = {re.sub(r"\{batch\}", "{id}", one) for one in drive(use)}
    assert actual | {"GET /openapi.json"} == shown


def test_every_bound_of_a_request_is_stated() -> None:
    """The section contains each limit of a batch and of a search."""
    shown = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\d", SECTION)}
    batch = {schemas.MAX_PASSAGES, schemas.MAX_TEXT_CHARS, schemas.MAX_PID_CHARS}
    batch |= {schemas.MAX_META_BYTES}
    search = {schemas_search.MAX_QUERIES, schemas_search.MAX_QUERY_CHARS}
    search |= {schemas_search.MAX_LIMIT, schemas_search.MAX_HITS, schemas_search.MAX_PAIRS}
    search |= {schemas_filter.MAX_CONDITIONS}
    assert set() == (batch | search) - shown
