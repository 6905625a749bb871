"""One distributed encode: its shards, and the counts so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import EncodeProgress, EncodeReport
from msmarco_qdrant.distributed.counting import CountedSource
from msmarco_qdrant.distributed.preparers import Preparers
from msmarco_qdrant.distributed.rejects import OrderedRejects
from msmarco_qdrant.distributed.shards import ShardPlan
from msmarco_qdrant.encode.counts import EncodeCounts
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.shard_file import ShardHeader


class DistributedEncode:
    """Counts and steps of one distributed encode.

    Args:
        source: The source, to be counted; a split is a shard.
        plans: All shards.
        existing: Headers of those that exist, by their number.
        preparers: Prepare missing shards, some of them ahead of the workers, which do it without.
        rejected: Counts the rejects, shard after shard in the source's order.
        on_progress: Called after each shard.
        startup_seconds: Seconds before the encode.

    Attributes:
        missing: Numbers of the shards to encode.
    """

    def __init__(
        self,
        source: CountedSource,
        plans: Sequence[ShardPlan],
        existing: Mapping[int, ShardHeader],
        preparers: Preparers | None,
        rejected: RejectCount,
        on_progress: Callable[[EncodeProgress], None] | None,
        startup_seconds: float,
    ) -> None:
        self._source = source
        self._plans = plans
        self._on_progress = on_progress
        headers = existing.values()
        self._so_far = EncodeCounts(
            found=sum(header.rows - header.rejected for header in headers),
            rejected=sum(header.rejected for header in headers),
            shards=len(headers),
            startup_seconds=startup_seconds,
        )
        self.missing = [number for number in source.numbers if number not in existing]
        self._rejects = OrderedRejects(self.missing, source.files, rejected)
        self._preparers = preparers
        full = plans[0].full if plans else 1
        self._ahead = 0 if preparers is None else preparers.shards_ahead(full)
        self._to_prepare = iter(self.missing)
        self._prepared: dict[int, list[Any]] = {}

    # ---- for the workers -----------------------------------------------------------------------

    def work(self, number: int, attempt: int) -> tuple[Any, ...]:  # noqa: ARG002  # for ingests
        """Return the arguments of `EncodeWorker.run_split` for a shard."""
        plan, counted = self._plans[number], self._source.split(number)
        if self._preparers is None:
            return (plan, counted)
        parts = self._prepared.pop(number, None)
        self.prepare_ahead()
        return (plan, counted, *(self._preparers.start(counted) if parts is None else parts))

    def prepare_ahead(self) -> None:
        """Start to prepare the next shards, while workers load the model or encode others."""
        while self._preparers is not None and len(self._prepared) < self._ahead:
            number = next(self._to_prepare, None)
            if number is None:
                return
            self._prepared[number] = self._preparers.start(self._source.split(number))

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Keep some rejects of an attempt, which may still fail."""
        self._source.files.add_rejects(number, attempt, rejects)

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
            fraction = report.read / max(1, self._source.rows)
            self._on_progress(EncodeProgress(report.read, fraction, report))
