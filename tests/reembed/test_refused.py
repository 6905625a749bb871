"""What a re-embedding refuses, and what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import ModelComparison, ReembedProgress, ReembedStage
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    MigrationError,
    ModelMismatchError,
    ModelNotFoundError,
    StoreInUseError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.runner import migrate_collection
from msmarco_qdrant.migrate.status import migration_status
from msmarco_qdrant.reembed import run
from msmarco_qdrant.reembed.api import prune_collection, reembed_collection, rollback_collection
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.migration_locks import hold_lock
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder
from tests.reembed.steps import (
    SMALL,
    V2,
    V3,
    Garbled,
    InterruptionError,
    Wordless,
    at,
    check_holds,
    interrupt,
    passages,
    reembed,
    rollback,
)


def test_a_model_that_finds_nothing_is_not_swapped_in(memory: Store) -> None:
    """Unless that is allowed; the old model's being away is no reason."""
    garbled = Garbled(256, salt="garbled")
    with pytest.raises(MigrationError, match=r"of 30 passages, .* the old model finds 30;"):
        reembed(memory, garbled)
    assert "things__0001" == memory.aliases()["things"]
    reembed(memory, garbled, allow_worse=True)
    assert "things__0002" == memory.aliases()["things"]


def test_what_was_written_since_the_copy_is_not_held_against_the_model(store: Store) -> None:
    """Most were removed and written again while the index was built: the rest is compared."""
    again = passages()[5:]

    def write_again() -> None:
        delete_passages(store, [one.pid for one in again], collection="things")
        ingest_passages(again, store, collection="things", encoder=V2)

    report = reembed(store, on_progress=at("index", write_again))
    assert report.comparison is not None
    assert (5, 5, 5) == (
        report.comparison.queries,
        report.comparison.found_before,
        report.comparison.found_after,
    )
    check_holds(store, passages(), V3)


def test_passages_without_a_vector_are_refused(store: Store) -> None:
    """And left out only if that is allowed."""
    ingest_passages([Passage("one", "alone")], store, collection="things", encoder=V2)
    wordless = Wordless(256, salt="wordless")
    with pytest.raises(MigrationError, match="returns no vector for 1 passages, such as 'one'"):
        reembed(store, wordless)
    assert "things__0001" == store.aliases()["things"]
    report = reembed(store, wordless, allow_rejects=True)
    assert (30, ("one",)) == (report.passages, report.without_vector)
    check_holds(store, passages(), wordless)


def test_another_model_than_was_begun_with_is_refused(memory: Store) -> None:
    """Before the swap and after it; `prune` gives up what was not swapped."""
    with pytest.raises(InterruptionError):
        reembed(memory, on_progress=at("index", interrupt))
    with pytest.raises(UsageError, match=r"model must be costless-256v3, .*or abandon it"):
        reembed(memory, SMALL)
    with pytest.raises(MigrationError, match="no collection to go back to: 'things' still"):
        rollback(memory)
    assert ("things__0002",) == prune_collection(memory, "things", dry_run=True)
    assert ("things__0002",) == prune_collection(memory, "things")
    assert () == prune_collection(memory, "things")
    with pytest.raises(InterruptionError):
        reembed(memory, SMALL, on_progress=at("last pass", interrupt))
    with pytest.raises(
        UsageError, match=r"--model costless-128small \(model='costless-128small'\)$"
    ):
        reembed(memory, V3)
    with pytest.raises(MigrationError, match="nothing was removed: the re-embedding of 'things'"):
        prune_collection(memory, "things")
    reembed(memory, SMALL)
    check_holds(memory, passages(), SMALL)


def test_invalid_arguments_are_refused(memory: Store) -> None:
    """Each is told, and nothing is begun."""
    with pytest.raises(UsageError, match=r"pass model=\.\.\. or encoder=\.\.\.$"):
        reembed_collection(memory, "things")
    for change in (reembed_collection, rollback_collection):
        with pytest.raises(UsageError, match="pass either model="):
            change(memory, "things", model="a", encoder=V3)
    with pytest.raises(CollectionNotFoundError, match="no collection 'thing' in"):
        reembed_collection(memory, "thing", model="no-such-model")
    with pytest.raises(MigrationError, match="no collection to go back to"):
        rollback(memory)
    assert {"things": "things__0001"} == dict(memory.aliases())


def test_pending_migrations_come_first(memory: Store) -> None:
    """A new collection has had them all: the ledger could not tell the difference."""
    metadata = memory.metadata("things")
    memory.put_metadata("things", replace(metadata, migrations=()))
    pending = r"has pending migrations \(0001_create_passages, 0002_payload_indexes\)"
    with pytest.raises(MigrationError, match=pending):
        reembed(memory)


