"""The tools of the MCP server, called by the SDK's client in the same process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from mcp import Client

from msmarco_qdrant import ingest_passages
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.mcp import create_mcp_server
from msmarco_qdrant.integrations.mcp.server import READS, WRITES
from msmarco_qdrant.testing import HashingEncoder
from tests.docs.pages import blocks, output_after, page, rows
from tests.integrations.mcp_parts import (
    NAME,
    PASSAGES,
    answer,
    opened,
    pids_of,
    refusal,
    tools_of,
)


@pytest.mark.parametrize("engine", ["edge", "memory", "loopback"])
async def test_reads_give_the_collection_s_passages(tmp_path: Path, engine: str) -> None:
    """Each tool that reads, over each engine."""
    async with opened(tmp_path, engine) as client, Client(create_mcp_server(client)) as session:
        assert [*READS] == await tools_of(session)
        assert [hit.pid for hit in await client.search("city in france", limit=2)] == await pids_of(
            session, "city in france", limit=2
        )
        assert ["3"] == await pids_of(session, "city", filter={"lang": "de"}, mode="hybrid")
        assert ["2", "3"] == sorted(
            hit["pid"] for hit in (await answer(session, "similar", pids=["1"]))["hits"]
        )
        passage = {
            "pid": "1",
            "text": "london is a big city",
            "meta": {"lang": "en", "year": 2001, "owner": "ada"},
        }
        found = await answer(session, "get", pids=["1", "9"])
        assert {"passages": [passage], "missing": ["9"]} == found
        assert 2 == (await answer(session, "count", filter={"year": {"gte": 2002}}))["count"]
        values = (await answer(session, "facets", field="owner"))["values"]
        assert [{"value": "ada", "count": 2}, {"value": "bob", "count": 1}] == values
        (own,) = (await answer(session, "list_collections"))["collections"]
        assert (NAME, 3, 64, False) == (
            *(own["name"], own["passages"]),
            *(own["dimension"], own["rerank"]),
        )


async def test_a_cursor_gives_the_next_page(tmp_path: Path) -> None:
    """Page by page, every passage once; then no cursor."""
    async with opened(tmp_path) as client, Client(create_mcp_server(client)) as session:
        calls: dict[str, dict[str, Any]] = {
            "search": {"query": "city"},
            "similar": {"pids": ["1"]},
        }
        for tool, given in calls.items():
            page = await answer(session, tool, **given, limit=1)
            pids = [hit["pid"] for hit in page["hits"]]
            while page["cursor"]:
                page = await answer(session, tool, **given, limit=1, cursor=page["cursor"])
                pids += [hit["pid"] for hit in page["hits"]]
            assert len(pids) == len({*pids}) == (3 if tool == "search" else 2)


async def test_every_tool_is_described(tmp_path: Path) -> None:
    """With a title, hints, a description, one of each argument, and the schema of its result."""
    async with (
        opened(tmp_path) as client,
        Client(create_mcp_server(client, write=True)) as session,
    ):
        tools = (await session.list_tools()).tools
        assert [*READS, *WRITES] == [tool.name for tool in tools]
        for tool in tools:
            is_read = tool.name in READS
            assert (
                is_read
                == tool.annotations.read_only_hint
                == (not tool.annotations.destructive_hint)
            )
            assert not tool.annotations.open_world_hint
            assert tool.title
            assert tool.description
            assert "object" == tool.output_schema["type"]
            assert all(one.get("description") for one in tool.input_schema["properties"].values())
        prompts = (await session.list_prompts()).prompts
        assert ["answer", "overview"] == [prompt.name for prompt in prompts]
        given = await session.get_prompt("answer", {"question": "how big is london"})
        assert "how big is london" in given.messages[0].content.text


async def test_nothing_is_written_without_permission(tmp_path: Path) -> None:
    """The tools that write are not listed, and a call of one is refused."""
    async with opened(tmp_path) as client, Client(create_mcp_server(client)) as session:
        added = await refusal(session, "add", passages=[{"text": "rome is a city"}])
        deleted = await refusal(session, "delete", pids=["1"])
        assert "with --write" in added
        assert "with --write" in deleted
        assert 3 == await client.count()


async def test_writes_are_searchable_and_repeatable(tmp_path: Path) -> None:
    """A text added twice is one passage; a pid is replaced, and deleted once."""
    async with (
        opened(tmp_path) as client,
        Client(create_mcp_server(client, write=True)) as session,
    ):
        rome = {"text": "rome is a city in italy", "meta": {"lang": "it"}}
        first = await answer(session, "add", passages=[rome, rome])
        again = await answer(session, "add", passages=[rome])
        assert (1, 1, 0) == (first["written"], first["superseded"], first["unchanged"])
        assert (0, 0, 1) == (again["written"], again["superseded"], again["unchanged"])
        assert {*first["pids"]} == {*again["pids"]} == {*await pids_of(session, "italy", limit=1)}
        await answer(session, "add", passages=[{"pid": "1", "text": "london is a river"}])
        assert "london is a river" == (await client.get(["1"]))["1"].text
        assert 2 == (await answer(session, "delete", pids=["1", "2", "9"]))["deleted"]
        assert 0 == (await answer(session, "delete", pids=["1"]))["deleted"]
        assert 2 == await client.count()
        bad = await answer(session, "add", passages=[rome, {"text": " \n"}])
        assert [2] == [reject["position"] for reject in bad["rejected"]]


async def test_a_fixed_tenant_is_never_left(tmp_path: Path) -> None:
    """It reads, adds and deletes its own passages, and no other's."""
    async with (
        opened(tmp_path, tenants=True) as client,
        Client(create_mcp_server(client, write=True, tenant="ada")) as session,
    ):
        assert ["1", "3"] == sorted(await pids_of(session, "city"))
        assert ["2"] == (await answer(session, "get", pids=["1", "2"]))["missing"]
        assert 2 == (await answer(session, "list_collections"))["collections"][0]["passages"]
        values = (await answer(session, "facets", field="owner"))["values"]
        assert ["ada"] == [one["value"] for one in values]
        assert "no passage '2'" in await refusal(session, "similar", pids=["2"])
        assert 0 == (await answer(session, "delete", pids=["2"]))["deleted"]
        added = await answer(session, "add", passages=[{"text": "rome is a city"}])
        (pid,) = added["pids"]
        assert "ada" == (await client.get([pid], tenant="ada"))[pid].meta["owner"]
        stolen = await answer(session, "add", passages=[{"pid": "2", "text": "paris is mine"}])
        assert (0, 1) == (stolen["written"], len(stolen["rejected"]))
        given = [{"text": "oslo is a city", "meta": {"owner": "bob"}}]
        assert "must be the tenant 'ada'" in await refusal(session, "add", passages=given)
        assert "paris is a city in france" == (await client.get(["2"], tenant="bob"))["2"].text


