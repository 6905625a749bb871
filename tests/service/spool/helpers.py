"""Spools and workers for tests: what is written into them, their disks, and what they tell."""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from msmarco_qdrant.core.collection_types import StorageSettings
from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.matching import load_collection_encoder
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.interfaces import BatchId, BatchReport, BatchState, WorkerEvents
from msmarco_qdrant.service.spool.directory import BatchName, SpoolDirectory
from msmarco_qdrant.service.spool.files import Row, claimed_id
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.worker.apply import Reload
from msmarco_qdrant.service.worker.worker import Worker, WorkerSettings
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder

QUICK_RETRIES = WorkerSettings(first_wait_s=0.001, max_wait_s=0.01)
"""Tries again at once."""
LONG_S = 60.0
"""No test waits so long unless it is to fail."""
_OPERATIONS = (
    *("sync", "move_in", "reserve_sequence", "write_reports", "remove", "remove_report"),
    *("remove_ended", "readmit"),
)


def write(pid: str, text: str) -> Row:
    """A row that puts a passage in."""
    return {"op": "write", "pid": pid, "text": text}


def delete(pid: str) -> Row:
    """A row that takes one out."""
    return {"op": "delete", "pid": pid}


def lease_next(spool: Spool) -> Batch:
    """The next batch, which there has to be."""
    assert spool.depth
    batch = spool.lease()
    assert batch is not None
    return batch


def ack_next(spool: Spool) -> Batch:
    """The next batch, which is done then."""
    batch = lease_next(spool)
    spool.ack(batch, BatchReport())
    return batch


def ack_all(spool: Spool) -> list[BatchId]:
    """The ids of all that wait, in the order in which they are taken; they are done then."""
    return [ack_next(spool).id for _ in range(spool.depth)]


def state_of(spool: Spool, id_: str) -> BatchState:
    """How far a batch is, which has to be known."""
    state = spool.state(id_)
    assert state is not None
    return state


def ended(spool: Spool, id_: str) -> BatchState:
    """How a batch ends; waits for it."""
    outcome = spool.outcome(id_)
    assert outcome is not None
    return outcome.result(LONG_S)


def names_in(folder: Path) -> list[str]:
    """The names in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


def texts_in(store: Store) -> dict[str, str]:
    """The texts of a collection by their pids; a pid that stands there twice is an error."""
    rows = [payload for _, payload in store.collection("msmarco").scan(["pid", "text"])]
    found = {str(row["pid"]): str(row["text"]) for row in rows}
    assert len(rows) == len(found)
    return found


class HookedEncoder(HashingEncoder):
    """An encoder that lets a test act before it encodes for the first time.

    Args:
        act: What the test does then.
        dimension: Length of its vectors.
    """

    def __init__(self, act: Callable[[], object], dimension: int = 64) -> None:
        super().__init__(dimension)
        self._act = [act]

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Let it act, and encode."""
        while self._act:
            self._act.pop()()
        yield from super().encode_passages(passages)


class RecordedEvents(WorkerEvents):
    """Keeps what a worker tells, and lets a test wait for it."""

    def __init__(self) -> None:
        self.states: list[BatchState] = []
        self.failures: queue.Queue[tuple[BatchId, int, BaseException]] = queue.Queue()

    def ended(self, state: BatchState, stages: Sequence[StageTiming]) -> None:  # noqa: ARG002
        """Keep it."""
        self.states.append(state)

    def failing(self, batch: BatchId, attempt: int, error: BaseException) -> None:
        """Keep it."""
        self.failures.put((batch, attempt, error))

    def next_failure(self) -> tuple[BatchId, int, BaseException]:
        """Wait for an attempt that fails."""
        return self.failures.get(timeout=LONG_S)


@contextmanager
def running_worker(
    spool: Spool,
    store: Store,
    encoder: Encoder | None = None,
    settings: WorkerSettings = QUICK_RETRIES,
    *,
    reload: Reload = load_collection_encoder,
    storage: StorageSettings | None = None,
    events: WorkerEvents | None = None,
) -> Iterator[Worker]:
    """A worker that works; it is stopped at the end, and has to end."""
    worker = Worker(
        spool,
        store,
        encoder or HashingEncoder(),
        settings,
        reload=reload,
        storage=storage,
        events=events,
    )
    worker.start()
    try:
        yield worker
    finally:
        worker.interrupt()
        assert worker.stop(LONG_S)


def log_fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """The fields of the lines of the log that have some."""
    found = [getattr(record, "fields", None) for record in caplog.records]
    return [fields for fields in found if fields]


@contextmanager
def log_event(logger: str) -> Iterator[threading.Event]:
    """Set when something is logged there."""

    class Setting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
            event.set()

    event, handler = threading.Event(), Setting()
    logging.getLogger(logger).addHandler(handler)
    try:
        yield event
    finally:
        logging.getLogger(logger).removeHandler(handler)


class TwoFileSystems(SpoolDirectory):
    """A spool that files named `far...`, and what was made of them, lie on another disk than."""

    def move_in(self, place: Path, name: BatchName) -> None:
        """Rename what lies near."""
        if place.name.startswith("far") or claimed_id(place.name):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(place))
        super().move_in(place, name)


class FailingDirectory(SpoolDirectory):
    """Fails at some operations, as a full or broken disk does, and calls hooks before others.

    Attributes:
        fails: Operations ("remove", "sync incoming"), each of which fails once.
        hooks: Functions that are called before each operation of a name.
    """

    def __init__(self, path: Path) -> None:
        self.fails: list[str] = []
        self.hooks: dict[str, Callable[[], object]] = {}
        for name in _OPERATIONS:
            setattr(self, name, self._wrapped(name, getattr(self, name)))
        super().__init__(path)

    def _wrapped(self, name: str, operation: Callable[..., object]) -> Callable[..., object]:
        def act(*arguments: object) -> object:
            self.hooks.get(name, lambda: None)()
            for key in (name, f"{name} {arguments[0]}"):
                if key in self.fails:
                    self.fails.remove(key)
                    raise SpoolError("No space left on device")
            return operation(*arguments)

        return act
