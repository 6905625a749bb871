"""V11: the errors of REST, from the client's real exceptions, are those of gRPC.

A scripted HTTP server answers as Qdrant, or as a gateway in front of it does.
"""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import grpc  # type: ignore[import-untyped]
import pytest

from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    SchemaError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    UnsupportedError,
)
from msmarco_qdrant.stores import Connection, open_store
from msmarco_qdrant.stores.error_mapping import is_transient, map_error, retry_after_s
from msmarco_qdrant.stores.rest_errors import rest_status_and_message
from msmarco_qdrant.stores.server.store import ServerStore
from tests.contract.test_store import make_spec
from tests.loopback import Cut, Fault, LoopbackServer, LostAnswer, Refused
from tests.stores.server.test_store import NAME, make_things, points, stored

AT_ONCE = Connection(retry_s=0, transport="rest")
PAGE = "<html><head><style>p {}</style></head><body><h1>502 Bad Gateway</h1>nginx</body></html>"
_VERSION = json.dumps({"title": "qdrant - vector search engine", "version": "1.20.0"})


class _Scripted(http.server.ThreadingHTTPServer):
    """Answers `status`, `body` and `headers` to all but the questions of an opening store."""

    status: int = 200
    body: str = ""
    answer_headers: tuple[tuple[str, str], ...] = ()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Scripted

    def do_GET(self) -> None:
        """Answer the version, no collections, or the script."""
        empty = json.dumps({"result": {"collections": []}, "status": "ok", "time": 0})
        known = {"/": _VERSION, "/collections": empty}.get(self.path)
        self.send_response(self.server.status if known is None else 200)
        for name, value in self.server.answer_headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write((self.server.body if known is None else known).encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def scripted() -> Iterator[_Scripted]:
    """A server to be scripted."""
    with _Scripted(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def own(message: str) -> str:
    """The server's body for an error."""
    return json.dumps({"status": {"error": message}, "time": 0.0})


def error_of(scripted: _Scripted, connection: Connection = AT_ONCE) -> StoreError:
    """The error of reading the aliases."""
    url = f"http://127.0.0.1:{scripted.server_port}"
    with closing(open_store(url, connection=connection)) as store:
        assert isinstance(store, ServerStore)
        server = store._server
        with pytest.raises(StoreError) as caught:
            server.call("reading the aliases", server.client.get_aliases)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "expected", "message"),
    [
        (400, own("Wrong input: Not existing vector name error: x"), SchemaError, "error: x"),
        (401, "Must provide an API key", StoreAccessError, "HTTP status 401, Must provide an API"),
        (403, own("Forbidden: Global manage access is required"), StoreAccessError, "Forbidden"),
        (403, PAGE, StoreAccessError, "HTTP status 403, 502 Bad Gateway nginx"),
        (404, own("Not found: Collection `x` doesn't exist!"), CollectionNotFoundError, "`x`"),
        (404, PAGE, StoreError, "the answer is not Qdrant's: check the port and the path"),
        (404, "", StoreError, "the answer is not Qdrant's: check the port and the path"),
        (301, "", StoreError, "the answer is not Qdrant's: check the port and the path"),
        (408, own("Timeout: Timeout error: Operation"), StoreUnavailableError, "try again later"),
        (409, own("Wrong input: Collection `x` already exists!"), SchemaError, "already exists"),
        (413, PAGE, StoreError, "MSMARCO_QDRANT_BATCH_BYTES"),
        (422, own("Validation error in JSON body: [limit: 0]"), StoreError, "Validation error"),
        (429, own("Rate limiting exceeded: much"), StoreUnavailableError, "Rate limiting exceeded"),
        (500, own("Service internal error: No space left on device"), StoreUnavailableError, "No"),
        (500, own("Service internal error:\n 1 of 2"), StoreError, "Service internal error: 1 of"),
        (501, "", UnsupportedError, "HTTP status 501"),
        (502, PAGE, StoreUnavailableError, "HTTP status 502, 502 Bad Gateway nginx; the server"),
        (503, own("Shard temporarily unavailable: x"), StoreUnavailableError, "Shard temporarily"),
        (504, "", StoreUnavailableError, "HTTP status 504; the server is overloaded"),
        (200, PAGE, StoreError, "the answer is not Qdrant's"),
        (200, json.dumps({"hello": 1}), StoreError, "reading the aliases"),
    ],
)
def test_v11_a_status_of_http_is_the_error_that_grpc_has(
    scripted: _Scripted, status: int, body: str, expected: type[StoreError], message: str
) -> None:
    """With the server's own words, or the gateway's without its markup, in one line."""
    scripted.status, scripted.body = status, body
    error = error_of(scripted)
    assert expected is type(error)
    assert message in str(error)


