"""One distributed ingest: its splits, what is known of each, and the counts so far."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Literal

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import IngestProgress, IngestReport
from msmarco_qdrant.distributed.counting import CountedSource
from msmarco_qdrant.distributed.ingest_worker import IngestJob, SplitOutcome
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.rejects import OrderedRejects
from msmarco_qdrant.distributed.tasks import TaskBoard, outage_policy
from msmarco_qdrant.ingest.checks import CollectionStart
from msmarco_qdrant.ingest.steps import IngestSteps
from msmarco_qdrant.ingest.target import Opened
from msmarco_qdrant.sources.rejects import RejectCount

_STAGES = ("read", "skip", "tokenize", "forward", "sparse", "write")


class DistributedIngest(IngestSteps):
    """Counts and steps of one distributed ingest.

    Args:
        source: The source, counted.
        opened: The collection and the properties of its encoder.
        start: State of the collection before the ingest.
        rejected: Counts the rejects, split after split in the source's order.
        on_progress: Called each second and after each split.
    """

    _at_least = "at least "  # unfinished splits have written, too

    def __init__(
        self,
        source: CountedSource,
        opened: Opened,
        start: CollectionStart,
        rejected: RejectCount,
        on_progress: Callable[[IngestProgress], None] | None,
    ) -> None:
        super().__init__(opened.target, opened.guard, start, rejected, time.perf_counter)
        self._source = source
        self._on_progress = on_progress
        self._rejects = OrderedRejects(source.numbers, source.files, rejected)
        self._read = 0

    # ---- the splits ----------------------------------------------------------------------------

    def ingest(self, pool: WorkerPool[SplitOutcome], retry_s: float) -> None:
        """Ingest every split, then end the workers.

        Args:
            pool: The workers.
            retry_s: Seconds for which a worker retries a request.

        Raises:
            MsmarcoQdrantError: If a split failed and may not be tried again.
        """
        board = TaskBoard(
            self._source.numbers,
            outage_policy(retry_s),
            random.random,
            time.monotonic(),
        )
        job = IngestJob(
            self.guard.physical,
            self.guard.metadata,
            self._target.info,
            self._start,
            has_vectors=self._source.source.shards is not None,
        )
        with closing(pool):
            pool.run(job, board, self)

    def work(self, number: int, attempt: int) -> tuple[Any, ...]:
        """Return the arguments of `IngestWorker.run_split` for a split's attempt."""
        return (self._source.split(number), attempt, *self._source.blocks(number))

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Keep some rejects of an attempt, which may still fail."""
        self._source.files.add_rejects(number, attempt, rejects)

    def finish(self, number: int, attempt: int, outcome: SplitOutcome) -> None:
        """Count a split, and pass on the rejects of all splits up to the first unfinished one."""
        self.counts.add(outcome.counts)
        for stage, seconds in outcome.stage_seconds.items():
            self.stage_seconds[stage] += seconds
        self._rejects.finish(number, attempt)

    def poll(self, rows: int) -> None:
        """Report the progress, with so many durable rows of unfinished splits."""
        self._report_progress("passages", rows)

    # ---- the end -------------------------------------------------------------------------------

    def report(self) -> IngestReport:
        """Return the counts of all finished splits."""
        wall = self._clock() - self._source.started
        stages = sorted(self.stage_seconds.items(), key=_stage_order)
        return self.counts.report(
            self._rejected.count, wall, stages, self._source.source.descriptions
        )

    def _stale_ids(self) -> Callable[[], Iterator[PointId]] | None:
        return None if self._source.stale is None else self._source.stale.ids

    def _is_source_empty(self) -> bool:
        return not self._source.passages

    def _announce(self, stage: Literal["prune", "index"]) -> None:
        self._report_progress(stage, 0)

    def _report_progress(
        self, stage: Literal["passages", "index", "prune"], unfinished: int
    ) -> None:
        if self._on_progress is None:
            return
        report = self.report()
        # A worker's last answer may include a split that was finished since, or that was lost.
        rows = self._source.rows
        self._read = max(self._read, min(report.read + unfinished, rows))
        fraction = self._read / rows if rows else None
        self._on_progress(IngestProgress(stage, self._read, fraction, report))


def _stage_order(item: tuple[str, float]) -> int:
    return _STAGES.index(item[0]) if item[0] in _STAGES else len(_STAGES)
