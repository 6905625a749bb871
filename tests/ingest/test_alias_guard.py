"""Ingests whose collection is replaced while they run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.core.reports import IngestProgress
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    CollectionReplacedError,
    IngestStoppedError,
    ModelMismatchError,
    PruneRefusedError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.migration_locks import hold_lock
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import ENGINES_MEMORY_FIRST, each_engine
from tests.generations import physical, swap

OLD, NEW = HashingEncoder(), HashingEncoder(32, salt="new")
PASSAGES = [Passage(str(number), f"text {number}") for number in range(30)]
EVERYTHING = PrunePolicy(max_share=1)


def seq_by_pid(store: Store, name: str) -> dict[str, int]:
    """The `seq` of each passage of a collection."""
    points = store.collection(name).scan(["pid", "seq"])
    return {payload["pid"]: payload["seq"] for _, payload in points}


def after_ten(act: Callable[[], object]) -> Callable[[IngestProgress], None]:
    """A progress callback that acts once, after ten passages were written."""
    actions = [act]

    def on_progress(progress: IngestProgress) -> None:
        if progress.report.written >= 10 and actions:
            actions.pop()()

    return on_progress


def ingest_until_stopped(
    store: Store,
    on_progress: Callable[[IngestProgress], None],
    prune: PrunePolicy | None = None,
) -> IngestStoppedError:
    """The error of an ingest of thirty passages in windows of ten."""
    with pytest.raises(IngestStoppedError) as caught:
        ingest_passages(
            PASSAGES, store, encoder=OLD, window=10, on_progress=on_progress, prune=prune
        )
    return caught.value


@each_engine
def test_writes_after_a_swap_do_not_count(store: Store) -> None:
    """The error names both collections and the model; the next ingest writes everything."""
    error = ingest_until_stopped(store, after_ten(lambda: swap(store, NEW)))

    assert isinstance(error.__cause__, CollectionReplacedError)
    assert "with costless-32new (msmarco__0002) while this ingest wrote to msmarco__0001" in str(
        error
    )
    assert (10, 10) == (error.report.read, error.report.written)
    assert {} == seq_by_pid(store, "msmarco__0002")
    with pytest.raises(ModelMismatchError, match="costless-32new"):
        ingest_passages(PASSAGES, store, encoder=OLD)

    report = ingest_passages(PASSAGES, store, encoder=NEW)

    assert 30 == report.written
    assert {passage.pid for passage in PASSAGES} == seq_by_pid(store, "msmarco__0002").keys()


def test_a_swap_that_was_rolled_back_is_noticed(store: Store) -> None:
    """A reader of the other collection may have missed the writes in between."""

    def swap_and_roll_back() -> None:
        swap(store, NEW)
        metadata = store.metadata("msmarco__0001")
        store.put_metadata("msmarco__0001", replace(metadata, swaps=2))
        store.set_alias("msmarco", "msmarco__0001")

    error = ingest_until_stopped(store, after_ten(swap_and_roll_back))

    assert isinstance(error.__cause__, CollectionReplacedError)
    assert "rolled back to msmarco__0001" in str(error)
    assert 10 == error.report.written
    assert 20 == ingest_passages(PASSAGES[10:], store, encoder=OLD).read


@each_engine
def test_the_swap_is_the_cause_if_the_old_collection_is_dropped(store: Store) -> None:
    """The failed write is reported as the swap that preceded it."""

    def swap_and_drop() -> None:
        swap(store, NEW)
        store.drop_collection("msmarco__0001")

    error = ingest_until_stopped(store, after_ten(swap_and_drop))

    assert isinstance(error.__cause__, CollectionReplacedError)
    assert "with model=costless-32new, or without a model, to continue" in str(error)
    assert 10 == error.report.written


@pytest.mark.slow
def test_a_dropped_collection_is_reported(store: Store) -> None:
    """The same ingest creates it again."""
    error = ingest_until_stopped(store, after_ten(lambda: drop_collection(store, "msmarco")))

    assert isinstance(error.__cause__, CollectionNotFoundError)
    assert "dropped collection 'msmarco' while this ingest wrote to msmarco__0001" in str(error)
    assert 30 == ingest_passages(PASSAGES, store, encoder=OLD).written


@pytest.mark.parametrize(("stage", "pruned"), [("index", 0), ("prune", 1)])
def test_a_swap_before_or_during_a_prune(store: Store, stage: str, pruned: int) -> None:
    """Before it, nothing is removed; during it, the removed passages are counted."""
    ingest_passages([Passage("stale", "text")], store, encoder=OLD)

    def swap_at_stage(progress: IngestProgress) -> None:
        if progress.stage == stage:
            swap(store, NEW)

    error = ingest_until_stopped(store, swap_at_stage, prune=EVERYTHING)

    assert isinstance(error.__cause__, CollectionReplacedError)
    assert (30, pruned) == (error.report.written, error.report.pruned)
    assert bool(pruned) == ("stale" not in seq_by_pid(store, "msmarco__0001"))


# ---- while a re-embedding copies older writes ----------------------------------------------


@pytest.fixture
def half_copied(store: Store) -> Store:
    """A store whose alias points to a new collection, into which half of the old is copied."""
    ingest_passages(PASSAGES, store, encoder=OLD)
    swap(store, NEW)
    ingest_passages(PASSAGES[::2], store, encoder=NEW)
    set_copied_from(store, "msmarco__0001")
    return store


def set_copied_from(store: Store, source: str | None) -> None:
    """Note in the metadata that a copy runs, or that it ended."""
    store.put_metadata("msmarco", replace(store.metadata("msmarco"), copied_from=source))


def test_unchanged_passages_are_written_again(half_copied: Store) -> None:
    """Their `seq` is then higher than that of any write that is still to be copied."""
    seq_ahead_of_clock = 2**62
    old = half_copied.collection("msmarco__0001")
    (payload,) = old.retrieve([0], ["pid", "text", "meta", "text_digest", "meta_digest"]).values()
    old.replace_payloads([0], [{**payload, "seq": seq_ahead_of_clock}])

    report = ingest_passages(PASSAGES, half_copied, encoder=NEW)

    assert (30, 0) == (report.written, report.unchanged)
    assert seq_ahead_of_clock < min(seq_by_pid(half_copied, "msmarco").values())


def test_a_prune_is_refused_during_a_copy(half_copied: Store) -> None:
    """Passages to be copied cannot be compared yet."""
    with pytest.raises(PruneRefusedError, match="the re-embedding of 'msmarco' is not finished"):
        ingest_passages(PASSAGES[:20], half_copied, encoder=NEW, prune=EVERYTHING)
    assert 25 == len(seq_by_pid(half_copied, "msmarco"))


def test_unchanged_passages_are_skipped_after_the_copy(half_copied: Store) -> None:
    """The copied half is not encoded again."""
    set_copied_from(half_copied, None)

    report = ingest_passages(PASSAGES, half_copied, encoder=NEW)

    assert (15, 15) == (report.written, report.unchanged)


def test_the_source_of_the_copy_may_be_dropped(half_copied: Store) -> None:
    """Somebody dropped it by its physical name."""
    half_copied.drop_collection("msmarco__0001")

    assert 30 == ingest_passages(PASSAGES, half_copied, encoder=NEW).written


@pytest.mark.parametrize("store", ENGINES_MEMORY_FIRST, indirect=True)
def test_an_interrupted_re_embedding_is_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Once per run, after the swap, unless a process continues it."""
    caplog.set_level(logging.WARNING, "msmarco_qdrant")
    ingest_passages(PASSAGES, store, encoder=OLD)
    physical(store, NEW, copied_from="msmarco__0001")
    ingest_passages(PASSAGES, store, encoder=OLD)
    store.set_alias("msmarco", "msmarco__0002")
    with hold_lock(store.migration_locks, "msmarco"):
        ingest_passages(PASSAGES, store, encoder=NEW)
    assert [] == caplog.messages

    ingest_passages(PASSAGES, store, encoder=NEW)

    (message,) = caplog.messages
    assert "'msmarco' is not finished: run `msmarco-qdrant migrate reembed --model " in message
