"""Trying again what fails for a passing reason."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from msmarco_qdrant.stores.error_mapping import describe_error, is_transient, retry_after_s

if TYPE_CHECKING:
    from tenacity import RetryCallState

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0
_WORTH_A_WARNING_S, _WARNING_EVERY_S = 2.0, 10.0


class RetryPolicy:
    """The one policy of trying again: exponential back-off with jitter, and a total deadline.

    A server that asks to be left alone for some seconds is left alone by every thread that shares
    this policy: that is its back-pressure.

    Args:
        total_s: Seconds after which nothing is tried again.
    """

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._stopped = threading.Event()
        self._quiet_until = 0.0  # in seconds of the monotonic clock
        self._next_warning = 0.0

    def call(self, function: Callable[[], _T], *, total_s: float | None = None) -> _T:
        """Call a function until it answers, fails for good, or the time is up.

        Args:
            function: What to call; calling it twice must do no more than calling it once.
            total_s: Another deadline than the policy's.

        Raises:
            Exception: What the function raised last.
        """
        from tenacity import Retrying

        patience = self._total_s if total_s is None else total_s
        ends = time.monotonic() + patience

        def when_wanted() -> _T:
            while quiet := self._quiet_for_s(ends):
                self.sleep(quiet)
            return function()

        answer: _T = Retrying(sleep=self.sleep, **self._rules(patience))(when_wanted)
        return answer

    async def call_async(self, function: Callable[[], Awaitable[_T]]) -> _T:
        """`call` for coroutines; cancelling it ends its wait."""
        from tenacity import AsyncRetrying

        ends = time.monotonic() + self._total_s

        async def when_wanted() -> _T:
            while quiet := self._quiet_for_s(ends):
                await asyncio.sleep(quiet)
            return await function()

        answer: _T = await AsyncRetrying(**self._rules(self._total_s))(when_wanted)
        return answer

    def stop(self) -> None:
        """End every wait now: what waited is tried once more, and then no more."""
        self._stopped.set()

    def _quiet_for_s(self, ends: float) -> float:
        """Seconds for which the server still asked to be left alone, not beyond a deadline."""
        if self._stopped.is_set():
            return 0.0
        return max(0.0, min(self._quiet_until, ends) - time.monotonic())

    def _rules(self, total_s: float) -> dict[str, Any]:
        from tenacity import retry_if_exception, stop_before_delay, stop_when_event_set

        return {
            "retry": retry_if_exception(is_transient),
            "wait": partial(self._wait, total_s),
            "stop": stop_before_delay(total_s) | stop_when_event_set(self._stopped),
            "before_sleep": partial(self._tell, total_s),
            "reraise": True,
        }

    def _wait(self, total_s: float, state: RetryCallState) -> float:
        """Seconds to the next attempt, by the server's wish or by the number of attempts."""
        from tenacity import wait_random_exponential

        asked = retry_after_s(state.outcome.exception()) if state.outcome else 0.0
        if 0 < asked < total_s:
            self._quiet_until = max(self._quiet_until, time.monotonic() + asked)
        return asked + wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S)(state)

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond `stop`."""
        self._stopped.wait(seconds)

    def _tell(self, total_s: float, state: RetryCallState) -> None:
        """Warn of a fault that lasts, now and then; a short one is a matter for a closer look."""
        exc = state.outcome.exception() if state.outcome else None
        lasted = state.seconds_since_start or 0.0
        level = logging.INFO
        if lasted >= _WORTH_A_WARNING_S and time.monotonic() >= self._next_warning:
            level = logging.WARNING
            self._next_warning = time.monotonic() + _WARNING_EVERY_S
        _log.log(
            level,
            "attempt %d failed (%s); trying again for up to %.0f s",
            state.attempt_number,
            describe_error(exc) if exc else "",
            max(0.0, total_s - lasted),
        )
