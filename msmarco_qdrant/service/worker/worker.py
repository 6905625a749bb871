"""Worker: one thread that applies the spool's batches to the store, strictly in order.

Small batches that wait are applied together (see `group`). If that fails, each is applied alone.

A transient error (the store does not answer, the collection was replaced, a model is missing) is
retried without end, with the batch first in the queue. An error of the batch itself fails it, and
the next one follows. An uncertain error, also a bug or a lack of memory, is retried a few times
before the batch fails. If that happens to two batches in a row, the worker checks the store, and
fails no batch while the store does not answer.

A failed batch lies in `failed` with its reason; `spool requeue` applies it again. A bug outside of
the attempts ends the thread, which the log and `alive` show; the leased batches are first at the
next start.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msmarco_qdrant.core.collection_types import PayloadIndex, StorageSettings
from msmarco_qdrant.core.escape import escape_surrogates
from msmarco_qdrant.core.records import WINDOW
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.matching import load_collection_encoder
from msmarco_qdrant.errors import MsmarcoQdrantError, SpoolError
from msmarco_qdrant.ingest.indexing import Indexing, IndexingSettings
from msmarco_qdrant.service.interfaces import BatchReport, Phase, WorkerEvents, counts_of
from msmarco_qdrant.service.retry import (
    BatchRetrier,
    Retryability,
    StoppingError,
    retryability_of,
)
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.worker.apply import BatchAttempt, BatchWriter, Reload
from msmarco_qdrant.service.worker.group import (
    MOST_BATCHES,
    MOST_BYTES,
    Member,
    may_share,
    read_group,
    write_group,
)
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of a worker.

    Attributes:
        collection: Name of the collection.
        first_wait_s: Longest wait after the first failure; it doubles with each failure.
        max_wait_s: Longest wait of all.
        max_uncertain: Attempts at a batch with uncertain errors.
        requeue_s: Seconds that `Worker.stop` waits for the requeue of a batch.
        indexing: Frequency of index builds, where the engine does not build indexes itself.
        window: Passages to sort by length and flush together.
        shared_passages: Passages of waiting batches to write together. Each of them ends when all
            are written, so more make a batch wait longer.
        max_line_bytes: A longer line of a user's file is a reject.
        payload_indexes: The meta fields to index if the collection is created again.
    """

    collection: str = "msmarco"
    first_wait_s: float = 0.5
    max_wait_s: float = 30.0
    max_uncertain: int = 5
    requeue_s: float = 10.0
    indexing: IndexingSettings = field(default_factory=IndexingSettings)
    window: int = WINDOW
    shared_passages: int = 256
    max_line_bytes: int = MAX_LINE_BYTES
    payload_indexes: Mapping[str, PayloadIndex] = field(default_factory=dict)


