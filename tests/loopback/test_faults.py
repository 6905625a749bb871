"""Faults of the loopback server: the client's error, and the stored points.

Stored points are counted in the server, not through the client: gRPC may send the first call after
a cut on the ending connection, and that call is then UNAVAILABLE, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc as grpcio  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient, grpc

from tests.loopback import Cut, LoopbackServer, LostAnswer, Refused, Slow
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


def test_slow_call_holds_no_lock(server: LoopbackServer, client: QdrantClient, stub: Any) -> None:
    """The server answers other calls during a slow one."""
    server.faults.inject(Slow(600), "Upsert")
    waiting = stub.Upsert.future(_request(6))
    server.requests.wait_for("Upsert")
    client.upsert(NAME, [point(7)])
    assert 6 == client.count(NAME).count
    waiting.cancel()
    server.settle()
    assert 7 == stored(server)


@pytest.mark.usefixtures("client")
def test_stop_ends_a_slow_call(server: LoopbackServer, stub: Any) -> None:
    """`stop` applies nothing and leaves no thread: it stands for a killed server."""
    server.faults.inject(Slow(600), "Upsert")
    waiting = stub.Upsert.future(_request(6))
    server.requests.wait_for("Upsert")
    server.stop()
    assert _UNAVAILABLE == status_of(waiting.result)
    assert 5 == stored(server)
    assert not [one for one in threading.enumerate() if one.name.startswith("loopback")]


@pytest.mark.parametrize("code", [None, _UNAVAILABLE, grpcio.StatusCode.DEADLINE_EXCEEDED])
def test_lost_answer_applies_the_write(
    server: LoopbackServer, client: QdrantClient, code: grpcio.StatusCode | None
) -> None:
    """The connection is cut, or the call ends in a status, after the write is applied."""
    server.faults.inject(LostAnswer(code), "Upsert")
    seen = status_of(lambda: client.upsert(NAME, [point(6)]))
    assert (code or _UNAVAILABLE, 6) == (seen, stored(server))


@pytest.mark.parametrize("after_bytes", [0, 1, 10_000, 10**9])
def test_a_cut_request_is_not_applied(
    server: LoopbackServer, client: QdrantClient, after_bytes: int
) -> None:
    """A request that is cut anywhere, or right after its end, is not applied."""
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
    """The plan gives queued faults in order, and counts them."""
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


def _request(number: int) -> grpc.UpsertPoints:
    """An upsert of one point as a message."""
    made = grpc.PointStruct(id=grpc.PointId(num=number))
    made.vectors.vectors.vectors["dense"].dense.data.extend([1.0, 2.0, 3.0, 4.0])
    return grpc.UpsertPoints(collection_name=NAME, wait=True, points=[made])
