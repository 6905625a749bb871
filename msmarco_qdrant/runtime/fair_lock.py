"""A lock that threads acquire in the order of their requests (FIFO).

`threading.Lock` often goes back to the thread that released it, so a thread that encodes batch
after batch would starve the others.
"""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """A FIFO lock, as a context manager."""

    def __init__(self) -> None:
        self._guard = threading.Lock()  # guards _held and _waiting; held only briefly
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            ticket = threading.Lock()
            ticket.acquire()
            self._waiting.append(ticket)
        try:
            ticket.acquire()
        except BaseException:  # an interrupt: the thread leaves the queue
            self._cancel(ticket)
            raise

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._wake_next()

    def _cancel(self, ticket: threading.Lock) -> None:
        with self._guard:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            else:  # the lock was handed to this ticket already
                self._wake_next()

    def _wake_next(self) -> None:
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self._held = False
