"""One distributed encode: its shards, and the counts so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import EncodeProgress, EncodeReport
from msmarco_qdrant.distributed.cluster import count_and_find_repeats
from msmarco_qdrant.distributed.dedup import partition_count
from msmarco_qdrant.distributed.encode_worker import ShardWork
from msmarco_qdrant.distributed.files import SourceFiles
from msmarco_qdrant.distributed.preparing import Preparers
from msmarco_qdrant.distributed.shards import ShardPlan
from msmarco_qdrant.distributed.split_files import OrderedRejects, SplitFiles
from msmarco_qdrant.distributed.splits import SplitCount, bounded_partitions, lines_before
from msmarco_qdrant.encode.counts import EncodeCounts
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.shard_file import ShardHeader


class DistributedEncode:
    """Counts and steps of one distributed encode.

    Args:
        source: The source.
        plans: All shards.
        existing: Headers of those that exist, by their number.
        files: Keeps what is known of each.
        rejected: Counts the rejects, shard after shard in the source's order.
        on_progress: Called after each shard.
    """

    def __init__(
        self,
        source: SourceFiles,
        plans: Sequence[ShardPlan],
        existing: Mapping[int, ShardHeader],
        files: SplitFiles,
        rejected: RejectCount,
        on_progress: Callable[[EncodeProgress], None] | None,
    ) -> None:
        self._source = source
        self._plans = plans
        self._files = files
        self._on_progress = on_progress
        self._counts: Sequence[SplitCount] = ()
        self._rows = 0
        self._lines: Sequence[Sequence[int]] = ()
        headers = existing.values()
        self._so_far = EncodeCounts(
            found=sum(header.rows - header.rejected for header in headers),
            rejected=sum(header.rejected for header in headers),
            shards=len(headers),
        )
        self.missing = [plan.split.number for plan in plans if plan.split.number not in existing]
        self._rejects = OrderedRejects(self.missing, files, rejected)
        self._preparers: Preparers | None = None
        self._ahead = 0
        self._to_prepare = iter(self.missing)
        self._prepared: dict[int, list[Any]] = {}

    def count(self) -> None:
        """Read all keys: count the rows, and find those whose pid came before them.

        Raises:
            SourceError: If a file cannot be read.
            WorkerError: If too many nodes are lost.
        """
        splits = [plan.split for plan in self._plans]
        partitions = bounded_partitions(partition_count(self._source.bytes), len(splits))
        self._counts = count_and_find_repeats(
            splits, self._source, partitions, self._files.add_repeats
        )
        self._rows = sum(count.rows for count in self._counts)
        self._lines = lines_before(splits, self._counts)

    def shard_work(self, number: int) -> ShardWork:
        """Return a shard with what `count` found."""
        repeats = self._files.repeats(number)
        plan, rows = self._plans[number], self._counts[number].rows
        return ShardWork(plan, self._lines[number], rows, repeats)

    def prepare_with(self, preparers: Preparers) -> None:
        """Have missing shards prepared by tasks, some of them ahead of the workers."""
        self._preparers = preparers
        full = self._plans[0].full if self._plans else 1
        self._ahead = preparers.shards_ahead(full)
        self._prepare_ahead(preparers)  # while the other workers load the model

    # ---- for the workers -----------------------------------------------------------------------

    def work(self, number: int, attempt: int) -> tuple[Any, ...]:  # noqa: ARG002  # for ingests
        """Return the arguments of `EncodeWorker.run_split` for a shard."""
        work = self.shard_work(number)
        if self._preparers is None:
            return (work,)
        parts = self._prepared.pop(number, None)
        self._prepare_ahead(self._preparers)
        return (work, *(self._preparers.start(work) if parts is None else parts))

    def _prepare_ahead(self, preparers: Preparers) -> None:
        while len(self._prepared) < self._ahead:
            number = next(self._to_prepare, None)
            if number is None:
                return
            self._prepared[number] = preparers.start(self.shard_work(number))

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Keep some rejects of an attempt, which may still fail."""
        self._files.add_rejects(number, attempt, rejects)

    def finish(self, number: int, attempt: int, outcome: EncodeReport) -> None:
        """Count a shard, and pass on the rejects of all shards up to the first unfinished one."""
        self._so_far.encoded += outcome.encoded
        self._so_far.rejected += outcome.rejected
        self._so_far.tokens += outcome.tokens
        self._so_far.cut += outcome.cut
        self._so_far.shards += 1
        self._rejects.finish(number, attempt)
        self._report_progress()

    def poll(self, rows: int) -> None:
        """Do nothing: a shard is done when it is on disk."""

    # ---- the end -------------------------------------------------------------------------------

    def report(self) -> EncodeReport:
        """Return the counts of all finished shards."""
        return self._so_far.report()

    def _report_progress(self) -> None:
        if self._on_progress is not None:
            report = self.report()
            fraction = report.read / max(1, self._rows)
            self._on_progress(EncodeProgress(report.read, fraction, report))
