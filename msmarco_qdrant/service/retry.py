"""Retries of failed calls: without end, a limited number of times, or not at all.

A transient error lies in the environment: the next batch would fail too, so the call is retried
until it succeeds. A permanent error lies in the batch. Any other error is uncertain, also a bug or
a lack of memory: it is retried a limited number of times, so that no batch is lost to an error
that does not recur, and none blocks the others forever.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from msmarco_qdrant.errors import (
    CollectionReplacedError,
    ModelError,
    ModelMismatchError,
    ModelNotFoundError,
    MsmarcoQdrantError,
    PidCollisionError,
    SourceError,
    SpoolError,
    StoreAccessError,
    StoreError,
    StoreInUseError,
    StoreUnavailableError,
    WorkerError,
)

if TYPE_CHECKING:
    from tenacity import RetryCallState

_WARNING_EVERY_S = 60.0
_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_TRANSIENT = (
    StoreUnavailableError,
    StoreInUseError,
    StoreAccessError,
    CollectionReplacedError,
    ModelNotFoundError,
    ModelMismatchError,
    SpoolError,
)
_UNCERTAIN = (StoreError, ModelError, WorkerError)


class Retryability(Enum):
    """Expectation for a retry of a failed call."""

    TRANSIENT = "it will succeed at some time"
    UNCERTAIN = "it may succeed"
    PERMANENT = "it will fail again"


class StoppingError(Exception):
    """The process stops, so a failed call is not retried."""


def retryability_of(error: BaseException) -> Retryability:
    """Classify an error."""
    if isinstance(error, _TRANSIENT):
        return Retryability.TRANSIENT
    if isinstance(error, PidCollisionError | StoppingError):
        return Retryability.PERMANENT
    if isinstance(error, MsmarcoQdrantError):
        is_uncertain = isinstance(error, _UNCERTAIN) or _is_system_error(error)
        return Retryability.UNCERTAIN if is_uncertain else Retryability.PERMANENT
    return Retryability.UNCERTAIN


def _is_system_error(error: MsmarcoQdrantError) -> bool:
    """Return True if the operating system failed to read a file."""
    cause = error.__cause__
    return isinstance(error, SourceError) and isinstance(cause, OSError) and bool(cause.errno)


class BatchRetrier:
    """Calls a function until it succeeds, fails permanently, or the process stops.

    Args:
        first_wait_s: Longest wait after the first failure; it doubles with each failure.
        max_wait_s: Longest wait of all.
        max_uncertain: Calls that may fail with an uncertain error.
        stopping: No call is retried once this is set.
        on_failure: Called with the number and the error of an attempt that will be retried.
        classify: Classifies an error.
        clock: Seconds; failures of one call are logged at most once per minute.
    """

    def __init__(
        self,
        first_wait_s: float,
        max_wait_s: float,
        max_uncertain: int,
        stopping: threading.Event,
        on_failure: Callable[[int, BaseException], None] = lambda _attempt, _error: None,
        *,
        classify: Callable[[BaseException], Retryability] = retryability_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_wait_s, self._max_wait_s = first_wait_s, max_wait_s
        self._max_uncertain = max_uncertain
        self._stopping = stopping
        self._on_failure = on_failure
        self._classify = classify
        self._clock = clock
        self._next_warning = 0.0
        self._fields: Mapping[str, object] = {}

    def __call__(
        self, function: Callable[[], _T], fields: Mapping[str, object] | None = None
    ) -> _T:
        """Call a function.

        Args:
            function: An idempotent function.
            fields: Fields of the log line of each failure.

        Raises:
            StoppingError: If a call that could be retried failed and the process stops.
            BaseException: The error of the last attempt.
        """
        from tenacity import Retrying, retry_if_exception, wait_random_exponential

        uncertain = count(1)

        def should_retry(error: BaseException) -> bool:
            # Transient errors do not count: a store that was down may answer oddly once.
            retryability = self._classify(error)
            if retryability is Retryability.UNCERTAIN:
                return next(uncertain) < self._max_uncertain
            return retryability is Retryability.TRANSIENT

        self._next_warning, self._fields = -math.inf, fields or {}
        retrying = Retrying(
            retry=retry_if_exception(should_retry),
            wait=wait_random_exponential(self._first_wait_s, self._max_wait_s),
            sleep=self._wait,
            before_sleep=self._report,
            reraise=True,
        )
        result: _T = retrying(function)
        return result

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise StoppingError

    def _report(self, state: RetryCallState) -> None:
        """Report a failure; log the first one of a call, and then at most one per minute."""
        error = state.outcome.exception() if state.outcome else None
        if error is None or self._stopping.is_set():
            return
        attempt, now = state.attempt_number, self._clock()
        if now >= self._next_warning:
            self._next_warning = now + _WARNING_EVERY_S
            wait_s = state.next_action.sleep if state.next_action else 0.0
            fields = {**self._fields, "attempt": attempt, "again_in_s": wait_s}
            _log.warning(
                "attempt %d failed, retrying in %.1f s: %s",
                *(attempt, wait_s, str(error) or repr(error)),
                exc_info=error if not isinstance(error, MsmarcoQdrantError) else None,
                extra={"fields": fields},
            )
        self._on_failure(attempt, error)
