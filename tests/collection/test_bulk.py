"""Bulk mode: the threshold is lowered to none, recorded, and restored after any end of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant.collection.backup import backup_collection
from msmarco_qdrant.collection.bulk import EXPIRES_S, BulkMode, bulk_mode, end_bulk
from msmarco_qdrant.collection.optimize import optimize_collection
from msmarco_qdrant.collection.restore import restore_collection
from msmarco_qdrant.core.collection_types import SettingsChange
from msmarco_qdrant.core.metadata_types import bulk_threshold
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import IngestStoppedError, UnsupportedError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.service.startup import Startup
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import new_store
from tests.service.sidecars import CountedModels, settings_in

PASSAGES = [Passage(str(number), f"passage {number}") for number in range(9)]
OWN = 777


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A loopback server with a collection whose threshold is `OWN`."""
    with new_store("loopback", tmp_path) as opened:
        ingest_passages(PASSAGES, opened, encoder=HashingEncoder())
        opened.admin_collection("msmarco").alter(SettingsChange(indexing_threshold_kb=OWN))
        yield opened


def state(store: Store) -> tuple[int | None, int | None]:
    """The threshold in force, and the recorded one."""
    found = store.admin_collection("msmarco").optimizers().indexing_threshold_kb
    return found, bulk_threshold(store.bulk_holders("msmarco"))


def begin(store: Store) -> None:
    """Begin as an ingest does that is interrupted."""
    with bulk_mode(store, store.aliases()["msmarco"], begin=True):
        pass


def end(store: Store) -> None:
    """End as an ingest does."""
    end_bulk(BulkMode(store, store.aliases()["msmarco"]), sleep=no_sleep)


def no_sleep(_seconds: float) -> None:
    """Fail: nothing is to be waited for."""
    pytest.fail("it waits")


def test_begin_and_end(store: Store) -> None:
    """A repeated begin keeps the threshold; a repeated end changes nothing."""
    seen = []
    for step in (begin, begin, end, end):
        step(store)
        seen.append(state(store))
    assert [(0, OWN), (0, OWN), (OWN, None), (OWN, None)] == seen


def test_an_ingest_ends_its_own_bulk_mode(store: Store) -> None:
    """During it, the threshold is 0."""
    seen = set()
    passages = [Passage("new", "text"), *PASSAGES]
    ingest_passages(
        passages,
        store,
        encoder=HashingEncoder(),
        bulk=True,
        on_progress=lambda _: seen.add(state(store)),
    )
    assert (0, OWN) in seen
    assert (OWN, None) == state(store)


@pytest.mark.parametrize("bulk", [True, False])
def test_the_next_ingest_ends_that_of_an_interrupted_one(store: Store, bulk: bool) -> None:
    """Also without the option."""

    def broken() -> Iterator[Passage]:
        yield Passage("new", "text")
        raise OSError("disk")

    with pytest.raises((IngestStoppedError, OSError)):
        ingest_passages(broken(), store, encoder=HashingEncoder(), bulk=True)
    assert (0, OWN) == state(store)
    ingest_passages(PASSAGES, store, encoder=HashingEncoder(), bulk=bulk)
    assert (OWN, None) == state(store)


def test_a_threshold_changed_during_the_bulk_mode_stays(store: Store) -> None:
    """The later choice of the user counts; nor does a crash after the record change one."""
    begin(store)
    store.admin_collection("msmarco").alter(SettingsChange(indexing_threshold_kb=88))
    end(store)
    assert (88, None) == state(store)


