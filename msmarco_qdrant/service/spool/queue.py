"""Queue of the batches that have not ended, and futures of their outcomes.

Everything is in memory: no method waits for a disk, so an event loop may call them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from msmarco_qdrant.service.interfaces import BatchId, BatchState, Phase
from msmarco_qdrant.service.spool.directory import BatchName


@dataclass(frozen=True, slots=True)
class Batch:
    """An accepted batch.

    Attributes:
        name: Its sequence, id and form.
        path: Its file while it is leased.
        size: Its bytes.
        accepted_at: Seconds since 1970.
        source: See `BatchState`.
    """

    name: BatchName
    path: Path
    size: int
    accepted_at: float
    source: str = ""

    @property
    def id(self) -> BatchId:
        """The batch's id."""
        return self.name.id


class Queue:
    """FIFO queue of batches, of which the first may be leased. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._stopped = self._closed = False
        self._outcomes: dict[BatchId, list[Future[BatchState]]] = {}
        self._queue: deque[Batch] = deque()
        self._leased: list[Batch] = []
        self._live: dict[BatchId, Batch] = {}

    def __contains__(self, id_: BatchId) -> bool:
        return id_ in self._live

    @property
    def depth(self) -> int:
        """Batches that have not ended."""
        return len(self._live)

    @property
    def oldest_age_s(self) -> float:
        """Seconds since the oldest batch was accepted, 0 without batches."""
        with self._changed:
            oldest = next(iter([*self._leased[:1], *islice(self._queue, 1)]), None)
        return max(0.0, time.time() - oldest.accepted_at) if oldest else 0.0

    def add(self, batch: Batch) -> None:
        """Append a batch."""
        with self._changed:
            self._live[batch.id] = batch
            self._queue.append(batch)
            self._changed.notify_all()

    def lease(self) -> Batch | None:
        """Wait for the first batch; return None after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopped)
            if self._stopped:
                return None
            batch = self._queue.popleft()
            self._leased.append(batch)
        return batch

    def lease_waiting(self, most: int, most_bytes: int) -> list[Batch]:
        """Lease the next batches as far as they wait already; return none after `stop`.

        Args:
            most: Most batches.
            most_bytes: Most bytes of all of them.
        """
        found: list[Batch] = []
        with self._changed:
            while self._queue and len(found) < most and not self._stopped:
                most_bytes -= self._queue[0].size
                if most_bytes < 0:
                    break
                found.append(self._queue.popleft())
            self._leased += found
        return found

    def requeue(self, batch: Batch) -> None:
        """Put a leased batch back before all others."""
        with self._changed:
            self._return(batch)
            self._queue.appendleft(batch)
            self._changed.notify_all()

    def end(self, batch: Batch, state: BatchState) -> None:
        """Remove a leased batch, and resolve the futures of its outcome."""
        with self._changed:
            self._live.pop(batch.id, None)
            self._return(batch)
            futures = self._outcomes.get(batch.id, [])[:]
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_result(state)

    def stop(self) -> None:
        """Make `lease` return None, now and later."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Cancel the futures of outcomes, now and later. A second call has no effect."""
        self.stop()
        with self._changed:
            self._closed = True
            pending = [future for futures in self._outcomes.values() for future in futures]
        for future in pending:
            future.cancel()

    def state(self, id_: BatchId) -> BatchState | None:
        """Return the state of a batch, None if the queue does not contain it."""
        with self._changed:
            batch = self._live.get(id_)
            return self._state(batch) if batch else None

    def newest(self, limit: int) -> Sequence[BatchState]:
        """Return the states of the newest batches, the newest first."""
        with self._changed:
            found = [*islice(reversed(self._queue), limit)]
            found += [batch for batch in reversed(self._leased) if batch.id in self._live]
            return [self._state(batch) for batch in found[:limit]]

    def _state(self, batch: Batch) -> BatchState:
        phase: Phase = "working" if batch in self._leased else "queued"
        return BatchState(batch.id, phase, batch.accepted_at, source=batch.source)

    def outcome(self, id_: BatchId) -> Future[BatchState] | None:
        """Return a future of a batch's final state, None if the queue does not contain it."""
        future: Future[BatchState] = Future()
        with self._changed:
            if id_ not in self._live:
                return None
            if self._closed:
                future.cancel()
                return future
            self._outcomes.setdefault(id_, []).append(future)
            future.add_done_callback(partial(self._forget, id_))
        return future

    def _return(self, batch: Batch) -> None:
        """End the lease of a batch; the caller holds the lock. A repeated call has no effect."""
        self._leased = [leased for leased in self._leased if leased is not batch]

    def _forget(self, id_: BatchId, future: Future[BatchState]) -> None:
        with self._changed:
            others = [one for one in self._outcomes.pop(id_, []) if one is not future]
            if others:
                self._outcomes[id_] = others
