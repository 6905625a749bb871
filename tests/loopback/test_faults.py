"""Every fault, as the real clients see it, and what is stored afterwards.

What is stored is asked of the server itself, not through the client: gRPC may put the first call
after a cut on the connection that is just ending, and that call is then UNAVAILABLE too.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc as grpcio  # type: ignore[import-untyped]
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, grpc
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from tests.loopback import Cut, CuttingProxy, LoopbackServer, LostAnswer, Refused, Slow
from tests.loopback.conftest import NAME, point

_UNAVAILABLE = grpcio.StatusCode.UNAVAILABLE


def status_of(call: Callable[[], object]) -> grpcio.StatusCode:
    """The status that a call ends in."""
    with pytest.raises(grpcio.RpcError) as caught:
        call()
    return caught.value.code()


def stored(server: LoopbackServer) -> int:
    """How many points are stored."""
    with server.inspect() as engine:
        return engine.count(NAME).count


@pytest.fixture
def stub(server: LoopbackServer) -> Iterator[Any]:
    """A raw stub of its own connection; the real client's blocks in `future` too."""
    own = (("grpc.use_local_subchannel_pool", 1),)  # channels share connections otherwise
    with grpcio.insecure_channel(f"127.0.0.1:{server.port}", options=own) as channel:
        yield grpc.PointsStub(channel)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("UNAVAILABLE", "Shard temporarily unavailable: "),
        ("DEADLINE_EXCEEDED", "Timeout: Timeout error: Operation 'Update' timed out after 60s"),
        ("ABORTED", "the loopback server was told to answer ABORTED"),
        ("INTERNAL", "Service internal error: No space left on device"),
        ("PERMISSION_DENIED", "Forbidden: Global manage access is required"),
        ("UNAUTHENTICATED", "Invalid API key or JWT"),
        ("RESOURCE_EXHAUSTED", "Rate limiting exceeded: Write rate limit exceeded, "),
    ],
)
def test_refused(server: LoopbackServer, client: QdrantClient, code: str, message: str) -> None:
    """The code, with what the real server says, and nothing is applied; the next call works."""
    server.faults.inject(Refused(grpcio.StatusCode[code]), "Upsert")
    with pytest.raises(grpcio.RpcError) as caught:
        client.upsert(NAME, [point(6)])
    assert grpcio.StatusCode[code] == caught.value.code()
    assert caught.value.details().startswith(message)
    assert 5 == stored(server)
    client.upsert(NAME, [point(6)])
    assert (6, 2) == (stored(server), server.requests.count("Upsert"))


def test_rate_limits_tell_when_to_come_again(
    server: LoopbackServer, client: QdrantClient, stub: Any
) -> None:
    """In the trailing metadata, which the real client reads."""
    limited = Refused(grpcio.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=7)
    server.faults.inject(limited, "Upsert", times=2)
    with pytest.raises(ResourceExhaustedResponse, match="Retry after 7s") as caught:
        client.upsert(NAME, [point(6)])
    assert 7 == caught.value.retry_after_s
    with pytest.raises(grpcio.RpcError) as raw:
        stub.Upsert(_request(6))
    assert ("retry-after", "7") in [tuple(one) for one in raw.value.trailing_metadata()]


def test_slow_holds_no_lock(server: LoopbackServer, client: QdrantClient, stub: Any) -> None:
    """Other calls are answered while one waits."""
    server.faults.inject(Slow(600), "Upsert")
    waiting = stub.Upsert.future(_request(6))
    server.requests.wait_for("Upsert")
    client.upsert(NAME, [point(7)])
    assert 6 == client.count(NAME).count
    waiting.cancel()
    server.settle()
    assert 7 == stored(server)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(("drop", "expected"), [(False, 6), (True, 5)])
def test_a_deadline_ends_a_slow_call(
    server: LoopbackServer, stub: Any, drop: bool, expected: int
) -> None:
    """The client has given up; a real server applies the write it has in its hands all the same."""
    server.faults.inject(Slow(600, drop_if_cancelled=drop), "Upsert")
    code = status_of(lambda: stub.Upsert(_request(6), timeout=0.05))
    server.settle()
    assert (grpcio.StatusCode.DEADLINE_EXCEEDED, expected) == (code, stored(server))


@pytest.mark.usefixtures("client")
def test_stop_ends_a_slow_call_at_once(server: LoopbackServer, stub: Any) -> None:
    """And nothing is applied: the server was killed."""
    server.faults.inject(Slow(600), "Upsert")
    waiting = stub.Upsert.future(_request(6))
    server.requests.wait_for("Upsert")
    server.stop()
    assert _UNAVAILABLE == status_of(waiting.result)
    assert 5 == stored(server)


@pytest.mark.parametrize("code", [None, _UNAVAILABLE, grpcio.StatusCode.DEADLINE_EXCEEDED])
def test_a_lost_answer_is_of_a_write_that_was_done(
    server: LoopbackServer, client: QdrantClient, code: grpcio.StatusCode | None
) -> None:
    """The connection is cut, or the call ends in a status; what was asked for has happened."""
    server.faults.inject(LostAnswer(code), "Upsert")
    seen = status_of(lambda: client.upsert(NAME, [point(6)]))
    assert (code or _UNAVAILABLE, 6) == (seen, stored(server))