class Worker:
    """Applies batches in a thread from `start` to `stop`.

    Args:
        spool: The spool; the worker alone leases its batches.
        store: The store.
        encoder: Encoder of the collection, or for a new one.
        settings: Settings.
        reload: Loads the encoder of a collection that was re-embedded or made again.
        storage: Vector storage of a new collection; None for the engine's default.
        events: Receives events.
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
        self._writer = BatchWriter(
            *(store, settings.collection, encoder, reload, storage),
            window=settings.window,
            max_line_bytes=settings.max_line_bytes,
            payload_indexes=settings.payload_indexes,
        )
        self._events = events or WorkerEvents()
        self._indexing = Indexing(
            store, settings.collection, settings.indexing, self._events.optimized
        )
        self._stopping, self._interrupted = threading.Event(), threading.Event()
        self._retry = BatchRetrier(
            settings.first_wait_s,
            settings.max_wait_s,
            settings.max_uncertain,
            self._stopping,
            lambda attempt, error: self._events.failing(self._batch, attempt, error),
            classify=self._classify,
        )
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._batch = ""
        self._last_failed = False

    @property
    def alive(self) -> bool:
        """True if the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, grace_s: float) -> bool:
        """Lease no more batches; finish the current one, or requeue it.

        Args:
            grace_s: Seconds before the current batch is requeued. A batch that waits for a retry
                is requeued at once.

        Returns:
            True if the thread has ended. If not, it is busy in the model or the engine; its batch
            is leased first at the next start.
        """
        self._stopping.set()
        self._spool.stop_leasing()
        if self._thread.ident is None:
            return True
        self._thread.join(grace_s)
        self.interrupt()
        self._thread.join(self._settings.requeue_s)
        return not self.alive

    def interrupt(self) -> None:
        """Lease no more batches, and requeue the current one as soon as possible."""
        self._interrupted.set()
        self._stopping.set()
        self._spool.stop_leasing()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() and self._work():
                if not self._stopping.is_set():
                    self._indexing.pause(idle=self._spool.depth == 0)
        except StoppingError:  # the spool's disk failed until the end
            _log.warning("the current batch, if any, is leased first at the next start")
        except BaseException:  # noqa: BLE001  # nothing above the thread would log it
            _log.critical("the worker has ended; no batch is applied any more", exc_info=True)

    def _work(self) -> bool:
        """Apply the next batch; return False if there is none, because of the stop."""
        batch = self._retry(self._spool.lease)
        if batch is None:
            return False
        batches = deque([batch])
        if may_share(batch):
            batches += self._retry(lambda: self._spool.lease_waiting(MOST_BATCHES, MOST_BYTES))
        self._apply_all(batches)
        self._batch = ""
        return True

    def _apply_all(self, batches: deque[Batch]) -> None:
        """Apply leased batches in their order, together where possible; requeue them at a stop."""
        alone: deque[BatchAttempt] = deque()
        while batches and not self._stopping.is_set():
            self._batch = batches[0].id
            alone += () if alone else self._apply_together(batches)
            if alone and self._apply(batches[0], alone.popleft()):
                batches.popleft()
        for batch in reversed(batches):
            self._requeue(batch)

    def _apply_together(self, batches: deque[Batch]) -> Sequence[BatchAttempt]:
        """Apply the first batches together, and remove those that are done.

        Returns:
            Attempts to call one by one: at the others of a group that failed, or at the first.
        """
        if len(batches) == 1:
            return [self._attempt(batches[0])]
        reports: list[tuple[Batch, BatchReport, Sequence[StageTiming]]] = []
        members: Sequence[Member] = ()
        try:
            members = read_group(batches, self._attempt, self._settings.shared_passages)
            if len(members) > 1:
                group = (members, self._writer, self._indexing.wrote, self._check_interrupted)
                for applied in write_group(*group):
                    reports.append(applied)  # noqa: PERF402  # an error keeps the earlier ones
        except StoppingError:
            _log.debug("batches that were applied together are interrupted")
        except BaseException as exc:  # noqa: BLE001  # a panic of an engine is not an `Exception`
            _log.debug("batches cannot be applied together, so each is alone: %r", exc)
        self._ack(reports)
        for _ in reports:
            batches.popleft()
        attempts = [member.attempt for member in members[len(reports) :]]
        return attempts if members else [self._attempt(batches[0])]

    def _attempt(self, batch: Batch) -> BatchAttempt:
        return BatchAttempt(batch, self._writer, self._indexing.wrote, self._check_interrupted)

    def _apply(self, batch: Batch, attempt: BatchAttempt) -> bool:
        """Apply a batch until it has ended; return False if the stop ends the attempts."""
        try:
            report = self._retry(attempt, {"batch": batch.id})
        except StoppingError:
            return False
        except BaseException as exc:  # noqa: BLE001  # a panic of an engine is not an `Exception`
            if self._stopping.is_set() and retryability_of(exc) is not Retryability.PERMANENT:
                return False
            self._fail(batch, exc, attempt.report())
        else:
            self._ack([(batch, report, attempt.stages)])
        return True

    def _ack(self, applied: Sequence[tuple[Batch, BatchReport, Sequence[StageTiming]]]) -> None:
        if not applied:
            return
        self._last_failed = False
        ended = [(batch, report) for batch, report, _ in applied]
        states = self._retry(lambda: self._spool.ack_all(ended), {"batch": applied[0][0].id})
        for (batch, report, stages), state in zip(applied, states, strict=True):
            level = logging.WARNING if report.rejected else logging.INFO
            message = f"batch %s is done; rejected rows: {report.rejected:,}"
            _log.log(level, message, batch.id, extra={"fields": _fields(batch, "done", report)})
            self._events.ended(state, stages)

    def _requeue(self, batch: Batch) -> None:
        try:
            self._spool.requeue(batch)
        except SpoolError as exc:
            raise StoppingError from exc
        fields = {"batch": batch.id, "state": "queued"}
        _log.info("batch %s is requeued, to be leased first", batch.id, extra={"fields": fields})

    def _fail(self, batch: Batch, error: BaseException, report: BatchReport) -> None:
        self._last_failed |= retryability_of(error) is Retryability.UNCERTAIN
        is_ours = isinstance(error, MsmarcoQdrantError)
        reason = str(error) if is_ours else f"unexpected: {error!r}"
        # The file moves to `failed`, so the reason contains its name without its folder.
        reason = escape_surrogates(reason.replace(str(batch.path), str(batch.name)))
        fields = _fields(batch, "failed", report)
        state = self._retry(lambda: self._spool.fail(batch, reason, report), {"batch": batch.id})
        _log.error(
            "batch %s has failed: %s",
            batch.id,
            reason,
            exc_info=None if is_ours else error,
            extra={"fields": fields},
        )
        self._events.ended(state, ())

    def _classify(self, error: BaseException) -> Retryability:
        """Classify an error; if two batches in a row fail, the cause may be the store."""
        retryability = retryability_of(error)
        if retryability is not Retryability.UNCERTAIN or not self._last_failed:
            return retryability
        try:
            self._writer.check_store()
        except BaseException as exc:  # noqa: BLE001  # a panic of an engine is not an `Exception`
            _log.debug("the store does not answer: %r", exc)
            return Retryability.TRANSIENT
        return retryability

    def _check_interrupted(self) -> None:
        if self._interrupted.is_set():
            raise StoppingError


def _fields(batch: Batch, state: Phase, report: BatchReport) -> dict[str, object]:
    """Return the log fields of an ended batch."""
    return {"batch": batch.id, "state": state, **counts_of(report), "seconds": report.seconds}
