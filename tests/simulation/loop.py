"""Simulated time and processes: a discrete-event loop, in the order that a seed decides.

A process is a generator. It yields an operation, a function that gets `done(value, error)` and
calls it later, and is resumed with the value or the error. A killed process never is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from itertools import count
from random import Random
from typing import Any, TypeAlias

Done: TypeAlias = Callable[[Any, BaseException | None], None]
Operation: TypeAlias = Callable[[Done], None]
Steps: TypeAlias = Generator[Operation, Any, Any]


class Killed(BaseException):
    """The process ends here, as by `kill -9`: no handler may run after it."""


class Loop:
    """Events in the order of their times.

    Attributes:
        now: The time, in seconds.
        random: Every choice of the simulation is drawn from it.
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), action))

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.random.random() < probability

    def sleep(self, seconds: float) -> Operation:
        """Return an operation that only takes time."""
        return lambda done: self.after(seconds, lambda: done(None, None))

    def step(self) -> bool:
        """Run the next event; False if there is none."""
        if not self._events:
            return False
        self.now, _, action = heapq.heappop(self._events)
        action()
        return True


class Process:
    """A running generator.

    Args:
        loop: The loop.
        steps: The generator.
        on_end: Called with its result, or with its error; not if it was killed.
    """

    def __init__(
        self, loop: Loop, steps: Steps, on_end: Callable[[Any, BaseException | None], None]
    ) -> None:
        self._loop = loop
        self._steps = steps
        self._on_end = on_end
        self._step = 0
        self.is_alive = True
        loop.after(0, lambda: self._resume(0, None, None))

    def kill(self) -> None:
        """End it without a trace; what it sent is on its way."""
        if self.is_alive:
            self.is_alive = False
            self._step = -1

    def _resume(self, step: int, value: Any, error: BaseException | None) -> None:
        """Go on, unless this answers an earlier operation."""
        if step != self._step:
            return
        self._step += 1
        current = self._step
        try:
            begin = self._steps.send(value) if error is None else self._steps.throw(error)
        except StopIteration as end:
            self._end(end.value, None)
        except Killed:
            self.kill()
        except Exception as exc:  # noqa: BLE001  # the error of the process, for its parent
            self._end(None, exc)
        else:
            begin(lambda value, error: self._resume(current, value, error))

    def _end(self, value: Any, error: BaseException | None) -> None:
        self.is_alive = False
        self._step = -1
        self._on_end(value, error)
