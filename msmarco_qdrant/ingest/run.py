"""Writing, flushing and counting of one ingest, in the caller's thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from msmarco_qdrant.collection.bulk import BulkMode, end_bulk
from msmarco_qdrant.collection.replicas import mark_unreachable_replicas
from msmarco_qdrant.core.collection_types import Bm25Settings, PointBatch
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.core.reports import IngestProgress, IngestReport, StageTiming
from msmarco_qdrant.errors import PruneRefusedError
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.ingest.diff import RewriteAll, SkipUnchanged, reject_keyless
from msmarco_qdrant.ingest.prune import Pruner, stale_ids
from msmarco_qdrant.ingest.stages import IngestStages, IngestTarget, WindowDiff, WriteBatch
from msmarco_qdrant.ingest.windows import RowStream, split_into_windows
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.sources.rejects import NO_VECTOR_REASON, RejectCount, reject_passage
from msmarco_qdrant.stores import Collection
from msmarco_qdrant.stores.payload import SeqClock, payload_of, point_id

_log = logging.getLogger(__name__)

_MIN_PASSAGES_FOR_MEAN = 100
# A server gets several requests at once, also if the encoder returns few passages at a time.
_PASSAGES_PER_WRITE = 1024


@dataclass(frozen=True, slots=True)
class CollectionStart:
    """State of a collection before an ingest.

    Attributes:
        points: Number of its points.
        last_seq: The highest `seq` in it.
        replicated: True if it has replicas, which may differ.
        shard_key: The `meta` field that chooses the shard of a passage; None without.
        may_hold_passages: True if an earlier attempt may have written some of the run's passages.
    """

    points: int
    last_seq: int
    replicated: bool
    shard_key: str | None = None
    may_hold_passages: bool = False

    @classmethod
    def of(cls, guard: AliasGuard, collection: Collection) -> CollectionStart:
        """Read the state of a guarded collection."""
        mark_unreachable_replicas(guard.store, guard.physical)
        info = collection.info()
        replicated = guard.store.request_limits(guard.physical).replicas > 1
        key = None if info.spec.sharding is None else info.spec.sharding.shard_key
        return cls(info.points, guard.last_seq(info.last_seq), replicated, key)

    @property
    def is_empty(self) -> bool:
        """True if no passage of the ingest can be in the collection."""
        return self.points == 0 and not self.may_hold_passages

    def as_resumed(self) -> CollectionStart:
        """Return the state for a part of the ingest that was begun before."""
        return replace(self, may_hold_passages=True)


def count_missing(collection: Collection, before: int, added: int, stored: int) -> int:
    """Return the passages that an ingest wrote and the engine no longer has, and warn of them.

    Each write was confirmed, so another client has deleted them. If the engine has only an
    estimate, nothing is compared.

    Args:
        collection: The collection.
        before: Its points before the ingest.
        added: Points that the ingest added.
        stored: Passages that it wrote or found unchanged.
    """
    info = collection.info()
    expected = max(before + added, stored)
    if not info.is_exact or info.points >= expected:
        return 0
    _log.warning(
        "the collection must hold %s passages (%s before this run, %s added by it), found "
        "%s: another client deleted passages during the ingest. Run the same ingest again "
        "to restore those of its source",
        *(f"{expected:,}", f"{before:,}", f"{added:,}", f"{info.points:,}"),
    )
    return expected - info.points


def check_length(tokens: int, passages: int, settings: Bm25Settings) -> None:
    """Warn if a collection's `avg_len` is far from the mean length of its passages."""
    if passages < _MIN_PASSAGES_FOR_MEAN:
        return
    mean, assumed = tokens / passages, settings.avg_len
    if not assumed / 2 <= mean <= assumed * 2:
        _log.warning(
            "the passages have %.1f BM25 tokens on average, the collection assumes %.1f: "
            "BM25 will weigh length wrongly; fix it with the migration SetBm25(avg_len=%.1f)",
            *(mean, assumed, mean),
        )