async def test_a_collection_with_tenants_needs_one(tmp_path: Path) -> None:
    """Without, every tool is refused, those that write, too."""
    async with (
        opened(tmp_path, tenants=True) as client,
        Client(create_mcp_server(client, write=True)) as session,
    ):
        calls: dict[str, dict[str, Any]] = {
            "search": {"query": "city"},
            "list_collections": {},
            "add": {"passages": [{"text": "rome"}]},
            "delete": {"pids": ["1"]},
        }
        for tool, given in calls.items():
            assert "one tenant at a time" in await refusal(session, tool, **given)


REFUSED: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "no query": ("search", {}, "Field required"),
    "empty query": ("search", {"query": ""}, "at least 1 character"),
    "blank query": ("search", {"query": " "}, "query"),
    "limit of 0": ("search", {"query": "a", "limit": 0}, "greater than or equal to 1"),
    "high limit": ("search", {"query": "a", "limit": 101}, "less than or equal to 100"),
    "mode": ("search", {"query": "a", "mode": "sparse"}, "'dense', 'bm25' or 'hybrid'"),
    "unknown argument": ("search", {"query": "a", "k": 3}, "no argument 'k': must be one of query"),
    "tenant": ("search", {"query": "a", "tenant": "bob"}, "no argument 'tenant'"),
    "filter": ("search", {"query": "a", "filter": {"year": {"gtx": 1}}}, "for the field 'year'"),
    "filter of a list": ("search", {"query": "a", "filter": [1]}, "valid dictionary"),
    "no reranker": ("search", {"query": "a", "rerank": True}, "needs a cross-encoder"),
    "collection": ("search", {"query": "a", "collections": ["x"]}, "may name cities here, got 'x'"),
    "cursor": ("search", {"query": "a", "cursor": "x"}, "cursor"),
    "no pids": ("get", {"pids": []}, "at least 1 item"),
    "empty pid": ("get", {"pids": [""]}, "at least 1 character"),
    "missing example": ("similar", {"pids": ["9"]}, "no passage '9'"),
    "missing counterexample": ("similar", {"pids": ["1"], "unlike": ["9"]}, "no passage '9'"),
    "field": ("facets", {"field": ""}, "at least 1 character"),
    "no text": ("add", {"passages": [{"pid": "4"}]}, "Field required"),
    "unknown field": ("add", {"passages": [{"text": "a", "id": "4"}]}, "Extra inputs"),
    "no passages": ("add", {"passages": []}, "at least 1 item"),
    "unknown tool": ("drop", {}, "Unknown tool: drop"),
}