@pytest.mark.parametrize("status", [429, 503])
def test_v11_a_retry_after_is_waited_for_or_named(scripted: _Scripted, status: int) -> None:
    """Of the server, or of a gateway."""
    scripted.status, scripted.answer_headers = status, (("Retry-After", "7"),)
    scripted.body = own("Rate limiting exceeded: much")
    error = error_of(scripted)
    assert isinstance(error, StoreUnavailableError)
    assert "its retry-after is 7 s, longer than MSMARCO_QDRANT_RETRY_S" in str(error)
    assert error.__cause__ is not None
    assert 7.0 == retry_after_s(error.__cause__)


def test_v11_a_retry_after_that_is_a_date_is_a_busy_server(scripted: _Scripted) -> None:
    """The client refuses to parse it."""
    scripted.status = 429
    scripted.answer_headers = (("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT"),)
    error = error_of(scripted)
    assert isinstance(error, StoreUnavailableError)
    assert error.__cause__ is not None
    assert is_transient(error.__cause__)


def test_v11_a_port_where_nobody_listens() -> None:
    """The advice names the port of REST."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(StoreUnavailableError, match=r"nothing listens .* 6333 if it has none"):
        open_store(url, connection=AT_ONCE)


def test_v11_a_host_that_does_not_exist() -> None:
    """DNS has no such name."""
    with pytest.raises(StoreUnavailableError, match="the host name is unknown: check the URL"):
        open_store("http://host.invalid", connection=AT_ONCE)


def test_v11_a_port_of_grpc() -> None:
    """It answers no HTTP/1.1."""
    with LoopbackServer() as server, pytest.raises(StoreUnavailableError) as caught:
        open_store(f"http://127.0.0.1:{server.port}", connection=AT_ONCE)
    assert "\n" not in str(caught.value)


def test_v11_an_answer_that_does_not_come() -> None:
    """The time limit of a request is that of the connection."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        impatient = replace(AT_ONCE, timeout_s=1)
        with pytest.raises(StoreUnavailableError, match="the request timed out"):
            open_store(url, connection=impatient)


def test_v11_what_the_client_raises_itself_is_no_answer() -> None:
    """An exception of another kind keeps its text."""
    error = map_error(ValueError("mine"), "reading", "here")
    assert "reading in here failed: mine" == str(error)
    assert ("", "the answer is not Qdrant's") == (
        rest_status_and_message(json.JSONDecodeError("x", "", 0))[0],
        rest_status_and_message(json.JSONDecodeError("x", "", 0))[1].partition(":")[0],
    )


# ---- retries, over the loopback server ---------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Refused(grpc.StatusCode.UNAVAILABLE),
        Refused(grpc.StatusCode.RESOURCE_EXHAUSTED),
        pytest.param(Refused(grpc.StatusCode.DEADLINE_EXCEEDED), marks=pytest.mark.slow),
        LostAnswer(),
        pytest.param(LostAnswer(grpc.StatusCode.UNAVAILABLE), marks=pytest.mark.slow),
        pytest.param(Cut(0), marks=pytest.mark.slow),
        Cut(200),
    ],
    ids=str,
)
def test_v11_a_write_is_retried_over_rest(fault: Fault) -> None:
    """A refused, a cut and an unanswered one; every point is there once."""
    with LoopbackServer(serve_grpc=False) as server:
        connection = Connection(retry_s=60, transport="rest", batch_points=4)
        with closing(open_store(server.rest_url, connection=connection)) as store:
            collection = make_things(store)
            server.faults.inject(fault, "Upsert", times=2)
            collection.upsert(points(10))
            assert (10, 2) == (stored(server), server.faults.count())
            assert 10 == collection.info().points


def test_v11_a_stopped_server_is_waited_for() -> None:
    """The store connects again when it is back."""
    with LoopbackServer(serve_grpc=False) as server:
        connection = Connection(retry_s=60, transport="rest")
        with closing(open_store(server.rest_url, connection=connection)) as store:
            collection = make_things(store)
            server.stop()
            starter = threading.Timer(0.2, server.start)
            starter.start()
            collection.upsert(points(3))
            starter.join()
            assert 3 == stored(server)


def test_v11_a_creation_whose_answer_was_lost_is_adopted() -> None:
    """The second attempt finds it, as by gRPC."""
    with LoopbackServer(serve_grpc=False) as server:
        connection = Connection(retry_s=60, transport="rest")
        with closing(open_store(server.rest_url, connection=connection)) as store:
            server.faults.inject(LostAnswer(), "Create")
            store.create_collection(NAME, make_spec(store))
            assert [NAME] == list(store.physical_names())
