"""The worker over a real spool and Edge: what is done, what fails, and what ends the worker."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import (
    SchemaError,
    SourceError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.service.interfaces import BatchState
from msmarco_qdrant.service.spool.inbox import Inbox
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.worker.worker import Worker
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder
from tests.service.spool.helpers import (
    LONG_S,
    QUICK_RETRIES,
    FailingDirectory,
    RecordedEvents,
    delete,
    ended,
    log_event,
    names_in,
    running_worker,
    state_of,
    texts_in,
    write,
)


class Faulty(HashingEncoder):
    """An encoder that fails before it works.

    Args:
        errors: What it raises, one at each attempt.
    """

    def __init__(self, *errors: BaseException) -> None:
        super().__init__()
        self._errors = [*errors]
        self.attempts = 0

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Raise the next error, or encode."""
        self.attempts += 1
        if self._errors:
            raise self._errors.pop(0)
        yield from super().encode_passages(passages)


class Panic(BaseException):
    """As an engine in Rust raises it."""


def test_batches_are_applied_in_their_order(tmp_path: Path, spool: Spool) -> None:
    """Writes, a delete, a row that says nothing and a file of the inbox; a later delete stays."""
    rows = [write(str(number), f"text {number}") for number in range(5)]
    first = spool.accept([*rows, delete("4"), {"op": "what"}])
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.tsv").write_text("7\tseven\n7\tseven again\n8\teight\n")
    assert 1 == Inbox(tmp_path / "inbox", spool).sweep()
    last = spool.accept([delete("8")])
    with (
        closing(open_store(tmp_path / "store", create=True)) as store,
        running_worker(spool, store),
    ):
        report = ended(spool, first).report
        assert (4, 1, 1) == (report.written, report.rejected, report.superseded)
        assert 1 == ended(spool, last).report.deleted
        expected = {**{str(number): f"text {number}" for number in range(4)}, "7": "seven again"}
        assert expected == texts_in(store)
        assert 0 == spool.depth == spool.bytes


def test_counts_and_what_is_told(spool: Spool, store: Store) -> None:
    """Each batch is told once, when it has ended; `done` has its stages."""

    class Staged(RecordedEvents):
        stages: list[bool] = []  # noqa: RUF012  # one test alone uses it

        def ended(self, state: BatchState, stages: Sequence[StageTiming]) -> None:
            super().ended(state, stages)
            self.stages.append(bool(stages))

    events = Staged()
    with running_worker(spool, store, events=events):
        ids = [
            spool.accept(rows)
            for rows in (
                [write("1", "one"), write("2", "two")],
                [write("1", "one"), write("2", "other"), write("3", "...")],
                [delete("1"), delete("9")],
                [],
            )
        ]
        reports = [ended(spool, id_).report for id_ in ids]
    assert [(2, 0, 0, 0), (1, 1, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)] == [
        (one.written, one.unchanged, one.rejected, one.deleted) for one in reports
    ]
    assert (ids, reports) == (
        [state.batch for state in events.states],
        [state.report for state in events.states],
    )
    assert [True, True, False, False] == events.stages
    assert [3] == [row.line for row in reports[1].rejects]


# ---- bad for good --------------------------------------------------------------------------


def _unreadable(folder: Path) -> Path:
    (folder / "a.parquet").write_text("PAR1 and no more")
    return folder / "a.parquet"


@pytest.fixture
def no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra `parquet` were not installed."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)


def _fails(spool: Spool, store: Store, batch: str, reason: str) -> None:
    """A batch fails at once, is kept with its reason, and the next one is done."""
    events = RecordedEvents()
    next_one = spool.accept([write("next", "the next")])
    with running_worker(spool, store, events=events):
        state = ended(spool, batch)
        assert ("failed", "done") == (state.state, ended(spool, next_one).state)
    assert reason in state.reason
    assert events.failures.empty()
    assert ["failed", "done"] == [one.state for one in events.states]
    assert "the next" == texts_in(store)["next"]
    assert state == state_of(spool, batch)


def test_a_file_that_is_no_parquet(tmp_path: Path, spool: Spool, store: Store) -> None:
    """It fails, and is kept as it came."""
    pytest.importorskip("pyarrow")
    batch = spool.accept_file(_unreadable(tmp_path))
    _fails(spool, store, batch, "cannot be read as Parquet")
    file, report = names_in(tmp_path / "spool" / "failed")
    assert "PAR1 and no more" == (tmp_path / "spool" / "failed" / file).read_text()
    assert f"{file}.json" == report


@pytest.mark.usefixtures("no_pyarrow")
def test_a_form_whose_extra_is_missing(tmp_path: Path, spool: Spool, store: Store) -> None:
    """The reason says what to install."""
    batch = spool.accept_file(_unreadable(tmp_path))
    _fails(spool, store, batch, "pip install 'msmarco-qdrant[parquet]'")


