"""The worker: one thread that applies the spool's batches to the store, strictly in their order.

Nothing overtakes. What may pass (a store that does not answer, a collection that was replaced, a
model that is not to be had) is tried again for as long as it takes, with the batch at the head of
the queue; what is wrong with a batch itself sends it to `failed`, and the next one follows. What
may be either is tried some times before that. If that happens to a second batch in a row, the
store itself is asked, and while it does not answer nothing more is sent to `failed`.

So is a batch that meets with a fault of this program or of an engine, or with a lack of memory: it
must not be lost, nor block all others for ever. In `failed` it lies with its reason, and goes on
from there when somebody moves it back into `incoming` before a start. A fault outside of the
attempts at a batch ends the thread, which the log and `alive` tell; the batch in hand is taken
first at the next start.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msmarco_qdrant.core.records import StorageSettings
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.matching import load_collection_encoder
from msmarco_qdrant.errors import MsmarcoQdrantError, SpoolError
from msmarco_qdrant.service.interfaces import BatchId, BatchReport, BatchState, Phase, counts_of
from msmarco_qdrant.service.retry import (
    BatchRetrier,
    Retryability,
    StoppingError,
    retryability_of,
)
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.spool.state import escape_surrogates
from msmarco_qdrant.service.worker.apply import BatchAttempt, BatchWriter, Reload
from msmarco_qdrant.service.worker.batch import BatchContent
from msmarco_qdrant.service.worker.indexing import Indexing, IndexingSettings
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)


class WorkerEvents(Protocol):
    """What a worker tells, in its own thread; for metrics. None of these may raise."""

    def ended(self, state: BatchState, stages: Sequence[StageTiming]) -> None:
        """A batch is done or has failed."""

    def failing(self, batch: BatchId, attempt: int, error: BaseException) -> None:
        """An attempt has failed, and another will follow."""

    def optimized(self, seconds: float) -> None:
        """The indexes were built."""


class NoEvents:
    """Tells nobody."""

    def ended(self, state: BatchState, stages: Sequence[StageTiming]) -> None:
        """Do nothing."""

    def failing(self, batch: BatchId, attempt: int, error: BaseException) -> None:
        """Do nothing."""

    def optimized(self, seconds: float) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works.

    Attributes:
        collection: The name of the collection.
        first_wait_s: The longest wait after a first failure; it doubles with each.
        max_wait_s: The longest there is.
        max_uncertain: How often to try what may pass or not.
        requeue_s: How long `Worker.stop` waits for a batch to be given back.
        indexing: How often the indexes are built, where the engine does not do that itself.
    """

    collection: str = "msmarco"
    first_wait_s: float = 0.5
    max_wait_s: float = 30.0
    max_uncertain: int = 5
    requeue_s: float = 10.0
    indexing: IndexingSettings = field(default_factory=IndexingSettings)


