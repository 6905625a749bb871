"""Spool: batches on disk, in the order in which they were accepted.

A batch survives a crash and a power cut once `accept` has returned. One worker leases the batches
first in, first out, and ends each with `ack` or `fail`, or requeues it. A batch that was leased
when the process ended is leased first, and applied again: applying a batch must be idempotent.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import compress
from os import PathLike
from pathlib import Path
from typing import Literal, Self

from msmarco_qdrant.errors import SourceError, SpoolError, UsageError
from msmarco_qdrant.service.interfaces import BatchId, BatchReport, BatchState, SpoolUse
from msmarco_qdrant.service.spool.archive import Archive
from msmarco_qdrant.service.spool.directory import (
    FORMS,
    OPERATIONS,
    BatchName,
    SpoolDirectory,
    form_of,
)
from msmarco_qdrant.service.spool.files import (
    CLAIMED,
    Row,
    claim,
    claimed_id,
    copy_durably,
    identify,
    remove_original,
    write_rows,
)
from msmarco_qdrant.service.spool.queue import Batch, Queue
from msmarco_qdrant.service.spool.quota import MAX_BATCHES, MAX_BYTES, Reservation, SpoolQuota
from msmarco_qdrant.service.spool.size_limit import SizeLimit
from msmarco_qdrant.service.spool.state import state_to_json

KEEP_DONE = 1000
_log = logging.getLogger(__name__)


class Spool:
    """Queue on disk between HTTP and inbox on one side and the worker on the other. Thread-safe.

    Create it with `open`.

    Args:
        files: The directory, which the spool closes.
        max_bytes: Most bytes of batches that have not ended.
        max_batches: Most batches that have not ended.
        keep_done: Most reports of batches that are done.
        total_bytes: Most bytes of all batches, with ended ones; None for twice `max_bytes`. The
            oldest done ones are removed first, then the oldest failed ones, which is logged.
    """

    def __init__(
        self,
        files: SpoolDirectory,
        *,
        max_bytes: int = MAX_BYTES,
        max_batches: int = MAX_BATCHES,
        keep_done: int = KEEP_DONE,
        total_bytes: int | None = None,
    ) -> None:
        self._files = files
        self._quota = SpoolQuota(max_bytes, max_batches)
        self._archive = Archive(files, keep_done)
        self._size_limit = SizeLimit(self._archive, self._quota, max_bytes, total_bytes)
        self._queue = Queue()
        self._commit_lock = threading.Lock()  # held during disk writes, unlike the queue's lock
        self._closed = False
        self._next = self._reserved = files.first_sequence()
        for name in files.batches("incoming"):
            size, queued_at = files.size_and_ctime(name, "incoming")
            self._quota.add(size)
            self._queue.add(self._batch(name, size, queued_at))
        self.readmit()
        self._size_limit.enforce()

    @classmethod
    def open(
        cls,
        directory: str | PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        max_batches: int = MAX_BATCHES,
        keep_done: int = KEEP_DONE,
        total_bytes: int | None = None,
    ) -> Self:
        """Open a directory, made if missing, and recover it from a crash; limits as above.

        Raises:
            SpoolError: If it cannot be written, or another process uses it.
            UsageError: For limits below 1.
        """
        files = SpoolDirectory(Path(directory).expanduser())
        try:
            return cls(
                files,
                max_bytes=max_bytes,
                max_batches=max_batches,
                keep_done=keep_done,
                total_bytes=total_bytes,
            )
        except BaseException:
            files.close()
            raise

    # ---- HTTP and inbox --------------------------------------------------------------------

    def accept(self, rows: Iterable[Row]) -> BatchId:
        """Accept rows as a batch. Once this returns, they survive a power cut.

        The rows need only be JSON: the worker validates them, and the batch's report lists rejects.

        Raises:
            SpoolFullError: If the quota is exceeded; nothing was accepted.
            SpoolError: If the disk fails. If only the sync of the directory failed, the batch is
                applied unless a power cut removes it. Sending it again is harmless: applying a
                batch twice has the effect of once.
            UsageError: For a row that is not JSON.
        """
        id_ = uuid.uuid4().hex
        path = self._files.temporary_path(id_)
        with self._quota.begin() as reservation:
            try:
                write_rows(path, rows, reservation.reserve)
                self._commit(path, BatchName(0, id_, OPERATIONS), reservation)
            finally:
                self._files.discard(path)
        self._size_limit.enforce()
        return id_

    def accept_file(self, path: str | PathLike[str]) -> BatchId:
        """Move a file in as a batch. Once this returns, it survives a power cut.

        A file may exceed `max_bytes` if the spool is not full before. A file on another file
        system is claimed, copied and removed (see `files.claim`), so that one that cannot be
        removed is not accepted; a crash during this is completed under its new name. A new file
        under the old name stays.

        Raises:
            SpoolFullError: If the quota is exceeded; the file stays.
            SpoolError: If the disk fails; see `accept`.
            SourceError: If it cannot be read, moved or removed, or is not a regular file.
            UsageError: For a name of unknown form.
        """
        path = Path(path)
        form = form_of(path.name.removesuffix(CLAIMED))
        if form is None:
            raise UsageError(f"a file name must end in .{', .'.join(FORMS)}, got {path.name}")
        id_, size = identify(path)
        if id_ in self._queue or id_ in self._archive:
            self._files.sync("incoming")
            remove_original(path, id_)
            return id_
        with self._quota.begin() as reservation:
            reservation.reserve(size, force=True)
            self._size_limit.enforce()
            return self._move_in(path, BatchName(0, id_, form), reservation)

    def sweep(self) -> None:
        """Apply what commands have changed: forget purged batches, and queue requeued ones.

        Raises:
            SpoolError: If the disk fails.
        """
        self._archive.forget_removed()
        self.readmit()

    def readmit(self) -> int:
        """Queue the batches that `spool requeue` has moved to `requeue`, as the newest ones.

        Returns:
            Their number.

        Raises:
            SpoolError: If the disk fails; the rest is queued by the next call.
        """
        names = self._files.batches("requeue")
        for name in names:
            size, _ = self._files.size_and_ctime(name, "requeue")
            with self._commit_lock:
                if self._closed:
                    raise SpoolError(f"the spool {self._files.path} is closed")
                new = self._files.readmit(name, self._take_sequence())
                self._archive.remove(name.id)
                self._quota.add(size)
                self._queue.add(self._batch(new, size, time.time()))
            fields = {"batch": name.id, "state": "queued"}
            _log.info("batch %s is requeued by a command", name.id, extra={"fields": fields})
        return len(names)

    # ---- worker ----------------------------------------------------------------------------

    def lease(self) -> Batch | None:
        """Wait for the next batch; return None after `stop_leasing`. One worker at a time.

        Raises:
            SpoolError: If its file cannot be moved; it stays first.
        """
        batch = self._queue.lease()
        if batch is None:
            return None
        self._move_leased([batch])
        return batch

    def lease_waiting(self, most: int, most_bytes: int) -> Sequence[Batch]:
        """Lease the next batches that wait already, in their order; none after `stop_leasing`.

        Args:
            most: Most batches.
            most_bytes: Most bytes of all of them.

        Raises:
            SpoolError: If a file cannot be moved; all of them stay first, in their order.
        """
        batches = self._queue.lease_waiting(most, most_bytes)
        if batches:
            self._move_leased(batches)
        return batches

    def stop_leasing(self) -> None:
        """Make `lease` return None, now and later."""
        self._queue.stop()

    def ack(self, batch: Batch, report: BatchReport) -> BatchState:
        """Record that a batch is applied and durable; see `ack_all`."""
        return self.ack_all([(batch, report)])[0]

    def ack_all(self, applied: Sequence[tuple[Batch, BatchReport]]) -> Sequence[BatchState]:
        """Record that batches are applied and durable. May be repeated after an error.

        The file of a batch is kept as long as its report if rows were rejected.

        Returns:
            Their final states.

        Raises:
            SpoolError: If the disk fails.
        """
        return self._end("done", [(batch, report, "") for batch, report in applied])

    def fail(self, batch: Batch, reason: str, report: BatchReport) -> BatchState:
        """Record that a batch failed; its file is kept. May be repeated after an error.

        Raises:
            SpoolError: If the disk fails.
        """
        return self._end("failed", [(batch, report, reason)])[0]

    def requeue(self, batch: Batch) -> None:
        """Put a leased batch back before all others.

        Raises:
            SpoolError: If its file cannot be moved; it is first after the next start anyway.
        """
        self._files.move([batch.name], "working", "incoming")
        self._queue.requeue(batch)

    # ---- state -----------------------------------------------------------------------------

    def state(self, id_: str) -> BatchState | None:
        """Return the state of a batch, None if it is unknown or its report was removed.

        Raises:
            SpoolError: If its report cannot be read.
        """
        return self._queue.state(id_) or self._archive.state(id_)

    def recent(self, limit: int) -> Sequence[BatchState]:
        """Return the newest batches: those that have not ended, then those that ended last.

        Raises:
            SpoolError: If a report cannot be read.
        """
        waiting = self._queue.newest(limit)
        ended = self._archive.newest(limit - len(waiting)) if len(waiting) < limit else ()
        known = {state.batch for state in waiting}  # one may have ended in between
        return [*waiting, *(state for state in ended if state.batch not in known)]

    def outcome(self, id_: str) -> Future[BatchState] | None:
        """Return a future of a batch's final state, None where `state` returns None.

        `close` cancels the future.

        Raises:
            SpoolError: If the report of an ended batch cannot be read.
        """
        future = self._queue.outcome(id_)
        if future is None and (state := self.state(id_)) is not None:
            future = Future()
            future.set_result(state)
        return future

    @property
    def depth(self) -> int:
        """Batches that have not ended."""
        return self._queue.depth

    @property
    def bytes(self) -> int:
        """Bytes of batches that have not ended or are being accepted."""
        return self._quota.bytes

    @property
    def use(self) -> SpoolUse:
        """Bytes of all batches, and counts of failed ones."""
        return self._size_limit.use

    @property
    def oldest_age_s(self) -> float:
        """Seconds since the oldest batch was accepted, 0 without batches."""
        return self._queue.oldest_age_s

    def close(self) -> None:
        """Release the directory and cancel the futures. A second call has no effect."""
        self._queue.close()
        with self._commit_lock:  # a batch that is being accepted is accepted, or refused
            self._closed = True
            self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- internals -------------------------------------------------------------------------

    def _commit(
        self, path: Path, name: BatchName, reservation: Reservation, source: str = ""
    ) -> None:
        """Make a complete file a batch; the order of commits is the order of the batches.

        This sets the sequence in `name`. Once this returns, the batch is durable: its directory is
        synced after its own rename. The worker may lease and end it before.

        Raises:
            OSError: See `SpoolDirectory.move_in`; nothing was changed.
        """
        with self._commit_lock:
            if self._closed:
                raise SpoolError(f"the spool {self._files.path} is closed; nothing was accepted")
            name = replace(name, sequence=self._take_sequence())
            self._files.move_in(path, name)
            reservation.commit()
            self._queue.add(self._batch(name, reservation.size, time.time(), source))
        self._files.sync("incoming")

    def _take_sequence(self) -> int:
        """Return the next sequence; the caller holds the commit lock. A gap does no harm."""
        if self._next >= self._reserved:
            self._reserved = self._files.reserve_sequence(self._next)
        self._next += 1
        return self._next - 1

    def _batch(self, name: BatchName, size: int, accepted_at: float, source: str = "") -> Batch:
        path = self._files.path_of(name, "working")
        return Batch(name, path, size, accepted_at, source or name.source)

    def _move_in(self, path: Path, name: BatchName, reservation: Reservation) -> BatchId:
        """Move a user's file in; claim and copy it if it is on another file system."""
        source = "" if claimed_id(path.name) else path.name
        try:
            self._commit(path, name, reservation, source)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise SourceError(f"cannot move {path} into the spool: {exc.strerror}") from exc
            name = replace(name, id=uuid.uuid4().hex)
            path = claim(path, name.id, name.form)
            copy = self._files.temporary_path(name.id)
            try:
                copy_durably(path, copy)
                self._commit(copy, name, reservation, source)
            finally:
                self._files.discard(copy)
        remove_original(path, name.id)
        return name.id

    def _move_leased(self, batches: Sequence[Batch]) -> None:
        """Move the files of leased batches; put the batches back if that fails."""
        try:
            self._files.move([batch.name for batch in batches], "incoming", "working")
        except BaseException:
            for batch in reversed(batches):
                self._queue.requeue(batch)
            raise

    def _end(
        self,
        phase: Literal["done", "failed"],
        ended: Sequence[tuple[Batch, BatchReport, str]],
    ) -> Sequence[BatchState]:
        """Report and archive batches, release their quotas, and resolve their futures."""
        ended_at = time.time()
        states = [
            BatchState(batch.id, phase, batch.accepted_at, ended_at, report, reason, batch.source)
            for batch, report, reason in ended
        ]
        reports = [
            (one[0].name, state_to_json(state)) for one, state in zip(ended, states, strict=True)
        ]
        self._files.write_reports(reports, phase)
        is_kept = [bool(report.rejected or phase == "failed") for _, report, _ in ended]
        names = [batch.name for batch, _, _ in ended]
        if any(is_kept):
            self._files.move([*compress(names, is_kept)], "working", phase)
        if not all(is_kept):
            removed = [name for name, keep in zip(names, is_kept, strict=True) if not keep]
            self._files.remove(removed, "working")
        for (batch, _, _), state in zip(ended, states, strict=True):
            self._archive.add(batch.name, phase)
            if batch.id in self._queue:
                self._quota.release(batch.size)
            self._queue.end(batch, state)
        self._size_limit.enforce()
        return states
