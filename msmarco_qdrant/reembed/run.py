"""One run of a re-embedding or rollback; it continues where an interrupted run stopped.

``copy passes → index → compare → verify passes → swap the alias → last passes``

Until the swap no other client writes to the target. After it, writers that began earlier may still
have written to the source. Each writer checks the alias after its writes and does not report those
made after the swap as written. The last passes begin after the swap, so they find every reported
write.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from msmarco_qdrant.collection.replicas import mark_unreachable_replicas, remove_hidden_points
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.encoder_types import EncoderInfo, Int8Loss, worst_loss
from msmarco_qdrant.core.metadata_types import Copying
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import ModelComparison, ReembedProgress, ReembedStage
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import MigrationError, MsmarcoQdrantError, StoreInUseError
from msmarco_qdrant.reembed.compare import Sample, SearchableCollection, compare_models
from msmarco_qdrant.reembed.copy import Copier, CopyJob, CopyPasses, CopyStats, OpenPasses
from msmarco_qdrant.stores import Collection, Store
from msmarco_qdrant.stores.migration_locks import HeldLock

_log = logging.getLogger(__name__)

_FEW = 256  # so few differences need no further pass before the swap
_VERIFY_PASSES = 5
_LAST_PASSES = 20
_PIDS_SHOWN = 5
_MAX_WITHOUT_VECTOR = 1000
_NO_BOUND = 2**63 - 1


def open_passes_here(job: CopyJob) -> AbstractContextManager[CopyPasses]:
    """Begin passes in this process."""
    return nullcontext(Copier(job))


@dataclass(frozen=True, slots=True)
class ReembedOptions:
    """Options of `reembed_collection`.

    Attributes:
        texts: Passages with texts to use; None to read all texts from the source.
        load_old: Loads the old model for the comparison.
        allow_rejects: Swap even if passages have no vector.
        allow_worse: Swap even if sample queries find less.
        on_progress: Called regularly.
        open_passes: Begins the passes: in this process, or on a cluster.
    """

    texts: Iterable[Passage] | None
    load_old: Callable[[EncoderInfo], Encoder]
    allow_rejects: bool
    allow_worse: bool
    on_progress: Callable[[ReembedProgress], None] | None
    open_passes: OpenPasses = open_passes_here


@dataclass(slots=True)
class ReembedResult:
    """The counts of a run; see `ReembedReport` and `CopyStats`."""

    copied: int = 0
    removed: int = 0
    retried: int = 0
    without_vector: frozenset[str] = frozenset()
    comparison: ModelComparison | None = None

    def add(self, stats: CopyStats) -> None:
        """Add a pass; each pass tries passages without a vector again."""
        self.copied += stats.copied
        self.removed += stats.removed
        self.retried += stats.retried
        self.without_vector = frozenset(stats.without_vector)


class ReembedRun:
    """One run, while the lock of `name` is held.

    `encoder` must be that of the target.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        copying: Copying,
        encoder: Encoder,
        options: ReembedOptions,
        lock: HeldLock,
    ) -> None:
        self._store = store
        self._name = name
        self._copying = copying
        self._encoder = encoder
        self._options = options
        self._lock = lock
        self._source = store.collection(copying.source)
        self._target = store.collection(copying.target)
        self._result = ReembedResult()
        self._kept_loss: Int8Loss | None = None

    def run(self) -> ReembedResult:
        """Do all remaining stages."""
        for physical in (self._copying.source, self._copying.target):
            mark_unreachable_replicas(self._store, physical)
        if self._copying.is_swapped:
            with self._open_passes("last pass", is_swapped=True) as passes:
                self._result.removed += passes.remove_strays()
        else:
            sample = self._fill()
            self._index()
            self._compare(sample)
            self._verify()
            if self._copying.metadata.only_copies:  # else it has points that others wrote
                self._remove_hidden(_NO_BOUND, in_flight_s=0)
            self._swap()
        self._run_last_passes()
        # Other clients write to the target, with a newer `seq` than copies have.
        self._remove_hidden(self._source.info().last_seq, in_flight_s=None)
        self._finish()
        return self._result

    # ---- before the swap -------------------------------------------------------------------

    def _fill(self) -> Sample:
        """Copy in passes until few differences are left; returns a sample of the source."""
        if self._options.texts is not None:
            stats = Copier(self._job("copy")).copy(self._options.texts)
            self._result.add(stats)
            if not stats.compared:
                _log.warning(
                    "none of the given texts is in '%s': all texts are read from the collection",
                    self._name,
                )
        previous: float = math.inf
        with self._open_passes("copy") as passes:
            while True:
                stats = passes.copy()
                self._result.add(stats)
                self._require_vectors(stats, at_most=0)
                if _is_settled(stats.copied, previous):
                    return stats.sample
                previous = stats.copied

    def _require_vectors(self, stats: CopyStats, *, at_most: int) -> None:
        """Refuse a model that returns no vector for too many passages."""
        missing = stats.without_vector
        if len(missing) > at_most and not self._options.allow_rejects:
            raise MigrationError(
                f"{self._encoder.info.model} returns no vector for {len(missing):,} passages, such "
                f"as {', '.join(map(repr, missing[:_PIDS_SHOWN]))}; {self._unchanged()}. Fix or "
                "delete these passages, or leave them out with --allow-rejects "
                "(allow_rejects=True), then run this again"
            )

    def _unchanged(self) -> str:
        return f"'{self._name}' still points to {self._copying.source}"

    def _index(self) -> None:
        points = self._target.info().points
        self._report("index", 0, points)
        if points:
            self._target.optimize()

    def _compare(self, sample: Sample) -> None:
        """Search both collections for the sample."""
        self._report("compare", 0, len(sample.ids))
        new = SearchableCollection(self._target, self._encoder)
        most = self._store.request_limits(self._copying.source).points
        found = compare_models(self._load_old(), new, self._retrieve_equal(sample), most)
        self._result.comparison = found
        if found.is_worse and not self._options.allow_worse:
            raise MigrationError(
                f"of {found.queries} passages, searched for by their first words, "
                f"{self._encoder.info.model} finds {found.found_after} among the ten best; the old "
                f"model finds {found.found_before}; {self._unchanged()}. Check the model, or swap "
                "anyway with --allow-worse (allow_worse=True)"
            )

    def _retrieve_equal(self, sample: Sample) -> Mapping[PointId, Mapping[str, Any]]:
        """Read the texts of sample points that both collections hold with the same text."""
        old = self._source.retrieve(sample.ids, ("text", "text_digest"))
        new = self._target.retrieve([*old], ("text_digest",))
        return {
            id_: payload
            for id_, payload in old.items()
            if id_ in new
            and isinstance(payload.get("text"), str)
            and payload.get("text_digest") == new[id_].get("text_digest")
        }

    def _load_old(self) -> SearchableCollection | None:
        encoder_info = self._store.metadata(self._copying.source).encoder
        try:
            return SearchableCollection(self._source, self._options.load_old(encoder_info))
        except (MsmarcoQdrantError, OSError, RuntimeError) as exc:  # torch: RuntimeError for memory
            _log.warning("skipped the comparison with the old model: %s", exc)
            return None

    def _verify(self) -> None:
        """Compare everything again; only writes of other clients may differ, and are copied."""
        previous: float = math.inf
        for _ in range(_VERIFY_PASSES):
            stats, wrong = self._verify_once()
            if not wrong and _is_settled(stats.copied, previous):
                return
            previous = stats.copied
        if wrong:
            raise MigrationError(
                f"{self._copying.target} still differs from {self._copying.source} in {wrong:,} "
                f"passages: check if another application writes to it; {self._unchanged()}"
            )

    def _verify_once(self) -> tuple[CopyStats, int]:
        """Run a pass that reads its writes again; returns its counts and the wrong passages.

        The sizes of the collections are compared only if no client wrote during the pass.
        """
        before = self._source.info()
        with self._open_passes("verify") as passes:
            stats = passes.copy(verify=True)
            self._result.add(stats)
            self._require_vectors(stats, at_most=0)
            self._result.removed += passes.remove_strays()
        after, copied = self._source.info(), _count(self._target)
        if (before.points, before.last_seq) != (after.points, after.last_seq):
            return stats, stats.lost
        # Not the source's count: its replicas may differ by writes that failed on some of them.
        missing = stats.compared - copied - len(stats.without_vector) - stats.foreign
        if not self._copying.metadata.only_copies:  # it may have points that the source lacks
            missing = max(missing, 0)
        return stats, stats.lost or abs(missing)

    def _swap(self) -> None:
        self._report("swap", 0, 0)
        self._lock.check()
        self._require_unswapped()
        self._store.set_alias(self._name, self._copying.target)
        _log.info("'%s' points to %s now", self._name, self._copying.target)

    def _require_unswapped(self) -> None:
        """Refuse to swap if another process has finished or abandoned this re-embedding.

        Raises:
            StoreInUseError: If the lock was taken away and released since this run took it.
        """
        source, target = self._copying.source, self._copying.target
        live = self._store.aliases().get(self._name)
        if (live, self._store.metadata(target).copied_from) != (source, source):
            status = advised_command(
                "migrate", "status", collection=self._name, store=self._store.dsn
            )
            raise StoreInUseError(
                f"'{self._name}' points to {live} now, or {target} is no longer being filled from "
                f"{source}: another process has continued or abandoned this re-embedding; check "
                f"with {status}"
            )

    # ---- after the swap --------------------------------------------------------------------

    def _run_last_passes(self) -> None:
        """Copy the source's writes from before the swap, until a pass finds none."""
        copied_before = self._result.copied
        with self._open_passes("last pass", is_swapped=True) as passes:
            for _ in range(_LAST_PASSES):
                stats = passes.copy()
                self._result.add(stats)
                if not stats.copied:
                    break
            else:
                _log.warning(
                    "another client keeps writing to %s, though '%s' no longer points to it: its "
                    "writes so far were copied",
                    self._copying.source,
                    self._name,
                )
            if self._result.retried or self._result.copied != copied_before:
                # The server may have applied a timed-out request late, after its repetition.
                self._result.removed += passes.remove_strays()

    def _finish(self) -> None:
        """Mark the target as complete. After a rollback it has no previous collection."""
        source, target = self._copying.source, self._copying.target
        is_rollback = self._store.metadata(source).previous == target
        previous = None if is_rollback else source
        metadata = self._store.metadata(target)
        self._lock.check()
        metadata = replace(metadata, copied_from=None, previous=previous, only_copies=False)
        self._store.put_metadata(target, metadata)

    def _remove_hidden(self, up_to_seq: int, *, in_flight_s: float | None) -> None:
        """Remove copies whose deletion failed on some replicas of the target."""
        store, target = self._store, self._copying.target
        remove_hidden_points(store, target, up_to_seq=up_to_seq, in_flight_s=in_flight_s)

    # ---- both ------------------------------------------------------------------------------

    def _open_passes(
        self, stage: ReembedStage, *, is_swapped: bool = False
    ) -> AbstractContextManager[CopyPasses]:
        return self._options.open_passes(self._job(stage, is_swapped=is_swapped))

    def _job(self, stage: ReembedStage, *, is_swapped: bool = False) -> CopyJob:
        total = self._source.info().points
        self._report(stage, 0, total)

        def on_progress(stats: CopyStats) -> None:
            if not is_swapped:  # a wrong model is refused early, not after hours of copying
                self._require_vectors(stats, at_most=_MAX_WITHOUT_VECTOR)
            self._keep_loss(stats.int8_loss)
            self._report(stage, stats.compared, max(stats.compared, total))

        return CopyJob(
            store=self._store,
            copying=replace(self._copying, is_swapped=is_swapped),
            lock=self._lock,
            encoder=self._encoder,
            on_progress=on_progress,
        )

    def _keep_loss(self, loss: Int8Loss | None) -> None:
        """Keep the loss with the target at once: another run may write the remaining vectors."""
        if worst_loss([self._kept_loss, loss]) == self._kept_loss:
            return
        target = self._copying.target
        metadata = self._store.metadata(target)
        self._kept_loss = worst_loss([metadata.int8_loss, loss])
        self._lock.check()
        self._store.put_metadata(target, replace(metadata, int8_loss=self._kept_loss))

    def _report(self, stage: ReembedStage, done: int, total: int) -> None:
        if self._options.on_progress is not None:
            self._options.on_progress(ReembedProgress(stage, done, total))


def _is_settled(copied: float, previous: float) -> bool:
    """True if another pass would not help: few differences, or not half as many as before."""
    return copied <= _FEW or 2 * copied > previous


def _count(collection: Collection) -> int:
    """Count points exactly: one by one, if the server only estimates."""
    info = collection.info()
    return info.points if info.is_exact else sum(1 for _ in collection.scan((), all_replicas=True))
