"""A worker that is stopped: with nothing in hand, at work, waiting to try again, stuck."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import StoreUnavailableError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.service.interfaces import BatchReport
from msmarco_qdrant.service.spool.directory import SpoolDirectory
from msmarco_qdrant.service.spool.files import Row
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.worker.worker import Worker, WorkerSettings
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.reembed.concurrent.call_hooks import hooked
from tests.service.spool.helpers import (
    LONG_S,
    QUICK_RETRIES,
    FailingDirectory,
    HookedEncoder,
    RecordedEvents,
    ack_all,
    delete,
    ended,
    lease_next,
    log_fields,
    names_in,
    running_worker,
    state_of,
    texts_in,
    write,
)

PATIENT = WorkerSettings(first_wait_s=1e6, max_wait_s=1e6)
"""Waits for ever before it tries again."""


class Watched(Spool):
    """Tells when its worker waits for a batch, and when it is to take no more."""

    def __init__(self, files: SpoolDirectory) -> None:
        super().__init__(files)
        self.is_asked, self.is_stopped = threading.Event(), threading.Event()

    def lease(self) -> Batch | None:
        """Tell of it, and wait for the next batch."""
        self.is_asked.set()
        return super().lease()

    def stop_leasing(self) -> None:
        """Tell of it."""
        super().stop_leasing()
        self.is_stopped.set()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Watched]:
    """An empty spool."""
    with Watched(SpoolDirectory(tmp_path / "spool")) as opened:
        yield opened


def _rest(folder: Path) -> list[str]:
    """The batches that wait after the next start, in their order."""
    with Spool.open(folder / "spool") as spool:
        return ack_all(spool)


def test_with_nothing_in_hand(spool: Watched, store: Store) -> None:
    """It ends, and what comes later waits; one that was never started has ended."""
    assert Worker(spool, store, HashingEncoder()).stop(0)
    with Spool.open(spool._files.path.parent / "other") as other:
        worker = Worker(other, store, HashingEncoder())
        worker.start()
        assert (True, False) == (worker.stop(LONG_S), worker.alive)
        assert "queued" == state_of(other, other.accept([])).state


def test_while_it_waits_for_a_batch(tmp_path: Path, spool: Watched, store: Store) -> None:
    """It ends at once."""
    worker = Worker(spool, store, HashingEncoder())
    worker.start()
    assert spool.is_asked.wait(LONG_S)
    assert worker.stop(LONG_S)
    last = spool.accept([])
    spool.close()
    assert [last] == _rest(tmp_path)


def test_the_batch_in_hand_is_finished(tmp_path: Path, spool: Watched, store: Store) -> None:
    """If it is done within the grace; the next one is not begun."""
    at_work = threading.Event()

    def work() -> None:
        at_work.set()
        assert spool.is_stopped.wait(LONG_S)

    ids = [spool.accept([write("1", "one")]), spool.accept([delete("1")])]
    worker = Worker(spool, store, HookedEncoder(work), QUICK_RETRIES)
    worker.start()
    assert at_work.wait(LONG_S)
    assert worker.stop(LONG_S)
    assert ["done", "queued"] == [state_of(spool, id_).state for id_ in ids]
    assert {"1": "one"} == texts_in(store)
    spool.close()
    assert ids[1:] == _rest(tmp_path)


def test_the_batch_in_hand_is_given_back(
    tmp_path: Path, spool: Watched, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """If it takes longer; it is first after the next start, and what it wrote does no harm."""
    caplog.set_level("INFO", "msmarco_qdrant.service.worker.worker")
    ids = [spool.accept([write("1", "one")]), spool.accept([delete("1")])]
    worker = Worker(spool, store, HookedEncoder(lambda: worker.interrupt()), QUICK_RETRIES)  # noqa: PLW0108  # it is made here
    worker.start()
    assert spool.is_stopped.wait(LONG_S)
    assert worker.stop(LONG_S)
    assert ["queued", "queued"] == [state_of(spool, id_).state for id_ in ids]
    assert [{"batch": id_, "state": "queued"} for id_ in reversed(ids)] == log_fields(caplog)
    assert [] == names_in(tmp_path / "spool" / "working")
    spool.close()
    with Spool.open(tmp_path / "spool") as again, running_worker(again, store):
        assert ["done", "done"] == [ended(again, id_).state for id_ in ids]
        assert {} == texts_in(store)


@pytest.mark.parametrize("rows", [[delete("1"), delete("2")], [write("1", "one")]])
def test_a_batch_is_given_back_while_it_is_read(
    tmp_path: Path, store: Store, rows: list[Row]
) -> None:
    """However long its file is."""

    class Stopping(Spool):
        def lease(self) -> Batch | None:
            batch = super().lease()
            worker.interrupt()
            return batch

    with Stopping.open(tmp_path / "spool") as spool:
        id_ = spool.accept(rows)
        worker = Worker(spool, store, HashingEncoder(), QUICK_RETRIES)
        worker.start()
        assert worker.stop(LONG_S)
        assert "queued" == state_of(spool, id_).state
        assert [] == [*store.aliases()]


@pytest.mark.slow
def test_deletes_are_given_back(spool: Watched, store: Store) -> None:
    """After each thousand; what is deleted by then is not there at the next start."""
    pids = [str(number) for number in range(2500)]
    passages = [Passage(pid, "text") for pid in pids]
    ingest_passages(passages, store, encoder=HashingEncoder(), optimize=False)
    id_ = spool.accept([delete(pid) for pid in pids])

    def stop(name: str) -> None:
        if name == "delete":
            worker.interrupt()

    worker = Worker(spool, hooked(store, stop), HashingEncoder(), QUICK_RETRIES)
    worker.start()
    assert spool.is_stopped.wait(LONG_S)
    assert worker.stop(LONG_S)
    assert "queued" == state_of(spool, id_).state
    assert set(pids[1000:]) == texts_in(store).keys()


def test_while_it_waits_to_try_again(tmp_path: Path, spool: Watched, store: Store) -> None:
    """It is given back at once, without another attempt, and is first after the next start."""
    attempts: list[int] = []

    class Away(HashingEncoder):
        def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
            attempts.append(1)
            raise StoreUnavailableError(f"away for {len(passages)}")

    events = RecordedEvents()
    ids = [spool.accept([write("1", "one")]), spool.accept([delete("1")])]
    worker = Worker(spool, store, Away(), PATIENT, events=events)
    worker.start()
    assert ids[0] == events.next_failure()[0]
    assert worker.stop(LONG_S)
    assert [1] == attempts
    assert ["queued", "queued"] == [state_of(spool, id_).state for id_ in ids]
    spool.close()
    assert ids == _rest(tmp_path)


@pytest.mark.parametrize("operation", ["write_reports", "sync working"])
def test_while_it_waits_for_the_disk(tmp_path: Path, store: Store, operation: str) -> None:
    """What was in its hands is first after the next start, and nothing is lost."""
    files, events = FailingDirectory(tmp_path / "spool"), RecordedEvents()
    with Spool(files) as spool:
        ids = [spool.accept([write("1", "one")]), spool.accept([delete("1")])]
        files.fails = [operation] * 3
        worker = Worker(spool, store, HashingEncoder(), PATIENT, events=events)
        worker.start()
        events.next_failure()
        assert worker.stop(LONG_S)
    with Spool.open(tmp_path / "spool") as again, running_worker(again, store):
        assert ["done", "done"] == [ended(again, id_).state for id_ in ids]
        assert {} == texts_in(store)


def test_a_batch_that_cannot_be_given_back(tmp_path: Path, store: Store) -> None:
    """It is first after the next start all the same."""
    files = FailingDirectory(tmp_path / "spool")
    with Spool(files) as spool:
        ids = [spool.accept([write("1", "one")]), spool.accept([delete("1")])]

        def interrupt() -> None:
            files.fails = ["sync incoming"]
            worker.interrupt()

        worker = Worker(spool, store, HookedEncoder(interrupt), QUICK_RETRIES)
        worker.start()
        assert worker.stop(LONG_S)
        assert [] == files.fails
    assert ids == _rest(tmp_path)


def test_a_worker_that_is_stuck(tmp_path: Path, spool: Watched, store: Store) -> None:
    """`stop` says so; its batch is first after the next start, and it meddles no more."""
    let = threading.Event()
    ids = [spool.accept([write("1", "one")]), spool.accept([delete("1")])]
    at_work = threading.Event()

    def work() -> None:
        at_work.set()
        assert let.wait(LONG_S)

    worker = Worker(spool, store, HookedEncoder(work), replace(QUICK_RETRIES, requeue_s=0.0))
    worker.start()
    assert at_work.wait(LONG_S)
    assert (False, True) == (worker.stop(0), worker.alive)
    spool.close()
    with Spool.open(tmp_path / "spool") as again:
        batch = lease_next(again)
        let.set()
        assert worker.stop(LONG_S)
        assert batch.path.exists()
        again.ack(batch, BatchReport())
        assert ids == [batch.id, *ack_all(again)]
