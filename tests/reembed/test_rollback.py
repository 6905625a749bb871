"""The way back, and what is done with what is left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from msmarco_qdrant.collection.generations import physical_collections
from msmarco_qdrant.collection.metadata import save_search_defaults
from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.collection_types import PointBatch, SparseVector
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import ReembedStage
from msmarco_qdrant.core.search_defaults import SearchDefaults
from msmarco_qdrant.errors import MigrationError, ModelMismatchError, StoreCorruptError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.status import migration_status
from msmarco_qdrant.reembed.api import prune_collection
from msmarco_qdrant.stores import Store
from tests.reembed.steps import (
    LOADED,
    SMALL,
    V2,
    V3,
    InterruptionError,
    Wordless,
    at,
    at_each_stage,
    at_stages,
    check_holds,
    interrupt,
    passages,
    reembed,
    rollback,
)


def test_the_way_back_keeps_what_was_written_since(store: Store) -> None:
    """And deleted; then there is nothing before it, but the other one can be gone to again."""
    reembed(store)
    changed = [replace(passages()[1], text="since then"), Passage("new", "a new one")]
    ingest_passages(changed, store, collection="things", encoder=V3)
    delete_passages(store, ["4"], collection="things")
    kept = [*(one for one in passages() if one.pid not in ("1", "4")), *changed]
    encoded = V2.encoded
    report = rollback(store)
    assert ("things__0002", "things__0001", 2) == (report.old, report.new, report.copied)
    assert 2 == V2.encoded - encoded
    check_holds(store, kept, V2)
    with pytest.raises(MigrationError, match=r"things__0002 exists: .* --model costless-256v3 "):
        rollback(store)
    forth = reembed(store)
    assert ("things__0002", 0, 3) == (forth.new, forth.copied, store.metadata("things").swaps)
    check_holds(store, kept, V3)
    assert "things__0001" == store.metadata("things").previous
    assert ("things__0001",) == prune_collection(store, "things")
    with pytest.raises(MigrationError, match=r"'things' points to things__0002$"):
        rollback(store)


def test_search_defaults_belong_to_the_model_of_before(
    memory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The new model starts without them, with a warning; the way back has them again."""
    kept = SearchDefaults(ef=64, source="a test")
    save_search_defaults(memory, kept, collection="things")
    reembed(memory)
    assert SearchDefaults() == memory.metadata("things").search_defaults
    assert "the search defaults of 'things', ef 64 (a test), were chosen for" in caplog.text
    rollback(memory)
    assert kept == memory.metadata("things").search_defaults


@pytest.mark.slow
@at_each_stage
def test_an_interrupted_way_back_goes_on(store: Store, stage: ReembedStage) -> None:
    """With what is written meanwhile; and it never turns round once more."""
    reembed(store)
    with pytest.raises(InterruptionError):
        rollback(store, on_progress=at(stage, interrupt))
    live = store.metadata("things").encoder
    ingest_passages([Passage("new", "new")], store, collection="things", encoder=LOADED[live])
    rollback(store)
    check_holds(store, [*passages(), Passage("new", "new")], V2)
    assert (None, None) == (
        store.metadata("things").previous,
        store.metadata("things").copied_from,
    )


def test_the_way_back_of_an_unfinished_re_embedding_finishes_it_first(memory: Store) -> None:
    """After the swap the old collection alone may hold a passage; then it goes back."""

    def late() -> None:
        ingest_passages([Passage("late", "late")], memory, collection="things", encoder=V2)
        raise InterruptionError

    with pytest.raises(InterruptionError):
        reembed(memory, on_progress=at("swap", late))
    memory.set_alias("things", "things__0002")  # as if the interruption had come a moment later
    report = rollback(memory)
    assert ("things__0002", "things__0001", 2) == (
        report.old,
        report.new,
        memory.metadata("things").swaps,
    )
    check_holds(memory, [*passages(), Passage("late", "late")], V2)


def test_the_way_back_wants_the_model_of_before(memory: Store) -> None:
    """Another one is refused, and nothing is begun."""
    reembed(memory)
    with pytest.raises(ModelMismatchError, match="costless-128small"):
        rollback(memory, SMALL)
    assert memory.metadata("things__0001").copied_from is None