def test_no_migration_while_it_is_unfinished(memory: Store, tmp_path: Path) -> None:
    """It would change one collection of the two; what is not pending is no matter."""
    with pytest.raises(InterruptionError):
        reembed(memory, on_progress=at("index", interrupt))
    assert [] == migrate_collection(memory, "things")
    folder = tmp_path / "changes"
    folder.mkdir()
    (folder / "0001_graph.py").write_text(
        "from msmarco_qdrant.operations import SetHnsw\n"
        "DESCRIPTION = 'denser'\nOPERATION = SetHnsw(m=24)\n"
    )
    with pytest.raises(MigrationError, match="with costless-256v3 is not finished"):
        migrate_collection(memory, "things", directory=folder)
    status = migration_status(memory, "things")
    assert ("costless-256v2", "things__0002") == (status.model, status.others[0].physical)
    assert status.copying is not None
    assert ("things__0001", "things__0002", False) == (
        status.copying.source,
        status.copying.target,
        status.copying.is_swapped,
    )


def test_one_at_a_time(store: Store) -> None:
    """Whoever has the lock is told; one whose lock is taken away does not swap."""
    locks = store.migration_locks
    with (
        hold_lock(locks, "things"),
        pytest.raises(StoreInUseError, match="is being migrated or restored by"),
    ):
        reembed(store)

    def steal() -> None:
        holder = locks.holder("things")
        assert holder is not None
        locks.release("things", holder.token)

    with pytest.raises(StoreInUseError, match="the lock of 'things' was removed"):
        reembed(store, on_progress=at("swap", steal))
    assert "things__0001" == store.aliases()["things"]
    reembed(store)
    check_holds(store, passages(), V3)


def test_what_something_else_removes_is_noticed(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the new collection is compared, a passage of it is gone: it is never led to."""
    monkeypatch.setattr(run, "_VERIFY_PASSES", 2)

    def remove(progress: ReembedProgress) -> None:
        if progress.stage == "verify" and progress.done:
            memory.collection("things__0002").delete([point_id("1")], up_to_seq=2**62)

    with pytest.raises(MigrationError, match=r"still differs from things__0001 in 1 pass"):
        reembed(memory, on_progress=remove)
    assert "things__0001" == memory.aliases()["things"]
    reembed(memory)
    check_holds(memory, passages(), V3)


@pytest.mark.parametrize("name", ["things__0001", "things__0002"])
def test_a_physical_name_is_refused(memory: Store, name: str) -> None:
    """What is done to a name concerns all of its collections."""
    reembed(memory)
    message = f"'{name}' is a physical collection of 'things': use the name 'things'"
    for refused in (
        lambda: reembed_collection(memory, name, encoder=SMALL),
        lambda: rollback_collection(memory, name, encoder=V2),
        lambda: prune_collection(memory, name),
        lambda: migrate_collection(memory, name),
        lambda: migration_status(memory, name),
    ):
        with pytest.raises(UsageError, match=message):
            refused()
    assert {"things": "things__0002"} == dict(memory.aliases())


@pytest.mark.parametrize(
    "error",
    [ModelMismatchError("another one"), RuntimeError("no memory"), ModelNotFoundError("no")],
)
def test_an_old_model_that_cannot_be_loaded(
    memory: Store, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Only the new model is compared, with a warning."""

    def fail(_info: EncoderInfo) -> HashingEncoder:
        raise error

    report = reembed_collection(memory, "things", encoder=V3, load_old=fail)
    assert ModelComparison(30, None, 30, None) == report.comparison
    assert f"skipped the comparison with the old model: {error}" in caplog.text
    check_holds(memory, passages(), V3)


@pytest.mark.parametrize("stage", ["index", "verify"])
def test_passages_that_lose_their_vector(memory: Store, stage: ReembedStage) -> None:
    """They are told then, too; left out, nothing older of them is left."""
    wordless = Wordless(256, salt="wordless")

    def write() -> None:
        changed = [replace(passages()[1], text="alone"), Passage("one", "alone")]
        ingest_passages(changed, memory, collection="things", encoder=V2, optimize=False)

    with pytest.raises(
        MigrationError, match="returns no vector for 2 passages, such as '1', 'one'"
    ):
        reembed(memory, wordless, on_progress=at(stage, write))
    assert "things__0001" == memory.aliases()["things"]
    report = reembed(memory, wordless, allow_rejects=True)
    assert ("1", "one") == report.without_vector
    check_holds(memory, [one for one in passages() if one.pid != "1"], wordless)


def test_a_run_that_lost_its_lock_does_not_swap(memory: Store) -> None:
    """Somebody else has finished: what was filled is written to by now."""
    locks = memory.migration_locks

    def somebody_else() -> None:
        ours = locks.holder("things")
        assert ours is not None
        locks.release("things", ours.token)
        reembed(memory)
        locks.acquire("things", ours)

    with pytest.raises(StoreInUseError, match="another process has continued or abandoned"):
        reembed(memory, on_progress=at("swap", somebody_else))
    check_holds(memory, passages(), V3)
    assert 1 == memory.metadata("things").swaps
