"""The end of a service: SIGTERM or SIGINT, or an error of one of its tasks."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def until(stopping: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    """Return once `stopping` is set; raise an error of a task."""
    stop = asyncio.create_task(stopping.wait())
    waiting: set[asyncio.Task[bool] | asyncio.Task[None]] = {stop, *tasks}
    try:
        while not stop.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        stop.cancel()


@contextmanager
def on_signals(stop: Callable[[int], None]) -> Iterator[None]:
    """Call `stop` with the number of the first signal; the second one ends the process as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def remove_handlers() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def stop_once(number: int) -> None:
        remove_handlers()
        stop(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop_once, number)
    try:
        yield
    finally:
        remove_handlers()