def test_a_source_that_was_removed_by_hand(memory: Store) -> None:
    """There is nothing to be copied any more: the same command again is done with it."""
    with pytest.raises(InterruptionError):
        reembed(memory, on_progress=at("last pass", interrupt))
    memory.drop_collection("things__0001")
    assert migration_status(memory, "things").copying is None
    assert 0 == reembed(memory).copied
    assert memory.metadata("things").copied_from is None
    reembed(memory, SMALL)
    check_holds(memory, passages(), SMALL)


def test_back_to_the_model_of_before_by_its_name(store: Store) -> None:
    """As `rollback` does it: interrupted after the swap it is known, and nothing is lost."""
    reembed(store)

    def late() -> None:
        ingest_passages([Passage("late", "late")], store, collection="things", encoder=V3)

    with pytest.raises(InterruptionError):
        reembed(store, V2, on_progress=at_stages({"swap": late, "last pass": interrupt}))
    metadata = store.metadata("things")
    assert ("things__0002", 2, V2.info) == (metadata.copied_from, metadata.swaps, metadata.encoder)
    with pytest.raises(MigrationError, match="nothing was removed: the re-embedding of 'things'"):
        prune_collection(store, "things")
    reembed(store, V2)
    check_holds(store, [*passages(), Passage("late", "late")], V2)
    assert store.metadata("things").previous is None


def test_what_was_left_out_is_there_again(store: Store) -> None:
    """Passages without a vector under the new model were never deleted."""
    alone = Passage("one", "alone")
    ingest_passages([alone], store, collection="things", encoder=V2)
    wordless = Wordless(256, salt="wordless")
    LOADED[wordless.info] = wordless
    reembed(store, wordless, allow_rejects=True)
    delete_passages(store, ["1"], collection="things")
    rollback(store)
    check_holds(store, [*(one for one in passages() if one.pid != "1"), alone], V2)


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_rollback_while_a_third_model_is_begun(memory: Store, *, unfinished: bool) -> None:
    """It works whether the unfinished re-embedding is abandoned before or pruned after."""
    reembed(memory)
    with pytest.raises(InterruptionError):
        reembed(memory, SMALL, on_progress=at("index", interrupt))
    if unfinished:
        for dropped in (True, False):
            assert ("things__0003",) == prune_collection(
                memory, "things", unfinished=True, dry_run=dropped
            )
        assert () == prune_collection(memory, "things", unfinished=True)
    rollback(memory)
    left = ("things__0002",) if unfinished else ("things__0002", "things__0003")
    assert left == prune_collection(memory, "things")
    check_holds(memory, passages(), V2)


def test_a_way_back_that_was_begun_is_given_up(memory: Store) -> None:
    """Nothing is removed; later it can be gone again, with what came meanwhile."""
    reembed(memory)
    with pytest.raises(InterruptionError):
        rollback(memory, on_progress=at("index", interrupt))
    assert () == prune_collection(memory, "things", unfinished=True)
    assert migration_status(memory, "things").copying is None
    reembed(memory, SMALL)
    check_holds(memory, passages(), SMALL)
    rollback(memory, V3)
    check_holds(memory, passages(), V3)


def test_a_collection_of_another_application_stays(memory: Store) -> None:
    """The prune fails before it drops anything."""
    reembed(memory)
    spec = memory.collection("things").info().spec
    memory.create_collection("things__0007", spec)
    foreign = memory.collection("things__0007")
    vectors = V3.encode_queries(["foreign"])
    sparse = [SparseVector([1], [1.0])]
    foreign.upsert(PointBatch(spec.dense, [1], vectors, sparse, [{"seq": 1}]))
    with pytest.raises(StoreCorruptError, match="things__0007"):
        prune_collection(memory, "things")
    assert 1 == foreign.info().points
    rollback(memory)
    check_holds(memory, passages(), V2)


def test_the_rest_of_an_interrupted_creation_is_removed(memory: Store) -> None:
    """It is empty."""
    memory.create_collection("things__0002", memory.collection("things").info().spec)
    assert ("things__0002",) == prune_collection(memory, "things")
    assert ["things__0001"] == [*physical_collections(memory, "things")]
