"""The worker: one thread that applies the spool's batches to the store, strictly in their order.

Nothing overtakes. What may pass (a store that does not answer, a collection that was replaced, a
model that is not to be had) is tried again for as long as it takes, with the batch at the head of
the queue; what is wrong with a batch itself sends it to `failed`, and the next one follows. What
may be either is tried some times before that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.matching import encoder_of
from msmarco_qdrant.errors import (
    CollectionReplacedError,
    ModelError,
    ModelMismatchError,
    ModelNotFoundError,
    MsmarcoQdrantError,
    PidCollisionError,
    SpoolError,
    StoreAccessError,
    StoreError,
    StoreInUseError,
    StoreUnavailableError,
)
from msmarco_qdrant.reports import StageShare
from msmarco_qdrant.service.applying import Application, Applier, Reload
from msmarco_qdrant.service.batches import BatchContent
from msmarco_qdrant.service.outcomes import BatchId, BatchReport, BatchState
from msmarco_qdrant.service.spool import Batch, Spool
from msmarco_qdrant.stores import Store

if TYPE_CHECKING:
    from tenacity import RetryCallState

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# What is wrong around the batches: with the next one it would be the same.
_PASSING = (
    StoreUnavailableError,
    StoreInUseError,
    StoreAccessError,
    CollectionReplacedError,
    ModelNotFoundError,
    ModelMismatchError,
    SpoolError,
)
_DOUBTFUL = (StoreError, ModelError)
_GIVING_BACK_S = 10.0


class WorkerEvents(Protocol):
    """What a worker tells, in its own thread; for metrics."""

    def ended(self, state: BatchState, stages: Sequence[StageShare]) -> None:
        """A batch is done or has failed."""

    def failing(self, batch: BatchId, attempt: int, error: BaseException) -> None:
        """An attempt has failed, and another will follow."""

    def optimized(self, seconds: float) -> None:
        """The indexes were built."""


class NoEvents:
    """Tells nobody."""

    def ended(self, state: BatchState, stages: Sequence[StageShare]) -> None:
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
        longest_wait_s: The longest there is.
        doubtful_attempts: How often to try what may pass or not.
        optimize_every: After so many written passages the indexes are built, once no batch waits;
            None where the engine does that itself.
        optimize_latest: After so many they are built even if batches wait.
    """

    collection: str = "msmarco"
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    doubtful_attempts: int = 5
    optimize_every: int | None = None
    optimize_latest: int = 20_000


class _GivenBackError(Exception):
    """The grace period is over: the batch in hand goes back into the spool."""


class Worker:
    """Applies batches until it is stopped; `start` starts its thread.

    Args:
        spool: Where the batches come from; the worker is its only taker.
        store: Where they go.
        encoder: The collection's, or for a new collection.
        settings: How.
        reload: Loads another encoder when the collection has been re-embedded.
        events: Is told what happens.
    """

    def __init__(
        self,
        spool: Spool,
        store: Store,
        encoder: Encoder,
        settings: WorkerSettings = WorkerSettings(),
        *,
        reload: Reload = encoder_of,
        events: WorkerEvents | None = None,
    ) -> None:
        self._spool = spool
        self._settings = settings
        self._applier = Applier(store, settings.collection, encoder, reload)
        self._events = events or NoEvents()
        self._stopping, self._giving_back = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._unindexed = 0
        self._trouble = ""
        self._batch = ""

    @property
    def encoder(self) -> Encoder:
        """The encoder that fits the collection, as far as the worker knows."""
        return self._applier.encoder

    @property
    def trouble(self) -> str:
        """Why the batch in hand could not be applied yet; "" while all is well."""
        return self._trouble

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
        self._giving_back.set()
        self._thread.join(_GIVING_BACK_S)
        return not self.alive

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                batch = self._patiently(self._spool.take)
                if batch is None:
                    return
                self._batch = batch.id
                self._handle(batch)
            except SpoolError as exc:  # and it is to stop: what it held is taken first next time
                _log.warning("the spool cannot be used: %s", exc)
            self._index_if_due()

    def _handle(self, batch: Batch) -> None:
        """Apply a batch and say what became of it."""
        application: Application | None = None
        try:
            content = BatchContent(batch.path, batch.name.form, go_on=self._check)
            application = Application(content, self._applier, self._wrote, self._check)
            report = self._patiently(application.attempt)
        except _GivenBackError:
            self._spool.give_back(batch)
        except MsmarcoQdrantError as exc:
            if self._stopping.is_set() and _may_pass(exc):
                self._spool.give_back(batch)
            else:
                self._fail(batch, str(exc), application)
        except Exception as exc:  # noqa: BLE001  # one batch must not end the worker
            _log.exception("batch %s met with a fault of this program", batch.id)
            self._fail(batch, f"unexpected: {exc!r}", application)
        else:
            state = self._patiently(lambda: self._spool.finish(batch, report))
            self._events.ended(state, application.stages)

    def _fail(self, batch: Batch, reason: str, application: Application | None) -> None:
        _log.error("batch %s has failed for good: %s", batch.id, reason)
        report = application.failed if application else BatchReport()
        state = self._patiently(lambda: self._spool.fail(batch, reason, report))
        self._events.ended(state, ())

    def _check(self) -> None:
        if self._giving_back.is_set():
            raise _GivenBackError

    # ---- trying again ----------------------------------------------------------------------

    def _patiently(self, function: Callable[[], _T]) -> _T:
        """Call a function until it answers, fails for good, or the worker is to stop."""
        from tenacity import Retrying, stop_when_event_set, wait_random_exponential

        settings = self._settings
        tries = Retrying(
            retry=self._again,
            wait=wait_random_exponential(settings.first_wait_s, settings.longest_wait_s),
            stop=stop_when_event_set(self._stopping),
            sleep=self._wait,
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            answer: _T = tries(function)
        finally:
            self._trouble = ""
        return answer

    def _again(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _PASSING):
            return True
        return _may_pass(error) and state.attempt_number < self._settings.doubtful_attempts

    def _wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is None:
            return
        self._trouble = str(error)
        _log.warning("attempt %d failed, another follows: %s", state.attempt_number, error)
        self._events.failing(self._batch, state.attempt_number, error)

    # ---- indexes ---------------------------------------------------------------------------

    def _wrote(self, count: int) -> None:
        """Count passages of a batch in hand; one may be too large to wait for its end."""
        self._unindexed += count
        if self._settings.optimize_every and self._unindexed >= self._settings.optimize_latest:
            self._index()

    def _index_if_due(self) -> None:
        every = self._settings.optimize_every
        if not every or self._unindexed < every or self._stopping.is_set():
            return
        if self._spool.depth == 0 or self._unindexed >= self._settings.optimize_latest:
            self._index()

    def _index(self) -> None:
        self._unindexed = 0
        started = time.perf_counter()
        try:
            self._applier.optimize()
        except StoreError as exc:
            _log.warning("the index could not be built, searches go on without: %s", exc)
        else:
            self._events.optimized(time.perf_counter() - started)


def _may_pass(error: BaseException | None) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, PidCollisionError):
        return False
    return isinstance(error, (*_PASSING, *_DOUBTFUL))
