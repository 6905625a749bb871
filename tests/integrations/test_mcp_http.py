"""The MCP server over HTTP: tokens, hosts and sites, alone and inside of a sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

import httpx

from msmarco_qdrant import AsyncSearchClient
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.mcp.backend import ClientBackend
from msmarco_qdrant.integrations.mcp.http import McpApp
from msmarco_qdrant.integrations.mcp.server import READS, WRITES
from msmarco_qdrant.integrations.mcp.sidecar import mount_mcp
from msmarco_qdrant.service.http.server import HttpServer, listen, url_of
from msmarco_qdrant.service.http.tokens import Tokens
from tests.integrations.mcp_parts import answer, opened, pids_of, refusal, session_of, tools_of
from tests.service.sidecars import (
    CountedModels,
    put,
    settings_in,
    sidecar_client,
    wait_until_ready,
)

READ, WRITE, BOTH, ADA = "r" * 20, "w" * 20, "b" * 20, "a" * 20
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def served(
    place: Path, tokens: Tokens, *, tenants: bool = False, **options: Any
) -> AsyncIterator[str]:
    """The URL of a server over the passages."""
    async with opened(place, tenants=tenants) as client:

        async def source() -> Any:
            return client

        app = McpApp(ClientBackend(source), tokens, **options)
        with closing(listen("127.0.0.1", 0)) as listening:
            server = HttpServer(app, grace_s=1)
            async with app.running():
                serving = asyncio.create_task(server.serve([listening]))
                yield url_of(listening) + app.path
                server.stop()
                await serving


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_each_token_has_its_tools(tmp_path: Path, mode: str) -> None:
    """By the protocol of today and by the handshake of older clients."""
    both = Tokens(BOTH, BOTH)
    for tokens, write, token, expected in (
        (Tokens(READ, WRITE), True, READ, READS),
        (Tokens(READ, WRITE), True, WRITE, WRITES),
        (both, True, BOTH, (*READS, *WRITES)),
        (both, False, BOTH, READS),
        (Tokens(), True, None, (*READS, *WRITES)),
        (Tokens(), False, None, READS),
        (Tokens(None, WRITE), True, None, READS),
        (Tokens(None, WRITE), True, WRITE, (*READS, *WRITES)),
    ):
        async with (
            served(tmp_path, tokens, write=write) as url,
            session_of(url, token, mode=mode) as session,
        ):
            assert [*expected] == await tools_of(session)
            if "search" in expected:
                assert ["1"] == await pids_of(session, "london", limit=1)
            else:
                assert "not permitted" in await refusal(session, "search", query="london")
            if "add" in expected:
                added = await answer(session, "add", passages=[{"text": "rome is a city"}])
                assert 1 == added["written"]
            else:
                given = [{"text": "rome is a city"}]
                assert "not permitted" in await refusal(session, "add", passages=given)


async def test_a_tenant_s_token_reads_its_passages(tmp_path: Path) -> None:
    """And writes nothing; the token of all reads none, as it has no tenant."""
    tokens = Tokens(READ, WRITE, {"ada": ADA})
    async with served(tmp_path, tokens, tenants=True, write=True) as url:
        async with session_of(url, ADA) as session:
            assert ["1", "3"] == sorted(await pids_of(session, "city"))
            assert [*READS] == await tools_of(session)
        async with session_of(url, READ) as session:
            assert "one tenant at a time" in await refusal(session, "search", query="city")


async def test_concurrent_callers_keep_their_access(tmp_path: Path) -> None:
    """Calls of two tenants at once never see each other's passages."""
    tokens = Tokens(READ, WRITE, {"ada": ADA, "bob": "o" * 20})
    async with (
        served(tmp_path, tokens, tenants=True) as url,
        session_of(url, ADA) as ada,
        session_of(url, "o" * 20) as bob,
    ):
        for _ in range(5):
            found = await asyncio.gather(*(pids_of(one, "city") for one in (ada, bob) * 4))
            assert [["1", "3"], ["2"]] * 4 == [sorted(pids) for pids in found]


REFUSALS: Sequence[tuple[Tokens, dict[str, str], int, str]] = [
    (Tokens(READ, WRITE), {}, 401, "Expected the header"),
    (Tokens(READ, WRITE), {"Authorization": "Bearer x"}, 401, "unknown"),
    (Tokens(READ, WRITE), {"Authorization": f"Basic {READ}"}, 401, "Expected the header"),
    (Tokens(READ, WRITE), {"Authorization": f"Bearer {WRITE}"}, 403, "token to read"),
    (Tokens(None, WRITE), {"Authorization": "Bearer x"}, 401, "unknown"),
    (Tokens(READ, None), {}, 401, "Expected the header"),
    (Tokens(), {"Host": "evil.example"}, 421, "must be localhost"),
    (Tokens(None, WRITE), {"Host": "evil.example"}, 401, "Expected the header"),
    (Tokens(), {"Origin": "https://evil.example"}, 403, "CORS_ORIGINS"),
    (Tokens(), {"Origin": "null"}, 403, "CORS_ORIGINS"),
    (
        Tokens(READ, WRITE),
        {"Authorization": f"Bearer {READ}", "Origin": "https://evil.example"},
        403,
        "CORS_ORIGINS",
    ),
]


