"""The same mistake is the same error, whichever engine says it in its own words."""

from __future__ import annotations

import errno
import http.server
import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from msmarco_qdrant.core.search_types import Nearest, PointQuery
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    SchemaError,
    StoreAccessError,
    StoreCorruptError,
    StoreError,
    StoreInUseError,
    StoreUnavailableError,
    UnsupportedError,
)
from msmarco_qdrant.stores import Collection, Connection, Store, open_store
from msmarco_qdrant.stores.edge.collection import EdgeCollection
from msmarco_qdrant.stores.error_mapping import (
    describe_error,
    is_transient,
    map_error,
    retry_after_s,
)
from tests.contract.test_store import ask, make_batch, make_spec
from tests.loopback import LoopbackServer, LostAnswer, Refused
from tests.stores.server.test_retry import CUTS, PASSING, Failure

API_KEY = "key-4f1c9d"
AT_ONCE = Connection(api_key=API_KEY, retry_s=0)

# What each status of a server becomes when its message tells nothing more.
STATUSES: dict[str, type[StoreError]] = {
    "ABORTED": StoreUnavailableError,
    "ALREADY_EXISTS": SchemaError,
    "CANCELLED": StoreError,
    "DATA_LOSS": StoreError,
    "DEADLINE_EXCEEDED": StoreUnavailableError,
    "FAILED_PRECONDITION": StoreError,
    "INTERNAL": StoreError,
    "INVALID_ARGUMENT": StoreError,
    "NOT_FOUND": CollectionNotFoundError,
    "OUT_OF_RANGE": StoreError,
    "PERMISSION_DENIED": StoreAccessError,
    "RESOURCE_EXHAUSTED": StoreUnavailableError,
    "UNAUTHENTICATED": StoreAccessError,
    "UNAVAILABLE": StoreUnavailableError,
    "UNIMPLEMENTED": UnsupportedError,
    "UNKNOWN": StoreError,
}


class Place(NamedTuple):
    """A store with a collection that has a name, and one that has none."""

    store: Store
    collection: Collection


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    """A server with a key."""
    with LoopbackServer(API_KEY) as running:
        yield running


@pytest.fixture(params=["edge", "memory", "loopback"])
def place(
    request: pytest.FixtureRequest, server: LoopbackServer, tmp_path: Path
) -> Iterator[Place]:
    """Each engine in turn; a store that is gone afterwards."""
    dsn = {"edge": str(tmp_path / "store"), "memory": ":memory:"}.get(request.param, server.url)
    with closing(open_store(dsn, create=True, connection=AT_ONCE)) as store:
        for name in ("things__0001", "unnamed__0001"):
            store.create_collection(name, make_spec(store))
        store.set_alias("things", "things__0001")
        yield Place(store, store.collection("things"))
    if request.param == "loopback":
        with closing(open_store(dsn, connection=AT_ONCE)) as store:
            for name in store.physical_names():
                store.drop_collection(name)


def closed(store: Store) -> Store:
    """A store whose handle was given back."""
    store.close()
    return store


# ---- mistakes of ours ------------------------------------------------------------------------

