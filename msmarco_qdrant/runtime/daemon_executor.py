"""Threads that do not keep an interrupted process from ending: a pool, and one for one call.

Python waits at exit for the threads of a `ThreadPoolExecutor`: a request to a server that never
answers would delay Control-C until its time limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import wraps
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar, cast

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Task = tuple[Future[Any], Callable[[], Any]]


class _Worker(threading.Thread):
    """A thread of a pool; `is_busy` is True while it runs a call."""

    is_busy = False


class DaemonExecutor(Executor):
    """Runs calls in up to `max_workers` daemon threads, which start when they are needed.

    Args:
        max_workers: Most threads.
        name: The name of the threads.
    """

    def __init__(self, max_workers: int, name: str) -> None:
        self._max_workers = max_workers
        self._name = name
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False
        self._waiting = 0  # tasks in the queue or running

    def submit(
        self, function: Callable[_P, _T], /, *args: _P.args, **options: _P.kwargs
    ) -> Future[_T]:
        """Run a call in a thread.

        Raises:
            RuntimeError: After `shutdown`.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor is closed")
            future: Future[_T] = Future()
            self._waiting += 1
            self._tasks.put((future, lambda: function(*args, **options)))
            if len(self._threads) < min(self._waiting, self._max_workers):
                thread = _Worker(target=self._work, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; with `wait`, wait for them. See `Executor.shutdown`."""
        with self._lock:
            self._closed = True
        while cancel_futures and not self._tasks.empty():
            if (task := self._tasks.get()) is not None:
                task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _work(self) -> None:
        thread = cast("_Worker", threading.current_thread())
        while (task := self._tasks.get()) is not None:
            thread.is_busy = True
            future, call = task
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as exc:  # noqa: BLE001  # raised by `result`
                    future.set_exception(exc)
            with self._lock:
                self._waiting -= 1
            del future, call, task
            thread.is_busy = False


def has_running_calls() -> bool:
    """True if a thread of a `DaemonExecutor` is within a call.

    The end of the interpreter then waits for a call that it must not interrupt, see
    `finish_before_exit`.
    """
    return any(isinstance(one, _Worker) and one.is_busy for one in threading.enumerate())


def finish_before_exit(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a function of native code, so that the interpreter does not end during a call.

    C++ code, as torch's, that takes Python's lock again after the end of the interpreter aborts the
    process. So a call in a daemon thread runs in another thread, for which Python waits at exit;
    one that comes too late raises `RuntimeError`.
    """

    @wraps(function)
    def finished(*args: _P.args, **options: _P.kwargs) -> _T:
        if not threading.current_thread().daemon:
            return function(*args, **options)
        with ThreadPoolExecutor(1, threading.current_thread().name) as thread:
            return thread.submit(function, *args, **options).result()

    return finished


def call_in_daemon_thread(function: Callable[[], _T], name: str) -> Future[_T]:
    """Call a function in a daemon thread of its own, which ends with the call.

    Args:
        function: It may go on after the future's waiters have given up, even until the process
            ends.
        name: The name of the thread.
    """
    executor = DaemonExecutor(1, name)
    future = executor.submit(function)
    executor.shutdown(wait=False)
    return future
