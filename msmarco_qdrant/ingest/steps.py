"""The steps of an ingest after its collection was opened, by one process or by a cluster."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from msmarco_qdrant.collection.bulk import BulkMode, bulk_mode, end_bulk
from msmarco_qdrant.collection.create import drop_if_empty
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.records import PrunePolicy
from msmarco_qdrant.core.reports import IngestReport
from msmarco_qdrant.errors import (
    IngestStoppedError,
    MsmarcoQdrantError,
    PruneRefusedError,
    StoreError,
)
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.ingest.checks import CollectionStart, check_length, count_missing
from msmarco_qdrant.ingest.counts import IngestCounts
from msmarco_qdrant.ingest.int8_loss import keep_loss
from msmarco_qdrant.ingest.options import IndexOptions
from msmarco_qdrant.ingest.prune import Pruner
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.ingest.target import no_passages
from msmarco_qdrant.sources.rejects import RejectCount

_log = logging.getLogger(__name__)


class IngestSteps(ABC):
    """Counts of one ingest, and its steps around the writes, which a subclass does.

    Args:
        target: The collection and its encoders.
        guard: The name of the collection.
        start: State of the collection before the ingest.
        rejected: Counts each row that cannot be ingested; it may have some already.
        clock: Returns seconds.

    Attributes:
        guard: The same.
        counts: The counts so far.
        stage_seconds: Seconds of each step.
    """

    _at_least = ""  # in front of the number of passages that a failed ingest wrote

    def __init__(
        self,
        target: IngestTarget,
        guard: AliasGuard,
        start: CollectionStart,
        rejected: RejectCount,
        clock: Callable[[], float],
    ) -> None:
        self.guard = guard
        self.counts = IngestCounts()
        self.stage_seconds: defaultdict[str, float] = defaultdict(float)
        self._target = target
        self._start = start
        self._rejected = rejected
        self._clock = clock
        self._is_loss_kept = False

    @abstractmethod
    def report(self) -> IngestReport:
        """Return the counts so far."""

    @abstractmethod
    def _stale_ids(self) -> Callable[[], Iterator[PointId]] | None:
        """Return what yields the ids to prune; None for a collection that has none."""

    @abstractmethod
    def _is_source_empty(self) -> bool:
        """True if no passage was read."""

    @abstractmethod
    def _announce(self, stage: Literal["prune", "index"]) -> None:
        """Report the progress when a step begins."""

    def complete(
        self,
        write: Callable[[], object],
        index: IndexOptions,
        prune: PrunePolicy | None,
        *,
        is_new: bool,
    ) -> IngestReport:
        """Write the passages, check the collection, build the index, and prune.

        Args:
            write: Writes every passage of the source.
            index: When the index is built.
            prune: The policy; None for no prune.
            is_new: True if the ingest created the collection.

        Raises:
            IngestStoppedError: If it ended early.
            PruneRefusedError: If the policy does not allow the prune.
        """
        guard = self.guard
        guard.warn_if_unfinished()
        with (
            bulk_mode(guard.store, guard.physical, begin=index.bulk) as bulk,
            self._ended_by_errors(is_new=is_new),
        ):
            self._keep_loss()
            write()
            self.check(is_new=is_new)
            if index.optimize:
                self._index(bulk, index.stall_s)
            if prune is not None:
                self._prune(prune)
        return self.report()

    def _keep_loss(self) -> None:
        """Keep the loss of int8 with the collection, before it has vectors of int8."""
        if not self._is_loss_kept and (loss := self._target.int8_loss) is not None:
            self._is_loss_kept = keep_loss(self.guard, loss)

    def check(self, *, is_new: bool) -> None:
        """Warn if passages are missing, or if BM25 assumes another length.

        Raises:
            SourceError: If the collection is new, and every row was rejected.
        """
        counts = self.counts
        # What a lost worker wrote is unchanged for the next one: it is a passage, too.
        if is_new and self._rejected.count and not counts.stored:
            raise no_passages(self._rejected.count, self._rejected.first)
        counts.missing = count_missing(
            self._target.collection, self._start.points, counts.added, counts.stored
        )
        check_length(counts.tokens, counts.vectors, self._target.bm25.settings)

    def _index(self, bulk: BulkMode, stall_s: float) -> None:
        """End a bulk mode and build the index; see `Collection.optimize`."""
        collection = self._target.collection
        if collection.info().points == 0:
            end_bulk(bulk)
            return
        self._announce("index")
        with self._timed("index"):
            end_bulk(bulk)
            collection.optimize(stall_s=stall_s)

    def _prune(self, policy: PrunePolicy) -> None:
        """Remove the passages that the source does not contain, if the policy allows it.

        Raises:
            PruneRefusedError: If the policy does not allow it; nothing was removed.
            CollectionReplacedError: If the alias points to another collection.
        """
        stale = self._stale_ids()
        if stale is None:
            return
        self.guard.check()
        self._announce("prune")
        with self._timed("prune"):
            pruner = Pruner(self.guard, stale, self._start.last_seq)
            refusal = pruner.refusal(policy, self._rejected, is_empty=self._is_source_empty())
            if not refusal:
                self.counts.pruned = pruner.remove(policy)
                self.guard.check()
        if refusal:
            raise PruneRefusedError(refusal, self.report())

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Count the time as a stage of its own."""
        started = self._clock()
        try:
            yield
        finally:
            self.stage_seconds[name] += self._clock() - started

    @contextmanager
    def _ended_by_errors(self, *, is_new: bool) -> Iterator[None]:
        """Report how far a failing ingest got; a new collection without passages is dropped."""
        try:
            yield
        except PruneRefusedError:
            raise
        except MsmarcoQdrantError as exc:
            reason = self.guard.root_cause(exc)
            written = f"{self._at_least}{self.counts.written:,}"
            done = f"{written} passages were written; the same ingest resumes there"
            if is_new and self._drop_unwritten():
                done = "nothing was written"
            raise IngestStoppedError(f"{reason} ({done})", self.report()) from reason
        except Exception:  # of the caller's encoder, source or callback
            if is_new:
                self._drop_unwritten()
            raise

    def _drop_unwritten(self) -> bool:
        """Drop the collection if it holds no passage; True if it was dropped."""
        if not self.counts.stored:
            with suppress(StoreError):  # the reason is the error to report
                return drop_if_empty(self.guard.store, self.guard.name, self.guard.physical)
        return False


def report_nothing(sources: tuple[str, ...]) -> IngestReport:
    """Return the report of a source without passages, for which no collection was created."""
    _log.warning("the source has no passages: no collection was created")
    return IngestReport(0, 0, 0, 0, 0, 0.0, sources=sources)
