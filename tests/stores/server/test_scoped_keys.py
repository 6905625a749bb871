"""Keys that are limited to collections, and gateways that refuse lists: what works, what is said.

The names of a token are those of `tests.loopback.access`, whose rules are the real server's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import grpc as grpcio  # type: ignore[import-untyped]
import pytest

from msmarco_qdrant import (
    SearchClient,
    delete_passages,
    describe_store,
    get_passages,
    ingest_passages,
    migration_status,
)
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import MsmarcoQdrantError, StoreAccessError
from msmarco_qdrant.stores import Connection, Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer, Refused

_DENIED = grpcio.StatusCode.PERMISSION_DENIED
_BOTH = {"msmarco": "rw", "msmarco__0001": "rw"}
_TOKENS: Mapping[str, Any] = {
    "admin": "m",
    "both": _BOTH,
    "reads": dict.fromkeys(_BOTH, "r"),
    "alias": {"msmarco": "rw"},
    "physical": {"msmarco__0001": "rw"},
    "others": {"films": "rw", "films__0001": "rw"},
}


@pytest.fixture
def server(passages: Sequence[Passage], encoder: HashingEncoder) -> Iterator[LoopbackServer]:
    """A server with five passages in `msmarco`."""
    with LoopbackServer("key", tokens=_TOKENS) as running:
        ingest_passages(passages, running.url, encoder=encoder, connection=_as("key"))
        yield running


def _as(token: str) -> Connection:
    return Connection(api_key=token, retry_s=0)


def _search(store: Store, encoder: HashingEncoder) -> list[str]:
    with SearchClient.open(store, encoder=encoder) as client:
        return [hit.pid for hit in client.search("city in france", limit=2)]


def test_v10_a_key_of_both_names_does_the_daily_work(
    server: LoopbackServer, encoder: HashingEncoder
) -> None:
    """Search, ingest, read, delete, describe and the ledger: with rights to two names alone."""
    new = [Passage("new", "oslo is a city")]
    with closing(open_store(server.url, connection=_as("both"))) as store:
        assert "2" in _search(store, encoder)
        assert 1 == ingest_passages(new, store, encoder=encoder).written
        assert {"new": new[0]} == get_passages(store, ["new"])
        assert 1 == delete_passages(store, ["new"])
        assert ["msmarco"] == [entry.name for entry in describe_store(store).collections]
        assert migration_status(store, "msmarco").is_current


def test_v10_a_key_to_read_searches(server: LoopbackServer, encoder: HashingEncoder) -> None:
    """A write is refused in the server's words."""
    with closing(open_store(server.url, connection=_as("reads"))) as store:
        assert "2" in _search(store, encoder)
        with pytest.raises(
            MsmarcoQdrantError, match="Write access to collection msmarco__0001 is required"
        ):
            ingest_passages([Passage("new", "oslo")], store, encoder=encoder)


_USES: Mapping[str, Callable[[Store], object]] = {
    "search": SearchClient.open,
    "ingest": lambda store: ingest_passages([Passage("new", "oslo")], store, model="no-such"),
    "get": lambda store: get_passages(store, ["1"]),
    "delete": lambda store: delete_passages(store, ["1"]),
    "info": lambda store: describe_store(store, "msmarco"),
    "status": lambda store: migration_status(store, "msmarco"),
}


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(use, marks=() if use in ("search", "ingest") else pytest.mark.slow)
        for use in _USES
    ],
)
@pytest.mark.parametrize("token", ["alias", "physical", "others"])
def test_v10_a_key_without_both_names_says_which(
    server: LoopbackServer, token: str, use: str
) -> None:
    """Not that there is none: no model is loaded (there is no such model), nothing is created."""
    with (
        closing(open_store(server.url, connection=_as(token))) as store,
        pytest.raises(
            StoreAccessError,
            match=r"this key sees no collection msmarco in .*: it must name msmarco and "
            "msmarco__0001",
        ),
    ):
        _USES[use](store)
    with server.inspect() as engine:
        assert ["msmarco__0001"] == [one.name for one in engine.get_collections().collections]


def test_v10_a_free_name_is_still_not_found(server: LoopbackServer) -> None:
    """A key that sees everything gets the names that there are."""
    with (
        closing(open_store(server.url, connection=_as("admin"))) as store,
        pytest.raises(MsmarcoQdrantError, match=r"no collection 'films' in .*; there: msmarco"),
    ):
        get_passages(store, ["1"], collection="films")


def test_v10_an_ingest_after_a_hidden_swap_says_so(
    server: LoopbackServer, encoder: HashingEncoder
) -> None:
    """The alias moves to a collection that the key does not name: it was not dropped."""

    def swap(_progress: object) -> None:
        with closing(open_store(server.url, connection=_as("admin"))) as admin:
            if "msmarco__0002" not in admin.physical_names():
                admin.create_collection(
                    "msmarco__0002", admin.collection("msmarco__0001").info().spec
                )
                admin.put_metadata("msmarco__0002", admin.metadata("msmarco__0001"))
                admin.set_alias("msmarco", "msmarco__0002")

    with (
        closing(open_store(server.url, connection=_as("both"))) as store,
        pytest.raises(MsmarcoQdrantError, match="this key sees no collection msmarco"),
    ):
        ingest_passages(
            [Passage("new", "oslo")], store, encoder=encoder, on_progress=swap, optimize=False
        )


@pytest.mark.parametrize("refused", [("ListAliases",), ("ListAliases", "CollectionExists")])
def test_v10_a_gateway_that_refuses_lists_of_aliases(
    server: LoopbackServer, encoder: HashingEncoder, refused: Sequence[str]
) -> None:
    """The collection behind the name is found by its metadata; search and ingest go on."""
    for rpc in refused:
        server.faults.inject(Refused(_DENIED), rpc, times=None)
    with closing(open_store(server.url, connection=_as("both"))) as store:
        assert {"msmarco": "msmarco__0001"} == store.aliases()
        assert "2" in _search(store, encoder)
        assert 1 == ingest_passages([Passage("new", "oslo")], store, encoder=encoder).written


def test_v10_a_wrong_key_is_still_refused_at_once(server: LoopbackServer) -> None:
    """A gateway may refuse the list that checks the key, but not for an unknown key."""
    with pytest.raises(StoreAccessError, match="Invalid API key or JWT"):
        open_store(server.url, connection=_as("nonsense"))
    server.faults.inject(Refused(_DENIED), "Collections.List")
    open_store(server.url, connection=_as("both")).close()


def test_v10_grey_optimizers_need_no_right(server: LoopbackServer) -> None:
    """The key may not start them: everything is written, and the next write starts them."""
    server.set_status("msmarco", "grey")
    with closing(open_store(server.url, connection=_as("both"))) as store:
        store.collection("msmarco").optimize()
