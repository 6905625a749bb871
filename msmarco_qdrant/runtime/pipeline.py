"""Iterators that run in their own threads and prefetch a bounded number of items.

A pipeline is a chain of iterators; `Pipeline.run` runs one of them in a thread::

    with Pipeline() as pipeline:
        lines = pipeline.run(read(file), prefetch=2, name="read")
        for result in pipeline.run(work(lines), prefetch=2, name="work"):
            ...
    print(pipeline.stage_seconds)

Leaving the block stops every thread. An exception in a stage is raised where its items are
consumed.

`stage_seconds` counts the working time of a thread, not its waits for the stage before it or for
space in its own queue. Waits for the interpreter's lock or for a core count as work.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_JOIN_TIMEOUT_S = 60.0


class Pipeline:
    """The threads of one pipeline, which end together.

    Args:
        caller: Name in `stage_seconds` of the work of the thread that runs the block.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self, caller: str = "caller", clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.changed = threading.Condition()  # notified when a channel or `closed` changes
        self.closed = False
        self._threads: list[tuple[threading.Thread, float]] = []
        self._clock = clock
        self._caller = caller
        self._watches: dict[str, _Stopwatch] = {}
        self.current = _CurrentThread()

    def run(
        self,
        items: Iterable[T],
        prefetch: int,
        join_timeout_s: float = _JOIN_TIMEOUT_S,
        name: str | None = None,
    ) -> Channel[T]:
        """Iterate `items` in a thread.

        Args:
            items: The items; from now on only that thread uses the iterable.
            prefetch: Most items in the queue.
            join_timeout_s: Seconds to wait, at the end, for the item in progress. A thread that
                waits for input that never comes, such as a terminal's, is abandoned after it.
            name: Name in `stage_seconds`; by default the number of the stage.

        Returns:
            The same items in the same order. It raises the exceptions of `items`.
        """
        watch = self._new_watch(name or f"stage {len(self._threads)}")
        channel: Channel[T] = Channel(self, prefetch)
        thread = threading.Thread(target=channel.fill, args=(items, watch), daemon=True)
        self._threads.append((thread, join_timeout_s))
        thread.start()
        return channel

    @property
    def stage_seconds(self) -> Mapping[str, float]:
        """Working seconds of each stage, in the order of creation, the caller's last.

        An item in progress is not included.
        """
        seconds = {name: watch.seconds for name, watch in self._watches.items()}
        if self._caller in seconds:
            seconds[self._caller] = seconds.pop(self._caller)
        return seconds

    def close(self) -> None:
        """Stop every thread, and wait for it."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        for thread, timeout_s in reversed(self._threads):
            with suppress(RuntimeError):  # an interrupt came during its start: it ends at once
                thread.join(timeout_s)

    def __enter__(self) -> Pipeline:
        self.current.watch = watch = self._new_watch(self._caller)
        watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        if (watch := self.current.watch) is not None:
            watch.stop()
        self.close()

    def _new_watch(self, name: str) -> _Stopwatch:
        watch = self._watches[name] = _Stopwatch(self._clock)
        return watch


class _Stopwatch:
    """A stopwatch of one thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = 0.0
        self.seconds = 0.0

    def start(self) -> None:
        self._since = self._clock()

    def stop(self) -> None:
        self.seconds += self._clock() - self._since

    def time_items(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; only the time to produce them counts."""
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


class _CurrentThread(threading.local):
    """The stopwatch of the current thread, None outside of the pipeline's threads."""

    watch: _Stopwatch | None = None


class Channel(Iterator[T]):
    """A bounded queue between two threads that also carries the end and an error."""

    def __init__(self, pipeline: Pipeline, prefetch: int) -> None:
        self._pipeline = pipeline
        self._prefetch = prefetch
        self._items: deque[T] = deque()
        self._ended = False
        self._error: BaseException | None = None

    def fill(self, items: Iterable[T], watch: _Stopwatch) -> None:
        """Queue `items`, in the stage's thread, until they end or the pipeline closes."""
        if self._pipeline.closed:
            return
        self._pipeline.current.watch = watch
        error: BaseException | None = None
        try:
            for item in watch.time_items(items):
                if not self._put(item):
                    return
        except BaseException as exc:  # noqa: BLE001  # raised again in the consumer
            error = exc
        with self._pipeline.changed:
            self._ended, self._error = True, error
            self._pipeline.changed.notify_all()

    def _put(self, item: T) -> bool:
        pipeline = self._pipeline
        with pipeline.changed:
            pipeline.changed.wait_for(lambda: pipeline.closed or len(self._items) < self._prefetch)
            if pipeline.closed:
                return False
            self._items.append(item)
            pipeline.changed.notify_all()
            return True

    def is_ready(self) -> bool:
        """True if the next item is there; False at the end, at an error, or before it."""
        return bool(self._items)

    def __next__(self) -> T:
        watch = self._pipeline.current.watch
        if watch is not None:  # a wait for the stage before does not count
            watch.stop()
        try:
            return self._get()
        finally:
            if watch is not None:
                watch.start()

    def _get(self) -> T:
        pipeline = self._pipeline
        with pipeline.changed:
            pipeline.changed.wait_for(lambda: self._items or self._ended or pipeline.closed)
            if self._items and not pipeline.closed:
                pipeline.changed.notify_all()
                return self._items.popleft()
        if self._error is not None:
            raise self._error
        raise StopIteration