OF_ANOTHER_MODEL = replace(make_batch([1], [[1, 0, 0, 0]]), using="dense-ffffffff")
ASKED_OF_ANOTHER_MODEL = PointQuery(
    Nearest(np.ones(4, np.float32), using="dense-ffffffff"), limit=1
)
MISTAKES: dict[str, tuple[Callable[[Place], object], type[StoreError], str]] = {
    "a dimension that is written": (
        lambda place: place.collection.upsert(make_batch([1], [[1, 0, 0]])),
        SchemaError,
        "writing points in .* failed: .*Vector dimension error: expected dim: 4, got 3",
    ),
    "a dimension that is searched": (
        lambda place: place.collection.query([ask([1, 0, 0])]),
        SchemaError,
        "searching in .* failed: .*3",
    ),
    "a vector's name that is written": (
        lambda place: place.collection.upsert(OF_ANOTHER_MODEL),
        SchemaError,
        "writing points in .* failed: .*dense-ffffffff",
    ),
    "a vector's name that is searched": (
        lambda place: place.collection.query([ASKED_OF_ANOTHER_MODEL]),
        SchemaError,
        "searching in .* failed: .*dense-ffffffff",
    ),
    "a payload of no point": (
        lambda place: place.collection.replace_payloads([77], [{"pid": "77"}]),
        StoreError,
        "writing payloads in .* failed: .*77",
    ),
    "a collection that is none": (
        lambda place: place.store.collection("nope"),
        CollectionNotFoundError,
        "no collection 'nope' in .*; there: things",
    ),
    "metadata of no collection": (
        lambda place: place.store.metadata("nope"),
        CollectionNotFoundError,
        "no collection 'nope' in .*; there: things",
    ),
    "an alias of no collection": (
        lambda place: place.store.set_alias("other", "nope"),
        CollectionNotFoundError,
        "no collection 'nope' in .*; there: things",
    ),
    "a drop of no collection": (
        lambda place: place.store.drop_collection("things"),
        CollectionNotFoundError,
        "no collection 'things' in .*; there: things",
    ),
    "metadata that were never put": (
        lambda place: place.store.metadata("unnamed__0001"),
        StoreCorruptError,
        "collection 'unnamed__0001' in .* has no metadata",
    ),
    "a second creation": (
        lambda place: place.store.create_collection("things__0001", make_spec(place.store)),
        SchemaError,
        "'things__0001' exists already",
    ),
    "a closed store": (
        lambda place: closed(place.store).aliases(),
        StoreError,
        "was closed: open it again",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_the_same_error_on_every_engine(place: Place, mistake: str) -> None:
    """Exactly that class, with what was being done and the engine's own words."""
    make, expected, message = MISTAKES[mistake]
    with pytest.raises(StoreError, match=message) as caught:
        make(place)
    assert expected is type(caught.value)


def test_after_mistakes_an_engine_goes_on(place: Place) -> None:
    """None of them leaves anything behind, and the same handles do what is right."""
    for make, _, _ in list(MISTAKES.values())[:-1]:
        with pytest.raises(StoreError):
            make(place)
    place.collection.upsert(make_batch([1], [[1, 0, 0, 0]]))
    ((found,),) = place.collection.query([ask([1, 0, 0, 0])])
    assert (1, 1, {"things": "things__0001"}) == (
        found.id,
        place.collection.info().points,
        place.store.aliases(),
    )


def test_edge_says_when_a_shard_is_open_elsewhere(tmp_path: Path) -> None:
    """In its own words, which become ours."""
    with closing(open_store(tmp_path / "store", create=True)) as store:
        store.create_collection("things__0001", make_spec(store))
        store.collection("things__0001")
        with pytest.raises(StoreInUseError, match="another process has this collection open"):
            EdgeCollection(tmp_path / "store" / "collections" / "things__0001", -1)


# ---- what a server says ----------------------------------------------------------------------


def test_every_status_has_its_row() -> None:
    """These are all that gRPC knows."""
    assert {code.name for code in grpc.StatusCode} - {"OK"} == set(STATUSES)


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_becomes_an_error_of_ours(server: LoopbackServer, status: str) -> None:
    """Over a real connection, with the server's words, its cause, and no word of the key."""
    with closing(open_store(server.url, connection=AT_ONCE)) as store:
        refused = Refused(grpc.StatusCode[status], "so it is")
        server.faults.inject(refused, "Collections.List")
        with pytest.raises(
            StoreError, match=r"listing collections in .* failed: so it is"
        ) as caught:
            store.physical_names()
        assert STATUSES[status] is type(caught.value)
        cause = caught.value.__cause__
        assert isinstance(cause, grpc.RpcError)
        assert (status in PASSING) == is_transient(cause)
        assert f"{status}: so it is" == describe_error(cause)
        assert API_KEY not in "".join(traceback.format_exception(caught.value))
        assert [] == store.physical_names()


@pytest.mark.parametrize(
    ("fault", "expected", "message"),
    [
        (Refused(grpc.StatusCode.UNAUTHENTICATED), StoreAccessError, "set MSMARCO_QDRANT_API_KEY"),
        (Refused(grpc.StatusCode.PERMISSION_DENIED), StoreAccessError, "Connection\\(api_key="),
        (Refused(grpc.StatusCode.UNIMPLEMENTED), UnsupportedError, "1.16 or later"),
        (Refused(grpc.StatusCode.INTERNAL), StoreUnavailableError, "No space left on device"),
        (
            Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=7),
            StoreUnavailableError,
            "Retry after 7s; its retry-after is 7 s, longer than MSMARCO_QDRANT_RETRY_S",
        ),
        (Refused(grpc.StatusCode.RESOURCE_EXHAUSTED), StoreUnavailableError, "Rate limiting"),
        (Refused(grpc.StatusCode.DEADLINE_EXCEEDED), StoreUnavailableError, "timed out after 60s"),
        (LostAnswer(), StoreUnavailableError, "the connection was lost: try again later"),
    ],
    ids=str,
)
def test_a_server_in_trouble_says_what_to_do(
    server: LoopbackServer,
    fault: Refused | LostAnswer,
    expected: type[StoreError],
    message: str,
) -> None:
    """The server's own words of such a trouble, and the next step."""
    with closing(open_store(server.url, connection=AT_ONCE)) as store:
        server.faults.inject(fault, "Collections.List")
        with pytest.raises(StoreError, match=message) as caught:
            store.physical_names()
    assert expected is type(caught.value)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        *((Failure(status, words), StoreUnavailableError) for status, words in CUTS),
        (Failure("NOT_FOUND", "Not found: No point with id 7 found"), StoreError),
        (Failure("INVALID_ARGUMENT", "Wrong input: Collection `x` already exists!"), SchemaError),
        (Failure("INVALID_ARGUMENT", "Alias with the same name already exists"), SchemaError),
        (ValueError("Collection x already exists"), SchemaError),
        (ValueError("Collection x not found"), CollectionNotFoundError),
        (Exception("Can't init WAL: Kind(WouldBlock)"), StoreInUseError),
        (Exception("No space left on device (os error 28)"), StoreUnavailableError),
        (Exception("Permission denied (os error 13)"), StoreUnavailableError),
        (Exception("Disk quota exceeded (os error 122)"), StoreUnavailableError),
        (Exception("Read-only file system (os error 30)"), StoreUnavailableError),
        (Exception("Input/output error (os error 5)"), StoreUnavailableError),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), StoreUnavailableError),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), StoreUnavailableError),
        (OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), StoreUnavailableError),
        (Exception("something new"), StoreError),
        (RuntimeError(), StoreError),
    ],
    ids=str,
)
def test_words_decide_where_a_status_does_not(
    failure: Exception, expected: type[StoreError]
) -> None:
    """And what nobody has met before is a `StoreError` with what is known of it."""
    made = map_error(failure, "doing it", "a place")
    assert expected is type(made)
    assert str(made).startswith("doing it in a place failed: ")
    assert describe_error(failure).partition(": ")[2] in str(made)


