"""Passes of a re-embedding by the workers of a Ray cluster, over ranges of point ids."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.id_ranges import IdRange
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.distributed.copy_worker import CopyWork, PassKind
from msmarco_qdrant.distributed.id_splits import PROBED, plan_id_ranges, split_points
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.tasks import TaskBoard, TaskPolicy
from msmarco_qdrant.errors import StoreUnavailableError
from msmarco_qdrant.reembed.copy import CopyJob, CopyPasses, CopyStats
from msmarco_qdrant.stores import Collection


class PassesOnRay:
    """Begins passes on a cluster; the ranges of ids are found once.

    Args:
        pool: The workers. They end with the passes of each job, since the index needs none.
        workers: Number of them.
        size: Points of a range; None for several ranges for each worker.
        policy: Retries of a range.
    """

    def __init__(
        self, pool: WorkerPool[CopyStats], workers: int, size: int | None, policy: TaskPolicy
    ) -> None:
        self._pool = pool
        self._workers = workers
        self._size = size
        self._policy = policy
        self._ranges: Sequence[IdRange] = ()

    @contextmanager
    def open(self, job: CopyJob) -> Iterator[CopyPasses]:
        """Begin the passes of a job."""
        if not self._ranges:
            self._ranges = self._plan(job.source)
        with closing(self._pool):
            yield _Passes(job, self._pool, self._ranges, self._policy)

    def _plan(self, source: Collection) -> Sequence[IdRange]:
        points = source.info().points

        def first_ids(start: PointId) -> Sequence[PointId]:
            return [id_ for id_, _ in islice(source.scan((), start=start), PROBED)]

        return plan_id_ranges(first_ids, points, self._size or split_points(points, self._workers))


class _Passes:
    """The passes of one job."""

    def __init__(
        self,
        job: CopyJob,
        pool: WorkerPool[CopyStats],
        ranges: Sequence[IdRange],
        policy: TaskPolicy,
    ) -> None:
        self._job = job
        self._pool = pool
        self._ranges = ranges
        self._policy = policy

    def copy(self, *, verify: bool = False) -> CopyStats:
        """Copy all differences, durably."""
        return self._run("verify" if verify else "copy")

    def remove_strays(self) -> int:
        """Delete copies that the source no longer has, durably; returns their number."""
        return self._run("strays").removed

    def _run(self, kind: PassKind) -> CopyStats:
        numbers = range(len(self._ranges))
        board = TaskBoard(numbers, self._policy, random.random, time.monotonic())
        sink = _PassSink(kind, self._job, self._ranges)
        self._pool.run(self._job.encoder.info, board, sink)
        return sink.stats


class _PassSink:
    """Gives the ranges of one pass to workers, and adds their counts."""

    def __init__(self, kind: PassKind, job: CopyJob, ranges: Sequence[IdRange]) -> None:
        self._kind = kind
        self._job = job
        self._ranges = ranges
        self._shown = 0
        self.stats = CopyStats()

    def work(self, number: int, attempt: int) -> tuple[Any, ...]:
        """Return the argument of `CopyWorker.run_split` for a range.

        Raises:
            StoreInUseError: If the lock was taken away, so that another attempt would fail, too.
        """
        job = self._job
        if attempt > 1:
            self.stats.retried += 1
            with suppress(StoreUnavailableError):  # the policy decides how long to wait for it
                job.lock.check()
        lock = job.lock
        work = CopyWork(self._kind, job.copying, lock.name, lock.holder, self._ranges[number])
        return (work,)

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Do nothing: passages without a vector are among the counts."""

    def finish(self, number: int, attempt: int, outcome: CopyStats) -> None:  # noqa: ARG002
        """Add the counts of a range."""
        self.stats.add(outcome)
        self.poll(0)

    def poll(self, rows: int) -> None:
        """Report the progress, with so many points of unfinished ranges."""
        if self._kind != "strays":
            # A worker's last answer may include a range that was finished since, or was lost.
            self._shown = max(self._shown, self.stats.compared + rows)
            self._job.on_progress(replace(self.stats, compared=self._shown))
