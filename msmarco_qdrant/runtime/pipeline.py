"""Iterators that run in their own threads and prefetch a bounded number of items.

A pipeline is a chain of iterators; `Pipeline.run` puts a thread under one of them::

    with Stages() as stages:
        lines = stages.run(read(file), prefetch=2, name="read")
        for result in stages.run(work(lines), prefetch=2, name="work"):
            ...
    print(stages.stage_seconds)

However the block is left, every thread is told to stop; an exception in one comes out where its
items were awaited.

Each thread's time is counted while it works, not while it waits for the one before it or for room
behind it. Threads that wait for the interpreter's lock or for a core count as working.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

_JOIN_TIMEOUT_S = 60.0


class Pipeline:
    """The threads of one pipeline, which end together.

    Args:
        caller: What the thread that leaves the block does with the items, a name for `stage_seconds`.
        clock: Seconds, from wherever they are counted.
    """

    def __init__(
        self, caller: str = "caller", clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[tuple[threading.Thread, float]] = []
        self._clock = clock
        self._caller = caller
        self._watches: dict[str, _Watch] = {}
        self._current = threading.local()

    def run(
        self,
        items: Iterable[T],
        prefetch: int,
        join_timeout_s: float = _JOIN_TIMEOUT_S,
        name: str | None = None,
    ) -> Iterator[T]:
        """Iterate `items` in a thread of its own.

        Args:
            items: What to iterate; from now on only that thread touches it.
            prefetch: Most items that wait to be taken.
            join_timeout_s: How long to wait, at the end, for the item it is working on. A thread
                that waits for input that never comes, such as a terminal's, is then left behind.
            name: What `stage_seconds` shall call it; by default its number.

        Returns:
            The same items in the same order. An exception raised by `items` is raised here.
        """
        watch = self._new_watch(name or f"stage {len(self._threads)}")
        channel: _Channel[T] = _Channel(self, prefetch)
        thread = threading.Thread(target=channel.fill, args=(items, watch), daemon=True)
        self._threads.append((thread, join_timeout_s))
        thread.start()
        return channel

    @property
    def stage_seconds(self) -> Mapping[str, float]:
        """Seconds that each stage has worked, in the order they were made, the caller's last.

        What a stage works on at this moment is counted when it is done with it.
        """
        seconds = {name: watch.seconds for name, watch in self._watches.items()}
        if self._caller in seconds:
            seconds[self._caller] = seconds.pop(self._caller)
        return seconds

    @property
    def changed(self) -> threading.Condition:
        """Notified whenever a channel or `closed` changes."""
        return self._changed

    @property
    def closed(self) -> bool:
        """Whether the pipeline is being left."""
        return self._closed

    def watched(self, watch: _Watch) -> None:
        """From now on, what the current thread does counts for `watch`."""
        self._current.watch = watch

    def watch(self) -> _Watch | None:
        """Whose time the current thread's is, None in a thread that is no stage."""
        return getattr(self._current, "watch", None)

    def close(self) -> None:
        """Tell every thread to stop, and wait for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread, timeout_s in reversed(self._threads):
            try:
                thread.join(timeout_s)
            except RuntimeError:  # an interrupt came while it was started: it ends as it begins
                continue

    def __enter__(self) -> Pipeline:
        watch = self._new_watch(self._caller)
        self.watched(watch)
        watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        if (watch := self.watch()) is not None:
            watch.stop()
        self.close()

    def _new_watch(self, name: str) -> _Watch:
        watch = self._watches[name] = _Watch(self._clock)
        return watch


class _Watch:
    """A stopwatch of one thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = 0.0
        self.seconds = 0.0

    def start(self) -> None:
        self._since = self._clock()

    def stop(self) -> None:
        self.seconds += self._clock() - self._since

    def timed(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; making them is what is timed."""
        iterator = iter(items)
        while True:
            self.start()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.stop()
            yield item


class _Channel(Generic[T]):
    """A bounded queue between two threads that also carries the end and an error."""

    def __init__(self, stages: Pipeline, prefetch: int) -> None:
        self._stages = stages
        self._ahead = prefetch
        self._items: deque[T] = deque()
        self._ended = False
        self._error: BaseException | None = None

    def fill(self, items: Iterable[T], watch: _Watch) -> None:
        """The thread's work: take from `items` until they end or the pipeline closes."""
        if self._stages.closed:
            return
        self._stages.watched(watch)
        error: BaseException | None = None
        try:
            for item in watch.timed(items):
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
        watch = self._stages.watch()
        if watch is not None:  # to wait for the stage before is no work
            watch.stop()
        try:
            return self._take()
        finally:
            if watch is not None:
                watch.start()

    def _take(self) -> T:
        with self._stages.changed:
            self._stages.changed.wait_for(lambda: self._items or self._ended or self._stages.closed)
            if self._items and not self._stages.closed:
                self._stages.changed.notify_all()
                return self._items.popleft()
        if self._error is not None:
            raise self._error
        raise StopIteration
