"""Event loops and gates for tests of the search clients."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import pytest

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import MsmarcoQdrantError

_P = ParamSpec("_P")
_T = TypeVar("_T")


def in_loop(test: Callable[_P, Awaitable[None]]) -> Callable[_P, None]:
    """Run a test in an event loop; see `run`."""

    @wraps(test)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> None:
        run(lambda: test(*args, **kwargs))

    return wrapped


def run(main: Callable[[], Awaitable[_T]]) -> _T:
    """Run a coroutine; errors that asyncio only logs, and threads left over, are failures."""
    logged: list[dict[str, Any]] = []

    async def with_handler() -> _T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        return await main()

    gc.freeze()  # so that the collection below is fast
    try:
        answer = asyncio.run(with_handler())
        gc.collect()  # asyncio logs an exception that nobody retrieved when it frees the future
    finally:
        gc.unfreeze()
    for thread in threads("open"):  # ends by itself after its client was opened or not
        thread.join(60)
    assert [] == logged
    assert [] == threads("encode", "query", "open", "rerank", "upsert", "delete")
    return answer


def threads(*purposes: str) -> list[threading.Thread]:
    """This package's threads that are alive, for some purposes."""
    names = tuple(f"msmarco-qdrant-{purpose}" for purpose in purposes)
    return [thread for thread in threading.enumerate() if thread.name.startswith(names)]


async def turn(times: int = 10) -> None:
    """Let the loop run everything that is ready."""
    for _ in range(times):
        await asyncio.sleep(0)


async def refused(call: Callable[[], object]) -> tuple[type[MsmarcoQdrantError], str]:
    """The error of a call of the sync or the async client."""
    try:
        answer = call()
        if inspect.isawaitable(answer):
            await answer
    except MsmarcoQdrantError as exc:
        return type(exc), str(exc)
    return pytest.fail("it was not refused")


def near(answer: Any) -> Any:
    """A hit, or lists of hits, that equals one whose scores differ in the last bits."""
    if isinstance(answer, Hit):
        return replace(answer, score=cast(float, pytest.approx(answer.score, abs=1e-5)))
    return [near(item) for item in answer]


class Gate:
    """Lets threads through, or holds them until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._waiting = threading.Semaphore(0)

    def shut(self) -> None:
        """Hold the threads that come from now on."""
        self._open.clear()

    def open(self) -> None:
        """Let all threads through."""
        self._open.set()

    def pass_through(self) -> None:
        """Wait until the gate is open."""
        if not self._open.is_set():
            self._waiting.release()
            self._open.wait()

    async def reached(self) -> None:
        """Wait until one more thread is held."""
        await asyncio.to_thread(self._waiting.acquire)
