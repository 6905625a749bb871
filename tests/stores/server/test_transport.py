"""The transport of a URL: gRPC where the same server answers, else REST, and never another server.

V2: a URL with another port than 6333 wrote into the server at port 6334.
V11: a server that only REST reaches could not be used.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from msmarco_qdrant.errors import StoreError, StoreUnavailableError
from msmarco_qdrant.stores import Connection, open_store
from msmarco_qdrant.stores.server import transport as transport_module
from msmarco_qdrant.stores.server.store import ServerStore
from tests.contract.test_store import make_spec
from tests.loopback import LoopbackServer
from tests.loopback.conftest import keys_of
from tests.stores.server.test_store import NAME, make_things, points, stored

AUTO = Connection(retry_s=0)
GRPC = Connection(retry_s=0, transport="grpc")
REST = Connection(retry_s=0, transport="rest")


def transport_of(url: str, connection: Connection = AUTO) -> str:
    """The transport that is used after opening, and for a first write."""
    with closing(open_store(url, connection=connection)) as store:
        assert isinstance(store, ServerStore)
        if not store.physical_names():
            make_things(store).upsert(points(1))
        return "rest" if store._server.is_rest else "grpc"


def names(server: LoopbackServer) -> list[str]:
    """The collections of a server, by its own account."""
    with server.inspect() as engine:
        return sorted(one.name for one in engine.get_collections().collections)


@contextmanager
def beside(first: LoopbackServer) -> Iterator[LoopbackServer]:
    """Another server, whose gRPC is at the port after the first one's REST."""
    first.stop()
    with LoopbackServer() as other:
        port = other.proxy.port
        other.stop()
        first.rest_proxy.port, other.proxy.port = port - 1, port
        try:
            other.start()
            first.start()
        except OSError:  # the port before is in use
            pytest.skip("no two free ports in a row")
        yield other


