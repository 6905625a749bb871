"""Tests of applying migrations: ledger, order, failures, the lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from msmarco_qdrant.collection.create import create_collection
from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    MigrationError,
    StoreError,
    StoreInUseError,
    UnsupportedError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.runner import MigrationStep, migrate_collection
from msmarco_qdrant.migrate.status import migration_status, unlock_migrations
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.migration_locks import hold_lock
from msmarco_qdrant.testing import HashingEncoder, NullStore
from tests.engines import another_handle, new_store
from tests.loopback import LoopbackServer

OWN = ("0001_create_passages", "0002_payload_indexes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for migrations."""
    made = tmp_path / "migrations"
    made.mkdir()
    return made


def write(folder: Path, name: str, body: str = "") -> None:
    """Write a migration that appends its name to a file each time it runs."""
    (folder / f"{name}.py").write_text(
        dedent(f"""
        from pathlib import Path

        DESCRIPTION = "writes {name}"
        COST = "a line"

        def up(store, plan):
            with Path(__file__).with_name("ran.txt").open("a") as file:
                file.write("{name} ")
        """)
        + ("    " + body if body else "")
    )


def ran(folder: Path) -> list[str]:
    """The migrations that ran, in order."""
    note = folder / "ran.txt"
    return note.read_text().split() if note.exists() else []


def ledger(store: Store) -> Sequence[str]:
    """The ledger of 'films'."""
    return store.metadata("films").migrations


# ---- order ---------------------------------------------------------------------------------


def test_pending_migrations_are_applied_in_order(store: Store, folder: Path) -> None:
    """Each is reported before it runs and recorded afterwards."""
    for name in ("0002_b", "0010_c", "0001_a"):
        write(folder, name)
    reported: list[tuple[MigrationStep, list[str], Sequence[str]]] = []
    steps = migrate_collection(
        store,
        "films",
        directory=folder,
        on_step=lambda step: reported.append((step, ran(folder), ledger(store))),
    )
    names = ["0001_a", "0002_b", "0010_c"]
    assert [MigrationStep(name, f"writes {name}", "a line") for name in names] == steps
    assert steps == [step for step, _, _ in reported]
    assert [names[:0], names[:1], names[:2]] == [before for _, before, _ in reported]
    assert [(*OWN, *names[:0]), (*OWN, *names[:1]), (*OWN, *names[:2])] == [
        kept for *_, kept in reported
    ]
    assert (*OWN, *names) == ledger(store)
    assert names == ran(folder)


def test_a_collection_of_older_code_has_one_pending(store: Store) -> None:
    """Its only migration also created its indexes, so only the ledger changes."""
    metadata, info = store.metadata("films"), store.collection("films").info()
    store.put_metadata("films", replace(metadata, migrations=OWN[:1]))
    status = migration_status(store, "films")
    assert ([*OWN[1:]], False) == ([one.name for one in status.pending], status.is_current)
    (step,) = migrate_collection(store, "films")
    assert step.cost.startswith("almost nothing")
    assert (metadata, info) == (store.metadata("films"), store.collection("films").info())
    assert [] == migrate_collection(store, "films")


def test_a_migration_that_was_added_later_is_applied_alone(store: Store, folder: Path) -> None:
    """Applied migrations do not run again, from any handle."""
    write(folder, "0001_a")
    migrate_collection(store, "films", directory=folder)
    metadata = store.metadata("films")
    with another_handle(store) as other:
        assert [] == migrate_collection(other, "films", directory=folder)
        assert metadata == other.metadata("films")
    write(folder, "0004_b")
    assert ["0004_b"] == [one.name for one in migrate_collection(store, "films", directory=folder)]
    assert ["0001_a", "0004_b"] == ran(folder)