async def test_bad_arguments_are_refused_with_their_rule(tmp_path: Path) -> None:
    """Each with a reason that the model can act on, and nothing is changed."""
    async with (
        opened(tmp_path) as client,
        Client(create_mcp_server(client, write=True)) as session,
    ):
        for case, (tool, given, expected) in REFUSED.items():
            assert expected in await refusal(session, tool, **given), case
        assert 3 == await client.count()


async def test_an_error_of_the_store_shows_no_place(tmp_path: Path) -> None:
    """The log has the path; the caller learns that it may try again."""
    async with opened(tmp_path, "edge") as client, Client(create_mcp_server(client)) as session:
        await client.close()
        reason = await refusal(session, "search", query="city")
        assert "try again soon" in reason
        assert str(tmp_path) not in reason


async def test_a_command_that_an_error_advises_shows_no_place(tmp_path: Path) -> None:
    """A collection without tenants beside one with some."""
    async with opened(tmp_path, "edge", tenants=True) as client:
        ingest_passages(PASSAGES, client.store, collection="other", encoder=HashingEncoder())
        server = create_mcp_server(client, tenant="ada", collections=["other"])
        async with Client(server) as session:
            reason = await refusal(session, "search", query="city", collections=["other"])
            assert "`msmarco-qdrant index tenant FIELD --collection other`" in reason
            assert str(tmp_path) not in reason


async def test_a_tenant_of_a_collection_without_tenants_is_refused(tmp_path: Path) -> None:
    """By every tool."""
    async with (
        opened(tmp_path) as client,
        Client(create_mcp_server(client, write=True, tenant="ada")) as session,
    ):
        for tool, given in (("count", {}), ("add", {"passages": [{"text": "rome"}]})):
            assert "'cities' has no tenants" in await refusal(session, tool, **given)
        assert 3 == await client.count()


async def test_a_reranker_is_used_on_demand(tmp_path: Path) -> None:
    """And shown in the description of the collection."""
    async with (
        opened(tmp_path, rerank=True) as client,
        Client(create_mcp_server(client)) as session,
    ):
        assert (await answer(session, "list_collections"))["collections"][0]["rerank"]
        assert "3" == (await pids_of(session, "city in germany", rerank=True))[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"write": "yes"}, "write must be True or False, got 'yes'"),
        ({"tenant": ""}, "tenant must be a non-empty string, got ''"),
        ({"tenant": 3}, "tenant must be a non-empty string, got 3"),
        ({"collections": "cities"}, "collections must be a list, also of one name, got 'cities'"),
        ({"collections": ["a/b"]}, "a/b"),
    ],
)
async def test_bad_options_of_a_server_are_refused(
    tmp_path: Path, given: dict[str, Any], expected: str
) -> None:
    """With the rule and the value."""
    async with opened(tmp_path) as client:
        with pytest.raises(UsageError, match=expected):
            create_mcp_server(client, **given)
    with pytest.raises(UsageError, match="client must be an AsyncSearchClient, got 3"):
        create_mcp_server(3)  # type: ignore[arg-type]


async def test_searches_may_name_permitted_collections(tmp_path: Path) -> None:
    """Those of the operator, besides the server's own."""
    async with opened(tmp_path) as client:
        server = create_mcp_server(client, collections=[NAME])
        async with Client(server) as session:
            (own,) = (await answer(session, "list_collections"))["collections"]
            assert NAME == own["name"]
            found = await answer(session, "search", query="london", collections=[NAME], limit=1)
            assert [("1", NAME)] == [(hit["pid"], hit["collection"]) for hit in found["hits"]]


def test_the_program_of_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """Its Python block."""
    text = page("mcp.md")
    (block,) = blocks(text, "python")
    exec(block, {"__name__": "__main__"})  # noqa: S102  # the page's own code
    assert output_after(text, block) == capsys.readouterr().out


def test_the_page_names_every_tool() -> None:
    """With the option that those that write need."""
    shown = {row[0]: row[1] for row in rows(page("mcp.md"), "tool | with | what it does")}
    assert {name: "" if name in READS else "--write" for name in (*READS, *WRITES)} == shown