def test_v2_a_url_with_a_port_never_writes_into_the_server_at_6334(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`http://host:7333` meant the server at gRPC's default port, wherever 7333 led."""
    with LoopbackServer() as at_6334, LoopbackServer(adjacent=True) as meant:
        monkeypatch.setattr("msmarco_qdrant.stores.connection.GRPC_PORT", at_6334.port)
        assert "grpc" == transport_of(meant.rest_url)
        assert ([NAME], [], 0) == (names(meant), names(at_6334), at_6334.requests.count())


def test_v2_another_server_at_the_grpc_port_is_detected(caplog: pytest.LogCaptureFixture) -> None:
    """Two servers, of one version, that differ in a collection: nothing is written to the other."""
    with LoopbackServer() as meant, beside(meant) as other:
        with closing(open_store(other.url)) as store:
            store.create_collection("others__0001", make_spec(store))
        assert "rest" == transport_of(meant.rest_url)
        assert ([NAME], ["others__0001"]) == (names(meant), names(other))
        (warning,) = [one.getMessage() for one in caplog.records if one.name.endswith("transport")]
        assert (
            f"another server answers by gRPC at 127.0.0.1:{other.port}: 'others__0001' exists "
            in warning
        )
        assert "a write takes twice the processor time" in warning


def test_v2_another_server_at_the_grpc_port_never_sees_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of another version, whether REST answers or not."""
    connection = Connection("key", retry_s=0)
    with LoopbackServer("key", "1.19.0") as meant, beside(meant) as other:
        seen = keys_of(other, monkeypatch)
        assert "rest" == transport_of(meant.rest_url, connection)
        meant.rest_proxy.stop()
        with pytest.raises(StoreUnavailableError):
            open_store(meant.rest_url, connection=connection)
    assert {None} == set(seen)


@pytest.mark.parametrize(("name", "expected"), [("one__0001", "grpc"), (None, "rest")])
def test_v2_nodes_of_one_cluster_may_differ_in_version(name: str | None, expected: str) -> None:
    """During an upgrade behind one address; two servers without collections are two."""
    with LoopbackServer(version="1.19.0") as meant, beside(meant) as other:
        for server in (meant, other) if name else ():
            with closing(open_store(server.url)) as store:
                store.create_collection(name or "", make_spec(store))
        assert expected == transport_of(meant.rest_url)


@pytest.mark.parametrize("transport", ["auto", "grpc"])
def test_v2_a_required_grpc_port_of_another_server_is_an_error(transport: str) -> None:
    """In one line with both places, before anything is written."""
    with LoopbackServer(version="1.19.0") as meant, LoopbackServer() as other:
        connection = Connection(retry_s=0, grpc_port=other.port, transport=transport)  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="another server answers by gRPC at") as caught:
            open_store(meant.rest_url, connection=connection)
        text = str(caught.value)
        assert "\n" not in text
        assert "1.20.0" in text.partition("there")[0]
        assert "1.19.0" in text
        assert ([], []) == (names(meant), names(other))


def test_v2_a_grpc_port_of_the_same_server_is_taken() -> None:
    """Not only the one beside REST's."""
    with LoopbackServer() as server:
        connection = Connection(retry_s=0, grpc_port=server.port)
        assert "grpc" == transport_of(server.rest_url, connection)
        assert "rest" == transport_of(server.rest_url, Connection(grpc_port=1, transport="rest"))


def test_v2_without_rest_only_the_default_ports_mean_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """At another port nothing says whose gRPC port the next one is."""
    with LoopbackServer(adjacent=True) as server:
        server.rest_proxy.stop()
        with pytest.raises(StoreUnavailableError, match="grpc:// URL has the port of gRPC"):
            open_store(server.rest_url, connection=AUTO)
        assert "grpc" == transport_of(server.rest_url, GRPC)
        monkeypatch.setattr("msmarco_qdrant.stores.connection.REST_PORT", server.rest_proxy.port)
        monkeypatch.setattr("msmarco_qdrant.stores.connection.GRPC_PORT", server.port)
        assert "grpc" == transport_of("http://127.0.0.1")


def test_v2_collections_that_another_client_creates_are_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names that change between two answers are read again."""
    list_names, calls = transport_module._names, []

    def list_while_creating(client: object) -> object:
        calls.append(client)
        found = list_names(client)  # type: ignore[arg-type]
        return (frozenset({"new"}), None) if len(calls) == 2 else found

    monkeypatch.setattr(transport_module, "_names", list_while_creating)
    with LoopbackServer(adjacent=True) as server:
        assert "grpc" == transport_of(server.rest_url)
    assert 4 == len(calls)


@pytest.mark.parametrize(
    ("commit", "names", "expected"),
    [
        ("", ({"a"}, {"b"}), ""),
        ("other", ({"a"}, {"b"}), ""),
        ("other", ({"a", "c"}, {"b"}), "qdrant 1.18.3 other there, qdrant 1.18.3 first"),
        ("other", (None, None), "qdrant 1.18.3 other there, qdrant 1.18.3 first"),
        ("first", ({"a", "c"}, {"b"}), "'c' exists there, not"),
        ("first", ({"a"}, set()), "'b' exists only"),
        ("first", ({"a"}, None), "the API key has other rights there than"),
    ],
)
def test_v2_differences_of_two_servers(commit: str, names: Any, expected: str) -> None:
    """A server that reports no commit has no other one."""
    identity = transport_module._Identity
    known: Any = [None if one is None else frozenset(one) for one in names]
    one = identity("qdrant", "1.18.3", "first", (frozenset({"a"}), frozenset({"b"})))
    other = identity("qdrant", "1.18.3", commit, (known[0], known[1]))
    assert expected == transport_module._difference(one, other)


def test_v11_rest_is_used_where_grpc_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    """With one line that names the reason, the cost, and how to accept it."""
    with LoopbackServer(serve_grpc=False) as server:
        assert "rest" == transport_of(server.rest_url)
        (warning,) = [one.getMessage() for one in caplog.records if one.name.endswith("transport")]
        assert "gRPC does not answer at 127.0.0.1:" in warning
        assert "so REST is used: a write takes twice" in warning
        assert "--transport rest" in warning
        caplog.clear()
        assert "rest" == transport_of(server.rest_url, REST)
        assert [] == [one for one in caplog.records if one.name.startswith("msmarco_qdrant")]
        with pytest.raises(StoreUnavailableError, match="nothing listens on the port"):
            open_store(server.rest_url, connection=GRPC)
        assert 1 == stored(server)


def test_v11_behind_a_gateway_with_a_path_and_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """A path implies no gRPC port; the API key is a header."""
    with LoopbackServer("key", prefix="/qdrant/a") as server:
        connection = Connection("key", retry_s=0)
        with closing(open_store(server.rest_url + "/", connection=connection)) as store:
            make_things(store).upsert(points(1))
        assert "a URL with a path or with port 80 or 443 implies no gRPC port" in caplog.text
        assert "key" not in caplog.text.replace("key=", "").replace("API key", "")
        assert 1 == stored(server)


class _Page(http.server.BaseHTTPRequestHandler):
    """Answers HTML, whatever is asked."""

    def do_GET(self) -> None:  # the name is the library's
        """Answer a page."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html><title>Welcome</title></html>")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def page_url() -> Iterator[str]:
    """A web server that is not Qdrant."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("connection", [AUTO, REST])
def test_v11_another_service_at_the_url_is_named(page_url: str, connection: Connection) -> None:
    """In one line, at once."""
    with pytest.raises(StoreError, match="the answer is not Qdrant's: check the port") as caught:
        open_store(page_url, connection=connection)
    assert "\n" not in str(caught.value)
