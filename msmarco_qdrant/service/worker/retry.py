"""How often what has failed is tried again: for as long as it takes, some times, or not at all.

What is wrong around the batches would be wrong with the next one, too, and passes. What is wrong
with one batch stays so. Whatever may be either is tried some times. Of that kind are faults of
this program or of an engine and a lack of memory, too: a batch must neither be lost to what may
pass, nor block all others for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum
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

_PASSING = (
    StoreUnavailableError,
    StoreInUseError,
    StoreAccessError,
    CollectionReplacedError,
    ModelNotFoundError,
    ModelMismatchError,
    SpoolError,
)
_DOUBTFUL = (StoreError, ModelError, WorkerError)


class Retryability(Enum):
    """What is to be expected of the same call later."""

    TRANSIENT = "it will succeed some time"
    UNCERTAIN = "it may succeed"
    PERMANENT = "it will fail again"


class StoppingError(Exception):
    """There is to be no other attempt, whatever the last one has met with."""


def outlook_of(error: BaseException) -> Retryability:
    """What is to be expected after an error."""
    if isinstance(error, _PASSING):
        return Retryability.TRANSIENT
    if isinstance(error, PidCollisionError | StoppingError):
        return Retryability.PERMANENT
    if isinstance(error, MsmarcoQdrantError):
        is_doubtful = isinstance(error, _DOUBTFUL) or _is_of_the_disk(error)
        return Retryability.UNCERTAIN if is_doubtful else Retryability.PERMANENT
    return Retryability.UNCERTAIN


def _is_of_the_disk(error: MsmarcoQdrantError) -> bool:
    """Whether a file could not be read for what the system says, not for what is in it."""
    cause = error.__cause__
    return isinstance(error, SourceError) and isinstance(cause, OSError) and bool(cause.errno)


class BatchRetrier:
    """Calls functions again until they answer, fail for good, or it is time to stop.

    Args:
        first_wait_s: The longest wait after a first failure; it doubles with each.
        longest_wait_s: The longest there is.
        doubtful_attempts: How often to try what may pass or not.
        stopping: When it is set, nothing is tried again.
        on_failure: Called with the number of an attempt that failed, and with why, if another is to
            follow.
        outlook: What is to be expected after an error.
        clock: Seconds, for the log: what fails is told at first, and then once a minute.

    Attributes:
        trouble: Why the call that is being made has failed up to now; "" while all is well.
    """

    def __init__(
        self,
        first_wait_s: float,
        longest_wait_s: float,
        doubtful_attempts: int,
        stopping: threading.Event,
        on_failure: Callable[[int, BaseException], None] = lambda _attempt, _error: None,
        *,
        outlook: Callable[[BaseException], Retryability] = outlook_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_wait_s, self._longest_wait_s = first_wait_s, longest_wait_s
        self._doubtful_attempts = doubtful_attempts
        self._stopping = stopping
        self._on_failure = on_failure
        self._outlook = outlook
        self._now = clock
        self._next_warning = 0.0
        self._told: Mapping[str, object] = {}
        self.trouble = ""

    def __call__(self, function: Callable[[], _T], told: Mapping[str, object] | None = None) -> _T:
        """Call a function.

        Args:
            function: What to call; calling it twice must do no more than calling it once.
            told: Fields that the log tells with each failure.

        Raises:
            StoppingError: If it failed, might have succeeded later, and it is time to stop.
            BaseException: What it raised at the last attempt there is.
        """
        from tenacity import Retrying, wait_random_exponential

        self._next_warning, self._told = 0.0, told or {}
        tries = Retrying(
            retry=_Doubts(self._doubtful_attempts, self._outlook),
            wait=wait_random_exponential(self._first_wait_s, self._longest_wait_s),
            sleep=self._wait,
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            answer: _T = tries(function)
        finally:
            self.trouble = ""
        return answer

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise StoppingError

    def _tell(self, state: RetryCallState) -> None:
        error = _error_of(state)
        if error is None or self._stopping.is_set():
            return
        self.trouble = str(error) or repr(error)
        wait_s = state.next_action.sleep if state.next_action else 0.0
        self._warn(state.attempt_number, error, wait_s)
        self._on_failure(state.attempt_number, error)

    def _warn(self, attempt: int, error: BaseException, wait_s: float) -> None:
        """Warn at first, and then once a minute, however long it takes."""
        now = self._now()
        if attempt > 1 and now < self._next_warning:
            return
        self._next_warning = now + _WARNING_EVERY_S
        fields = {**self._told, "attempt": attempt, "again_in_s": wait_s}
        _log.warning(
            "attempt %d failed, another follows in %.1f s: %s",
            attempt,
            wait_s,
            self.trouble,
            exc_info=error if not isinstance(error, MsmarcoQdrantError) else None,
            extra={"fields": fields},
        )


class _Doubts:
    """Whether to try again; it counts how often a call has failed of what may pass or not.

    What passes for sure does not count: a store that was away for hours may answer oddly once.
    """

    def __init__(self, most: int, outlook: Callable[[BaseException], Retryability]) -> None:
        self._most = most
        self._outlook_of = outlook
        self._count = 0

    def __call__(self, state: RetryCallState) -> bool:
        error = _error_of(state)
        if error is None:
            return False
        outlook = self._outlook_of(error)
        if outlook is not Retryability.UNCERTAIN:
            return outlook is Retryability.TRANSIENT
        self._count += 1
        return self._count < self._most


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
