"""Control-C while the server does not answer: the command ends at once, not after its retries."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 45  # below the 60 to 120 s of retries, and above what a busy machine needs


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """A server in its own process; its first line has its URLs."""
    command = [sys.executable, "-m", "tests.kill.server_program"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        yield running
        running.kill()


def interrupt(process: subprocess.Popen[str]) -> str:
    """Send Control-C; return the rest of standard error when the process has ended."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=_LIMIT_S)[1]
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize("away", [signal.SIGKILL, signal.SIGSTOP], ids=["closed", "frozen"])
def test_c13_interrupted_ingest_ends(
    server: subprocess.Popen[str], away: signal.Signals, transport: str
) -> None:
    """A server that has ended refuses connections, a frozen one never answers."""
    assert server.stdout is not None
    url = server.stdout.readline().split()[transport == "rest"]
    command = [sys.executable, "-m", "tests.kill.interrupted_program", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while int(process.stdout.readline()) < 128:
            pass  # both windows are written
        server.send_signal(away)
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert "reading on\n" == process.stdout.readline()
        assert process.stderr is not None
        while away is signal.SIGKILL and "attempt" not in process.stderr.readline():
            pass  # until it waits between two attempts

        assert "KeyboardInterrupt" in interrupt(process)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "search x --mode bm25",
        "export passages.jsonl",
        "migrate up",
    ],
)
def test_c13_interrupted_command_ends(words: str, tmp_path: Path) -> None:
    """It has connected to a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "msmarco_qdrant", *words.split(), "--store", url]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            connection, _ = listener.accept()
            with connection:
                assert interrupt(process).endswith("Interrupted.\n")
            assert 130 == process.returncode
