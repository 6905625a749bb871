"""What an ingest's source did not hold: told, and removed if a policy allows it."""

from __future__ import annotations

from collections.abc import Iterator

from msmarco_qdrant.collection.delete import delete_points
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import PointId, PrunePolicy
from msmarco_qdrant.stores import Collection, Store
from msmarco_qdrant.stores.payload import payload_pid


class Pruner:
    """The passages that were in a collection before a run, and not in its source.

    What others have written since the run began stays. On a server their clocks decide what that
    is: a writer whose clock is behind by more than the run has lasted is not seen to be newer.

    Args:
        store: Where.
        name: The name of the collection.
        collection: The physical collection behind it, which the run wrote to.
        seen: The pids of the source.
        up_to_seq: The highest `seq` before the run.
    """

    def __init__(
        self, store: Store, name: str, collection: Collection, seen: PidSet, up_to_seq: int
    ) -> None:
        self._store = store
        self._name = name
        self._collection = collection
        self._seen = seen
        self._up_to_seq = up_to_seq

    def refusal(self, policy: PrunePolicy, rejected: int) -> str | None:
        """Why nothing may be removed, or None.

        Args:
            policy: What is allowed.
            rejected: Rows of the source that could not become a passage.
        """
        if not self._seen:
            return (
                "nothing was pruned: the source holds no passage, which would empty the "
                "collection; drop does that"
            )
        if rejected and not policy.allow_rejects:
            return (
                f"nothing was pruned: rows were rejected ({rejected:,}), and their passages may be "
                "in the collection. Mend the rows, or pass --allow-rejects "
                "(PrunePolicy(allow_rejects=True)) to remove what they stand for as well"
            )
        stale, points = sum(1 for _ in self._stale()), self._collection.info().points
        if stale > policy.max_share * points:
            return (
                f"nothing was pruned: the source lacks {stale:,} of {points:,} passages "
                f"({stale / max(points, 1):.0%}, allowed are {policy.max_share:.0%}). If it is "
                "complete, pass --yes (PrunePolicy(max_share=1))"
            )
        return None

    def remove(self) -> int:
        """Remove them, durably, and return how many they were."""
        return delete_points(self._store, self._name, self._stale(), up_to_seq=self._up_to_seq)

    def _stale(self) -> Iterator[PointId]:
        for id_, payload in self._collection.scan(("pid", "seq")):
            pid = payload_pid(id_, payload)
            if payload["seq"] <= self._up_to_seq and pid not in self._seen:
                yield id_