@pytest.mark.parametrize(
    "failure",
    [
        Failure("NOT_FOUND", "Not found: No point with id 7 found"),
        Failure("NOT_FOUND", 'Not found: Vector with name "dense-1" for point not found'),
        ValueError("Point 7 is not found in the collection"),
        ValueError("Vector with name dense-1 for point 7 not found"),
    ],
    ids=str,
)
def test_a_search_by_a_point_without_its_vector(failure: Exception) -> None:
    """A search may be started over, a write may not."""
    assert SchemaError is type(map_error(failure, "searching", "a place"))
    assert SchemaError is not type(map_error(failure, "writing points", "a place"))


def test_an_exception_without_words_is_told_by_its_class() -> None:
    """An empty message helps nobody."""
    assert "doing it in a place failed: RuntimeError" == str(
        map_error(RuntimeError(), "doing it", "a place")
    )
    assert "UNKNOWN: UNKNOWN" == describe_error(Failure("UNKNOWN"))


def test_the_servers_wish_is_read() -> None:
    """In seconds; none is none."""
    assert 7.0 == retry_after_s(ResourceExhaustedResponse("slower", 7))
    assert [0.0, 0.0] == [retry_after_s(one) for one in (Failure("RESOURCE_EXHAUSTED"), None)]


# ---- nobody there ----------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def http_port() -> Iterator[int]:
    """A port where something speaks HTTP/1.1 only, as Qdrant's 6333 does."""

    class Silent(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:  # it would write to standard error
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        yield listener.server_port
        listener.shutdown()
        thread.join()


def not_reached(port: int) -> str:
    """The message when no server is at a port."""
    with pytest.raises(StoreUnavailableError) as caught:
        open_store("http://127.0.0.1", connection=replace(AT_ONCE, grpc_port=port))
    assert API_KEY not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def test_a_closed_port_is_told(closed_port: int) -> None:
    """Which port it was, where it comes from, and the two that are mistaken for each other."""
    message = not_reached(closed_port)
    assert "nothing listens on the port" in message
    for word in (f"127.0.0.1:{closed_port}", "MSMARCO_QDRANT_GRPC_PORT", "6334", "6333"):
        assert word in message


def test_a_port_of_http_is_told(http_port: int) -> None:
    """Something listens, but it is not gRPC."""
    message = not_reached(http_port)
    assert "the port does not answer gRPC" in message
    for word in (f"127.0.0.1:{http_port}", "MSMARCO_QDRANT_GRPC_PORT", "6334", "6333"):
        assert word in message


@pytest.mark.parametrize(
    "words",
    [
        "failed to connect to all addresses; CERTIFICATE_VERIFY_FAILED: self signed certificate",
        "failed to connect to all addresses; Hostname Verification Check failed.",
        "failed to connect to all addresses; Failed to create security handshaker.",
    ],
)
def test_a_distrusted_certificate_is_told(words: str) -> None:
    """With the setting that would make it trusted, and nothing about ports."""
    message = str(map_error(Failure("UNAVAILABLE", words), "reaching the server", "https://host"))
    assert "set MSMARCO_QDRANT_TLS_CA" in message
    assert "nothing listens" not in message