class Worker:
    """Applies batches until it is stopped; `start` starts its thread.

    Args:
        spool: Where the batches come from; the worker is its only taker.
        store: Where they go.
        encoder: The collection's, or for a new collection.
        settings: How.
        reload: Loads another encoder when the collection has been re-embedded, or made again.
        storage: How a collection that is made keeps its vectors; None for what the engine can.
        events: Is told what happens.
    """

    def __init__(
        self,
        spool: Spool,
        store: Store,
        encoder: Encoder,
        settings: WorkerSettings = WorkerSettings(),
        *,
        reload: Reload = load_collection_encoder,
        storage: StorageSettings | None = None,
        events: WorkerEvents | None = None,
    ) -> None:
        self._spool = spool
        self._settings = settings
        self._applier = BatchWriter(store, settings.collection, encoder, reload, storage=storage)
        self._events = events or NoEvents()
        self._indexing = Indexing(
            store, settings.collection, settings.indexing, self._events.optimized
        )
        self._stopping, self._giving_back = threading.Event(), threading.Event()
        self._retry = BatchRetrier(
            settings.first_wait_s,
            settings.max_wait_s,
            settings.max_uncertain,
            self._stopping,
            self._failing,
            classify=self._classify,
        )
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._batch = ""
        self._is_doubted = False

    @property
    def encoder(self) -> Encoder:
        """The encoder that fits the collection, as far as the worker knows."""
        return self._applier.encoder

    @property
    def last_error(self) -> str:
        """Why the batch in hand could not be applied yet; "" while all is well."""
        return self._retry.last_error

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, grace_s: float) -> bool:
        """Take no more batches; finish the one in hand, or give it back.

        Args:
            grace_s: How long it may go on before it is given back. One that is waiting to be tried
                again is given back at once.

        Returns:
            Whether the thread has ended. If not, it is busy in the model or the engine; its batch
            is taken first at the next start.
        """
        self._stopping.set()
        self._spool.stop_taking()
        if self._thread.ident is None:
            return True
        self._thread.join(grace_s)
        self.give_back()
        self._thread.join(self._settings.requeue_s)
        return not self.alive

    def give_back(self) -> None:
        """Take no more batches, and give the one in hand back as soon as that can be."""
        self._giving_back.set()
        self._stopping.set()
        self._spool.stop_taking()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() and self._work():
                if not self._stopping.is_set():
                    self._indexing.pause(idle=self._spool.depth == 0)
        except StoppingError:  # the spool's disk was in the way until the end
            _log.warning("the batch in hand, if any, is taken first at the next start")
        except BaseException:  # noqa: BLE001  # it is told, and nobody above would
            _log.critical("the worker has ended, nothing is applied any more", exc_info=True)

    def _work(self) -> bool:
        """Apply the next batch, if there is to be one; whether there was."""
        batch = self._retry(self._spool.take)
        if batch is None:
            return False
        self._batch = batch.id
        self._handle(batch)
        self._batch = ""
        return True

    def _handle(self, batch: Batch) -> None:
        """Apply a batch and say what became of it."""
        attempts = _Attempts(batch, self._applier, self._indexing.wrote, self._check)
        try:
            report = self._retry(attempts, _named(batch))
        except StoppingError:
            self._give_back(batch)
        except BaseException as exc:  # noqa: BLE001  # a panic of an engine is no `Exception`
            if self._stopping.is_set() and retryability_of(exc) is not Retryability.PERMANENT:
                self._give_back(batch)
            else:
                self._fail(batch, exc, attempts.report)
        else:
            self._finish(batch, report, attempts.stages)

    def _finish(self, batch: Batch, report: BatchReport, stages: Sequence[StageTiming]) -> None:
        self._is_doubted = False
        state = self._retry(lambda: self._spool.finish(batch, report), _named(batch))
        level = logging.WARNING if report.rejected else logging.INFO
        message = f"batch %s is done; rejected rows: {report.rejected:,}"
        _log.log(level, message, batch.id, extra={"fields": _fields(batch, "done", report)})
        self._events.ended(state, stages)

    def _give_back(self, batch: Batch) -> None:
        try:
            self._spool.give_back(batch)
        except SpoolError as exc:
            raise StoppingError from exc
        fields = {**_named(batch), "state": "queued"}
        _log.info("batch %s is given back, to be taken first", batch.id, extra={"fields": fields})

    def _fail(self, batch: Batch, error: BaseException, report: BatchReport) -> None:
        self._is_doubted |= retryability_of(error) is Retryability.UNCERTAIN
        is_ours = isinstance(error, MsmarcoQdrantError)
        reason = str(error) if is_ours else f"unexpected: {error!r}"
        # its file by its name alone: it lies elsewhere when this is read
        reason = escape_surrogates(reason.replace(str(batch.path), str(batch.name)))
        fields = _fields(batch, "failed", report)
        state = self._retry(lambda: self._spool.fail(batch, reason, report), _named(batch))
        _log.error(
            "batch %s has failed for good: %s",
            batch.id,
            reason,
            exc_info=None if is_ours else error,
            extra={"fields": fields},
        )
        self._events.ended(state, ())

    def _classify(self, error: BaseException) -> Retryability:
        """What is to be expected: what befalls a second batch in a row may lie in the store."""
        retryability = retryability_of(error)
        if retryability is not Retryability.UNCERTAIN or not self._is_doubted:
            return retryability
        try:
            self._applier.check_store()
        except BaseException as exc:  # noqa: BLE001  # a panic of an engine is no `Exception`
            _log.debug("the store does not answer: %r", exc)
            return Retryability.TRANSIENT
        return retryability

    def _check(self) -> None:
        if self._giving_back.is_set():
            raise StoppingError

    def _failing(self, attempt: int, error: BaseException) -> None:
        self._events.failing(self._batch, attempt, error)


def _named(batch: Batch) -> dict[str, object]:
    """What the log tells of whatever befalls a batch."""
    return {"batch": batch.id}


def _fields(batch: Batch, state: Phase, report: BatchReport) -> dict[str, object]:
    """What the log tells of the end of a batch."""
    return {**_named(batch), "state": state, **counts_of(report), "seconds": report.seconds}


class _Attempts:
    """The attempts at one batch, from its file on; each call is one.

    Args:
        batch: Which.
        applier: What applies it.
        on_written: See `BatchAttempt`.
        go_on: Called often; what it raises ends the attempt.
    """

    def __init__(
        self,
        batch: Batch,
        applier: BatchWriter,
        on_written: Callable[[int], None],
        go_on: Callable[[], None],
    ) -> None:
        self._batch = batch
        self._applier = applier
        self._on_written = on_written
        self._go_on = go_on
        self._application: BatchAttempt | None = None

    def __call__(self) -> BatchReport:
        if self._application is None:
            content = BatchContent(self._batch.path, self._batch.name.form, go_on=self._go_on)
            self._application = BatchAttempt(content, self._applier, self._on_written, self._go_on)
        return self._application.attempt()

    @property
    def report(self) -> BatchReport:
        """What they have done so far."""
        return self._application.report() if self._application else BatchReport()

    @property
    def stages(self) -> Sequence[StageTiming]:
        """How long each stage of the last ingest was at work."""
        return self._application.stages if self._application else ()
