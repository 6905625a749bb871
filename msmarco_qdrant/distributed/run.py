"""One distributed ingest: its splits, what is known of each, and the counts so far."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from msmarco_qdrant.collection.bulk import BulkMode, end_bulk
from msmarco_qdrant.collection.create import drop_if_empty
from msmarco_qdrant.core.records import PrunePolicy, Reject
from msmarco_qdrant.core.reports import IngestProgress, IngestReport, StageTiming
from msmarco_qdrant.distributed.cluster import count_and_find_repeats, split_blocks
from msmarco_qdrant.distributed.dedup import partition_count
from msmarco_qdrant.distributed.files import SourceFiles
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.split_files import OrderedRejects, SplitFiles
from msmarco_qdrant.distributed.splits import (
    Split,
    SplitCount,
    bounded_partitions,
    lines_before,
)
from msmarco_qdrant.distributed.stale import StaleFiles
from msmarco_qdrant.distributed.tasks import TaskBoard, TaskPolicy
from msmarco_qdrant.distributed.worker import OpenedCollection, SplitOutcome, SplitWork
from msmarco_qdrant.errors import (
    IngestStoppedError,
    MsmarcoQdrantError,
    PruneRefusedError,
    StoreError,
)
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.ingest.prune import Pruner, written_before
from msmarco_qdrant.ingest.run import CollectionStart, check_length, count_missing
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.ingest.target import no_passages
from msmarco_qdrant.sources.rejects import RejectCount

_STAGES = ("read", "skip", "tokenize", "forward", "sparse", "write")
_STALLED_RETRIES = 5


@dataclass(slots=True)
class _Totals:
    """Sums over finished splits."""

    written: int = 0
    unchanged: int = 0
    encoded: int = 0
    cut: int = 0
    added: int = 0
    vectors: int = 0
    tokens: int = 0


class DistributedRun:
    """Counts and steps of one distributed ingest.

    Args:
        source: The source.
        splits: Its splits.
        files: Keeps what is known of each.
        rejected: Counts the rejects, split after split in the source's order.
        on_progress: Called each second and after each split.

    Attributes:
        rows: Rows of the source; call `count` first.
    """

    def __init__(
        self,
        source: SourceFiles,
        splits: Sequence[Split],
        files: SplitFiles,
        rejected: RejectCount,
        on_progress: Callable[[IngestProgress], None] | None,
    ) -> None:
        self._source = source
        self._splits = splits
        self._files = files
        self._rejected = rejected
        self._on_progress = on_progress
        self._counts: Sequence[SplitCount] = ()
        self.rows = 0
        self._lines: Sequence[Sequence[int]] = ()
        self._totals = _Totals()
        self._stages: defaultdict[str, float] = defaultdict(float)
        self._rejects = OrderedRejects(range(len(splits)), files, rejected)
        self._read = self._missing = self._pruned = 0
        self._stale: StaleFiles | None = None
        self._start = CollectionStart(0, 0, replicated=False)
        self._started = time.perf_counter()

    @property
    def written(self) -> int:
        """Passages that this run wrote, of finished splits."""
        return self._totals.written

    @property
    def stored(self) -> int:
        """Passages of finished splits: those written, and those that were there already."""
        return self._totals.written + self._totals.unchanged

    @property
    def passages(self) -> int:
        """Passages of the source, repeated ones included; call `count` first."""
        return sum(count.passages for count in self._counts)

    @property
    def first_reject(self) -> str:
        """File and reason of the first reject, "" without one; call `count` first."""
        return next((count.first_reject for count in self._counts if count.first_reject), "")

    # ---- pass 1 and 2 --------------------------------------------------------------------------

    def count(self, pruned: AliasGuard | None = None) -> None:
        """Read all keys: count the rows, and find those whose pid came before them.

        Args:
            pruned: The collection whose passages are to be found that the source lacks.

        Raises:
            SourceError: If a file cannot be read.
            WorkerError: If too many nodes are lost.
        """
        source = self._source
        if pruned is not None:
            self._start = CollectionStart.of(pruned, pruned.collection)
        wanted = partition_count(source.bytes, self._start.points)
        partitions = bounded_partitions(wanted, len(self._splits))
        if pruned is not None:
            self._stale = StaleFiles(self._files.folder, partitions)
            self._stale.add(written_before(pruned, self._start.last_seq))
        self._counts = count_and_find_repeats(
            self._splits, source, partitions, self._files.add_repeats, self._stale
        )
        self.rows = sum(count.rows for count in self._counts)
        self._lines = lines_before(self._splits, self._counts)

    # ---- the splits ----------------------------------------------------------------------------

    def ingest(
        self,
        pool: WorkerPool[SplitOutcome],
        target: IngestTarget,
        guard: AliasGuard,
        *,
        retry_s: float,
    ) -> None:
        """Ingest every split.

        Args:
            pool: The workers.
            target: The collection and the properties of its encoder.
            guard: The collection's name.
            retry_s: Seconds for which a worker retries a request.

        Raises:
            MsmarcoQdrantError: If a split failed and may not be tried again.
        """
        if self._stale is None:
            self._start = CollectionStart.of(guard, target.collection)
        board = TaskBoard(
            [split.number for split in self._splits],
            TaskPolicy(stall_s=_STALLED_RETRIES * retry_s),
            random.random,
            time.monotonic(),
        )
        collection = OpenedCollection(
            guard.physical,
            guard.metadata,
            target.info,
            self._start,
            has_vectors=self._source.shards is not None,
        )
        pool.run(collection, board, self)

    def work(self, number: int, attempt: int) -> tuple[Any, ...]:
        """Return the arguments of `IngestWorker.run_split` for a split's attempt."""
        work = SplitWork(
            split=self._splits[number],
            lines_before=self._lines[number],
            rows=self._counts[number].rows,
            repeats=self._files.repeats(number),
            attempt=attempt,
        )
        return (work, *split_blocks(self._splits[number], self._source))

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Keep some rejects of an attempt, which may still fail."""
        self._files.add_rejects(number, attempt, rejects)

    def finish(self, number: int, attempt: int, outcome: SplitOutcome) -> None:
        """Count a split, and pass on the rejects of all splits up to the first unfinished one."""
        totals, report = self._totals, outcome.report
        totals.written += report.written
        totals.unchanged += report.unchanged
        totals.encoded += report.encoded
        totals.cut += report.cut
        totals.added += outcome.added
        totals.vectors += outcome.vectors
        totals.tokens += outcome.tokens
        for stage in report.stages:
            self._stages[stage.name] += stage.seconds
        self._rejects.finish(number, attempt)

    def poll(self, rows: int) -> None:
        """Report the progress, with so many durable rows of unfinished splits."""
        self._report_progress("passages", rows)

    # ---- the end -------------------------------------------------------------------------------

    def check(self, target: IngestTarget, *, is_new: bool) -> None:
        """Warn if passages are missing, or if BM25 assumes another length.

        Raises:
            SourceError: If the collection is new, and every row was rejected.
        """
        totals = self._totals
        # What a lost worker wrote is unchanged for the next one: it is a passage, too.
        if is_new and self._rejected.count and not self.stored:
            raise no_passages(self._rejected.count, self._rejected.first)
        self._missing = count_missing(
            target.collection, self._start.points, totals.added, self.stored
        )
        check_length(totals.tokens, totals.vectors, target.bm25.settings)

    def index(self, bulk: BulkMode, guard: AliasGuard, *, stall_s: float) -> None:
        """End a bulk mode and wait for the index; see `Collection.optimize`."""
        end_bulk(bulk)
        if not self.stored:
            return
        self._report_progress("index", 0)
        started = time.perf_counter()
        guard.collection.optimize(stall_s=stall_s)
        self._stages["index"] += time.perf_counter() - started

    def prune(self, policy: PrunePolicy, guard: AliasGuard) -> None:
        """Remove the passages that the source does not contain, if the policy allows it.

        Raises:
            PruneRefusedError: If the policy does not allow it; nothing was removed.
            CollectionReplacedError: If the alias points to another collection.
        """
        if self._stale is None:  # the collection is new
            return
        guard.check()
        self._report_progress("prune", 0)
        started = time.perf_counter()
        pruner = Pruner(guard, self._stale.ids, self._start.last_seq)
        if refusal := pruner.refusal(policy, self._rejected, is_empty=not self.passages):
            raise PruneRefusedError(refusal, self.report())
        self._pruned = pruner.remove(policy)
        guard.check()
        self._stages["prune"] += time.perf_counter() - started

    def report(self) -> IngestReport:
        """Return the counts of all finished splits."""
        wall, totals = time.perf_counter() - self._started, self._totals
        return IngestReport(
            read=self.stored + self._rejected.count,
            written=totals.written,
            unchanged=totals.unchanged,
            rejected=self._rejected.count,
            encoded=totals.encoded,
            seconds=wall,
            mean_tokens=totals.tokens / totals.vectors if totals.vectors else None,
            cut=totals.cut,
            stages=tuple(
                StageTiming(name, seconds, min(seconds / wall, 1.0) if wall > 0 else 0.0)
                for name, seconds in sorted(self._stages.items(), key=_stage_order)
            ),
            sources=self._source.descriptions,
            missing=self._missing,
            pruned=self._pruned,
        )

    def _report_progress(
        self, stage: Literal["passages", "index", "prune"], unfinished: int
    ) -> None:
        if self._on_progress is None:
            return
        report = self.report()
        # A worker's last answer may include a split that was finished since, or that was lost.
        self._read = max(self._read, min(report.read + unfinished, self.rows))
        fraction = self._read / self.rows if self.rows else None
        self._on_progress(IngestProgress(stage, self._read, fraction, report))


def _stage_order(item: tuple[str, float]) -> int:
    return _STAGES.index(item[0]) if item[0] in _STAGES else len(_STAGES)


@contextmanager
def ended_by_errors(run: DistributedRun, guard: AliasGuard, *, is_new: bool) -> Iterator[None]:
    """Report how far a failing run got; a new collection without passages is dropped."""
    try:
        yield
    except PruneRefusedError:
        raise
    except MsmarcoQdrantError as exc:
        reason = guard.root_cause(exc)
        done = f"at least {run.written:,} passages were written; the same ingest resumes there"
        if is_new and _drop_unwritten(run, guard):
            done = "nothing was written"
        raise IngestStoppedError(f"{reason} ({done})", run.report()) from reason
    except Exception:  # of the caller's encoder or callback
        if is_new:
            _drop_unwritten(run, guard)
        raise


def _drop_unwritten(run: DistributedRun, guard: AliasGuard) -> bool:
    """Drop a new collection if it holds no passage; True if it was dropped."""
    if not run.stored:
        with suppress(StoreError):  # the reason is the error to report
            return drop_if_empty(guard.store, guard.name, guard.physical)
    return False
