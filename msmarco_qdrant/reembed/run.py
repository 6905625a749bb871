"""One run of a re-embedding, from wherever the last one stood to its end.

``passes that copy → index → compare → passes that verify → swap the alias → last passes``

Until the swap nobody else writes to the target. After it, writers that began before may still have
written to the source: whoever writes looks where the name leads after each write, and counts none
that came after the swap. So the passes after the swap, which begin when it is done, find every
write that counts.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from msmarco_qdrant.collection.generations import Generations
from msmarco_qdrant.core.records import Copying, EncoderInfo, Passage, PointId
from msmarco_qdrant.core.reports import ModelComparison, ReembedProgress, ReembedStage
from msmarco_qdrant.encoding import Bm25Encoder, Encoder
from msmarco_qdrant.errors import MigrationError, MsmarcoQdrantError, StoreInUseError
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.reembed.compare import Sample, SearchableCollection, compare
from msmarco_qdrant.reembed.copy import Copier, CopyJob, CopyStats
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)

_FEW = 256  # differences that need no further pass before the swap: they take no time
_VERIFIED_TIMES = 5
_LAST_PASSES = 20
_PIDS_SHOWN = 5
_MOST_WITHOUT_VECTOR = 1000


@dataclass(frozen=True, slots=True)
class Choices:
    """How a re-embedding is done.

    Attributes:
        texts: Passages to take texts from instead of reading them; None to read them.
        load_old: Loads the old model, for the comparison.
        allow_rejects: Swap even if the model gives some passages no vector.
        allow_worse: Swap even if the comparison fails.
        on_progress: Called now and then.
    """

    texts: Iterable[Passage] | None
    load_old: Callable[[EncoderInfo], Encoder]
    allow_rejects: bool
    allow_worse: bool
    on_progress: Callable[[ReembedProgress], None]


@dataclass(slots=True)
class Outcome:
    """What a run has done: see `ReembedReport`."""

    copied: int = 0
    removed: int = 0
    without_vector: frozenset[str] = frozenset()
    comparison: ModelComparison | None = None

    def add(self, done: CopyStats) -> None:
        """Count a pass; each tries again what has no vector."""
        self.copied += done.copied
        self.removed += done.removed
        self.without_vector = frozenset(done.without_vector)


class Reembedding:
    """One run, under the lock.

    Args:
        store: Where.
        found: The physical collections.
        copying: Which is copied where.
        encoder: Of the target.
        choices: How.
        check: Raises `StoreInUseError` if the lock was taken away.
    """

    def __init__(
        self,
        store: Store,
        found: Generations,
        copying: Copying,
        encoder: Encoder,
        choices: Choices,
        check: Callable[[], None],
    ) -> None:
        self._store = store
        self._found = found
        self._copying = copying
        self._encoder = encoder
        self._choices = choices
        self._check = check
        self._source = store.collection(copying.source)
        self._target = store.collection(copying.target)
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Do what is left to do."""
        if self._copying.is_swapped:
            self._outcome.removed += self._copier("last pass", is_swapped=True).remove_strays()
        else:
            sample = self._fill()
            self._index()
            self._compare(sample)
            self._verify()
            self._swap()
        self._last_passes()
        self._finish()
        return self._outcome

    # ---- before the swap -------------------------------------------------------------------

    def _fill(self) -> Sample:
        """Copy pass after pass, until what is left is little; a sample of what is there."""
        copier = self._copier()
        if self._choices.texts is not None:
            done = copier.copy(self._choices.texts)
            self._outcome.add(done)
            if not done.compared:
                _log.warning(
                    "none of the given texts is one of '%s': they are read from the collection",
                    self._found.name,
                )
        copied: float = math.inf
        while True:
            done = copier.copy()
            self._outcome.add(done)
            self._check_vectors(done, most=0)
            if _is_little(done.copied, copied):
                return done.sample
            copied = done.copied

    def _check_vectors(self, done: CopyStats, *, most: int) -> None:
        """Refuse a model that gives more passages than that no vector."""
        missing = done.without_vector
        if len(missing) > most and not self._choices.allow_rejects:
            raise MigrationError(
                f"{self._encoder.info.model} gives {len(missing):,} passages no vector, such as "
                f"{', '.join(map(repr, missing[:_PIDS_SHOWN]))}; '{self._found.name}' leads where "
                "it led. Mend or delete these passages, or leave them out with --allow-rejects "
                "(allow_rejects=True), and run the same again"
            )

    def _index(self) -> None:
        points = self._target.info().points
        self._tell("index", 0, points)
        if points:
            self._target.optimize()

    def _compare(self, sample: Sample) -> None:
        """Ask both collections for some passages."""
        self._tell("compare", 0, len(sample.ids))
        new = SearchableCollection(self._target, self._encoder)
        found = compare(self._old(), new, self._in_both(sample))
        self._outcome.comparison = found
        if found.is_worse and not self._choices.allow_worse:
            raise MigrationError(
                f"of {found.queries} passages, asked for by the words they begin with, "
                f"{self._encoder.info.model} finds {found.found_after} among the ten best, where "
                f"{found.found_before} were found before; '{self._found.name}' leads where it led. "
                "Is it the right model? To swap all the same: --allow-worse (allow_worse=True)"
            )

    def _in_both(self, sample: Sample) -> Mapping[PointId, Mapping[str, Any]]:
        """Those that both hold with the same text: what others wrote since tells nothing."""
        held = self._source.retrieve(sample.ids, ("text", "text_digest"))
        copied = self._target.retrieve([*held], ("text_digest",))
        return {
            id_: one
            for id_, one in held.items()
            if id_ in copied and one["text_digest"] == copied[id_]["text_digest"]
        }

    def _old(self) -> SearchableCollection | None:
        encoder_info = self._store.metadata(self._copying.source).encoder
        try:
            return SearchableCollection(self._source, self._choices.load_old(encoder_info))
        except (MsmarcoQdrantError, OSError, RuntimeError) as exc:  # the last of torch, as memory
            _log.warning("the old model is not asked for comparison: %s", exc)
            return None

    def _verify(self) -> None:
        """Once more everything: nothing may be missing but what came meanwhile, which is copied."""
        copied: float = math.inf
        for _ in range(_VERIFIED_TIMES):
            done, wrong = self._verified()
            if not wrong and _is_little(done.copied, copied):
                return
            copied = done.copied
        if wrong:
            raise MigrationError(
                f"{self._copying.target} does not hold what {self._copying.source} holds "
                f"({wrong:,} passages differ), however often it is copied: is something else "
                f"writing to it? '{self._found.name}' leads where it led"
            )

    def _verified(self) -> tuple[CopyStats, int]:
        """A pass that reads again what it writes, and how many passages it finds wrong.

        The numbers of both collections can be compared only if nobody wrote meanwhile.
        """
        before, copier = self._source.info(), self._copier("verify")
        done = copier.copy(verify=True)
        self._outcome.add(done)
        self._check_vectors(done, most=0)
        self._outcome.removed += copier.remove_strays()
        after, there = self._source.info(), self._target.info().points
        if (before.points, before.last_seq) != (after.points, after.last_seq):
            return done, done.lost
        missing = after.points - there - len(done.without_vector)
        if not self._copying.metadata.only_copies:  # it may hold what the source was not given
            missing = max(missing, 0)
        return done, done.lost or abs(missing)

    def _swap(self) -> None:
        self._tell("swap", 0, 0)
        self._check()
        self._check_place()
        self._store.set_alias(self._found.name, self._copying.target)
        _log.info("'%s' leads to %s now", self._found.name, self._copying.target)

    def _check_place(self) -> None:
        """Refuse to lead the name to what somebody else has finished, and written to, meanwhile.

        Raises:
            StoreInUseError: If so: our lock was taken away and given back since we had it.
        """
        source, target = self._copying.source, self._copying.target
        leads_to = self._store.aliases().get(self._found.name)
        if (leads_to, self._store.metadata(target).copied_from) != (source, source):
            raise StoreInUseError(
                f"'{self._found.name}' leads to {leads_to} now, or {target} is not being filled "
                f"from {source} any more: somebody else goes on with this, or has ended it: "
                f"look with `msmarco-qdrant migrate status --collection {self._found.name}`"
            )

    # ---- after it --------------------------------------------------------------------------

    def _last_passes(self) -> None:
        """Copy what was written to the source until the swap, until there is nothing more."""
        copier, copied_before = self._copier("last pass", is_swapped=True), self._outcome.copied
        for _ in range(_LAST_PASSES):
            done = copier.copy()
            self._outcome.add(done)
            if not done.copied:
                break
        else:
            self._warn_of_writers()
        if self._outcome.copied != copied_before:
            # A request that timed out, and was sent again, may have been applied late.
            self._outcome.removed += copier.remove_strays()

    def _warn_of_writers(self) -> None:
        _log.warning(
            "something goes on writing to %s, which '%s' does not lead to any more: what it wrote "
            "until now was copied",
            self._copying.source,
            self._found.name,
        )

    def _finish(self) -> None:
        """All of it is there. What a way back leads to has nothing before it to go back to."""
        source, target = self._copying.source, self._copying.target
        is_way_back = self._store.metadata(source).previous == target
        metadata = self._store.metadata(target)
        self._check()
        self._store.put_metadata(
            target,
            replace(
                metadata,
                copied_from=None,
                previous=None if is_way_back else source,
                only_copies=False,
            ),
        )

    # ---- what they share -------------------------------------------------------------------

    def _copier(self, stage: ReembedStage = "copy", *, is_swapped: bool = False) -> Copier:
        total = self._source.info().points
        route = CopyJob(
            source=self._source,
            mark=f"{self._copying.source} {self._copying.metadata.swaps}",
            target=IngestTarget(
                self._target,
                self._encoder.info,
                Bm25Encoder(self._copying.metadata.bm25),
                self._encoder,
            ),
            changed=self._store.admin_collection(self._copying.target),
            check=self._check,
        )
        self._tell(stage, 0, total)

        def on_progress(done: CopyStats) -> None:
            if not is_swapped:  # a model that can make nothing of them is not for hours of trying
                self._check_vectors(done, most=_MOST_WITHOUT_VECTOR)
            self._tell(stage, done.compared, max(done.compared, total))

        only_copies = self._copying.metadata.only_copies and not is_swapped
        return Copier(route, on_progress, is_swapped=is_swapped, only_copies=only_copies)

    def _tell(self, stage: ReembedStage, done: int, total: int) -> None:
        self._choices.on_progress(ReembedProgress(stage, done, total))


def _is_little(copied: float, before: float) -> bool:
    """Whether what a pass found needs no further one: it is few, or not getting fewer."""
    return copied <= _FEW or 2 * copied > before
