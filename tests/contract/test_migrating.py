"""What every store promises to whoever migrates: one at a time, and one ledger."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path

from msmarco_qdrant.collection.create import create_collection
from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.errors import StoreInUseError
from msmarco_qdrant.migrate.runner import migrate_collection
from msmarco_qdrant.migrate.status import migration_status
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.contract.conftest import OpenStore

OWN = ("0001_create_passages", "0002_payload_indexes")
INDEX = """
from msmarco_qdrant.operations import AddPayloadIndex

DESCRIPTION = "an index of the year"
OPERATION = AddPayloadIndex("year", "integer")
"""


def holder(token: str) -> LockHolder:
    """Somebody with a token."""
    return LockHolder(token, "some-host", 4711, "2026-11-23T00:00:00Z")


def test_a_lock_is_taken_once(store: Store, things: str) -> None:
    """Until it is given back by its token; another name is another lock."""
    ours, theirs = store.migration_locks, store.migration_locks
    assert ours.holder(things) is None
    assert holder("a") == ours.acquire(things, holder("a"))
    assert holder("a") == ours.acquire(things, holder("a"))
    assert holder("a") == theirs.acquire(things, holder("b"))
    assert holder("c") == theirs.acquire(f"{things}-2", holder("c"))
    assert holder("a") == theirs.release(things, "b")
    assert holder("a") == theirs.holder(things)
    assert ours.release(things, "a") is None
    assert ours.release(things, "a") is None
    assert theirs.release(f"{things}-2", "c") is None
    assert holder("b") == theirs.acquire(things, holder("b"))
    assert theirs.release(things, "b") is None


def test_of_many_at_once_one_gets_it(store: Store, things: str) -> None:
    """And all the others are told of that one."""
    locks = store.migration_locks
    wanted = [holder(f"t{number}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        found = set(pool.map(lambda one: locks.acquire(things, one), wanted))
    (one,) = found
    assert one == locks.holder(things)
    assert locks.release(things, one.token) is None


def test_two_at_once_end_with_one_ledger(
    store: Store, open_again: OpenStore, things: str, tmp_path: Path
) -> None:
    """Each migration is applied by one of them, and a third time does nothing."""
    folder = tmp_path / "changes"
    folder.mkdir()
    (folder / "0001_index_year.py").write_text(INDEX)
    (folder / "0002_index_again.py").write_text(INDEX)
    create_collection(store, things, HashingEncoder().info, Bm25Settings())

    def migrate(_number: int) -> list[str]:
        in_memory = store.dsn == ":memory:"  # where each handle is a store of its own
        with nullcontext(store) if in_memory else closing(open_again()) as mine:
            while True:
                try:
                    steps = migrate_collection(mine, things, directory=folder)
                except StoreInUseError:
                    continue
                return [step.name for step in steps]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(migrate, range(2))
    assert ["0001_index_year", "0002_index_again"] == sorted(one + other)
    status = migration_status(store, things, directory=folder)
    assert (*OWN, "0001_index_year", "0002_index_again") == status.applied
    assert (True, None) == (status.is_current, status.locked_by)
    assert [] == migrate(0)
