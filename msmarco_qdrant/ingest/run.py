"""One ingest in the caller's thread: what the stages bring is written, flushed and counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import CollectionInfo, PointBatch, PrunePolicy, Reject
from msmarco_qdrant.core.reports import IngestProgress, IngestReport, StageTiming
from msmarco_qdrant.errors import PruneRefusedError, StoreError
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.ingest.diff import RewriteAll, SkipUnchanged
from msmarco_qdrant.ingest.prune import Pruner
from msmarco_qdrant.ingest.stages import IngestStages, IngestTarget, WindowDiff, WriteBatch
from msmarco_qdrant.ingest.windows import Rows, Window, source_size, split_into_windows
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.sources.rejects import NO_VECTOR_REASON, reject_passage
from msmarco_qdrant.stores import Collection
from msmarco_qdrant.stores.payload import SeqClock, payload_of, point_id

_log = logging.getLogger(__name__)

_PASSAGES_FOR_A_MEAN = 100
# So that a server gets several requests at once, however few passages the encoder gives at once.
_WRITTEN_AT_ONCE = 1024


class IngestRun:
    """One ingest: its counts and its writing.

    Args:
        target: Where the passages go.
        binding: By which name.
        on_reject: Called for each row that cannot go in.
        on_progress: Called after each batch.
        clock: Seconds, from wherever they are counted.
    """

    def __init__(
        self,
        target: IngestTarget,
        guard: AliasGuard,
        on_reject: Callable[[Reject], None] | None,
        on_progress: Callable[[IngestProgress], None] | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._guard = guard
        self._collection = target.collection
        self._vector_name = target.info.vector_name
        self._bm25 = target.bm25
        self._with_model = target.encoder is not None
        found = target.collection.info()
        self._seq_before = guard.last_seq(found.last_seq)
        self._points_before = found.points
        self._seq = SeqClock(self._seq_before)
        self._steps = IngestStages(target, _plan(guard, target.collection, found))
        self._seen = PidSet()
        self._on_reject = on_reject
        self._on_progress = on_progress
        self._now = clock
        self._started = clock()
        self._stages = Pipeline("write", clock)
        self._afterwards: dict[str, float] = {}
        self._source_size: int | None = None
        self._rejected = self._unchanged = self._vectors = self._tokens = 0
        self._unflushed = self._added = 0
        self._to_write: list[WriteBatch] = []
        self.written = self.pruned = 0

    def passages(self, rows: Rows, window: int, max_passages: int | None) -> None:
        """Bring every row of the source in."""
        self._source_size = source_size(rows)
        with self._stages as stages:
            cut = split_into_windows(rows, self._seen, window, max_passages)
            for step in self._steps.run(stages, cut):
                if isinstance(step, WindowDiff):
                    self._finish(step)
                else:
                    self._take(step)

    def check_count(self) -> None:
        """Compare what was counted with what the engine holds.

        Raises:
            StoreError: If it holds fewer than were there before with those that were added.
        """
        found = self._collection.info().points
        expected = max(self._points_before + self._added, self.written + self._unchanged)
        if found < expected:
            raise StoreError(
                f"the collection holds {found:,} passages, expected are {expected:,}: it held "
                f"{self._points_before:,} before, and this run added {self._added:,}. Something "
                "else removed passages meanwhile; run the same ingest again to bring back what "
                "its source holds"
            )

    def prune(self, policy: PrunePolicy) -> None:
        """Remove what the source did not hold, if the policy allows it.

        Raises:
            PruneRefusedError: If it does not; nothing was removed.
            CollectionReplacedError: If the name leads to another collection.
        """
        self._guard.check()
        self._tell("prune", self._source_size or 0)
        with self._timed("prune"):
            pruner = Pruner(
                self._guard.store,
                self._guard.name,
                self._collection,
                self._seen,
                self._seq_before,
            )
            refusal = self._unfinished() or pruner.refusal(policy, self._rejected)
            if not refusal:
                self.pruned = pruner.remove()
                self._guard.check()
        if refusal:
            raise PruneRefusedError(refusal, self.report())

    def _unfinished(self) -> str | None:
        """Why nothing may be pruned yet: what is still to be copied could not be looked at."""
        if not self._guard.is_being_filled:
            return None
        return (
            f"nothing was pruned: the re-embedding of '{self._guard.name}' is not finished "
            "and still copies passages; run the same again when it is"
        )

    def index(self) -> None:
        """Build the index over what is there, if anything is."""
        if self._collection.info().points == 0:
            return
        self._tell("index", self._source_size or 0)
        with self._timed("index"):
            self._collection.optimize()

    def report(self) -> IngestReport:
        """The counts so far; what is not flushed is not counted as written."""
        seconds = self._now() - self._started
        return IngestReport(
            read=self.written + self._unchanged + self._rejected,
            written=self.written,
            unchanged=self._unchanged,
            rejected=self._rejected,
            encoded=self._vectors if self._with_model else 0,
            seconds=seconds,
            mean_tokens=self._tokens / self._vectors if self._vectors else None,
            pruned=self.pruned,
            stages=_shares({**self._stages.stage_seconds, **self._afterwards}, seconds),
        )

    def check_bm25(self) -> None:
        """Warn when the collection's `avg_len` is far from the passages it holds."""
        mean, assumed = self.report().mean_tokens, self._bm25.settings.avg_len
        if self._vectors < _PASSAGES_FOR_A_MEAN:
            return
        if mean is not None and not assumed / 2 <= mean <= assumed * 2:
            _log.warning(
                "the passages have %.1f BM25 tokens on average, the collection assumes %.1f: "
                "BM25 will weigh length wrongly; the migration SetBm25(avg_len=%.1f) mends it",
                mean,
                assumed,
                mean,
            )

    def _take(self, batch: WriteBatch) -> None:
        """Collect batches until there are enough for several requests at once."""
        self._to_write.append(batch)
        self._unflushed += len(batch.passages)
        self._vectors += len(batch.passages)
        self._tokens += batch.tokens
        if sum(len(taken.passages) for taken in self._to_write) >= _WRITTEN_AT_ONCE:
            self._write()
        share = self._unflushed / len(batch.window.passages)
        self._tell("passages", batch.window.start + share * (batch.window.end - batch.window.start))

    def _write(self) -> None:
        """Write what was collected; what has no vector is rejected."""
        import numpy as np

        taken, self._to_write = self._to_write, []
        if not taken:
            return
        dense = np.concatenate([batch.dense for batch in taken])
        passages = [passage for batch in taken for passage in batch.passages]
        sparse = [vector for batch in taken for vector in batch.sparse]
        finite = np.isfinite(dense).all(axis=1)
        for index in np.flatnonzero(~finite):
            self._reject(reject_passage(passages[index], NO_VECTOR_REASON))
        kept = np.flatnonzero(finite)
        self._unflushed -= len(passages) - len(kept)
        self._collection.upsert(
            PointBatch(
                using=self._vector_name,
                ids=[point_id(passages[index].pid) for index in kept],
                dense=dense[finite],
                sparse=[sparse[index] for index in kept],
                payloads=[payload_of(passages[index], self._seq.next()) for index in kept],
            )
        )

    def _finish(self, plan: WindowDiff) -> None:
        """The end of a window: what needs no encoding, one flush, the name, then the counts."""
        for reject in plan.window.rejects:
            self._reject(reject)
        self._write()
        if plan.new_meta:
            self._collection.replace_payloads(
                [point_id(passage.pid) for passage in plan.new_meta],
                [payload_of(passage, self._seq.next()) for passage in plan.new_meta],
            )
        self._collection.flush()
        self._guard.check()
        self.written += self._unflushed + len(plan.new_meta)
        self._added += self._unflushed - plan.rewritten
        self._unflushed = 0
        self._unchanged += plan.unchanged
        self._tell("passages", plan.window.end)

    def _reject(self, reject: Reject) -> None:
        self._rejected += 1
        if self._on_reject is not None:
            self._on_reject(reject)

    def _tell(self, stage: Literal["passages", "prune", "index"], position: float) -> None:
        if self._on_progress is None:
            return
        report = self.report()
        fraction = position / self._source_size if self._source_size else None
        self._on_progress(IngestProgress(stage, report.read + self._unflushed, fraction, report))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Count what comes after the last passage as a stage of its own."""
        started = self._now()
        try:
            yield
        finally:
            self._afterwards[name] = self._now() - started


def _plan(
    guard: AliasGuard, collection: Collection, found: CollectionInfo
) -> Callable[[Window], WindowDiff]:
    """What decides about a window's passages."""
    if guard.is_being_filled:
        return RewriteAll(collection, lambda: guard.is_being_filled)
    return SkipUnchanged(collection, was_empty=found.points == 0)


def _shares(busy: Mapping[str, float], wall: float) -> tuple[StageTiming, ...]:
    return tuple(
        StageTiming(name, seconds, min(seconds / wall, 1.0) if wall > 0 else 0.0)
        for name, seconds in busy.items()
    )