@pytest.mark.parametrize("to", ["0005_b", "5", "0005"])
def test_to_is_the_last_migration_to_apply(folder: Path, to: str) -> None:
    """By its name or number; the rest stays pending."""
    for name in ("0005_b", "0006_c", "0007_d"):
        write(folder, name)
    with new_store("memory", folder) as store:
        create_collection(store, "films", HashingEncoder().info, Bm25Settings())
        assert 1 == len(migrate_collection(store, "films", directory=folder, to=to))
        assert [] == migrate_collection(store, "films", directory=folder, to=to)
        assert [] == migrate_collection(store, "films", directory=folder, to=OWN[0])
        status = migration_status(store, "films", directory=folder)
    assert ["0006_c", "0007_d"] == [one.name for one in status.pending]
    assert not status.is_current


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (
            "0009",
            "must be one of 0001_create_passages, 0002_payload_indexes, 0001_a, 0002_b, got 0009",
        ),
        ("b", "got b"),
        ("1", "1 is the number of 0001_create_passages and of 0001_a: give the name"),
    ],
)
def test_an_invalid_to_is_refused(folder: Path, to: str, message: str) -> None:
    """An unknown or ambiguous name or number; nothing runs."""
    for name in ("0001_a", "0002_b"):
        write(folder, name)
    with new_store("memory", folder) as store, pytest.raises(UsageError, match=message):
        migrate_collection(store, "films", directory=folder, to=to)
    assert [] == ran(folder)


def test_a_dry_run_changes_nothing(store: Store, folder: Path) -> None:
    """It reports the same steps, runs none, and does not take or need the lock."""
    write(folder, "0001_a")
    write(folder, "0002_b")
    before, reported = store.metadata("films"), list[MigrationStep]()
    with hold_lock(store.migration_locks, "films"):
        steps = migrate_collection(
            store, "films", directory=folder, dry_run=True, on_step=reported.append
        )
    assert ["0001_a", "0002_b"] == [step.name for step in steps]
    assert reported == steps
    assert ([], before) == (ran(folder), store.metadata("films"))
    assert migrate_collection(store, "films", directory=folder) == steps


# ---- ledgers that do not fit ---------------------------------------------------------------


def test_migrations_of_newer_code_are_refused(store: Store, folder: Path) -> None:
    """The message names them and nothing is applied; the status lists them."""
    write(folder, "0001_a")
    metadata = store.metadata("films")
    assert () == metadata.user_migrations  # so the next names are not those of a user
    later = (*OWN, "0002_of_tomorrow", "0003_too")
    store.put_metadata("films", replace(metadata, migrations=later))
    for dry_run in (True, False):
        with pytest.raises(
            MigrationError,
            match=r"'films' contains unknown migrations: 0002_of_tomorrow, 0003_too\..*--dir",
        ):
            migrate_collection(store, "films", directory=folder, dry_run=dry_run)
    assert ([], later) == (ran(folder), ledger(store))
    status = migration_status(store, "films", directory=folder)
    assert ("0002_of_tomorrow", "0003_too") == status.unknown
    assert (["0001_a"], False) == ([one.name for one in status.pending], status.is_current)


def test_a_pending_migration_before_an_applied_one_is_refused(store: Store, folder: Path) -> None:
    """It was written for a collection without the later one."""
    write(folder, "0001_a")
    write(folder, "0003_c")
    migrate_collection(store, "films", directory=folder)
    write(folder, "0002_b")
    with pytest.raises(
        MigrationError, match="0002_b comes before 0003_c, which is already applied to 'films'"
    ):
        migrate_collection(store, "films", directory=folder)
    assert (*OWN, "0001_a", "0003_c") == ledger(store)


@pytest.mark.parametrize(
    ("names", "message"), [((OWN[0],), f"contains {OWN[0]}"), ((), "contains no migration")]
)
def test_an_invalid_folder_is_refused(folder: Path, names: Sequence[str], message: str) -> None:
    """It contains a name of the package's own migrations, or nothing."""
    for name in names:
        write(folder, name)
    with new_store("memory", folder) as store, pytest.raises(UsageError, match=message):
        migration_status(store, "films", directory=folder)


def test_a_missing_collection(store: Store) -> None:
    """It is not locked."""
    for act in (migration_status, migrate_collection):
        with pytest.raises(CollectionNotFoundError, match=r"'nope'.*films"):
            act(store, "nope")
    with pytest.raises(CollectionNotFoundError, match="nope"):
        unlock_migrations(store, "nope", "token")
    assert store.migration_locks.holder("nope") is None


def test_a_store_without_locks_is_refused() -> None:
    """For example a user's own store."""
    store = NullStore()
    create_collection(store, "films", HashingEncoder().info, Bm25Settings())
    with pytest.raises(UnsupportedError, match="cannot lock a collection"):
        migrate_collection(store, "films")


