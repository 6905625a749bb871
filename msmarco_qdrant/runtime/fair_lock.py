"""A lock that goes to whoever has waited longest.

`threading.Lock` goes to whoever comes first when it is free, which is mostly the thread that has
just let go of it: who encodes batch after batch, or asks an engine on and on, would keep others
waiting for long.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """A lock, as a context manager, that is held in the order in which it was asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the two below, and never held for long
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:  # an interrupt: the place in the queue is given up
            self._give_up(turn)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._next()

    def _give_up(self, turn: threading.Lock) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:  # it was its turn by then
                self._next()

    def _next(self) -> None:
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self._held = False
