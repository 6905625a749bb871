"""An ingest whose collection is replaced meanwhile: what counts, and what the next run does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

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
from tests.engines import ENGINES, new_store
from tests.generations import physical, swap

OLD, NEW = HashingEncoder(), HashingEncoder(32, salt="new")
PASSAGES = [Passage(str(number), f"text {number}") for number in range(30)]
EVERYTHING = PrunePolicy(max_share=1)


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each engine in turn."""
    with new_store(request.param, tmp_path) as opened:
        yield opened


def held_by(store: Store, name: str) -> dict[str, int]:
    """The `seq` of each passage of a collection, by pid."""
    points = store.collection(name).scan(["pid", "seq"])
    return {payload["pid"]: payload["seq"] for _, payload in points}


def after_ten(act: Callable[[], object]) -> Callable[[IngestProgress], None]:
    """What acts once, when ten passages are counted as written."""
    todo = [act]

    def tell(progress: IngestProgress) -> None:
        if progress.report.written >= 10 and todo:
            todo.pop()()

    return tell


def stopped(
    store: Store,
    on_progress: Callable[[IngestProgress], None],
    prune: PrunePolicy | None = None,
) -> IngestStoppedError:
    """How an ingest of thirty passages in windows of ten ended."""
    with pytest.raises(IngestStoppedError) as caught:
        ingest_passages(
            PASSAGES, store, encoder=OLD, window=10, on_progress=on_progress, prune=prune
        )
    return caught.value


def test_what_was_written_after_a_swap_does_not_count(store: Store) -> None:
    """The error names both collections and the model; the same ingest again writes everything."""
    error = stopped(store, after_ten(lambda: swap(store, NEW)))

    assert isinstance(error.__cause__, CollectionReplacedError)
    assert "with costless-32new (msmarco__0002) while this ingest wrote to msmarco__0001" in str(
        error
    )
    assert (10, 10) == (error.report.read, error.report.written)
    assert {} == held_by(store, "msmarco__0002")

    report = ingest_passages(PASSAGES, store, encoder=NEW)

    assert 30 == report.written
    assert {passage.pid for passage in PASSAGES} == held_by(store, "msmarco__0002").keys()


def test_the_old_model_is_refused_by_name_then(store: Store) -> None:
    """The message of the next run says which model to pass."""
    stopped(store, after_ten(lambda: swap(store, NEW)))

    with pytest.raises(ModelMismatchError, match="pass --model costless-32new"):
        ingest_passages(PASSAGES, store, encoder=OLD)


def test_a_swap_there_and_back_is_noticed(store: Store) -> None:
    """Meanwhile, what was written may have been taken for something that nobody wrote."""

    def there_and_back() -> None:
        swap(store, NEW)
        metadata = store.metadata("msmarco__0001")
        store.put_metadata("msmarco__0001", replace(metadata, swaps=2))
        store.set_alias("msmarco", "msmarco__0001")

    error = stopped(store, after_ten(there_and_back))

    assert isinstance(error.__cause__, CollectionReplacedError)
    assert "led back to msmarco__0001" in str(error)
    assert 10 == error.report.written
    assert 20 == ingest_passages(PASSAGES[10:], store, encoder=OLD).read


def test_a_replaced_collection_may_be_gone(store: Store) -> None:
    """The write that fails then is explained by what happened."""

    def prune_after_swap() -> None:
        swap(store, NEW)
        store.drop_collection("msmarco__0001")

    error = stopped(store, after_ten(prune_after_swap))

    assert isinstance(error.__cause__, CollectionReplacedError)
    assert "run the same ingest again; it goes on with the new model" in str(error)
    assert 10 == error.report.written


def test_a_dropped_collection_is_told(store: Store) -> None:
    """Nothing is at its name; the same ingest again makes it anew."""
    error = stopped(store, after_ten(lambda: drop_collection(store, "msmarco")))

    assert isinstance(error.__cause__, CollectionNotFoundError)
    assert "'msmarco' was dropped while this ingest wrote to msmarco__0001" in str(error)
    assert 30 == ingest_passages(PASSAGES, store, encoder=OLD).written


@pytest.mark.parametrize(("stage", "pruned"), [("index", 0), ("prune", 1)])
def test_a_swap_before_or_during_a_prune_is_told(store: Store, stage: str, pruned: int) -> None:
    """Before, nothing is removed; during, what was removed is counted."""
    ingest_passages([Passage("stale", "text")], store, encoder=OLD)

    def tell(progress: IngestProgress) -> None:
        if progress.stage == stage:
            swap(store, NEW)

    error = stopped(store, tell, prune=EVERYTHING)

    assert isinstance(error.__cause__, CollectionReplacedError)
    assert (30, pruned) == (error.report.written, error.report.pruned)
    assert bool(pruned) == ("stale" not in held_by(store, "msmarco__0001"))


# ---- while older writes are being copied ---------------------------------------------------


def swapped_unfinished(store: Store, passages: Sequence[Passage]) -> None:
    """A name that leads to the new collection, which holds half of what the old one does."""
    ingest_passages(passages, store, encoder=OLD)
    swap(store, NEW)
    ingest_passages(passages[::2], store, encoder=NEW)
    metadata = store.metadata("msmarco__0002")
    store.put_metadata("msmarco__0002", replace(metadata, copied_from="msmarco__0001"))


def test_what_looks_unchanged_is_written_anew(store: Store) -> None:
    """So that it is newer than whatever is still to be copied over it, ahead of time or not."""
    swapped_unfinished(store, PASSAGES)
    ahead = 2**62
    once = store.collection("msmarco__0001")
    (payload,) = once.retrieve([0], ["pid", "text", "meta", "text_digest", "meta_digest"]).values()
    once.replace_payloads([0], [{**payload, "seq": ahead}])

    report = ingest_passages(PASSAGES, store, encoder=NEW)

    assert (30, 0) == (report.written, report.unchanged)
    assert ahead < min(held_by(store, "msmarco").values())


def test_nothing_is_pruned_while_it_is_copied_into(store: Store) -> None:
    """What is still to come could not be looked at."""
    ingest_passages(PASSAGES, store, encoder=NEW)
    metadata = store.metadata("msmarco")
    store.put_metadata("msmarco", replace(metadata, copied_from="msmarco__0000"))

    with pytest.raises(PruneRefusedError, match="the re-embedding of 'msmarco' is not finished"):
        ingest_passages(PASSAGES[:20], store, encoder=NEW, prune=EVERYTHING)
    assert 30 == len(held_by(store, "msmarco"))


def test_when_it_is_finished_the_unchanged_is_skipped_again(store: Store) -> None:
    """As ever."""
    swapped_unfinished(store, PASSAGES)
    metadata = store.metadata("msmarco")
    store.put_metadata("msmarco", replace(metadata, copied_from=None))

    report = ingest_passages(PASSAGES, store, encoder=NEW)

    assert (15, 15) == (report.written, report.unchanged)


def test_a_source_that_is_gone_needs_no_newer_writes(store: Store) -> None:
    """It was dropped by its physical name."""
    swapped_unfinished(store, PASSAGES)
    store.drop_collection("msmarco__0001")

    assert 30 == ingest_passages(PASSAGES, store, encoder=NEW).written


def test_an_interrupted_re_embedding_is_told(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a run, unless somebody is at it; not before the swap."""
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
    assert "'msmarco' is not finished: run `msmarco-qdrant migrate reembed --collection " in message