async def test_other_requests_are_refused(tmp_path: Path) -> None:
    """With the status that clients act on; a refusal of a token has a challenge."""
    for tokens, headers, status, reason in REFUSALS:
        async with served(tmp_path, tokens) as url, httpx.AsyncClient(timeout=60) as http:
            found = await http.post(url, json=LIST, headers={**ACCEPT, **headers})
            assert (status, True) == (found.status_code, reason in found.text), headers
            is_challenge = status == 401 or "token to read" in reason
            assert is_challenge == ("WWW-Authenticate" in found.headers), headers


async def test_requests_of_permitted_sites_are_answered(tmp_path: Path) -> None:
    """Those of the operator, those of this machine, and those without a site."""
    async with (
        served(tmp_path, Tokens(), origins=["https://app.example"]) as url,
        httpx.AsyncClient(timeout=60) as http,
    ):
        for headers in (
            {"Origin": "https://app.example"},
            {"Origin": "http://localhost:3000"},
            {"Origin": url.removesuffix("/mcp")},
            {},
        ):
            found = await http.post(url, json=LIST, headers={**ACCEPT, **headers})
            assert 200 == found.status_code, (headers, found.text)
        other = await http.post(url.removesuffix("/mcp") + "/other", json=LIST, headers=ACCEPT)
        assert 404 == other.status_code
        big = await http.post(url, content=b"x" * 2**21, headers=ACCEPT)
        assert 413 == big.status_code


async def _no_client() -> AsyncSearchClient:
    raise AssertionError


def test_a_tenant_and_tokens_of_tenants_exclude_each_other() -> None:
    """A token of one tenant would read the other's passages."""
    with pytest.raises(UsageError, match="one tenant or tokens of tenants"):
        McpApp(ClientBackend(_no_client), Tokens(READ, WRITE, {"ada": ADA}), tenant="bob")


def test_a_sidecar_serves_assistants_beside_its_api(tmp_path: Path) -> None:
    """What one writes the other finds; its log and metrics name the path."""
    settings = settings_in(tmp_path, mcp=True, mcp_write=True)
    with sidecar_client(settings, mounts=[partial(mount_mcp, write=True)]) as http:
        wait_until_ready(http)
        put(http, {"pid": "1", "text": "london is a big city", "meta": {"lang": "en"}})
        asyncio.run(_converse(f"{http.base_url}".rstrip("/") + "/mcp"))
        found = http.post("/search", json={"query": "rome"}).json()["hits"]
        assert "rome is a city" == found[0]["text"]
        assert 'route="/mcp",status="200"' in http.get("/metrics").text
        assert "/mcp" not in http.get("/openapi.json").json()["paths"]


async def _converse(url: str) -> None:
    async with session_of(url) as session:
        assert [*READS, *WRITES] == await tools_of(session)
        assert ["1"] == await pids_of(session, "london", limit=1)
        assert 1 == (await answer(session, "list_collections"))["collections"][0]["passages"]
        added = await answer(session, "add", passages=[{"text": "rome is a city"}])
        assert (1, False) == (added["written"], added["waiting"])
        again = await answer(session, "add", passages=[{"text": "rome is a city"}])
        assert (0, 1) == (again["written"], again["unchanged"])
        bad = [{"pid": "\0", "text": "oslo"}]
        assert "0.pid: must be a string" in await refusal(session, "add", passages=bad)
        assert "must be one of" in await refusal(session, "search", query="a", mode="x", k=1)
        gone = await answer(session, "delete", pids=["1"])
        assert (1, False) == (gone["deleted"], gone["waiting"])


def test_a_sidecar_answers_while_its_model_loads(tmp_path: Path) -> None:
    """The tools are listed, and a call says to try again."""
    models = CountedModels()
    models.let.clear()
    mounts = [partial(mount_mcp, write=False)]

    async def ask(url: str) -> None:
        async with session_of(url) as session:
            assert [*READS] == await tools_of(session)
            assert "is loading" in await refusal(session, "search", query="london")

    with sidecar_client(settings_in(tmp_path, mcp=True), models, mounts) as http:
        asyncio.run(ask(f"{http.base_url}".rstrip("/") + "/mcp"))
        models.let.set()
