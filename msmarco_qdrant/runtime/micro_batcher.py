"""Concurrent calls of an event loop, merged into few calls of a blocking function."""

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
    """What one caller asked, and where it waits for the answers."""

    items: Sequence[_T]
    answers: asyncio.Future[list[_R]]


class MicroBatcher(Generic[_T, _R]):
    """Hands the items of concurrent callers to a function together, in one worker thread.

    While the function runs, callers queue up and go together next. When it is idle, the first
    caller waits a moment for others.

    Args:
        function: Gives an answer for each item, in their order. Called in the worker thread.
        max_items: No more items go together, but for one caller that brings more.
        max_wait_s: How long the first caller waits for others at most.
        name: Of the thread.
    """

    def __init__(
        self,
        function: Callable[[Sequence[_T]], Sequence[_R]],
        *,
        max_items: int,
        max_wait_s: float,
        name: str,
    ) -> None:
        self._function = function
        self._max_items = max_items
        self._max_wait_s = max_wait_s
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: deque[_Call[_T, _R]] = deque()
        self._items_waiting = 0
        self._full = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    async def __call__(self, items: Sequence[_T]) -> list[_R]:
        """The answers to some items; cancelling it takes them back, if they still wait.

        Raises:
            BaseException: What the function raises for these items alone.
        """
        # A copy: the caller may change its list while it waits, and the answers are told apart by
        # how many items each caller brought.
        call = _Call[_T, _R]([*items], asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._items_waiting += len(call.items)
        if self._is_full():
            self._full.set()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await call.answers

    async def close(self) -> None:
        """Wait for what is under way, and end the thread."""
        try:
            if self._runner is not None:
                await asyncio.wait([self._runner])  # which a cancelled close does not cancel
        finally:
            await asyncio.to_thread(self._worker.shutdown)

    async def _run(self) -> None:
        """Serve the callers until none waits."""
        calls: list[_Call[_T, _R]] = []
        try:
            await self._wait_for_others()
            while calls := self._next_calls():
                await self._serve(calls)
        finally:
            self._runner = None
            for call in (*calls, *self._waiting):  # none, unless this task was cancelled
                call.answers.cancel()

    async def _wait_for_others(self) -> None:
        self._full.clear()
        if self._max_wait_s > 0 and not self._is_full():
            try:
                await asyncio.wait_for(self._full.wait(), self._max_wait_s)
            except TimeoutError:
                return  # the moment is over: those who came go

    def _is_full(self) -> bool:
        return self._items_waiting >= self._max_items

    def _next_calls(self) -> list[_Call[_T, _R]]:
        """The callers that go next; those who gave up are left out."""
        calls: list[_Call[_T, _R]] = []
        size = 0
        while self._waiting:
            call = self._waiting[0]
            if calls and size + len(call.items) > self._max_items:
                break
            self._waiting.popleft()
            self._items_waiting -= len(call.items)
            if not call.answers.done():
                calls.append(call)
                size += len(call.items)
        return calls

    async def _serve(self, calls: list[_Call[_T, _R]]) -> None:
        """Give each caller its answers; if it fails for all, each learns what is due to itself."""
        items = [item for call in calls for item in call.items]
        loop = asyncio.get_running_loop()
        told: list[_R] | BaseException
        try:
            told = await loop.run_in_executor(self._worker, self._answers_or_failure, items)
        except Exception as exc:  # noqa: BLE001  # there is no thread: closed, or none can be started
            told = exc
        if isinstance(told, list):
            start = 0
            for call in calls:
                stop = start + len(call.items)
                if not call.answers.done():
                    call.answers.set_result(told[start:stop])
                start = stop
        elif len(calls) == 1:
            if not calls[0].answers.done():
                calls[0].answers.set_exception(told)
        else:
            for call in calls:
                if not call.answers.done():
                    await self._serve([call])

    def _answers_or_failure(self, items: Sequence[_T]) -> list[_R] | BaseException:
        """In the worker: what the function gives, or raises.

        Returned, not raised, so that nothing that it raises can end the runner and leave callers
        waiting: not the `PanicException` of an engine in Rust, which is no `Exception`, nor a
        `CancelledError` or `StopIteration`, which mean something else to an event loop.
        """
        try:
            answers = [*self._function(items)]
        except StopIteration as exc:
            return RuntimeError(f"{self._function!r} raised {exc!r}")
        except BaseException as exc:  # noqa: BLE001  # it is handed to the callers
            return exc
        if len(answers) != len(items):
            return RuntimeError(
                f"{self._function!r} gave {len(answers)} answers for {len(items)} items"
            )
        return answers
