"""Every fault, as the real clients see it, and what is stored afterwards.

What is stored is asked of the server itself, not through the client: gRPC may put the first call
after a cut on the connection that is just ending, and that call is then UNAVAILABLE too.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc as grpcio  # type: ignore[import-untyped]
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, grpc
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from tests.loopback import Cut, CuttingProxy, Fault, LoopbackServer, LostAnswer, Refused, Slow
from tests.loopback.conftest import NAME, make_collection, point

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


def test_refused_with_a_message_of_its_own(server: LoopbackServer, client: QdrantClient) -> None:
    """For a text that a test is about."""
    server.faults.inject(Refused(_UNAVAILABLE, "no route"), "Count")
    with pytest.raises(grpcio.RpcError, match="no route"):
        client.count(NAME)


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


def test_slow_calls_are_applied(server: LoopbackServer, client: QdrantClient) -> None:
    """When the time is over."""
    server.faults.inject(Slow(0.001), "Upsert")
    client.upsert(NAME, [point(6)])
    assert 6 == stored(server)


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


@pytest.mark.usefixtures("client")
def test_stop_with_grace_lets_calls_finish(server: LoopbackServer, stub: Any) -> None:
    """What is under way is answered, if it does not take too long."""
    server.faults.inject(Slow(0.05), "Upsert")
    waiting = stub.Upsert.future(_request(6))
    server.requests.wait_for("Upsert")
    server.stop(grace=60)
    assert 6 == stored(server)
    waiting.cancel()


@pytest.mark.parametrize("code", [None, _UNAVAILABLE, grpcio.StatusCode.DEADLINE_EXCEEDED])
def test_a_lost_answer_is_of_a_write_that_was_done(
    server: LoopbackServer, client: QdrantClient, code: grpcio.StatusCode | None
) -> None:
    """The connection is cut, or the call ends in a status; what was asked for has happened."""
    server.faults.inject(LostAnswer(code), "Upsert")
    seen = status_of(lambda: client.upsert(NAME, [point(6)]))
    assert (code or _UNAVAILABLE, 6) == (seen, stored(server))


def test_a_lost_creation_is_a_second_one_next_time(
    server: LoopbackServer, client: QdrantClient
) -> None:
    """What a retry finds: the collection is there."""
    server.faults.inject(LostAnswer(_UNAVAILABLE), "Create")
    assert _UNAVAILABLE == status_of(lambda: make_collection(client, "new"))
    assert grpcio.StatusCode.ALREADY_EXISTS == status_of(lambda: make_collection(client, "new"))


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


def test_faults_reach_every_call(server: LoopbackServer, client: QdrantClient) -> None:
    """The health check too; None is the next call, whichever it is."""
    server.faults.inject(Refused(_UNAVAILABLE), "HealthCheck")
    server.faults.inject(Refused(grpcio.StatusCode.INTERNAL))
    assert grpcio.StatusCode.INTERNAL == status_of(lambda: client.count(NAME))
    assert _UNAVAILABLE == status_of(client.info)
    assert 5 == client.count(NAME).count


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


def test_a_fault_for_ever_ends_with_clear(server: LoopbackServer, client: QdrantClient) -> None:
    """Until then every call has it."""
    server.faults.inject(Refused(_UNAVAILABLE), "Count", times=None)
    assert {_UNAVAILABLE} == {status_of(lambda: client.count(NAME)) for _ in range(5)}
    server.faults.clear()
    assert 5 == client.count(NAME).count


def test_a_schedule_decides_by_name_and_number(
    server: LoopbackServer, client: QdrantClient
) -> None:
    """A seed and the number of the call give the same faults each time."""
    server.faults.inject(Refused(grpcio.StatusCode.ABORTED), "Count")

    def schedule(rpc: str, number: int) -> Fault | None:
        chance = random.Random(f"seed:{rpc}:{number}").random()
        return Refused(_UNAVAILABLE) if rpc == "Points.Count" and chance < 0.5 else None

    server.faults.use(schedule)
    expected = [
        None if schedule("Points.Count", number) is None else "UNAVAILABLE"
        for number in range(2, 12)
    ]
    seen: list[str | None] = []
    assert grpcio.StatusCode.ABORTED == status_of(lambda: client.count(NAME))
    for _ in range(10):
        try:
            client.count(NAME)
        except grpcio.RpcError as error:
            seen.append(error.code().name)
        else:
            seen.append(None)
    assert expected == seen
    assert {None, "UNAVAILABLE"} == set(seen)


def test_a_fault_for_no_call_is_a_mistake_of_the_test(server: LoopbackServer) -> None:
    """A misspelt name would never come."""
    with pytest.raises(ValueError, match="no call is named 'Upserts'"):
        server.faults.inject(Slow(1), "Upserts")


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


def test_the_proxy_of_a_server_that_is_gone_hangs_up() -> None:
    """A client sees its connection end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = listener.getsockname()[1]
    with CuttingProxy() as proxy:
        proxy.start(gone)
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            assert b"" == client.recv(1)


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
