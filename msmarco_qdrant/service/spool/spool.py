"""The spool: batches on disk, in the order in which they were accepted.

What `accept` has returned survives a crash and a power cut. One taker gets the batches, strictly
first in, first out; it says of each that it is done, that it has failed, or that it gives it back,
to be taken first again. A batch that was taken when the process ended is taken first, and done
again: applying a batch twice must do no more than applying it once.
"""

from __future__ import annotations

import errno
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Self

from msmarco_qdrant.errors import SourceError, SpoolError, UsageError
from msmarco_qdrant.service.interfaces import BatchId, BatchReport, BatchState
from msmarco_qdrant.service.spool.archive import Archive
from msmarco_qdrant.service.spool.directory import (
    FORMS,
    OPERATIONS,
    BatchName,
    Folder,
    SpoolDirectory,
    form_of,
)
from msmarco_qdrant.service.spool.files import (
    CLAIMED,
    Row,
    claim,
    copy_in,
    identify,
    remove,
    write_rows,
)
from msmarco_qdrant.service.spool.queue import Batch, Queue
from msmarco_qdrant.service.spool.quota import Reservation, SpoolQuota
from msmarco_qdrant.service.spool.state import state_to_json

MAX_BYTES = 1 << 30
MAX_BATCHES = 10_000
KEEP_DONE = 1000


