"""Server stores and the local mode in forked processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeAlias

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Connection, Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.forks import in_child
from tests.loopback import LoopbackServer

PASSAGES = [Passage("1", "london is a city"), Passage("2", "water boils in a kettle")]
NO_GRPC = (
    "StoreError: gRPC does not work in a process that was forked after its parent used it: "
    "start this process by spawn or forkserver (multiprocessing.get_context('spawn')) instead of "
    "fork, or use an http(s):// URL and another transport than grpc"
)
Search: TypeAlias = Callable[..., list[str]]


@pytest.fixture(scope="module")
def parent() -> Iterator[tuple[LoopbackServer, Store]]:
    """A server with passages, and this process's store, by gRPC."""
    with LoopbackServer(adjacent=True) as server, closing(open_store(server.rest_url)) as store:
        ingest_passages(PASSAGES, store, collection="films", encoder=HashingEncoder())
        yield server, store


def search(url: str, connection: Connection) -> list[str]:
    """Open a store again and search it, without a model."""
    with SearchClient.open(
        url, collection="films", bm25_only=True, connection=connection
    ) as client:
        return [hit.pid for hit in client.search("kettle", mode="bm25")]


@pytest.mark.parametrize("transport", ["auto", "rest"])
def test_c1_a_child_opens_the_server_by_rest(
    parent: tuple[LoopbackServer, Store], transport: str
) -> None:
    """It searches and writes; `auto` warns that REST is used, and why."""
    server, store = parent
    connection, records = Connection(transport=transport), list[str]()  # type: ignore[arg-type]

    def use() -> tuple[list[str], int, list[str]]:
        handler = logging.Handler()
        handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("msmarco_qdrant").addHandler(handler)
        found = search(server.rest_url, connection)
        with closing(open_store(server.rest_url, connection=connection)) as again:
            added = [Passage(f"3-{transport}", "a train")]
            report = ingest_passages(added, again, collection="films", encoder=HashingEncoder())
        return found, report.written, [text for text in records if "used it" in text]

    found = in_child(use)
    assert found.startswith("(['2'], 1, [")
    assert (transport == "auto") == ("so REST is used" in found)
    assert 3 <= store.collection("films__0001").info().points


@pytest.mark.parametrize("url", ["grpc", "transport"])
def test_c1_a_child_is_refused_grpc(parent: tuple[LoopbackServer, Store], url: str) -> None:
    """A call could wait for ever: whether it does depends on the threads of the parent."""
    server, _ = parent
    place, connection = (
        (server.url, Connection())
        if url == "grpc"
        else (server.rest_url, Connection(transport="grpc"))
    )
    assert NO_GRPC == in_child(lambda: search(place, connection))


def test_c1_a_child_closes_its_parents_store(parent: tuple[LoopbackServer, Store]) -> None:
    """It is refused, closing does nothing, and the parent's store works."""
    server, store = parent

    def use() -> object:
        store.close()
        return store.collection("films__0001").info()

    assert "was closed: open it again" in in_child(use)
    refusal = in_child(lambda: store.collection("films__0001").info())
    assert (
        f"StoreError: the store {server.rest_url} was opened before this process was forked: open "
        "it again in this process"
    ) == refusal
    assert 2 <= store.collection("films__0001").info().points


def test_c1_a_store_in_memory_is_its_creators() -> None:
    """A child may create another."""
    with closing(open_store(":memory:", create=True)) as store:
        ingest_passages(PASSAGES, store, collection="films", encoder=HashingEncoder())
        collection = store.collection("films__0001")
        refusal = (
            "StoreError: the store ':memory:' is in the memory of the process that created it, "
            "which forked this one: create another in this process, or use a Qdrant server to "
            "share passages between processes"
        )
        assert refusal == in_child(collection.info)
        assert refusal == in_child(lambda: SearchClient(store, "films", None))

        def fill_another() -> int:
            store.close()
            with closing(open_store(":memory:", create=True)) as own:
                return ingest_passages(PASSAGES, own, encoder=HashingEncoder()).written

        assert "2" == in_child(fill_another)
        assert 2 == collection.info().points
