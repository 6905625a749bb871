"""Iterators that run in threads of their own, a bounded number of items ahead.

A pipeline is a chain of iterators; `Stages.run` puts a thread under one of them::

    with Stages() as stages:
        lines = stages.run(read(file), ahead=2)
        for result in stages.run(work(lines), ahead=2):
            ...

However the block is left, every thread is told to stop; an exception in one comes out where its
items were awaited.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_JOIN_TIMEOUT_S = 60.0


class Stages:
    """The threads of one pipeline, which end together."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[tuple[threading.Thread, float]] = []

    def run(
        self, items: Iterable[T], ahead: int, join_timeout_s: float = _JOIN_TIMEOUT_S
    ) -> Iterator[T]:
        """Iterate `items` in a thread of its own.

        Args:
            items: What to iterate; from now on only that thread touches it.
            ahead: Most items that wait to be taken.
            join_timeout_s: How long to wait, at the end, for the item it is working on. A thread
                that waits for input that never comes, such as a terminal's, is then left behind.

        Returns:
            The same items in the same order. An exception raised by `items` is raised here.
        """
        channel: _Channel[T] = _Channel(self, ahead)
        thread = threading.Thread(target=channel.fill, args=(items,), daemon=True)
        self._threads.append((thread, join_timeout_s))
        thread.start()
        return channel

    @property
    def changed(self) -> threading.Condition:
        """Notified whenever a channel or `closed` changes."""
        return self._changed

    @property
    def closed(self) -> bool:
        """Whether the pipeline is being left."""
        return self._closed

    def close(self) -> None:
        """Tell every thread to stop, and wait for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread, timeout_s in reversed(self._threads):
            thread.join(timeout_s)

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Channel(Generic[T]):
    """A bounded queue between two threads that also carries the end and an error."""

    def __init__(self, stages: Stages, ahead: int) -> None:
        self._stages = stages
        self._ahead = ahead
        self._items: deque[T] = deque()
        self._ended = False
        self._error: BaseException | None = None

    def fill(self, items: Iterable[T]) -> None:
        """The thread's work: take from `items` until they end or the pipeline closes."""
        error: BaseException | None = None
        try:
            for item in items:
                if not self._put(item):
                    return
        except BaseException as exc:  # noqa: BLE001  # raised again where the items are awaited
            error = exc
        with self._stages.changed:
            self._ended, self._error = True, error
            self._stages.changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._stages.changed:
            self._stages.changed.wait_for(
                lambda: self._stages.closed or len(self._items) < self._ahead
            )
            if self._stages.closed:
                return False
            self._items.append(item)
            self._stages.changed.notify_all()
            return True

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._stages.changed:
            self._stages.changed.wait_for(lambda: self._items or self._ended or self._stages.closed)
            if self._items and not self._stages.closed:
                self._stages.changed.notify_all()
                return self._items.popleft()
        if self._error is not None:
            raise self._error
        raise StopIteration
