"""Files of variables at the command line: which one is read, and which server gets the key (R5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.cli.program import as_typed
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.stores import Connection, open_store
from tests.cli.runner import command
from tests.conftest import ROOT
from tests.loopback import LoopbackServer

KEY = "hunter2hunter2"
ENV = Path(".env")
COMPOSE = "services: {x: {environment: {MSMARCO_QDRANT_STORE: http://qdrant:6333}}}\n"


@pytest.fixture
def secured() -> Iterator[LoopbackServer]:
    """A server that requires the key."""
    with LoopbackServer(api_key=KEY) as running:
        yield running


def write_env(server: LoopbackServer, key: str = "") -> None:
    """Write a file of variables."""
    ENV.write_text(f"MSMARCO_QDRANT_STORE={server.url}\nMSMARCO_QDRANT_API_KEY={key}\n")


def test_r5_a_file_of_a_stranger_gets_no_key(
    secured: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither beside a compose file nor by `--env-file`; `--store` names the server knowingly."""
    monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", KEY)
    write_env(secured)
    for arguments in (["collections"], ["info"], ["search", "x"], ["get", "1"]):
        done = command("--env-file", ".env", *arguments)
        assert (2, "") == done[:2]
        assert done.err.startswith("Error: the API key must go only to a server")
        assert 1 == len(done.err.splitlines())
    Path("compose.yml").write_text(COMPOSE)
    assert 2 == command("collections").status
    assert 0 == command("collections", "--store", secured.url).status


def test_r5_serve_gets_no_key_of_another_source(
    secured: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is opened."""
    pytest.importorskip("fastapi")
    monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", KEY)
    write_env(secured)
    done = command("--env-file", ".env", "serve")
    assert (2, True) == (done.status, "the API key must go only to a server" in done.err)
    assert [ENV] == [path.relative_to(Path.cwd()) for path in Path.cwd().iterdir()]


def test_r5_a_file_is_read_beside_a_compose_file_or_by_its_name(secured: LoopbackServer) -> None:
    """Another `.env` is not read, and one warning says so and names its variables."""
    write_env(secured, KEY)
    assert 0 == command("--env-file", ".env", "collections").status
    Path("docker-compose.yml").write_text((ROOT / "docker-compose.yml").read_text())
    assert 0 == command("collections").status
    Path("docker-compose.yml").unlink()
    assert 1 == command("collections").status  # ./qdrant_data, which does not exist


def test_r5_an_env_file_that_is_not_read_is_reported_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """With its variables and the option; a file of other programs is no concern."""
    ENV.write_text("OTHER=1\n")
    command("collections", "--store", str(tmp_path))
    assert [] == caplog.messages
    ENV.write_text("MSMARCO_QDRANT_STORE=http://far\nOTHER=1\nMSMARCO_QDRANT_MODEL=\n")
    command("collections", "--store", str(tmp_path))
    (message,) = caplog.messages
    assert message.startswith("the file .env here is not read")
    assert message.endswith("pass --env-file .env before the command to read MSMARCO_QDRANT_STORE")


def test_r5_a_missing_env_file_is_wrong_usage() -> None:
    """Instead of the defaults in its place."""
    assert 2 == command("--env-file", "none", "collections").status


def test_r5_advice_has_the_env_file() -> None:
    """A command that a message advises reads the same file, wherever it is in the message."""
    Path("my env").touch()
    with cli.make_context("msmarco-qdrant", ["--env-file", "my env", "collections"]):
        once = as_typed("`msmarco-qdrant info`, then `msmarco-qdrant check x`")
        assert once == as_typed(once)
    option = "--env-file 'my env'"
    assert once == f"`msmarco-qdrant {option} info`, then `msmarco-qdrant {option} check x`"


def test_advice_without_an_env_file_stays() -> None:
    """Outside of a command, too."""
    assert "run `msmarco-qdrant info`" == as_typed("run `msmarco-qdrant info`")


def test_the_loopback_server_refuses_other_keys(secured: LoopbackServer) -> None:
    """Otherwise these tests would prove nothing."""
    with pytest.raises(StoreError):
        open_store(secured.url, connection=Connection(retry_s=0)).collection("x")