@pytest.mark.parametrize("after_bytes", [0, 1, 10_000, 10**9])
def test_a_cut_request_is_not_applied(
    server: LoopbackServer, client: QdrantClient, after_bytes: int
) -> None:
    """Wherever it is cut, even when all of it had arrived."""
    server.faults.inject(Cut(after_bytes), "Upsert")
    many = [point(number) for number in range(10, 1010)]
    assert _UNAVAILABLE == status_of(lambda: client.upsert(NAME, many))
    assert (5, 0) == (stored(server), server.requests.count("Upsert"))


def test_a_cut_spares_other_connections(
    server: LoopbackServer, client: QdrantClient, stub: Any
) -> None:
    """Only the connection that the call came by is cut."""
    stub.Count(grpc.CountPoints(collection_name=NAME))
    server.faults.inject(Cut(), "Upsert")
    assert _UNAVAILABLE == status_of(lambda: client.upsert(NAME, [point(6)]))
    assert 5 == stub.Count(grpc.CountPoints(collection_name=NAME)).result.count


def test_queued_faults_come_in_order_and_run_out(
    server: LoopbackServer, client: QdrantClient
) -> None:
    """Twice one, once another, then none; what was given is counted."""
    server.faults.inject(Refused(_UNAVAILABLE), "Count", times=2)
    server.faults.inject(Refused(grpcio.StatusCode.ABORTED), "Points.Count")
    seen = [status_of(lambda: client.count(NAME)).name for _ in range(3)]
    assert ["UNAVAILABLE", "UNAVAILABLE", "ABORTED"] == seen
    assert 5 == client.count(NAME).count
    assert [1, 2, 3] == [one.number for one in server.faults.given]
    assert (3, 3, 0) == (
        server.faults.count(Refused, "Count"),
        server.faults.count(),
        server.faults.count(Slow),
    )


def test_the_async_client_sees_the_same_faults(
    server: LoopbackServer, client: QdrantClient
) -> None:
    """Refused, rate limited, cut, lost."""
    server.faults.inject(Refused(grpcio.StatusCode.ABORTED), "Upsert")
    server.faults.inject(Refused(grpcio.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=3), "Upsert")
    server.faults.inject(LostAnswer(), "Upsert")

    async def use() -> list[object]:
        made = AsyncQdrantClient(
            url=f"http://127.0.0.1:{server.port}",
            grpc_port=server.port,
            prefer_grpc=True,
            check_compatibility=False,
        )
        seen: list[object] = []
        for _ in range(3):
            try:
                await made.upsert(NAME, [point(6)])
            except grpcio.aio.AioRpcError as error:
                seen.append(error.code())
            except ResourceExhaustedResponse as error:
                seen.append(error.retry_after_s)
        await made.close()
        return seen

    assert [grpcio.StatusCode.ABORTED, 3, _UNAVAILABLE] == asyncio.run(use())
    assert 6 == stored(server)
    client.close()


def test_a_server_that_is_down_is_unavailable_until_it_is_up(
    server: LoopbackServer, client: QdrantClient, stub: Any
) -> None:
    """Data stay; a client that waits for the connection gets its answer."""
    server.stop()
    assert _UNAVAILABLE == status_of(lambda: client.count(NAME))
    server.start()
    request = grpc.CountPoints(collection_name=NAME)
    assert 5 == stub.Count(request, wait_for_ready=True, timeout=30).result.count


def test_the_proxy_refuses_and_accepts(server: LoopbackServer, client: QdrantClient) -> None:
    """The network is down while the server itself goes on."""
    assert 1 == server.proxy.connections
    server.proxy.refuse()
    assert 0 == server.proxy.connections
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    server.proxy.refuse()
    server.proxy.accept()
    server.proxy.accept()
    with socket.create_connection(("127.0.0.1", server.port)):
        pass
    client.close()


def test_the_proxy_cuts_after_so_many_bytes() -> None:
    """Exactly those reach the server, and both ends see the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener, CuttingProxy() as proxy:
        proxy.start(listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(b"abc")
                assert b"abc" == server.recv(3)
                server.sendall(b"xyz")
                assert b"xyz" == client.recv(3)
                proxy.cut_after(4)
                client.sendall(b"defghi")
                received = b"".join(iter(lambda: server.recv(100), b""))
                assert (b"defg", b"") == (received, client.recv(100))


@pytest.mark.usefixtures("client")
def test_stop_leaves_no_thread(server: LoopbackServer, stub: Any) -> None:
    """Whatever the connections were doing."""
    server.faults.inject(Slow(600), "Upsert")
    waiting = stub.Upsert.future(_request(6))
    server.requests.wait_for("Upsert")
    server.stop()
    waiting.cancel()
    assert not [one for one in threading.enumerate() if one.name.startswith("loopback")]


def _request(number: int) -> grpc.UpsertPoints:
    """An upsert of one point as a message."""
    made = grpc.PointStruct(id=grpc.PointId(num=number))
    made.vectors.vectors.vectors["dense"].dense.data.extend([1.0, 2.0, 3.0, 4.0])
    return grpc.UpsertPoints(collection_name=NAME, wait=True, points=[made])
