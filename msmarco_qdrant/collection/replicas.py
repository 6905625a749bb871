"""Find and settle replicas of a collection that differ.

A write that too few replicas of a Qdrant cluster accepted fails, but stays on those that accepted
it. The retry, or the next run of the same command, makes them equal again. What remains is left by
commands that were never repeated:

* points of which replicas hold different writes, or some hold none. Each is written again from one
  replica, to those with none or an older write. A newer write stays, and so does the difference.
* points that only other replicas hold, such as those of a deletion that failed there. No read shows
  them. They are deleted by complement: the points that one replica shows, sorted by `seq`, divide
  all numbers into ranges, and from each range every other point is deleted.

Writes of other clients may be in flight. They have a recent `seq`, so only points that are older
are deleted. A replica may have lost its points, so few may be deleted, and none while a replica is
not active or is being copied.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.server_state import ReplicaCounts
from msmarco_qdrant.stores import Collection, Store
from msmarco_qdrant.stores.convert import select_rows
from msmarco_qdrant.stores.foreign import has_seq
from msmarco_qdrant.stores.names import base_name
from msmarco_qdrant.stores.payload import DIGEST_FIELDS, seq_bound

_log = logging.getLogger(__name__)

IN_FLIGHT_S = 600.0
"""Seconds after which a write is not in flight any more; a client retries for two minutes."""
_FIELDS = (*DIGEST_FIELDS, "seq")
_PAGE = 1000
_MAX_SHARE = 0.2
_HALF = 2**64


@dataclass(frozen=True, slots=True)
class ReplicaDifferences:
    """The differences between the replicas of one physical collection.

    Attributes:
        physical: Its name.
        counts: The number of replicas and their points.
        differing: Points that one replica holds, and not all hold with the same write.
        hidden: Points that only other replicas hold, at least; of three or more replicas some
            may not be counted.
    """

    physical: str
    counts: ReplicaCounts
    differing: tuple[PointId, ...] = ()
    hidden: int = 0

    @property
    def is_equal(self) -> bool:
        """True if no difference was found."""
        return not self.differing and not self.hidden and self.counts.fewest == self.counts.most


def most_points(store: Store, physical: str) -> int:
    """Return the number of points of the replica that holds the most.

    A collection is empty only if every replica is.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
    """
    return _counts(store, physical).most


def mark_unreachable_replicas(store: Store, physical: str) -> None:
    """Let the server notice the replicas that it cannot reach, by a write that changes nothing.

    With a write consistency factor that allows it, the server goes on without them, so the reads of
    all replicas that follow do not wait for them. It notices by writes only.

    Raises:
        StoreUnavailableError: If no write is possible without them.
    """
    if store.capabilities.replicas and store.request_limits(physical).replicas > 1:
        store.collection(physical).delete([0], up_to_seq=0)  # no passage has such a `seq`


def find_replica_differences(store: Store, physical: str) -> ReplicaDifferences:
    """Compare the replicas of a physical collection; reads every point's digests twice.

    A point that another client is writing may be among the differences.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreError: If the engine fails, also if a node of its cluster is away.
    """
    counts = _counts(store, physical)
    if counts.factor == 1:
        return ReplicaDifferences(physical, counts)
    shown, differing = 0, list[PointId]()
    collection = store.collection(physical)
    for page in in_batches((id_ for id_, _ in collection.scan(())), _PAGE):
        shown += len(page)
        differing += _differing(collection, page)
    differing = list(_differing(collection, differing))  # writes in flight have ended since
    hidden = max(0, counts.most - shown)
    return ReplicaDifferences(physical, counts, tuple(differing), hidden)


def settle_replicas(
    store: Store, physical: str, *, in_flight_s: float | None = None
) -> ReplicaDifferences:
    """Make the replicas of a physical collection equal, and return the remaining differences.

    Points that differ are written again from the replica that answers, where others hold none or an
    older write. Points that only other replicas hold are deleted, unless they are too many. Nothing
    is changed while a replica is not active or is being copied. A warning has what was left out.

    Args:
        store: The store.
        physical: The name of the physical collection.
        in_flight_s: Seconds for which a write may be in flight; newer ones are not deleted. None
            for `IN_FLIGHT_S`.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreError: If the engine fails; calling it again continues.
    """
    found = find_replica_differences(store, physical)
    if found.counts.factor == 1 or (found.counts.factor == 2 and found.is_equal):
        return found
    if _are_all_active(store, physical):
        up_to_seq = _older_than(in_flight_s)
        _rewrite(store, physical, found.differing, up_to_seq)
        _delete_hidden(store, physical, up_to_seq, _MAX_SHARE)
    return find_replica_differences(store, physical)


def remove_hidden_points(
    store: Store,
    physical: str,
    *,
    up_to_seq: int,
    in_flight_s: float | None = None,
    max_share: float = _MAX_SHARE,
) -> None:
    """Delete points that only other replicas hold; of two replicas only if their counts differ.

    Args:
        store: The store.
        physical: The name of the physical collection.
        up_to_seq: Points with a higher `seq` stay.
        in_flight_s: Seconds for which a write may be in flight; newer ones are not deleted. None
            for `IN_FLIGHT_S`.
        max_share: The largest share of the points to delete. If more are missing from the replica
            that answers, it may have lost them, so a warning is logged instead.
    """
    counts = _counts(store, physical)
    if counts.factor == 1 or (counts.factor == 2 and counts.fewest == counts.most):
        return
    if _are_all_active(store, physical):
        _delete_hidden(store, physical, min(up_to_seq, _older_than(in_flight_s)), max_share)


def _are_all_active(store: Store, physical: str) -> bool:
    """Return True if each replica is active and none is being copied; else warn."""
    state = store.server_state(physical)
    if state is None or not (state.away or state.transfers):
        return True
    reason = ", ".join(map(str, state.away)) or f"{state.transfers} replicas are being copied"
    _log.warning("the replicas of %s were left as they are: %s", physical, reason)
    return False


def _counts(store: Store, physical: str) -> ReplicaCounts:
    if not store.capabilities.replicas:
        points = store.collection(physical).info().points
        return ReplicaCounts(1, points, points)
    return store.replicas(physical).counts()


def _older_than(seconds: float | None) -> int:
    seconds = IN_FLIGHT_S if seconds is None else seconds
    return time.time_ns() - int(seconds * 1e9)


def _differing(collection: Collection, ids: Sequence[PointId]) -> Sequence[PointId]:
    """Return those of some points that not all replicas hold with the same write."""
    equal = collection.retrieve(ids, _FIELDS, all_replicas=True) if ids else {}
    return [id_ for id_ in ids if id_ not in equal]


def _rewrite(store: Store, physical: str, ids: Sequence[PointId], up_to_seq: int) -> None:
    """Write points again, as one replica has them, to those with an older write or none."""
    replicas, admin = store.replicas(physical), store.admin_collection(physical)
    for page in in_batches(ids, _PAGE):
        batch = replicas.read_points(page)
        whole = [row for row, payload in enumerate(batch.payloads) if has_seq(payload)]
        batch = select_rows(batch, whole)
        seqs = [payload["seq"] for payload in batch.payloads]
        replicas.delete_older_writes(batch.ids, seqs, up_to_seq=up_to_seq)
        admin.upsert_if_seq(batch, [None] * len(seqs))


def _delete_hidden(store: Store, physical: str, up_to_seq: int, max_share: float) -> None:
    """Delete all points up to a `seq` that one replica does not show, unless they are too many.

    Others may hold newer writes of points that it shows, so those that differ stay, too.
    """
    bound, collection = seq_bound(up_to_seq), store.collection(physical)
    known, shown, differing = _KnownPoints(), 0, list[PointId]()
    for page in in_batches(collection.scan(("seq",)), _PAGE):
        shown += len(page)
        differing += _differing(collection, [id_ for id_, _ in page])
        for id_, payload in page:
            if has_seq(payload) and float(payload["seq"]) <= bound:
                known.add(id_, float(payload["seq"]))
    differing = list(_differing(collection, differing))  # writes in flight have ended since
    most = _counts(store, physical).most
    too_many = most - shown > max_share * most or len(differing) > _PAGE
    if most and (not shown or too_many):
        _log.warning(
            "a replica of %s holds %d of %d passages, %d of them with other writes; nothing was "
            "deleted from the others. If it lost them, ingest their source again; compare the "
            "replicas with %s",
            *(physical, shown, most, len(differing)),
            advised_command("check", base_name(physical), store=store.dsn),
        )
        return
    for ids, above, up_to in known.ranges(bound):
        store.replicas(physical).delete_unknown([*ids, *differing], above=above, up_to=up_to)


class _KnownPoints:
    """Ids with their `seq`, in 25 bytes each."""

    def __init__(self) -> None:
        self._high, self._low = array("Q"), array("Q")
        self._is_uuid, self._seqs = array("b"), array("d")

    def add(self, id_: PointId, seq: float) -> None:
        """Add a point."""
        value = id_ if isinstance(id_, int) else id_.int
        self._high.append(value // _HALF)
        self._low.append(value % _HALF)
        self._is_uuid.append(isinstance(id_, uuid.UUID))
        self._seqs.append(seq)

    def ranges(self, bound: float) -> Iterator[tuple[Sequence[PointId], float, float]]:
        """Yield ids of a page with the range of `seq` above a first number up to a second one.

        The ranges cover all numbers up to the bound. An engine may compare the lower end with a
        whole number or with its float64, so points at that end are in both pages.
        """
        import numpy as np

        seqs = np.array(self._seqs)
        order = np.argsort(seqs, kind="stable")
        start, stop, above = 0, 0, -math.inf
        while stop < len(order):
            last = float(seqs[order[min(stop + _PAGE, len(order)) - 1]])
            stop = int(np.searchsorted(seqs, last, side="right", sorter=order))
            yield [self._id(int(row)) for row in order[start:stop]], above, last
            start = int(np.searchsorted(seqs, last, side="left", sorter=order))
            above = last
        if above < bound:
            yield [self._id(int(row)) for row in order[start:]], above, bound

    def _id(self, row: int) -> PointId:
        value = self._high[row] * _HALF + self._low[row]
        return uuid.UUID(int=value) if self._is_uuid[row] else value
