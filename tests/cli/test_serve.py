"""`serve` as a command; tests/service has the tests of the sidecar."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from msmarco_qdrant.service import logs
from msmarco_qdrant.service.settings import SidecarSettings
from tests.cli.runner import command
from tests.conftest import ROOT
from tests.service.sidecars import ended

TOKEN = "t" * 16
MODEL = ("--model", "all-MiniLM-L6-v2")


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_missing_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is opened."""
    monkeypatch.setitem(sys.modules, package, None)
    outcome = command("serve")
    error = "Error: the sidecar needs the extra 'serve': pip install 'msmarco-qdrant[serve]'\n"
    assert (2, "", error) == outcome
    assert [] == [*Path.cwd().iterdir()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "http"], "MSMARCO_QDRANT_PORT: Input should be a valid integer"),
        (["--port", "70000"], "MSMARCO_QDRANT_PORT: Input should be less than or equal to 65535"),
        (["--host", "192.0.2.1"], "set MSMARCO_QDRANT_READ_TOKEN and MSMARCO_QDRANT_WRITE_TOKEN"),
        (["--store", ":memory:"], "':memory:' ends with its handle"),
        (["--store", "localhost:6333"], "pass http://host:port"),
        (["--inbox", "qdrant_spool/inbox"], "must be separate directories"),
        (["--collection", "a b"], "'a b'"),
    ],
)
def test_wrong_setting_is_one_line(arguments: list[str], message: str) -> None:
    """The message has the rule."""
    outcome = command("serve", *arguments)
    assert (2, "") == (outcome.status, outcome.out)
    assert message in outcome.err
    assert 1 == len([line for line in outcome.err.splitlines() if not line.startswith("{")])


def test_short_token_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the command that makes a better one."""
    monkeypatch.setenv("MSMARCO_QDRANT_READ_TOKEN", "hunter2")
    outcome = command("serve")
    assert (2, True) == (outcome.status, "openssl rand -hex 32" in outcome.err)
    assert "hunter2" not in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "program"),
    [
        (signal.SIGTERM, ["msmarco_qdrant", "serve", *MODEL]),
        (signal.SIGINT, ["tests.cli.serve_program"]),
    ],
)
def test_signal_stops_the_service(
    number: signal.Signals, program: Sequence[str], tmp_path: Path
) -> None:
    """Answers, logs JSON alone, and exits with 0 on SIGTERM and Control-C."""
    with (
        ThreadPoolExecutor(1) as reader,
        subprocess.Popen(
            [sys.executable, "-m", *program, "--port", "0"],
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "MSMARCO_QDRANT_WRITE_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)},
            text=True,
        ) as process,
    ):
        try:
            assert process.stderr is not None
            first = json.loads(process.stderr.readline())
            rest = reader.submit(process.stderr.read)  # a full pipe would hold the process up
            _add_and_search(first["url"])
            process.send_signal(number)
            lines = rest.result(60).splitlines()
        finally:
            process.kill()
    assert 0 == process.returncode
    assert "listening on" in first["message"]
    messages = [json.loads(line)["message"] for line in lines]
    assert "stopped" == messages[-1]
    assert 1 == len([one for one in messages if one.startswith("HTTP and inbox are closed")])
    assert TOKEN not in "".join(lines)


def test_help_describes_an_option_as_its_setting() -> None:
    """With the variable and the default."""
    shown = "".join(command("serve", "--help").out.split())
    for name in ("reranker", "host", "port", "spool", "inbox"):
        description = "".join(str(SidecarSettings.model_fields[name].description).split())
        assert f"{description[1:]}.[default:MSMARCO_QDRANT_{name.upper()}or" in shown


def test_r4_the_log_level_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the variable; the sidecar uses all other settings."""
    levels = []
    monkeypatch.setenv("MSMARCO_QDRANT_LOG_LEVEL", "error")
    monkeypatch.setattr(logs, "configure_logs", lambda level, _secrets: levels.append(level))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert 2 == command("serve", "--port", str(taken.getsockname()[1])).status
    assert ["error"] == levels


def test_several_indexes_are_given_by_repeated_options() -> None:
    """An invalid one is refused before anything is opened."""
    outcome = command("serve", "--index", "year=integer", "--index", "year=float")
    assert 2 == outcome.status
    assert "--index must have one KIND per field, got integer and float for 'year'" in outcome.err


def test_an_error_at_the_start_is_a_line_of_the_log() -> None:
    """JSON to the end; the status is 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "msmarco_qdrant", "serve"],
            env={**os.environ, "MSMARCO_QDRANT_PORT": str(taken.getsockname()[1])},
            stderr=subprocess.PIPE,
            check=False,
        )
    entry = json.loads(done.stderr.splitlines()[-1])
    assert (2, "critical") == (done.returncode, entry["level"])
    assert "pass another --port" in entry["message"]


def _add_and_search(url: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60.0) as client:
        body = [{"pid": "1", "text": "the river thames flows through london"}]
        report = ended(client, client.post("/passages", params={"wait": True}, json=body))
        assert ("done", 1) == (report["state"], report["written"])
        answer = client.post("/search", json={"query": "a river"}).json()
        assert ["1"] == [hit["pid"] for hit in answer["hits"]]
