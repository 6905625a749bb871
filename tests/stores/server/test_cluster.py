"""A store on a cluster: what passes when a node is away, what is said, and what replicas hold."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.errors import StoreUnavailableError
from msmarco_qdrant.stores import Connection, open_store
from msmarco_qdrant.stores.error_mapping import is_transient, map_error
from msmarco_qdrant.stores.migration_locks import hold_lock
from msmarco_qdrant.stores.server.locks import ServerLocks
from msmarco_qdrant.stores.server.store import ServerStore
from tests.contract.test_store import make_spec
from tests.loopback import Fault, LoopbackCluster, LoopbackServer
from tests.stores.server.test_retry import Clock, Failure, Policy
from tests.stores.server.test_store import NAME, points

AT_ONCE = Connection(retry_s=0)
TONIC = (
    "Service internal error: Tonic status error: code: 'The service is currently unavailable', "
    'message: "tcp connect error"'
)
PASSING = (
    f"Service internal error: 2 out of 3 shards failed to apply operation. First error: {TONIC}",
    f"Service internal error: 1 of 2 read operations failed:\n  {TONIC}",
    "The replica set for shard 0 on peer 190 does not have enough active replicas",
    "Service internal error: The replica set for shard 0 on peer 190 has no active replica",
    f"Failed to apply update with Strong ordering via leader peer 7: {TONIC}",
    "Service internal error: Failed to apply operation to at least one `Active` replica.",
    "Waiting for consensus operation commit failed. Timeout set at: 10 seconds",
    "Service internal error: Failed to propose operation: leader is not established within 10s",
    "Service internal error: Tonic transport error: transport error",
)
FOR_GOOD = (
    "2 out of 3 shards failed to apply operation. Wrong input: Vector dimension error: expected 4",
    "Service internal error: 1 of 2 read operations failed:\n  Wrong input: InvalidArgument: x",
    "Service internal error: Tonic status error: status: PermissionDenied, message: x",
    "1 out of 2 shards failed to apply operation. First error captured: No space left on device",
)


def holder(token: str) -> LockHolder:
    """Somebody with a token."""
    return LockHolder(token, "some-host", 4711, "2026-11-23T00:00:00Z")


def two_replicas() -> LoopbackCluster:
    """Nodes 0 and 1 hold every point, and both must take a write; node 2 is for the consensus."""
    return LoopbackCluster(3, replication=2, shards=1, write_consistency_factor=2)


@pytest.mark.parametrize("words", PASSING)
def test_v3_a_node_that_is_away_passes(words: str) -> None:
    """Said in one line, with what to do."""
    failure = Failure("INTERNAL", words)
    assert is_transient(failure)
    made = map_error(failure, "doing it", "a place")
    assert StoreUnavailableError is type(made)
    assert "\n" not in str(made)
    assert str(made).endswith("run the same command again when all nodes are up")


@pytest.mark.parametrize(
    "words",
    [
        "Timeout error: Operation 'Search' timed out after 60 seconds",
        "Service internal error: Can't reach one of the workers",
        "Operation cancelled",
        "Deadline Exceeded",
    ],
)
def test_v3_a_busy_server_is_no_cluster(words: str) -> None:
    """It passes, too, but no node is away."""
    failure = Failure("INTERNAL", words)
    assert is_transient(failure)
    made = map_error(failure, "doing it", "a place")
    assert StoreUnavailableError is type(made)
    assert str(made).endswith("the server is overloaded or unreachable: try again later")


@pytest.mark.parametrize("words", FOR_GOOD)
def test_v3_an_error_that_a_node_passes_on_does_not(words: str) -> None:
    """However many shards had it."""
    failure = Failure("INTERNAL", words)
    assert not is_transient(failure)
    made = map_error(failure, "doing it", "a place")
    assert "a node of the Qdrant cluster" not in str(made)


@pytest.mark.parametrize("away", ["write", "read", "lock", "creation"])
def test_v3_a_call_waits_until_the_node_is_back(away: str) -> None:
    """Each of them needs it, and is tried again."""
    with two_replicas() as cluster:
        node = cluster.nodes[0]
        with closing(open_store(cluster.url, connection=Connection(retry_s=60))) as store:
            store.create_collection(NAME, make_spec(store))
            rpc = {"write": "Points.Upsert", "lock": "Points.Upsert", "read": "Points.Get"}.get(
                away, "Collections.Create"
            )

            def come_back(called: str, number: int) -> Fault | None:
                if called == rpc and number > before + 1:
                    cluster.bring_back()
                return None

            before = node.requests.count(rpc) if rpc == "Collections.Create" else 0
            if away == "lock":
                store.migration_locks.acquire("others", holder("b"))
                before = 1
            node.faults.use(come_back)
            cluster.take_away(1)
            if away == "creation":  # which needs most nodes
                cluster.take_away(2)
            collection = store.collection(NAME)
            if away == "write":
                collection.upsert(points(3))
            elif away == "read":
                collection.retrieve([1, 2], ["n"], all_replicas=True)
            elif away == "lock":
                store.migration_locks.acquire("films", holder("a"))
            else:
                store.create_collection("others__0001", make_spec(store))
            assert node.requests.count(rpc) > before + 1


def test_v3_a_lock_keeps_to_the_total_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with giving back what it may have taken: 120 seconds, not twice that."""
    with (
        LoopbackCluster(3) as cluster,
        closing(open_store(cluster.url)) as store,
    ):
        assert isinstance(store, ServerStore)
        store.migration_locks.acquire("others", holder("b"))
        cluster.take_away(2)  # the one that orders strong writes
        clock = Clock()
        monkeypatch.setattr(time, "monotonic", clock)
        store._server.retries = Policy(120, clock)
        before = clock.now
        with pytest.raises(StoreUnavailableError, match="a node of the Qdrant cluster is away"):
            hold_lock(store.migration_locks, "films").__enter__()
        assert 60 < clock.now - before <= 120