class Spool:
    """Batches between the doors and the worker; `open` gives it. Safe to use from several threads.

    Args:
        files: The directory, which the spool closes.
        max_bytes: Most bytes of accepted batches that have not ended.
        max_batches: Most such batches.
        keep_done: How many reports of batches that are done are kept.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        files: SpoolDirectory,
        *,
        max_bytes: int = MAX_BYTES,
        max_batches: int = MAX_BATCHES,
        keep_done: int = KEEP_DONE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = files
        self._room = SpoolQuota(max_bytes, max_batches)
        self._archive = Archive(files, keep_done)
        self._now = clock
        self._queue = Queue(clock)
        self._order = threading.Lock()  # held while the disk works, unlike the queue's own
        self._closed = False
        self._next = self._reserved = files.first_sequence()
        for name in files.names("incoming"):
            size, queued_at = files.size_and_time(name, "incoming")
            self._room.add(size)
            self._queue.add(self._batch(name, size, queued_at))

    @classmethod
    def open(
        cls,
        directory: str | PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        max_batches: int = MAX_BATCHES,
        keep_done: int = KEEP_DONE,
    ) -> Self:
        """Open a directory, making it if need be, and see to what a crash has left there.

        Raises:
            SpoolError: If it cannot be written, or another process uses it.
            UsageError: For limits that would take nothing.
        """
        files = SpoolDirectory(Path(directory).expanduser())
        try:
            return cls(files, max_bytes=max_bytes, max_batches=max_batches, keep_done=keep_done)
        except BaseException:
            files.close()
            raise

    # ---- the doors -------------------------------------------------------------------------

    def accept(self, rows: Iterable[Row]) -> BatchId:
        """Take rows as a batch. When this returns, they survive a power cut.

        Nothing is looked at but that it is JSON: what a row may hold is found out, and told in the
        batch's report, when the batch is applied.

        Raises:
            SpoolFullError: If there is no room now; nothing was taken.
            SpoolError: If the disk does not take it. If it is only the directory that could not be
                made durable, the batch is in the queue all the same, and is applied unless a power
                cut takes it back: whoever sends it again has it applied twice, which does no more
                than once.
            UsageError: For what is no JSON.
        """
        id_ = uuid.uuid4().hex
        place = self._files.temporary(id_)
        with self._room.enter() as arrival:
            try:
                write_rows(place, rows, arrival.hold)
                self._commit(place, BatchName(0, id_, OPERATIONS), arrival)
            finally:
                self._files.discard(place)
        return id_

    def accept_file(self, path: str | PathLike[str]) -> BatchId:
        """Move a file in as a batch. When this returns, it survives a power cut.

        A file may be larger than all the spool may hold, if the spool is not full before it. One
        of another file system is renamed before it is copied, so that one that cannot be removed
        is not taken; what a crash leaves of it is brought to its end by its new name (see
        `arrivals.claimed`). What comes in its place under the old name stays.

        Raises:
            SpoolFullError: If there is no room now; the file stays.
            SpoolError: If the disk does not take it; see `accept`.
            SourceError: If it cannot be read, moved or removed, or is no plain file.
            UsageError: If its name says nothing of its form.
        """
        path = Path(path)
        form = form_of(path.name.removesuffix(CLAIMED))
        if form is None:
            raise UsageError(f"{path.name} is of no known form: expected .{', .'.join(FORMS)}")
        id_, size = identify(path)
        if id_ in self._queue or id_ in self._archive:
            self._files.sync("incoming")
            remove(path, id_)
            return id_
        with self._room.enter() as arrival:
            arrival.hold_all(size)
            return self._bring(path, BatchName(0, id_, form), arrival)

    # ---- the taker -------------------------------------------------------------------------

    def take(self) -> Batch | None:
        """Wait for the next batch; None when `stop_taking` was called. One taker at a time.

        Raises:
            SpoolError: If it cannot be moved; it is the next one still.
        """
        batch = self._queue.take()
        if batch is None:
            return None
        try:
            self._files.move(batch.name, "incoming", "working")
        except BaseException:
            self._queue.give_back(batch)
            raise
        return batch

    def stop_taking(self) -> None:
        """Let whoever waits in `take`, now or later, have None."""
        self._queue.stop()

    def finish(self, batch: Batch, report: BatchReport) -> BatchState:
        """A batch is applied and durable. May be repeated when the disk did not take it.

        Its file is kept as long as its report if some of its rows were rejected.

        Raises:
            SpoolError: If that cannot be written down.
        """
        state = batch.state("working").ended("done", report, "", self._now())
        self._files.put_report(batch.name, "done", state_to_json(state))
        if report.rejected:
            self._files.move(batch.name, "working", "done")
        else:
            self._files.remove(batch.name, "working")
        self._end(batch, "done", state)
        return state

    def fail(self, batch: Batch, reason: str, report: BatchReport) -> BatchState:
        """A batch can never be applied; it is kept. May be repeated as `finish` may.

        Raises:
            SpoolError: If that cannot be written down.
        """
        state = batch.state("working").ended("failed", report, reason, self._now())
        self._files.put_report(batch.name, "failed", state_to_json(state))
        self._files.move(batch.name, "working", "failed")
        self._end(batch, "failed", state)
        return state

    def give_back(self, batch: Batch) -> None:
        """Put a batch back, to be taken before any other.

        Raises:
            SpoolError: If it cannot be moved; it is taken first after the next start all the same.
        """
        self._files.move(batch.name, "working", "incoming")
        self._queue.give_back(batch)

    # ---- who asks --------------------------------------------------------------------------

    def state(self, id_: str) -> BatchState | None:
        """Where a batch is; None for one that is unknown, or was done long ago.

        Raises:
            SpoolError: If its report cannot be read.
        """
        return self._queue.state(id_) or self._archive.state(id_)

    def outcome(self, id_: str) -> Future[BatchState] | None:
        """A batch's state when it has ended; None for one that `state` does not know.

        The future is cancelled when the spool is closed before.

        Raises:
            SpoolError: If the report of one that has ended cannot be read.
        """
        future = self._queue.outcome(id_)
        if future is not None:
            return future
        state = self.state(id_)
        if state is None:
            return None
        future = Future()
        future.set_result(state)
        return future

    @property
    def depth(self) -> int:
        """Batches that were accepted and have not ended."""
        return self._queue.depth

    @property
    def waiting(self) -> int:
        """Those of them that nobody has taken."""
        return self._queue.waiting

    @property
    def bytes(self) -> int:
        """The size of those that have not ended, and of what is on its way in."""
        return self._room.bytes

    @property
    def oldest_age_s(self) -> float:
        """Seconds since the oldest of them was accepted, 0 if there is none."""
        return self._queue.oldest_age_s

    def close(self) -> None:
        """Give the directory back; what waits for a batch is cancelled. Twice is no error."""
        self._queue.close()
        with self._order:  # what is on its way in is in, or is refused
            self._closed = True
            self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside ----------------------------------------------------------------------------

    def _commit(self, place: Path, name: BatchName, arrival: Reservation) -> None:
        """Make a whole file a batch: the order of these moments is the order of the batches.

        The sequence in `name` is chosen here. When this returns the batch is durable: its directory
        is synced after its own rename, whichever others come before or between. So nobody is told
        of a batch that a power cut may take back, though it may be taken, and even done, before.

        Raises:
            OSError: See `SpoolDirectory.bring_in`; nothing was changed.
        """
        with self._order:
            if self._closed:
                raise SpoolError(f"the spool {self._files.path} is closed; nothing was accepted")
            if self._next >= self._reserved:
                self._reserved = self._files.reserve_sequence(self._next)
            name = replace(name, sequence=self._next)
            self._files.bring_in(place, name)
            self._next += 1
            arrival.commit()
            self._queue.add(self._batch(name, arrival.held, self._now()))
        self._files.sync("incoming")

    def _batch(self, name: BatchName, size: int, accepted_at: float) -> Batch:
        return Batch(name, self._files.place(name, "working"), size, accepted_at)

    def _bring(self, path: Path, name: BatchName, arrival: Reservation) -> BatchId:
        """Move somebody's file in; by way of a copy, if it lies on another file system."""
        try:
            self._commit(path, name, arrival)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise SourceError(f"cannot move {path} into the spool: {exc.strerror}") from exc
            name = replace(name, id=uuid.uuid4().hex)
            path = claim(path, name.id, name.form)
            self._copy(path, name, arrival)
        remove(path, name.id)
        return name.id

    def _copy(self, path: Path, name: BatchName, arrival: Reservation) -> None:
        place = self._files.temporary(name.id)
        try:
            copy_in(path, place)
            self._commit(place, name, arrival)
        finally:
            self._files.discard(place)

    def _end(self, batch: Batch, folder: Folder, state: BatchState) -> None:
        """Note that a batch has ended, and tell whoever waits for it."""
        self._archive.add(batch.name, folder)
        if batch.id in self._queue:
            self._room.remove(batch.size)
        self._queue.end(batch, state)
