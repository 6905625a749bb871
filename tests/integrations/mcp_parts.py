"""A collection of some passages with a search client, and servers over it, for the tests of MCP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from msmarco_qdrant import AsyncSearchClient, Passage, ingest_passages, set_tenant_field
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.engines import new_store

NAME = "cities"
PASSAGES: Sequence[Passage] = (
    Passage("1", "london is a big city", {"lang": "en", "year": 2001, "owner": "ada"}),
    Passage("2", "paris is a city in france", {"lang": "fr", "year": 2002, "owner": "bob"}),
    Passage("3", "berlin is a city in germany", {"lang": "de", "year": 2003, "owner": "ada"}),
)


@asynccontextmanager
async def opened(
    place: Path, engine: str = "memory", *, tenants: bool = False, rerank: bool = False
) -> AsyncIterator[AsyncSearchClient]:
    """A client on the passages."""
    encoder = HashingEncoder()
    with new_store(engine, place) as store:
        ingest_passages(PASSAGES, store, collection=NAME, encoder=encoder)
        if tenants:
            set_tenant_field(store, NAME, "owner")
        async with await AsyncSearchClient.open(
            store,
            collection=NAME,
            encoder=encoder,
            reranker=WordOverlapReranker() if rerank else None,
        ) as client:
            yield client


@asynccontextmanager
async def session_of(url: str, token: str | None = None, **options: Any) -> AsyncIterator[Client]:
    """A session with a token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), **options) as session,
    ):
        yield session


async def tools_of(session: Client) -> list[str]:
    """The names of the tools that a session lists."""
    return [tool.name for tool in (await session.list_tools()).tools]


async def answer(session: Client, tool: str, **arguments: Any) -> Mapping[str, Any]:
    """The structured result of a tool."""
    result = await session.call_tool(tool, arguments)
    assert not result.is_error, result.content
    found: Mapping[str, Any] = result.structured_content
    return found


async def refusal(session: Client, tool: str, **arguments: Any) -> str:
    """The reason why a tool is refused."""
    result = await session.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    reason: str = result.content[0].text
    return reason


async def pids_of(session: Client, query: str, **arguments: Any) -> list[str]:
    """The pids that a search finds."""
    return [
        hit["pid"] for hit in (await answer(session, "search", query=query, **arguments))["hits"]
    ]
