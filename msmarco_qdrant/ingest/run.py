"""Writing, flushing and counting of one ingest, in the caller's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

from msmarco_qdrant.core.collection_types import PointBatch, PointId
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import IngestProgress, IngestReport
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.ingest.checks import CollectionStart
from msmarco_qdrant.ingest.diff import RewriteAll, SkipUnchanged, reject_keyless
from msmarco_qdrant.ingest.prune import stale_ids
from msmarco_qdrant.ingest.stages import IngestStages, IngestTarget, WindowDiff, WriteBatch
from msmarco_qdrant.ingest.steps import IngestSteps
from msmarco_qdrant.ingest.windows import RowStream, split_into_windows
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.sources.rejects import NO_VECTOR_REASON, RejectCount, reject_passage
from msmarco_qdrant.stores.payload import SeqClock, payload_of, point_id

# A server gets several requests at once, also if the encoder returns few passages at a time.
_PASSAGES_PER_WRITE = 1024


class IngestRun(IngestSteps):
    """Counts and writes of one ingest.

    Args:
        target: The collection and its encoders.
        guard: The name of the collection.
        rejected: Counts each row that cannot be ingested; it may have some already.
        on_progress: Called after each batch.
        clock: Returns seconds.
        on_durable: Called for each window once it is durable.
        start: State of the collection before the ingest that this run is a part of; by default as
            it is now.
        seen: The pids that were read before.

    Attributes:
        index_every: Written passages after which the index is built in between; None for never.
    """

    def __init__(
        self,
        target: IngestTarget,
        guard: AliasGuard,
        rejected: RejectCount,
        on_progress: Callable[[IngestProgress], None] | None,
        clock: Callable[[], float] = time.perf_counter,
        on_durable: Callable[[WindowDiff], None] = lambda _diff: None,
        start: CollectionStart | None = None,
        seen: PidSet | None = None,
    ) -> None:
        start = start or CollectionStart.of(guard, target.collection)
        super().__init__(target, guard, start, rejected, clock)
        self._collection = target.collection
        self._seq = SeqClock(start.last_seq)
        is_remote = guard.store.capabilities.multi_process
        self._stages = IngestStages(target, self._comparison(), is_remote=is_remote)
        self._seen = PidSet() if seen is None else seen
        self._on_progress = on_progress
        self._on_durable = on_durable
        self._started = clock()
        self._pipeline = Pipeline("write", clock)
        self._rows = RowStream([])
        self._unflushed = self._unindexed = 0
        self.index_every: int | None = None
        self._to_write: list[WriteBatch] = []

    def _comparison(self) -> RewriteAll | SkipUnchanged:
        """Return what finds the passages of a window that need no write."""
        guard, collection = self.guard, self._target.collection
        replicated, field = self._start.replicated, guard.metadata.tenant_field
        if guard.is_being_filled:
            return RewriteAll(
                collection,
                lambda: guard.is_being_filled,
                replicated=replicated,
                tenant_field=field,
            )
        return SkipUnchanged(
            collection,
            was_empty=self._start.is_empty,
            replicated=replicated,
            tenant_field=field,
        )

    def ingest(self, rows: RowStream, window: int, max_passages: int | None) -> None:
        """Ingest every row of the source, in windows of so many."""
        self._rows = rows
        with self._pipeline as pipeline:
            windows = split_into_windows(rows, self._seen, window, max_passages)
            keyed = (reject_keyless(one, self._start.shard_key) for one in windows)
            for item in self._stages.run(pipeline, keyed):
                if isinstance(item, WindowDiff):
                    self._finish_window(item)
                else:
                    self._collect(item)

    def report(self) -> IngestReport:
        """Return the counts so far; only flushed passages count as written."""
        stages = {**self._pipeline.stage_seconds, **self.stage_seconds}
        wall = self._clock() - self._started
        return self.counts.report(
            self._rejected.count, wall, stages.items(), self._rows.descriptions
        )

    def _collect(self, batch: WriteBatch) -> None:
        """Collect batches until there are enough for several requests at once."""
        self._to_write.append(batch)
        self._unflushed += len(batch.passages)
        counts = self.counts
        counts.vectors += len(batch.passages)
        counts.encoded += len(batch.passages) if self._target.encoder is not None else 0
        counts.tokens += batch.tokens
        counts.cut += batch.cut
        if sum(len(waiting.passages) for waiting in self._to_write) >= _PASSAGES_PER_WRITE:
            self._write()
        window = batch.window
        share = self._unflushed / len(window.passages)
        self._report_progress("passages", window.start + share * (window.end - window.start))

    def _write(self) -> None:
        """Write the collected batches; reject passages without a finite vector."""
        import numpy as np

        batches, self._to_write = self._to_write, []
        if not batches:
            return
        dense = np.concatenate([batch.dense for batch in batches])
        passages = [passage for batch in batches for passage in batch.passages]
        sparse = [vector for batch in batches for vector in batch.sparse]
        is_finite = np.isfinite(dense).all(axis=1)
        for index in np.flatnonzero(~is_finite):
            self._rejected.add(reject_passage(passages[index], NO_VECTOR_REASON))
        valid = np.flatnonzero(is_finite)
        self._unflushed -= len(passages) - len(valid)
        self._keep_loss()
        self._collection.upsert(
            PointBatch(
                using=self._target.info.vector_name,
                ids=[point_id(passages[index].pid) for index in valid],
                dense=dense[is_finite],
                sparse=[sparse[index] for index in valid],
                payloads=[self._payload(passages[index]) for index in valid],
            )
        )

    def _finish_window(self, diff: WindowDiff) -> None:
        """Write the rest of a window, flush, check the alias, and only then count."""
        for reject in diff.window.rejects:
            self._rejected.add(reject)
        self._write()
        if diff.new_meta:
            self._collection.replace_payloads(
                [point_id(passage.pid) for passage in diff.new_meta],
                [self._payload(passage) for passage in diff.new_meta],
            )
        self._collection.flush()
        self.guard.check()
        self.counts.written += self._unflushed + len(diff.new_meta)
        self.counts.added += self._unflushed - diff.rewritten
        self.counts.unchanged += diff.unchanged
        self._unflushed = 0
        self._on_durable(diff)
        self._index_piece(len(diff.encode))
        self._report_progress("passages", diff.window.end)

    def _index_piece(self, written: int) -> None:
        """Build the index of what was written since the last build, after so many passages."""
        self._unindexed += written
        if self.index_every is not None and self._unindexed >= self.index_every:
            self._unindexed = 0
            with self._timed("index"):
                self._collection.optimize()

    def _payload(self, passage: Passage) -> dict[str, Any]:
        return payload_of(passage, self._seq.next())

    def _report_progress(
        self, stage: Literal["passages", "prune", "index"], position: float
    ) -> None:
        if self._on_progress is None:
            return
        report = self.report()
        fraction = position / self._rows.size if self._rows.size else None
        self._on_progress(IngestProgress(stage, report.read + self._unflushed, fraction, report))

    def _stale_ids(self) -> Callable[[], Iterator[PointId]]:
        return partial(stale_ids, self.guard, self._seen, self._start.last_seq)

    def _is_source_empty(self) -> bool:
        return not self._seen

    def _announce(self, stage: Literal["prune", "index"]) -> None:
        self._report_progress(stage, self._rows.size or 0)
