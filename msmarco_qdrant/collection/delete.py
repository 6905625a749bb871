"""Delete passages from every physical collection of a name.

During a re-embedding a name has two physical collections, and passages may be copied in either
direction. A passage deleted first from the target could be copied again before it is deleted from
the source. So a delete visits all collections, and then all but the last once more. The passage is
then deleted from the source before the last delete from the target, in both directions. Afterwards
the collections are listed again; if a new one has appeared, the delete starts over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msmarco_qdrant.collection.filter_notes import filter_fields, log_filter_notes
from msmarco_qdrant.collection.generations import physical_collections
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.errors import (
    PidCollisionError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.stores import Collection, Store
from msmarco_qdrant.stores.filters import combine
from msmarco_qdrant.stores.foreign import ForeignPoints, has_seq
from msmarco_qdrant.stores.names import base_name
from msmarco_qdrant.stores.payload import SeqClock, check_pid, point_id

_BATCH = 1000
_T = TypeVar("_T")


def delete_pids(store: Store, name: str, pids: Iterable[str]) -> int:
    """Delete the passages of these pids, durably. Repeating it is harmless.

    Args:
        store: The store that holds the collection.
        name: The collection's name.
        pids: Non-empty strings; read one batch at a time.

    Returns:
        The number of passages found in the live collection. A passage that another client writes
        after its `seq` was read is not deleted.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        PidCollisionError: If a point holds another pid than its id is made from, or lost its pid
            or `seq`; it stays.
    """
    store.collection(name)
    return sum(_delete_batch(store, name, batch) for batch in in_batches(pids, _BATCH))


def delete_points(store: Store, name: str, ids: Iterable[PointId], *, up_to_seq: int) -> int:
    """Delete points from every physical collection of a name, durably.

    Args:
        store: The store that holds the collection.
        name: The name that users see.
        ids: The points, read one batch at a time; missing points are ignored.
        up_to_seq: Points with a higher `seq` stay.

    Returns:
        The number of ids.
    """
    count = 0
    for batch in in_batches(ids, _BATCH):
        _delete_in_all(store, name, batch, up_to_seq)
        count += len(batch)
    for physical in physical_collections(store, name):
        _call_unless_dropped(store, name, physical, lambda collection: collection.flush())
    return count


def delete_matching(
    store: Store, name: str, meta_filter: SearchFilter, scope: SearchFilter | None = None
) -> int:
    """Delete the passages that match a filter, durably. Points that are not passages stay.

    Args:
        store: The store that holds the collection.
        name: The collection's name.
        meta_filter: The filter, checked.
        scope: The passages of which the filter chooses; None for all.

    Returns:
        The number of passages found in the live collection. A passage that another client writes
        after its `seq` was read is not deleted.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        UsageError: See `require_fields`.
    """
    collection = store.collection(name)
    has_match = require_fields(store, name, meta_filter, scope)
    log_filter_notes(collection, meta_filter, has_match=has_match, scope=scope)
    foreign, count = ForeignPoints(name, store.dsn), 0
    chosen = combine(scope, meta_filter)
    found = collection.scan(("pid", "seq"), meta_filter=chosen)
    written = ((id_, payload["seq"]) for id_, payload in found if foreign.is_written(id_, payload))
    for batch in in_batches(written, _BATCH):
        newest = max(seq for _, seq in batch)
        count += delete_points(store, base_name(name), [id_ for id_, _ in batch], up_to_seq=newest)
    return count


def require_fields(
    store: Store, name: str, meta_filter: SearchFilter, scope: SearchFilter | None = None
) -> bool:
    """Refuse to delete passages only because they lack a field that no passage has.

    Such a field is misspelled, or not in `meta`, as the pid: `{"pid": Not("7")}` matches all. The
    same holds for the payload keys of Qdrant's own filter.

    Returns:
        True if the filter matches a passage.

    Raises:
        UsageError: If the filter matches a passage and has such a field.
    """
    collection = store.collection(name)
    if _is_empty(collection, combine(scope, meta_filter)):
        return False
    for field in filter_fields(meta_filter):
        if _is_empty(collection, combine(scope, field.exists())):
            fields = "payload keys" if field.is_key else "fields of meta"
            raise UsageError(
                f"nothing was deleted: a filter to delete by must have {fields} that some "
                f"passages of '{name}' have, got '{field.name}', which no passage has{field.hint}"
            )
    return True


def _is_empty(collection: Collection, meta_filter: SearchFilter | None) -> bool:
    """True if no point matches."""
    return next(iter(collection.scan(("pid",), meta_filter=meta_filter)), None) is None


def _delete_batch(store: Store, name: str, pids: Sequence[str]) -> int:
    live, name = store.aliases().get(name, name), base_name(name)
    pid_of = {point_id(pid): pid for pid in pids}
    newest = in_live = 0

    def retrieve(collection: Collection) -> Mapping[PointId, Mapping[str, Any]]:
        return collection.retrieve([*pid_of], ("pid", "seq"))

    for physical in physical_collections(store, name):
        payloads = _call_unless_dropped(store, name, physical, retrieve) or {}
        for id_, payload in payloads.items():
            _check_deletable(store, name, pid_of[id_], payload)
            newest = max(newest, payload["seq"])
        if physical == live:
            in_live = len(payloads)
    delete_points(store, name, [*pid_of], up_to_seq=SeqClock(newest).next())
    return in_live


def _check_deletable(store: Store, name: str, pid: str, payload: Mapping[str, Any]) -> None:
    """Refuse a point of another pid, and one without `seq`, which another program has written."""
    check_pid(pid, payload)
    if payload.get("pid") != pid or not has_seq(payload):
        check = advised_command("check", name, store=store.dsn)
        raise PidCollisionError(
            f"the point of pid {pid!r} lost its pid or seq: another program wrote to the "
            "collection; neither it nor a later pid was deleted. List such points, and what a "
            f"repair does, with {check}"
        )


def _delete_in_all(store: Store, name: str, ids: Sequence[PointId], up_to_seq: int) -> None:
    def delete(collection: Collection) -> None:
        collection.delete(ids, up_to_seq=up_to_seq)

    found, previous = physical_collections(store, name), None
    while found != previous:
        for physical in (*found, *found[:-1]):
            _call_unless_dropped(store, name, physical, delete)
        found, previous = physical_collections(store, name), found


def _call_unless_dropped(
    store: Store, name: str, physical: str, function: Callable[[Collection], _T]
) -> _T | None:
    """Call a function with a collection; None instead of its error if it has been dropped."""
    try:
        return function(store.collection(physical))
    except (StoreUnavailableError, StoreAccessError):
        raise
    except StoreError:
        if physical in physical_collections(store, name):
            raise
        return None
