"""Concurrent calls in an event loop, merged into few calls of a blocking function."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(slots=True, eq=False)
class _Call(Generic[_T, _R]):
    """The items of one caller, and the future of its results."""

    items: Sequence[_T]
    results: asyncio.Future[list[_R]]


class MicroBatcher(Generic[_T, _R]):
    """Batches the items of concurrent callers for a function, in one worker thread.

    Calls during a batch form the next batch. A call that finds the function idle does not wait for
    others; calls of one turn of the event loop are merged.

    Args:
        function: Returns one result per item, in order. Called in the worker thread.
        max_items: Most items of a batch, except for one call with more.
        name: Name of the thread.
    """

    def __init__(
        self,
        function: Callable[[Sequence[_T]], Sequence[_R]],
        *,
        max_items: int,
        name: str,
    ) -> None:
        self._function = function
        self._max_items = max_items
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: deque[_Call[_T, _R]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def __call__(self, items: Sequence[_T]) -> list[_R]:
        """Return the results of some items; cancelling removes them while they wait.

        Raises:
            BaseException: The function's exception for these items alone.
        """
        # The list is copied: the caller may change it while it waits, and the results of a batch
        # are split by the number of items of each call.
        call = _Call[_T, _R]([*items], asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await call.results

    async def close(self) -> None:
        """Wait for the calls in progress, and end the thread."""
        try:
            if self._runner is not None:
                await asyncio.wait([self._runner])  # a cancelled close does not cancel it
        finally:
            await asyncio.to_thread(self._worker.shutdown)

    async def _run(self) -> None:
        """Process calls until none waits."""
        calls: list[_Call[_T, _R]] = []
        try:
            while calls := self._next_calls():
                await self._serve(calls)
        finally:
            self._runner = None
            for call in (*calls, *self._waiting):  # none, unless this task was cancelled
                call.results.cancel()

    def _next_calls(self) -> list[_Call[_T, _R]]:
        """Take the calls of the next batch, without those cancelled."""
        calls: list[_Call[_T, _R]] = []
        size = 0
        while self._waiting:
            call = self._waiting[0]
            if calls and size + len(call.items) > self._max_items:
                break
            self._waiting.popleft()
            if not call.results.done():
                calls.append(call)
                size += len(call.items)
        return calls

    async def _serve(self, calls: list[_Call[_T, _R]]) -> None:
        """Give each call its results; if a batch fails, run each of its calls alone."""
        items = [item for call in calls for item in call.items]
        loop = asyncio.get_running_loop()
        outcome: list[_R] | BaseException
        try:
            outcome = await loop.run_in_executor(self._worker, self._run_function, items)
        except Exception as exc:  # noqa: BLE001  # no thread: closed, or it cannot be started
            outcome = exc
        if isinstance(outcome, BaseException) and len(calls) > 1:
            for call in calls:
                if not call.results.done():
                    await self._serve([call])
            return
        start = 0
        for call in calls:
            stop = start + len(call.items)
            if call.results.done():
                pass
            elif isinstance(outcome, BaseException):
                call.results.set_exception(outcome)
            else:
                call.results.set_result(outcome[start:stop])
            start = stop

    def _run_function(self, items: Sequence[_T]) -> list[_R] | BaseException:
        """Return, in the worker thread, the function's results or its exception.

        An exception is returned, not raised: a raised one could end the runner and leave callers
        waiting. The `PanicException` of an engine in Rust is not an `Exception`, and
        `CancelledError` and `StopIteration` have their own meaning to an event loop.
        """
        try:
            results = [*self._function(items)]
        except StopIteration as exc:
            return RuntimeError(f"{self._function!r} raised {exc!r}")
        except BaseException as exc:  # noqa: BLE001  # the callers raise it
            return exc
        if len(results) != len(items):
            return RuntimeError(
                f"{self._function!r} returned {len(results)} results for {len(items)} items"
            )
        return results