class Clock:
    """Seconds that pass while a process sleeps, in which others may work."""

    def __init__(self, work: Callable[[], None] = lambda: None) -> None:
        self.now = 0.0
        self._work = work

    def __call__(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass, and the others work."""
        self.now += seconds
        self._work()


def test_the_last_of_two_ingests_restores_the_threshold(store: Store) -> None:
    """Each sees the other's renewals; the first to end leaves the mode."""
    first, second = BulkMode(store, "msmarco"), BulkMode(store, "msmarco")
    for mode in (first, second):
        mode.begin()
    clock = Clock(second.renew)
    end_bulk(first, clock.sleep)
    assert ((0, OWN), 2.0) == (state(store), clock.now)
    end_bulk(second, no_sleep)
    assert (OWN, None) == state(store)
    assert {} == store.bulk_holders("msmarco")


def test_an_ingest_without_bulk_mode_leaves_that_of_another(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """As `optimize` does. Its warnings have the name that users see."""
    mode = BulkMode(store, "msmarco")
    mode.begin()
    end_bulk(BulkMode(store, store.aliases()["msmarco"]), Clock(mode.renew).sleep)
    assert (0, OWN) == state(store)
    begun, left = caplog.messages[-2:]
    assert "another ingest into 'msmarco' has begun a bulk mode" in begun
    assert "the index of 'msmarco' is not built yet" in left
    end_bulk(mode, no_sleep)
    assert (OWN, None) == state(store)


def test_a_killed_ingest_does_not_keep_the_mode(store: Store) -> None:
    """Its record is not renewed, so the next one restores the threshold after a while."""
    BulkMode(store, "msmarco").begin()
    clock = Clock()
    end_bulk(BulkMode(store, "msmarco", clock), clock.sleep)
    assert (OWN, None) == state(store)
    assert EXPIRES_S <= clock.now < EXPIRES_S + 3


def test_an_ingest_that_was_killed_long_before_costs_no_wait(store: Store) -> None:
    """It was seen at the begin already."""
    BulkMode(store, "msmarco").begin()
    clock = Clock()
    mode = BulkMode(store, "msmarco", clock)
    mode.begin()
    clock.now = EXPIRES_S
    end_bulk(mode, no_sleep)
    assert (OWN, None) == state(store)


def test_a_thread_renews_it_until_the_ingest_ends(store: Store) -> None:
    """Also if the ingest fails; then the next one does not wait."""

    def fail() -> None:
        with bulk_mode(store, "msmarco", begin=True, renew_s=0.001):
            while [2] > [one.renewals for one in store.bulk_holders("msmarco").values()]:
                pass  # each look is a request
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert [True] == [one.is_done for one in store.bulk_holders("msmarco").values()]
    end(store)
    assert (OWN, None) == state(store)


def test_a_threshold_changed_before_the_ingest_resumes_is_the_one_to_restore(store: Store) -> None:
    """The record of the interrupted run is replaced."""
    begin(store)
    store.admin_collection("msmarco").alter(SettingsChange(indexing_threshold_kb=88))
    begin(store)
    assert (0, 88) == state(store)
    end(store)
    assert (88, None) == state(store)


def test_a_threshold_of_zero_of_the_user_stays(store: Store) -> None:
    """Nothing is recorded, and nothing restored."""
    store.admin_collection("msmarco").alter(SettingsChange(indexing_threshold_kb=0))
    begin(store)
    end(store)
    assert (0, None) == state(store)


def test_other_metadata_stays(store: Store) -> None:
    """The record is a key of its own, so no lock is needed that a killed process would leave."""
    before = store.metadata("msmarco")
    begin(store)
    store.put_metadata("msmarco", before)
    assert (0, OWN) == state(store)
    end(store)
    assert (OWN, None, before) == (*state(store), store.metadata("msmarco"))


def test_a_reembedding_copies_the_recorded_threshold(store: Store) -> None:
    """The new collection is not in bulk mode."""
    begin(store)
    reembed_collection(store, encoder=HashingEncoder(dimension=128))
    assert (OWN, None) == state(store)


@pytest.mark.parametrize("portable", [True, False])
def test_a_restored_backup_is_not_in_bulk_mode(
    store: Store, tmp_path: Path, portable: bool
) -> None:
    """Also if it was made in bulk mode."""
    begin(store)
    backup_collection(store, "msmarco", tmp_path / "saved", portable=portable)
    restore_collection(store, tmp_path / "saved", name="copy")
    assert OWN == store.admin_collection("copy").optimizers().indexing_threshold_kb


def test_optimize_ends_it_and_a_sidecar_warns_of_it(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the command that ends it."""
    begin(store)
    for count in (1, 0):
        caplog.clear()
        Startup(settings_in(tmp_path, store.dsn), CountedModels(), {}).run(lambda opened: opened)
        found = [one.getMessage() for one in caplog.records if "--bulk" in one.getMessage()]
        assert count == len(found)
        assert all("msmarco-qdrant optimize" in one for one in found)
        assert 9 == optimize_collection(store.dsn).points
        assert (OWN, None) == state(store)


@pytest.mark.parametrize("engine", ["edge", "memory"])
def test_other_engines_refuse_it(engine: str, tmp_path: Path) -> None:
    """They build indexes on request only, or none."""
    with new_store(engine, tmp_path) as store, pytest.raises(UnsupportedError, match="bulk mode"):
        ingest_passages(PASSAGES, store, encoder=HashingEncoder(), bulk=True)


def test_a_new_directory_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    """Nothing is created."""
    with pytest.raises(UnsupportedError, match="needs a Qdrant server for bulk mode"):
        ingest_passages(PASSAGES, tmp_path / "new", model="no-such-model", bulk=True)
    assert not (tmp_path / "new").exists()


def test_bulk_without_the_index_is_refused(tmp_path: Path) -> None:
    """Nothing would end it."""
    with closing(open_store(tmp_path, create=True)) as store, pytest.raises(UsageError):
        ingest_passages(PASSAGES, store, encoder=HashingEncoder(), bulk=True, optimize=False)
