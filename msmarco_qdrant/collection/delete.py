"""Removing passages from every physical collection of a name.

While a collection is re-embedded there are two of them, and a copy may be under way in either
direction. Removed from its target first and from its source after that, a passage could be copied
in between. So a delete goes through all of them, and once more through all but the last: whichever
is the source, the passage is gone there before it goes from the target for the last time. Then the
delete looks whether another collection has come meanwhile, and begins again if so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msmarco_qdrant.collection.generations import physical_collections
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import PointId
from msmarco_qdrant.errors import StoreAccessError, StoreError, StoreUnavailableError
from msmarco_qdrant.stores import Collection, Store
from msmarco_qdrant.stores.names import base_name
from msmarco_qdrant.stores.payload import SeqClock, check_pid, point_id

_AT_ONCE = 1000


def delete_pids(store: Store, name: str, pids: Iterable[str]) -> int:
    """Remove the passages of these pids. Repeating it is harmless.

    Args:
        store: Where.
        name: The collection's name.
        pids: Non-empty strings; they are taken a batch at a time.

    Returns:
        How many of them were there, behind the name. What is written after this has looked stays.

    Raises:
        CollectionNotFoundError: If there is no such collection.
        PidCollisionError: If a point holds another pid than its id stands for; it stays.
    """
    store.collection(name)
    return sum(_delete_batch(store, name, batch) for batch in in_batches(pids, _AT_ONCE))


def delete_everywhere(store: Store, name: str, ids: Iterable[PointId], *, up_to_seq: int) -> int:
    """Remove points from every physical collection of a name, durably.

    Args:
        store: Where.
        name: The name that users see.
        ids: The points; they are taken a batch at a time. Those that are not there are no error.
        up_to_seq: What has a higher `seq` stays.

    Returns:
        The number of ids.
    """
    count = 0
    for batch in in_batches(ids, _AT_ONCE):
        _delete_in_all(store, name, batch, up_to_seq)
        count += len(batch)
    for physical in physical_collections(store, name):
        _unless_gone(store, name, physical, lambda collection: collection.flush())
    return count


def _delete_batch(store: Store, name: str, pids: Sequence[str]) -> int:
    live, name = store.aliases().get(name, name), base_name(name)
    asked = {point_id(pid): pid for pid in pids}
    newest = there = 0
    for physical in physical_collections(store, name):
        stored = _stored(store, name, physical, asked)
        newest = max([newest, *(payload["seq"] for payload in stored.values())])
        if physical == live:
            there = len(stored)
    delete_everywhere(store, name, [*asked], up_to_seq=SeqClock(newest).next())
    return there


def _stored(
    store: Store, name: str, physical: str, asked: Mapping[PointId, str]
) -> Mapping[PointId, Mapping[str, Any]]:
    """What a collection holds of them, each checked to be its own."""
    found: dict[PointId, Mapping[str, Any]] = {}
    _unless_gone(
        store, name, physical, lambda one: found.update(one.retrieve([*asked], ("pid", "seq")))
    )
    for id_, payload in found.items():
        check_pid(asked[id_], payload)
    return found


def _delete_in_all(store: Store, name: str, ids: Sequence[PointId], up_to_seq: int) -> None:
    found, done = physical_collections(store, name), None
    while found != done:
        for physical in (*found, *found[:-1]):
            _unless_gone(store, name, physical, lambda one: one.delete(ids, up_to_seq=up_to_seq))
        found, done = physical_collections(store, name), found


def _unless_gone(
    store: Store, name: str, physical: str, use: Callable[[Collection], object]
) -> None:
    """Use a collection; that it was pruned or dropped meanwhile is no error."""
    try:
        use(store.collection(physical))
    except (StoreUnavailableError, StoreAccessError):
        raise
    except StoreError:
        if physical in physical_collections(store, name):
            raise