# ---- failures ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["ValueError('no such year')", "StoreError('no such year')"])
def test_a_failing_migration_is_not_recorded_and_runs_again(
    store: Store, folder: Path, error: str
) -> None:
    """Earlier ones stay, later ones stay pending, and the lock is released."""
    switch = folder / "fixed"
    write(folder, "0001_a")
    write(
        folder,
        "0002_b",
        "from msmarco_qdrant.errors import StoreError\n"
        f"    if not Path({str(switch)!r}).exists(): raise {error}",
    )
    write(folder, "0003_c")
    message = "ValueError: no such year" if error.startswith("V") else "no such year"
    with pytest.raises(MigrationError, match=f"0002_b failed on 'films': {message}") as caught:
        migrate_collection(store, "films", directory=folder)
    assert isinstance(caught.value.__cause__, ValueError | StoreError)
    assert (*OWN, "0001_a") == ledger(store)
    assert store.migration_locks.holder("films") is None
    switch.touch()
    steps = migrate_collection(store, "films", directory=folder)
    assert ["0002_b", "0003_c"] == [step.name for step in steps]
    assert (*OWN, "0001_a", "0002_b", "0003_c") == ledger(store)
    assert ["0001_a", "0002_b", "0002_b", "0003_c"] == ran(folder)


def test_an_interrupted_migration_is_not_recorded(store: Store, folder: Path) -> None:
    """Control-C is not a failure of the migration, and releases the lock."""
    write(folder, "0001_a", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        migrate_collection(store, "films", directory=folder)
    assert OWN == ledger(store)
    assert store.migration_locks.holder("films") is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('year')", "failed on 'films': KeyError: 'year'"),
        ("return 7", "must return a line of text, got 7"),
        ("pass", "must return a line of text, got None"),
    ],
)
def test_an_invalid_cost_is_a_failure(folder: Path, body: str, message: str) -> None:
    """Nothing is applied."""
    (folder / "0001_a.py").write_text(
        dedent(f"""
        DESCRIPTION = "a class"

        class Operation:
            def cost(self, target):
                {body}

            def apply(self, target):
                raise RuntimeError("not reached")

        OPERATION = Operation()
        """)
    )
    with new_store("memory", folder) as store:
        create_collection(store, "films", HashingEncoder().info, Bm25Settings())
        with pytest.raises(MigrationError, match=rf"the cost\(\) of 0001_a {message}"):
            migrate_collection(store, "films", directory=folder)


def test_a_function_gets_the_plan(store: Store, folder: Path) -> None:
    """The plan has the current settings of the collection."""
    write(
        folder,
        "0001_a",
        "assert store.collection(plan.physical).info().name == 'films__0001'\n"
        f"    assert plan.encoder.model == {HashingEncoder().info.model!r}\n"
        "    assert plan.storage == store.collection('films').info().spec.storage\n"
        "    assert plan.bm25 == store.metadata('films').bm25",
    )
    assert 1 == len(migrate_collection(store, "films", directory=folder))


def test_an_index_that_a_server_could_not_build(folder: Path) -> None:
    """The migration fails; when the server can build it, the same migration completes it."""
    (folder / "0001_graph.py").write_text(
        "from msmarco_qdrant.operations import SetHnsw\n"
        "DESCRIPTION = 'a denser graph'\n"
        "OPERATION = SetHnsw(m=32)\n"
    )
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ingest_passages([Passage("1", "one")], store, collection="films", encoder=HashingEncoder())
        server.set_status("films", "red", optimizer_error="no space left")
        with pytest.raises(MigrationError, match=r"0001_graph failed on 'films': .*no space left"):
            migrate_collection(store, "films", directory=folder)
        assert OWN == ledger(store)
        server.set_status("films", "green")
        (step,) = migrate_collection(store, "films", directory=folder)
        assert step.cost.startswith("nothing changes; an incomplete index is completed")
        assert (*OWN, "0001_graph") == ledger(store)


# ---- several processes ---------------------------------------------------------------------


def test_a_second_process_is_refused(store: Store, folder: Path) -> None:
    """The message has process, host and start; nothing runs twice."""
    write(folder, "0001_a")

    def second(_step: MigrationStep) -> None:
        with another_handle(store) as other:
            found = migration_status(other, "films", directory=folder).locked_by
            assert found is not None
            message = f"process {found.pid} on {found.host} since {found.since}.*{found.token}"
            with pytest.raises(StoreInUseError, match=message):
                migrate_collection(other, "films", directory=folder)

    migrate_collection(store, "films", directory=folder, on_step=second)
    assert [] == migrate_collection(store, "films", directory=folder)
    assert ["0001_a"] == ran(folder)