@pytest.mark.parametrize("token", ["a", "b"])
def test_v1_a_lock_that_only_some_replicas_have_is_nobodys(token: str) -> None:
    """Its writer may take it again, and so may another; in the end all replicas have the same."""
    with two_replicas() as cluster:
        with closing(open_store(cluster.nodes[1].url, connection=AT_ONCE)) as store:
            store.migration_locks.acquire("others", holder("c"))
            cluster.take_away(0)
            with pytest.raises(StoreUnavailableError):
                store.migration_locks.acquire("films", holder("a"))
            cluster.bring_back()
            assert [1, 2] == [len(replica) for replica in cluster.stored("msmarco_qdrant_locks")]
        with closing(open_store(cluster.url)) as store:
            assert isinstance(store, ServerStore)
            locks = ServerLocks(store._server, settle_s=0)
            assert locks.holder("films") is None
            assert holder(token) == locks.acquire("films", holder(token))
            assert holder(token) == locks.acquire("films", holder("later"))
        first, second = cluster.stored("msmarco_qdrant_locks")
        assert first == second


def test_v1_a_lock_acquired_meanwhile_is_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock was released between insertion and read, and another process acquires it then."""
    with LoopbackServer() as server, closing(open_store(server.url, connection=AT_ONCE)) as store:
        assert isinstance(store, ServerStore)
        locks, other = ServerLocks(store._server), store.migration_locks
        other.acquire("films", holder("a"))
        read, clock = ServerLocks._read, Clock()
        monkeypatch.setattr(time, "monotonic", clock)
        store._server.retries = Policy(120, clock)

        def create(self: ServerLocks, left: object) -> None:  # noqa: ARG001
            clock.now += 20  # a node was away

        def change(self: ServerLocks, *args: Any, **options: Any) -> LockHolder | None:
            monkeypatch.setattr(ServerLocks, "_read", read)
            other.release("films", "a")
            found = read(self, *args, **options)
            other.acquire("films", holder("b"))
            return found

        monkeypatch.setattr(ServerLocks, "_create_collection", create)
        monkeypatch.setattr(ServerLocks, "_read", change)
        assert holder("b") == locks.acquire("films", holder("late"))


def test_v1_a_lock_whose_replicas_differ_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the total deadline, with one line."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        assert isinstance(store, ServerStore)
        clock = Clock()
        monkeypatch.setattr(time, "monotonic", clock)
        store._server.retries = Policy(5, clock)
        monkeypatch.setattr(ServerLocks, "_read", lambda *_, **__: None)
        with pytest.raises(StoreUnavailableError, match="the same on all replicas"):
            store.migration_locks.acquire("films", holder("a"))
