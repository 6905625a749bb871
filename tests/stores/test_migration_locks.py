"""The lock of whoever migrates: as calls on a server, between threads, and on a directory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient

from msmarco_qdrant.collection.describe import describe_store
from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.errors import (
    StoreAccessError,
    StoreCorruptError,
    StoreInUseError,
    StoreUnavailableError,
)
from msmarco_qdrant.stores import Connection, migration_locks, open_store
from msmarco_qdrant.stores.migration_locks import (
    MigrationLocks,
    ProcessLocks,
    hold_lock,
    require_lock,
)
from tests.loopback import LoopbackServer, LostAnswer, Refused

PATIENT = Connection(retry_s=60)
LOCKS = "msmarco_qdrant_locks"


def holder(token: str) -> LockHolder:
    """Somebody with a token."""
    return LockHolder(token, "some-host", 4711, "2026-11-23T00:00:00Z")


@pytest.fixture
def locks(server: LoopbackServer) -> Iterator[MigrationLocks]:
    """The locks of a store on it."""
    with closing(open_store(server.url, connection=PATIENT)) as store:
        yield store.migration_locks


def test_taking_it_again_is_taking_it(locks: MigrationLocks) -> None:
    """So a call whose answer was lost can be repeated."""
    assert holder("a") == locks.acquire("films", holder("a"))
    assert holder("a") == locks.acquire("films", holder("a"))


@pytest.mark.parametrize(
    "fault", [LostAnswer(), Refused(grpc.StatusCode.UNAVAILABLE)], ids=["lost", "refused"]
)
@pytest.mark.parametrize(
    "rpc",
    ["Collections.Get", "Create", "CreateFieldIndex", "Upsert", "Points.Get", "Points.Delete"],
)
def test_any_call_may_fail_for_a_moment(
    server: LoopbackServer, locks: MigrationLocks, rpc: str, fault: LostAnswer | Refused
) -> None:
    """Whether it was applied or not: done again, it has the same outcome."""
    server.faults.inject(fault, rpc)
    assert holder("a") == locks.acquire("films", holder("a"))
    assert holder("a") == locks.acquire("films", holder("b"))
    assert locks.release("films", "a") is None
    assert (1, 0) == (server.faults.count(), server.faults.pending)


def test_an_old_server_is_asked_by_a_condition(
    server: LoopbackServer, locks: MigrationLocks
) -> None:
    """One before 1.17 overlooks `insert_only`: the condition alone must keep the point."""
    locks.acquire("films", holder("a"))
    (request,) = server.requests.of("Upsert")
    request.ClearField("update_mode")
    request.points[0].payload["token"].string_value = "b"
    client = QdrantClient(
        url="http://127.0.0.1", grpc_port=server.port, prefer_grpc=True, check_compatibility=False
    )
    with closing(client):
        client.grpc_points.Upsert(request)
    assert holder("a") == locks.holder("films")


def test_a_lock_that_something_else_wrote(server: LoopbackServer, locks: MigrationLocks) -> None:
    """Is told as such, with where it lies."""
    locks.acquire("films", holder("a"))
    with server.inspect() as client:
        (record,) = client.scroll(LOCKS)[0]
        client.overwrite_payload(LOCKS, {"x": 1}, [record.id])
    with pytest.raises(StoreCorruptError, match=f"lock of 'films' in the collection {LOCKS}"):
        locks.acquire("films", holder("b"))


def test_who_may_only_read_is_told(tmp_path: Path) -> None:
    """A status can be read by such a key, a lock cannot be taken."""
    del tmp_path
    with LoopbackServer("key", read_only_api_key="reader") as server:
        connection = Connection(api_key="reader", retry_s=0)
        with closing(open_store(server.url, connection=connection)) as store:
            locks = store.migration_locks
            assert locks.holder("films") is None
            with pytest.raises(StoreAccessError, match="collection of locks"):
                locks.acquire("films", holder("a"))


def test_the_collection_of_locks_is_no_collection_of_passages(
    server: LoopbackServer, locks: MigrationLocks
) -> None:
    """It holds a point without vectors a name, and no list of collections shows it."""
    locks.acquire("films", holder("a"))
    locks.acquire("books", holder("b"))
    with server.inspect() as client:
        found = client.scroll(LOCKS, with_vectors=True)[0]
    assert {"films", "books"} == {(record.payload or {})["collection"] for record in found}
    assert [{}, {}] == [record.vector for record in found]
    with closing(open_store(server.url)) as store:
        assert () == describe_store(store).collections


class Interrupted(ProcessLocks):
    """Locks that are taken just before Control-C, or an error, comes."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def acquire(self, name: str, wanted: LockHolder) -> LockHolder:
        """Take it, and do not say so."""
        super().acquire(name, wanted)
        raise self._error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreUnavailableError("no answer")])
def test_a_lock_that_was_taken_unnoticed_is_given_back(error: BaseException) -> None:
    """Nobody would know that it is to be; another's stays."""
    locks = Interrupted(error)
    with pytest.raises(type(error)):
        hold_lock(locks, "films").__enter__()
    assert locks.holder("films") is None
    with pytest.raises(type(error)):
        locks.acquire("films", holder("another"))
    with pytest.raises(type(error)):
        hold_lock(locks, "films").__enter__()
    assert holder("another") == locks.holder("films")


class Unanswered(ProcessLocks):
    """Locks of a server that is away when they are to be released."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def withdraw(self, name: str, token: str) -> None:
        """Wait for the end of the test."""
        self.go_on.wait(60)
        super().withdraw(name, token)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_c13_interrupt_does_not_wait_for_the_lock(
    error: type[BaseException], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning names the lock that may be left."""
    monkeypatch.setattr(migration_locks, "_WITHDRAW_S", 0.01)
    locks = Unanswered()
    with caplog.at_level(logging.WARNING), pytest.raises(error), hold_lock(locks, "films"):
        raise error
    locks.go_on.set()

    (message,) = caplog.messages
    assert "the lock of 'films' could not be released: the store did not answer within" in message


def test_why_it_could_not_be_taken_is_told(server: LoopbackServer) -> None:
    """Not that it could not be given back, either."""
    with closing(open_store(server.url, connection=Connection(retry_s=0))) as store:
        for rpc in ("Upsert", "Points.Delete"):
            server.faults.inject(Refused(grpc.StatusCode.UNAVAILABLE), rpc)
        with pytest.raises(StoreUnavailableError, match="acquiring the lock"):
            hold_lock(store.migration_locks, "films").__enter__()
        assert 0 == server.faults.pending


def test_a_lock_that_cannot_be_given_back_is_told(
    server: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    """As a warning: the work under it was done."""
    with closing(open_store(server.url, connection=Connection(retry_s=0))) as store:
        with caplog.at_level(logging.WARNING), hold_lock(store.migration_locks, "films") as ours:
            require_lock(store.migration_locks, "films", ours)
            server.faults.inject(Refused(grpc.StatusCode.UNAVAILABLE), "Points.Delete")
        assert ["the lock of 'films' could not be released"] == [
            record.getMessage().split(":")[0] for record in caplog.records
        ]
        with pytest.raises(StoreInUseError, match=ours.token):
            hold_lock(store.migration_locks, "films").__enter__()
