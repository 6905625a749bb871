"""Retries of calls that fail transiently."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_before_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.stores.error_mapping import (
    describe_error,
    is_transient,
    retry_after_s,
    status_of,
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_PART_S = 1.0
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0
_WARN_AFTER_S, _WARN_INTERVAL_S = 2.0, 10.0


class RequestFailures:
    """Counts of failed requests by what followed, and by status. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, event: Literal["retried", "raised"], exc: BaseException) -> None:
        """Count a failed request that is retried, or whose error is raised."""
        with self._lock:
            self._counts[event, status_of(exc)] += 1

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count an error that ends the block, unless it is not the server's."""
        try:
            yield
        except MsmarcoQdrantError:
            raise
        except Exception as exc:
            self.add("raised", exc)
            raise

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return the counts up to now."""
        with self._lock:
            return dict(self._counts)


class RetryPolicy:
    """The retry policy of a store: exponential back-off with jitter, and a total deadline.

    A server's retry-after pauses every thread that shares the policy.

    Args:
        total_s: Seconds after which no call is retried.
        failures: Counts failed calls, also those of other policies; by default only this one's.

    Attributes:
        failures: As given.
    """

    def __init__(self, total_s: float, failures: RequestFailures | None = None) -> None:
        self._total_s = total_s
        self.failures = failures or RequestFailures()
        self._stopped = threading.Event()
        self._paused_until = 0.0  # in seconds of the monotonic clock
        self._next_warning = 0.0

    def deadline(self) -> Callable[[], float]:
        """Start the total deadline for several calls; returns a function of the seconds left."""
        ends = time.monotonic() + self._total_s
        return lambda: max(0.0, ends - time.monotonic())

    def call(self, function: Callable[[], _T], *, total_s: float | None = None) -> _T:
        """Call a function until it succeeds, fails permanently, or the deadline has passed.

        Args:
            function: An idempotent call.
            total_s: Another deadline than the policy's.

        Raises:
            Exception: The last exception of the function.
        """
        deadline_s = self._total_s if total_s is None else total_s
        ends = time.monotonic() + deadline_s

        def attempt() -> _T:
            while pause := self._pause_s(ends):
                self.sleep(pause)
            return function()

        with self.failures.counted():
            answer: _T = Retrying(sleep=self.sleep, **self._rules(deadline_s))(attempt)
        return answer

    async def call_async(self, function: Callable[[], Awaitable[_T]]) -> _T:
        """Do the same for a coroutine function; cancelling ends the wait."""
        ends = time.monotonic() + self._total_s

        async def attempt() -> _T:
            while pause := self._pause_s(ends):
                await asyncio.sleep(pause)
            return await function()

        with self.failures.counted():
            answer: _T = await AsyncRetrying(**self._rules(self._total_s))(attempt)
        return answer

    def stop(self) -> None:
        """End every wait: waiting calls are tried once more."""
        self._stopped.set()

    def _pause_s(self, ends: float) -> float:
        """Return the seconds left of the server's retry-after, up to a deadline."""
        if self._stopped.is_set():
            return 0.0
        return max(0.0, min(self._paused_until, ends) - time.monotonic())

    def _rules(self, total_s: float) -> dict[str, Any]:
        return {
            "retry": retry_if_exception(is_transient),
            "wait": partial(self._wait, total_s),
            "stop": stop_before_delay(total_s) | stop_when_event_set(self._stopped),
            "before_sleep": partial(self._log_retry, total_s),
            "reraise": True,
        }

    def _wait(self, total_s: float, state: RetryCallState) -> float:
        """Return the seconds to the next attempt: the retry-after plus the back-off."""
        delay_s = retry_after_s(state.outcome.exception()) if state.outcome else 0.0
        if 0 < delay_s < total_s:
            self._paused_until = max(self._paused_until, time.monotonic() + delay_s)
        return delay_s + wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S)(
            state
        )

    def sleep(self, seconds: float) -> None:
        """Wait until the time has passed or `stop` is called.

        It waits in parts: a signal that comes just before a wait begins does not end that one.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stopped.wait(min(left, _PART_S)):
                return

    def _log_retry(self, total_s: float, state: RetryCallState) -> None:
        """Log a retry: a warning at most every ten seconds, and only after the first two."""
        exc = state.outcome.exception() if state.outcome else None
        if exc is not None:
            self.failures.add("retried", exc)
        lasted = state.seconds_since_start or 0.0
        level = logging.INFO
        if lasted >= _WARN_AFTER_S and time.monotonic() >= self._next_warning:
            level = logging.WARNING
            self._next_warning = time.monotonic() + _WARN_INTERVAL_S
        _log.log(
            level,
            "attempt %d failed (%s); retrying for up to %.0f s",
            state.attempt_number,
            describe_error(exc) if exc else "",
            max(0.0, total_s - lasted),
        )