class IngestRun:
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
        guard: The same.
        written: Passages that are durable.
        added: Those among them whose pid the collection lacked.
        vectors: Passages written with vectors.
        tokens: BM25 tokens of these.
        pruned: Passages that were removed.
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
        self.guard = guard
        self._target = target
        self._collection = target.collection
        self._start = start or CollectionStart.of(guard, target.collection)
        self._seq = SeqClock(self._start.last_seq)
        replicated = self._start.replicated
        field = guard.metadata.tenant_field
        compare = (
            RewriteAll(
                target.collection,
                lambda: guard.is_being_filled,
                replicated=replicated,
                tenant_field=field,
            )
            if guard.is_being_filled
            else SkipUnchanged(
                target.collection,
                was_empty=self._start.is_empty,
                replicated=replicated,
                tenant_field=field,
            )
        )
        is_remote = guard.store.capabilities.multi_process
        self._stages = IngestStages(target, compare, is_remote=is_remote)
        self._seen = PidSet() if seen is None else seen
        self._rejected = rejected
        self._on_progress = on_progress
        self._clock = clock
        self._on_durable = on_durable
        self._started = clock()
        self._pipeline = Pipeline("write", clock)
        self._last_stages: dict[str, float] = {}
        self._rows = RowStream([])
        self._unchanged = self.vectors = self.tokens = self._cut = 0
        self._unflushed = self.added = self._unindexed = 0
        self.index_every: int | None = None
        self._to_write: list[WriteBatch] = []
        self._missing = 0
        self.written = self.pruned = 0

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

    def check_count(self) -> None:
        """Warn if the engine holds fewer passages than before the run plus those added."""
        stored = self.written + self._unchanged
        self._missing = count_missing(self._collection, self._start.points, self.added, stored)

    def prune(self, policy: PrunePolicy) -> None:
        """Remove the passages that the source does not contain, if the policy allows it.

        Raises:
            PruneRefusedError: If the policy does not allow it; nothing was removed.
            CollectionReplacedError: If the alias points to another collection.
        """
        self.guard.check()
        self._report_progress("prune", self._rows.size or 0)
        with self._timed("prune"):
            last_seq = self._start.last_seq
            stale = partial(stale_ids, self.guard, self._seen, last_seq)
            pruner = Pruner(self.guard, stale, last_seq)
            refusal = pruner.refusal(policy, self._rejected, is_empty=not self._seen)
            if not refusal:
                self.pruned = pruner.remove(policy)
                self.guard.check()
        if refusal:
            raise PruneRefusedError(refusal, self.report())

    def index(self, bulk: BulkMode, *, stall_s: float) -> None:
        """End a bulk mode and build the index; see `Collection.optimize`."""
        if self._collection.info().points == 0:
            end_bulk(bulk)
            return
        self._report_progress("index", self._rows.size or 0)
        with self._timed("index"):
            end_bulk(bulk)
            self._collection.optimize(stall_s=stall_s)

    def report(self) -> IngestReport:
        """Return the counts so far; only flushed passages count as written."""
        wall = self._clock() - self._started
        busy = {**self._pipeline.stage_seconds, **self._last_stages}
        return IngestReport(
            read=self.written + self._unchanged + self._rejected.count,
            written=self.written,
            unchanged=self._unchanged,
            rejected=self._rejected.count,
            encoded=self.vectors if self._target.encoder is not None else 0,
            seconds=wall,
            mean_tokens=self.tokens / self.vectors if self.vectors else None,
            pruned=self.pruned,
            missing=self._missing,
            cut=self._cut,
            stages=tuple(
                StageTiming(name, seconds, min(seconds / wall, 1.0) if wall > 0 else 0.0)
                for name, seconds in busy.items()
            ),
            sources=self._rows.descriptions,
        )

    def check_bm25(self) -> None:
        """Warn if the collection's `avg_len` is far from the mean length of the passages."""
        check_length(self.tokens, self.vectors, self._target.bm25.settings)

    def _collect(self, batch: WriteBatch) -> None:
        """Collect batches until there are enough for several requests at once."""
        self._to_write.append(batch)
        self._unflushed += len(batch.passages)
        self.vectors += len(batch.passages)
        self.tokens += batch.tokens
        self._cut += batch.cut
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
        self.written += self._unflushed + len(diff.new_meta)
        self.added += self._unflushed - diff.rewritten
        self._unflushed = 0
        self._unchanged += diff.unchanged
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

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Count the time as a stage of its own."""
        started = self._clock()
        try:
            yield
        finally:
            before = self._last_stages.get(name, 0.0)
            self._last_stages[name] = before + self._clock() - started
