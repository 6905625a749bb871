"""Removal of the passages that an ingest's source does not contain, if a policy allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

from msmarco_qdrant.collection.delete import delete_points
from msmarco_qdrant.collection.replicas import remove_hidden_points
from msmarco_qdrant.core.arguments import to_settings
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import PrunePolicy
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.stores.foreign import ForeignPoints


def to_policy(prune: PrunePolicy | Mapping[str, Any] | float | None) -> PrunePolicy | None:
    """Return the policy that was given as an object, fields, a share, or True; None for no prune.

    Raises:
        UsageError: For another type, or a share out of range.
    """
    if prune is None or prune is False:
        return None
    if prune is True:
        return PrunePolicy()
    if isinstance(prune, Real):
        return PrunePolicy(max_share=float(prune))
    if not isinstance(prune, PrunePolicy | Mapping):
        raise UsageError(
            "prune must be True, the largest share to remove (0 to 1), a dictionary of its fields "
            f"or a PrunePolicy, got {prune!r}"
        )
    return to_settings(PrunePolicy, prune, "prune")


class Pruner:
    """Finds and removes passages written before a run and missing from its source.

    Passages that others wrote since the run began stay, and so do points that are not passages. On
    a server the writers' clocks decide what is newer: a writer whose clock is behind by more than
    the run's duration does not count as newer.

    Args:
        guard: The collection that the run wrote to.
        stale: Yields the ids of those passages; called twice.
        up_to_seq: The highest `seq` before the run.
    """

    def __init__(
        self, guard: AliasGuard, stale: Callable[[], Iterator[PointId]], up_to_seq: int
    ) -> None:
        self._guard = guard
        self._collection = guard.collection
        self._stale = stale
        self._up_to_seq = up_to_seq

    def refusal(self, policy: PrunePolicy, rejected: RejectCount, *, is_empty: bool) -> str | None:
        """Return the reason why the policy forbids to remove them, or None.

        Args:
            policy: The limits to observe.
            rejected: Rows of the source that could not become a passage. The rest of a source
                that is cut off was not read: no policy allows to remove its passages.
            is_empty: True if the source has no passage.
        """
        if self._guard.is_being_filled:
            return (
                f"nothing was pruned: the re-embedding of '{self._guard.name}' is not finished "
                "and still copies passages; run the same ingest again when it is finished"
            )
        if is_empty:
            return (
                "nothing was pruned: the source contains no passage, so pruning would empty the "
                "collection. To remove all passages, drop the collection"
            )
        if rejected.damage:
            return (
                "nothing was pruned: the source must be whole, and its rest was not read: "
                f"{rejected.damage}. Get the file again"
            )
        if rejected.count and not policy.allow_rejects:
            return (
                f"nothing was pruned: rows were rejected ({rejected.count:,}), and the collection "
                "may hold their passages. Fix the rows, or set allow_rejects=True to remove these "
                "passages too"
            )
        stale, points = sum(1 for _ in self._stale()), self._collection.info().points
        if stale > policy.max_share * points:
            return (
                f"nothing was pruned: the source lacks {stale:,} of {points:,} passages "
                f"({stale / max(points, 1):.0%}, at most {policy.max_share:.0%} may be removed). "
                "If the source is complete, pass PrunePolicy(max_share=1), or --yes on the command "
                "line"
            )
        return None

    def remove(self, policy: PrunePolicy) -> int:
        """Remove them durably, and return their number.

        On a cluster an earlier run may have failed halfway. The passages that it deleted from one
        replica only are not found there any more, so they are removed without being found.
        """
        guard = self._guard
        store, stale = guard.store, self._stale()
        removed = delete_points(store, guard.name, stale, up_to_seq=self._up_to_seq)
        remove_hidden_points(
            store, guard.physical, up_to_seq=self._up_to_seq, max_share=policy.max_share
        )
        return removed


def written_before(guard: AliasGuard, up_to_seq: int) -> Iterator[tuple[PointId, str]]:
    """Yield the id and the pid of the passages of a collection that no later write replaced.

    One replica is asked, which is enough: a passage that it lacks is removed as a hidden point.
    """
    foreign = ForeignPoints(guard.name, guard.store.dsn)
    for id_, payload in guard.collection.scan(("pid", "seq")):
        if foreign.is_written(id_, payload) and payload["seq"] <= up_to_seq:
            yield id_, payload["pid"]


def stale_ids(guard: AliasGuard, seen: PidSet, up_to_seq: int) -> Iterator[PointId]:
    """Yield the ids of the passages written before a run whose pid it has not seen."""
    return (id_ for id_, pid in written_before(guard, up_to_seq) if pid not in seen)
