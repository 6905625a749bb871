"""The batches of a spool that have not ended: their order, and who waits for them.

All of it is in memory: nothing here waits for a disk, so an event loop may ask.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msmarco_qdrant.service.interfaces import BatchId, BatchState, Phase
from msmarco_qdrant.service.spool.directory import BatchName


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was accepted.

    Attributes:
        name: Its sequence, id and form.
        path: Where it lies while it is being worked on.
        size: Its bytes.
        accepted_at: When, in seconds since 1970.
    """

    name: BatchName
    path: Path
    size: int
    accepted_at: float

    @property
    def id(self) -> BatchId:
        """What it is asked for by."""
        return self.name.id

    def state(self, phase: Phase) -> BatchState:
        """Where it is."""
        return BatchState(self.id, phase, self.accepted_at)


class Queue:
    """Batches in their order, one of which may be taken. Safe to use from several threads.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock
        self._changed = threading.Condition()
        self._stopped = self._closed = False
        self._waiting: dict[BatchId, list[Future[BatchState]]] = {}
        self._queue: deque[Batch] = deque()
        self._taken: Batch | None = None
        self._live: dict[BatchId, Batch] = {}

    def __contains__(self, id_: BatchId) -> bool:
        return id_ in self._live

    @property
    def depth(self) -> int:
        """Batches that have not ended."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Those of them that nobody has taken."""
        return len(self._queue)

    @property
    def oldest_age_s(self) -> float:
        """Seconds since the oldest of them was accepted, 0 if there is none."""
        with self._changed:
            oldest = self._taken or (self._queue[0] if self._queue else None)
        return max(0.0, self._now() - oldest.accepted_at) if oldest else 0.0

    def add(self, batch: Batch) -> None:
        """Put a batch behind all others."""
        with self._changed:
            self._live[batch.id] = batch
            self._queue.append(batch)
            self._changed.notify_all()

    def take(self) -> Batch | None:
        """Wait for the first batch; None when `stop` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopped)
            if self._stopped:
                return None
            batch = self._taken = self._queue.popleft()
        return batch

    def give_back(self, batch: Batch) -> None:
        """Put the batch that was taken before all others."""
        with self._changed:
            self._taken = None
            self._queue.appendleft(batch)
            self._changed.notify_all()

    def end(self, batch: Batch, state: BatchState) -> None:
        """The batch that was taken has ended: tell whoever waits for it."""
        with self._changed:
            self._live.pop(batch.id, None)
            self._taken = None
            waiting = self._waiting.get(batch.id, [])[:]
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(state)

    def stop(self) -> None:
        """Let whoever waits in `take`, now or later, have None."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Cancel what waits for a batch, now or later. Twice is no error."""
        self.stop()
        with self._changed:
            self._closed = True
            waiting = [future for several in self._waiting.values() for future in several]
        for future in waiting:
            future.cancel()

    def state(self, id_: BatchId) -> BatchState | None:
        """Where a batch is, None if it is not here."""
        with self._changed:
            batch = self._live.get(id_)
            is_taken = batch is self._taken
        return batch.state("working" if is_taken else "queued") if batch else None

    def outcome(self, id_: BatchId) -> Future[BatchState] | None:
        """A batch's state when it has ended, None if it is not here; see `Spool.outcome`."""
        future: Future[BatchState] = Future()
        with self._changed:
            if id_ not in self._live:
                return None
            if self._closed:
                future.cancel()
                return future
            self._waiting.setdefault(id_, []).append(future)
            future.add_done_callback(partial(self._forget, id_))
        return future

    def _forget(self, id_: BatchId, future: Future[BatchState]) -> None:
        with self._changed:
            left = [one for one in self._waiting.pop(id_, []) if one is not future]
            if left:
                self._waiting[id_] = left
