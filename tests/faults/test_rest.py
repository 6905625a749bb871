"""V11, what is built on a store, over REST: ingest, search, re-embedding, migrations, sidecar.

The server is behind a gateway with a path, and its gRPC port is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant.cli.app import main
from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.runner import migrate_collection
from msmarco_qdrant.migrate.status import migration_status
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer, RestLoopbackServer
from tests.reembed import steps
from tests.service.sidecars import ended, pids_of, put, settings_in, sidecar_client
from tests.service.sidecars import wait_until_ready as wait_until_ready_for_searches

MODES: Sequence[SearchMode] = ("dense", "bm25", "hybrid")


@pytest.fixture
def gateway() -> Iterator[LoopbackServer]:
    """A server that REST alone reaches."""
    with RestLoopbackServer() as server:
        yield server


def answers(url: str, queries: Sequence[str]) -> list[list[tuple[str, float]]]:
    """Pids and scores in every mode, filtered too, by the sync and the async client."""

    async def ask() -> list[list[tuple[str, float]]]:
        async with await AsyncSearchClient.open(url, encoder=HashingEncoder()) as client:
            found = [await client.search(query, mode=mode) for query in queries for mode in MODES]
        return [[(hit.pid, hit.score) for hit in hits] for hits in found]

    with SearchClient.open(url, encoder=HashingEncoder()) as client:
        found = [client.search(query, mode=mode) for query in queries for mode in MODES]
        chosen = client.search(queries[0], meta_filter={"lang": "en"})
    own = [[(hit.pid, hit.score) for hit in hits] for hits in found]
    assert own == asyncio.run(ask())
    return [*own, [(hit.pid, hit.score) for hit in chosen]]


def test_v11_ingest_and_search_answer_as_by_grpc(
    gateway: LoopbackServer, passages: Sequence[Passage]
) -> None:
    """The same passages, skips, prunes and scores."""
    with LoopbackServer() as other:
        for server in (gateway, other):
            report = ingest_passages(passages, server.url, encoder=HashingEncoder())
            assert (5, 0) == (report.written, report.unchanged)
        queries = ["a big city", "who is a spy"]
        assert answers(other.url, queries) == answers(gateway.url, queries)
    again = ingest_passages(
        passages[:4], gateway.url, encoder=HashingEncoder(), prune=PrunePolicy(max_share=1.0)
    )
    assert (0, 4, 1) == (again.written, again.unchanged, again.pruned)


def test_v11_the_command_line_selects_the_transport(
    passages: Sequence[Passage], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--transport rest` of a server that has both; a URL of gRPC has no REST."""
    with LoopbackServer(adjacent=True) as server:
        ingest_passages(passages, server.rest_url, encoder=HashingEncoder())
        server.requests.clear()
        assert 0 == main(["info", "--store", server.rest_url, "--transport", "rest"])
        assert (1, "") == (server.requests.count("HealthCheck"), capsys.readouterr().err)
        assert 2 == main(["info", "--store", server.url, "--transport", "rest"])
    assert "transport rest must have an http:// or https:// URL" in capsys.readouterr().err


@pytest.mark.slow
def test_v11_a_collection_is_re_embedded_and_rolled_back(gateway: LoopbackServer) -> None:
    """With a deletion in between."""
    with closing(open_store(gateway.url)) as store:
        ingest_passages(steps.passages(), store, collection="things", encoder=steps.V2)
        report = steps.reembed(store)
        assert ("things__0001", "things__0002", 30) == (report.old, report.new, report.copied)
        steps.check_holds(store, steps.passages(), steps.V3)
        collection = store.collection("things")
        collection.delete([point_id("1")], up_to_seq=2**40)
        steps.rollback(store)
        assert {"things": "things__0001"} == dict(store.aliases())


@pytest.mark.slow
def test_v11_migrations_are_applied(gateway: LoopbackServer, tmp_path: Path) -> None:
    """Under their lock, in order, once."""
    (tmp_path / "0003_more.py").write_text(
        "DESCRIPTION = 'nothing'\nCOST = 'none'\n\ndef up(store, plan):\n    pass\n"
    )
    with closing(open_store(gateway.url)) as store:
        ingest_passages(steps.passages(), store, collection="things", encoder=steps.V2)
        steps_done = migrate_collection(store, "things", directory=tmp_path)
        assert ["0003_more"] == [one.name for one in steps_done]
        assert [] == list(migrate_collection(store, "things", directory=tmp_path))
        status = migration_status(store, "things", directory=tmp_path)
        assert () == tuple(status.pending)


@pytest.mark.slow
def test_v11_a_sidecar_serves(gateway: LoopbackServer, tmp_path: Path) -> None:
    """It creates the collection, writes, deletes and answers."""
    with sidecar_client(settings_in(tmp_path, gateway.url)) as client:
        wait_until_ready_for_searches(client)
        found = put(
            client,
            {"pid": "1", "text": "london is big"},
            {"pid": "2", "text": "paris is on the seine"},
        )
        assert ("done", 2) == (found["state"], found["written"])
        for mode in MODES:
            assert "1" == pids_of(client, "london is big", mode=mode)[0]
        assert 1 == ended(client, client.delete("/passages/1"))["deleted"]
        assert ["2"] == pids_of(client, "london is big")
    assert 1 == sum(1 for rpc, _ in gateway.requests if rpc == "Collections.Create")