def test_a_point_of_another(spool: Spool, store: Store) -> None:
    """What the batch did before is counted: written, unchanged and deleted."""
    there = [str(number) for number in range(2001)]
    passages = [Passage(pid, f"text {pid}") for pid in ["same", *there]]
    ingest_passages(passages, store, encoder=HashingEncoder(), optimize=False)
    payload = {"pid": "of another", "text": "precious", "seq": 1}
    store.collection("msmarco").replace_payloads([point_id("2000")], [payload])
    rows = [write("same", "text same"), write("new", "text new"), {"op": "what"}]
    batch = spool.accept([*rows, *map(delete, there)])
    _fails(spool, store, batch, "of another")
    report = state_of(spool, batch).report
    assert "precious" == texts_in(store)["of another"]
    assert (1, 1, 1, 2000) == (report.written, report.unchanged, report.rejected, report.deleted)


# ---- what may pass -------------------------------------------------------------------------

Error = Callable[[str], BaseException]


def _several(error: Error, count: int) -> list[BaseException]:
    return [error("odd") for _ in range(count)]


def _no_room(text: str) -> SourceError:
    error = SourceError(text)
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    return error


@pytest.mark.parametrize("error", [SchemaError, MemoryError, Panic, _no_room])
def test_what_may_pass_or_not_is_tried_five_times(spool: Spool, store: Store, error: Error) -> None:
    """Then it fails, and the next one is done; the worker goes on."""
    encoder = Faulty(*_several(error, 5))
    batch, after = spool.accept([write("1", "one")]), spool.accept([write("2", "two")])
    with running_worker(spool, store, encoder) as worker:
        assert ("failed", "done") == (ended(spool, batch).state, ended(spool, after).state)
        assert (6, True) == (encoder.attempts, worker.alive)
        assert "odd" in ended(spool, batch).reason
        assert {"2": "two"} == texts_in(store)


def test_a_fault_of_ours_is_told_with_its_trace(
    spool: Spool, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """At first and in the end; the batch's reason names it."""
    with running_worker(spool, store, Faulty(*_several(ZeroDivisionError, 5))):
        state = ended(spool, spool.accept([write("1", "one")]))
    assert "unexpected: ZeroDivisionError('odd')" == state.reason
    told = [record for record in caplog.records if record.exc_info]
    assert 2 == len(told)
    assert 2 == caplog.text.count("in encode_passages")


# ---- the spool's own disk ------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["sync working", "write_reports", "remove"])
def test_a_disk_that_fails_for_a_while(tmp_path: Path, store: Store, operation: str) -> None:
    """The worker waits; each batch is done once."""
    files, events = FailingDirectory(tmp_path / "failing"), RecordedEvents()
    with Spool(files) as spool:
        ids = [spool.accept([write("1", "one")]), spool.accept([delete("1")])]
        files.fails = [operation] * 3
        with running_worker(spool, store, events=events):
            assert ["done", "done"] == [ended(spool, id_).state for id_ in ids]
        assert ids == [state.batch for state in events.states]
        assert ([], 3) == (files.fails, events.failures.qsize())
        assert {} == texts_in(store)


def test_a_failure_that_cannot_be_written_down(tmp_path: Path, store: Store) -> None:
    """It is, later, and the next batch is done."""
    pytest.importorskip("pyarrow")
    files = FailingDirectory(tmp_path / "failing")
    with Spool(files) as spool:
        ids = [spool.accept_file(_unreadable(tmp_path)), spool.accept([])]
        files.fails = ["write_reports", "sync failed", "write_reports"]
        with running_worker(spool, store):
            assert ["failed", "done"] == [ended(spool, id_).state for id_ in ids]


def test_a_batch_whose_file_was_removed_by_hand(tmp_path: Path, spool: Spool, store: Store) -> None:
    """It fails, which is told; the next one is done."""
    gone, after = spool.accept([delete("1")]), spool.accept([delete("1")])
    next((tmp_path / "spool" / "incoming").glob(f"*{gone}*")).unlink()
    with running_worker(spool, store):
        assert "done" == ended(spool, after).state
    assert "no such file" in state_of(spool, gone).reason
    assert "working" not in state_of(spool, gone).reason


# ---- what ends the worker ------------------------------------------------------------------


def test_a_worker_that_dies_loses_nothing(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the trace; the current batch is leased first at the next start, and done."""

    class Broken(Spool):
        def ack_all(self, applied: object) -> Sequence[BatchState]:  # noqa: ARG002
            raise TypeError("a bug in the spool")

    with Broken.open(tmp_path / "broken") as spool:
        ids = [spool.accept([write("1", "one")]), spool.accept([delete("1")])]
        worker = Worker(spool, store, HashingEncoder(), QUICK_RETRIES)
        with log_event("msmarco_qdrant.service.worker.worker") as logged:
            worker.start()
            assert logged.wait(LONG_S)
        assert (True, False) == (worker.stop(LONG_S), worker.alive)
        assert ["working", "working"] == [state_of(spool, id_).state for id_ in ids]
    assert "the worker has ended" in caplog.text
    assert "TypeError: a bug in the spool" in caplog.text
    with Spool.open(tmp_path / "broken") as again, running_worker(again, store):
        assert ["done", "done"] == [ended(again, id_).state for id_ in ids]
        assert {} == texts_in(store)
