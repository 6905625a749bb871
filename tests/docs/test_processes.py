"""The programs in docs/processes.md run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from tests.conftest import ROOT
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.loopback import LoopbackServer

PAGE = (ROOT / "docs" / "processes.md").read_text("utf-8")
SPAWNED, APP, FORKED = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
URL = "http://localhost:6333"
LIMIT_S = 240.0
PASSAGES = [
    Passage("m2", "monster in outer space"),
    Passage("m3", "chess with death"),
    Passage("m4", "the cold river"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackServer]:
    """A server with the films."""
    model = save_tiny(tmp_path_factory.mktemp("models") / "model", Recipe())
    with LoopbackServer(adjacent=True) as running:
        with closing(open_store(running.rest_url)) as store:
            ingest_passages(PASSAGES, store, collection="films", model=model)
        yield running


def start(command: list[str], place: Path) -> subprocess.Popen[str]:
    """Start a program in a session of its own; its errors go to the file `errors`."""
    with (place / "errors").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )


def end(process: subprocess.Popen[str]) -> None:
    """End a program and everything that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("block", "first"), [(SPAWNED, "m2"), (FORKED, "['m2'")])
def test_c1_pools_of_the_page(
    server: LoopbackServer, tmp_path: Path, block: str, first: str
) -> None:
    """As scripts, against a server; one worker is enough, which loads a model."""
    assert "ProcessPoolExecutor(2, " in block
    script = block.replace(URL, server.rest_url).replace("Executor(2, ", "Executor(1, ")
    (tmp_path / "script.py").write_text(script)
    process = start(["script.py"], tmp_path)
    try:
        out, _ = process.communicate(timeout=LIMIT_S)
    finally:
        end(process)
    assert 0 == process.returncode, (tmp_path / "errors").read_text()
    assert out.startswith(first)


@pytest.mark.slow
def test_c1_workers_of_uvicorn(server: LoopbackServer, tmp_path: Path) -> None:
    """Two workers, each with a client of its own."""
    (tmp_path / "app.py").write_text(APP.replace(URL, server.rest_url))
    address = f"http://127.0.0.1:{(port := _free_port())}"
    process = start(["-m", "uvicorn", "app:app", "--workers", "2", "--port", str(port)], tmp_path)
    try:
        assert "m3" == _first_answer(f"{address}/search", "chess with death")
    finally:
        end(process)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _first_answer(url: str, query: str) -> str:
    ends = time.monotonic() + LIMIT_S
    while time.monotonic() < ends:
        with suppress(httpx.TransportError):
            answer = httpx.get(url, params={"query": query}, timeout=LIMIT_S)
            return str(answer.json()[0])
        time.sleep(0.05)
    raise AssertionError("no worker answered")


def test_c1_the_page_quotes_the_error() -> None:
    """As the package raises it, and README links the page."""
    error = "a model cannot run in a process that was forked after its parent used torch or"
    assert error in (ROOT / "msmarco_qdrant" / "encoding" / "forks.py").read_text()
    assert error in PAGE
    assert "processes.md" in (ROOT / "README.md").read_text()