def test_concurrent_runs_end_with_one_ledger(store: Store, folder: Path) -> None:
    """Four handles: each migration runs once."""
    for name in ("0001_a", "0002_b", "0003_c"):
        write(folder, name)
    start = threading.Barrier(4)

    def migrate(store: Store) -> list[str]:
        with another_handle(store) as mine:
            start.wait(60)
            while True:
                try:
                    done = migrate_collection(mine, "films", directory=folder)
                except StoreInUseError:
                    time.sleep(0.01)
                    continue
                return [step.name for step in done]

    with ThreadPoolExecutor(4) as pool:
        done = [name for names in pool.map(migrate, [store] * 4) for name in names]
    assert (*OWN, "0001_a", "0002_b", "0003_c") == ledger(store)
    assert ["0001_a", "0002_b", "0003_c"] == sorted(done) == ran(folder)


def test_each_collection_has_its_own_lock(store: Store, folder: Path) -> None:
    """Another collection of the same store can be migrated at the same time."""
    write(folder, "0001_a")
    create_collection(store, "books", HashingEncoder().info, Bm25Settings())
    with hold_lock(store.migration_locks, "books"):
        assert 1 == len(migrate_collection(store, "films", directory=folder))


def test_an_abandoned_lock_is_released_by_its_token(store: Store, folder: Path) -> None:
    """A stale token is refused; a missing lock is not an error."""
    write(folder, "0001_a")
    with hold_lock(store.migration_locks, "films") as first:
        pass
    unlock_migrations(store, "films", first.token)
    with hold_lock(store.migration_locks, "films") as second:
        with pytest.raises(
            StoreInUseError, match=f"with the token {second.token}, not {first.token}"
        ):
            unlock_migrations(store, "films", first.token)
        with pytest.raises(StoreInUseError, match=f"--token {second.token}"):
            migrate_collection(store, "films", directory=folder)
        unlock_migrations(store, "films", second.token)
        assert migration_status(store, "films").locked_by is None
        assert 1 == len(migrate_collection(store, "films", directory=folder))


def test_the_ledger_is_not_written_without_the_lock(store: Store, folder: Path) -> None:
    """Another user released the lock during the run; a later run continues."""
    write(folder, "0001_a")
    write(folder, "0002_b")

    def steal(step: MigrationStep) -> None:
        if step.name == "0002_b":
            holder = migration_status(store, "films").locked_by
            assert holder is not None
            unlock_migrations(store, "films", holder.token)

    with pytest.raises(StoreInUseError, match="removed from this process, and nobody holds it"):
        migrate_collection(store, "films", directory=folder, on_step=steal)
    assert (*OWN, "0001_a") == ledger(store)
    assert ["0002_b"] == [
        step.name for step in migrate_collection(store, "films", directory=folder)
    ]


def test_an_operation_stops_at_its_next_write_without_the_lock(store: Store, folder: Path) -> None:
    """A lost lock is not a failure of the migration."""
    ingest_passages([Passage("1", "one")], store, collection="films", encoder=HashingEncoder())
    (folder / "0001_texts.py").write_text(
        "from msmarco_qdrant.operations import SetBm25\n"
        "DESCRIPTION = 'shorter texts'\n"
        "OPERATION = SetBm25(avg_len=5)\n"
    )

    def steal(_done: int, _total: int) -> None:
        holder = migration_status(store, "films").locked_by
        assert holder is not None
        unlock_migrations(store, "films", holder.token)

    with pytest.raises(StoreInUseError, match="removed from this process, and nobody holds it"):
        migrate_collection(store, "films", directory=folder, on_progress=steal)
    assert (Bm25Settings(), OWN) == (store.metadata("films").bm25, ledger(store))
    assert 1 == len(migrate_collection(store, "films", directory=folder))
    assert Bm25Settings(avg_len=5.0) == store.metadata("films").bm25


def test_a_status_creates_nothing_on_a_server(folder: Path) -> None:
    """It needs no permission to write, and creates no collection of locks."""
    write(folder, "0001_a")
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        create_collection(store, "films", HashingEncoder().info, Bm25Settings())
        assert not migration_status(store, "films", directory=folder).is_current
        migrate_collection(store, "films", directory=folder, dry_run=True)
        unlock_migrations(store, "films", "no token")
        with server.inspect() as client:
            names = {entry.name for entry in client.get_collections().collections}
        assert {"films__0001"} == names
