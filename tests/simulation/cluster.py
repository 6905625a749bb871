"""A simulated cluster: worker slots on nodes that crash, or that the driver loses from sight."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from tests.simulation.loop import Done, Loop, Operation, Process, Steps

_RESULT_LOST = 0.02


class Inbox:
    """The messages to one driver, in order."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._messages: deque[tuple[Any, ...] | None] = deque()
        self._waiting: Done | None = None

    def put(self, message: tuple[Any, ...] | None) -> None:
        """Deliver a message; None only wakes the driver."""
        self._messages.append(message)
        if (done := self._waiting) is not None:
            self._waiting = None
            self._loop.after(0, lambda: done(self._pop(), None))

    def take(self, timeout_s: float | None) -> Operation:
        """Return an operation that waits for a message; its result is None after the timeout."""

        def begin(done: Done) -> None:
            if self._messages:
                self._loop.after(0, lambda: done(self._pop(), None))
                return
            self._waiting = done
            if timeout_s is not None:
                self._loop.after(timeout_s + 1e-6, lambda: self._time_out(done))

        return begin

    def _pop(self) -> tuple[Any, ...] | None:
        return self._messages.popleft() if self._messages else None

    def _time_out(self, done: Done) -> None:
        if self._waiting is done:
            self._waiting = None
            done(None, None)


@dataclass
class Attempt:
    """A task on a worker."""

    task: int
    number: int
    inbox: Inbox
    process: Process | None = None
    is_lost: bool = False


@dataclass
class Slot:
    """A place for one worker on a node."""

    node: int
    is_up: bool = True
    attempt: Attempt | None = None


class Cluster:
    """The workers of all nodes."""

    def __init__(self, loop: Loop, nodes: int, workers: int) -> None:
        self._loop = loop
        self.slots = [Slot(node) for node in range(nodes) for _ in range(workers)]
        self._inbox: Inbox | None = None

    def notify(self, inbox: Inbox) -> None:
        """Wake the driver through this inbox when a slot becomes free."""
        self._inbox = inbox

    def connect(self) -> None:
        """Start a driver's run; workers of an earlier one end, or go on unseen."""
        for slot in self.slots:
            if (attempt := slot.attempt) is not None:
                attempt.is_lost = True
                if attempt.process is not None and self._loop.chance(0.7):
                    attempt.process.kill()
                slot.attempt = None

    def free_slot(self) -> Slot | None:
        """Return a slot without a worker."""
        return next((slot for slot in self.slots if slot.is_up and slot.attempt is None), None)

    def launch(self, slot: Slot, attempt: Attempt, steps: Steps) -> None:
        """Run a task; its result reaches the driver, or it counts as lost."""
        slot.attempt = attempt

        def report(value: Any, error: BaseException | None) -> None:
            if slot.attempt is attempt:
                self._free(slot)
            if self._loop.chance(_RESULT_LOST):
                self._lose(attempt)
                return
            kind, content = ("failed", error) if error is not None else ("done", value)
            message = (kind, attempt.task, attempt.number, content)
            delay = self._loop.random.uniform(0.001, 0.1)
            self._loop.after(delay, lambda: attempt.inbox.put(message))

        attempt.process = Process(self._loop, steps, report)

    def kill_worker(self, slot: Slot) -> None:
        """Kill the worker of a slot."""
        if (attempt := slot.attempt) is not None and attempt.process is not None:
            attempt.process.kill()
            self._free(slot)
            self._lose(attempt)

    def crash(self, node: int, seconds: float) -> None:
        """Kill every worker of a node, which is away for a while."""
        for slot in self.slots:
            if slot.node == node:
                self.kill_worker(slot)
                slot.is_up = False
                self._loop.after(seconds, lambda slot=slot: self._return(slot))  # type: ignore[misc]

    def hide(self, node: int) -> None:
        """Let the driver lose a node from sight; its workers go on, and their results may come."""
        for slot in self.slots:
            if slot.node == node and (attempt := slot.attempt) is not None:
                self._free(slot)
                self._lose(attempt)

    def _return(self, slot: Slot) -> None:
        slot.is_up = True
        self._free(slot)

    def _free(self, slot: Slot) -> None:
        slot.attempt = None
        if self._inbox is not None:
            self._inbox.put(None)

    def _lose(self, attempt: Attempt) -> None:
        """Let the driver find out, some seconds later."""
        attempt.is_lost = True
        message = ("lost", attempt.task, attempt.number, None)
        delay = self._loop.random.uniform(0.5, 6)
        self._loop.after(delay, lambda: attempt.inbox.put(message))
