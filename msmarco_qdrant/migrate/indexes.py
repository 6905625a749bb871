"""Payload indexes of a collection's `meta` fields: add, remove and list them.

A change applies to every physical collection of the name. So a re-embedding copies it, and a
rollback keeps it. It is not in the ledger of migrations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike

from msmarco_qdrant.collection.create import check_index
from msmarco_qdrant.collection.generations import Generations, read_generations
from msmarco_qdrant.collection.migration import CollectionPlan, Operation, Target
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.field_path import check_field
from msmarco_qdrant.core.metadata_types import Generation
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.migrate.operations import AddPayloadIndex, RemovePayloadIndex
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.filters import index_kind, indexes_by_field, meta_key
from msmarco_qdrant.stores.migration_locks import hold_lock, require_lock

_META = "meta."


@suggest_keywords
def list_indexes(
    store: Store | str | PathLike[str],
    collection: str,
    *,
    connection: Connection = DEFAULT_CONNECTION,
) -> Mapping[str, PayloadIndex]:
    """Return the payload indexes of a collection's `meta` fields, each field with its kind.

    A store in memory has none. See `add_index` for the arguments.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
    """
    with use_store(store, connection) as opened:
        return _indexes(opened, read_generations(opened, collection).live)


@suggest_keywords
def add_index(
    store: Store | str | PathLike[str],
    collection: str,
    field: str,
    kind: PayloadIndex,
    *,
    connection: Connection = DEFAULT_CONNECTION,
) -> str:
    """Index a `meta` field of a collection, for filters; an index that exists stays.

    Args:
        store: The store that holds the collection, or its path or URL.
        collection: The collection's name.
        field: The field's name as in a filter, such as "year".
        kind: The type of its values, such as "integer"; see `docs/filters.md` for all kinds.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The effect, as one line of text. A store in memory has no index, so nothing changes.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreInUseError: If another process is migrating it.
        UsageError: If the field has an index of another kind, if the field name or the kind is
            not valid, or for a physical name.
    """
    check_index(field, kind)

    def choose(opened: Store, generations: Generations, found: PayloadIndex | None) -> Operation:
        if found not in (None, kind):
            name, dsn = generations.name, opened.dsn
            remove = advised_command("index", "remove", field, collection=name, store=dsn)
            add = advised_command("index", "add", f"{field}={kind}", collection=name, store=dsn)
            raise UsageError(
                f"a field has one index, and '{field}' of '{name}' has one of kind {found}, got "
                f"{kind}: remove it with {remove}, then add the other with {add}"
            )
        return AddPayloadIndex(field, kind)

    with use_store(store, connection) as opened:
        return _change(opened, collection, field, choose)


@suggest_keywords
def remove_index(
    store: Store | str | PathLike[str],
    collection: str,
    field: str,
    *,
    connection: Connection = DEFAULT_CONNECTION,
) -> str:
    """Remove the index of a `meta` field; filters on it then read every passage.

    Args:
        store: The store that holds the collection, or its path or URL.
        collection: The collection's name.
        field: The field's name as in a filter, such as "year".
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The effect, as one line of text. A store in memory has no index, so nothing changes.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreInUseError: If another process is migrating it.
        UsageError: If the field has no index, if its name is not valid, or for a physical name.
    """
    check_field(field)

    def choose(opened: Store, generations: Generations, found: PayloadIndex | None) -> Operation:
        if found is None and opened.capabilities.payload_indexes:
            names = ", ".join(_indexes(opened, generations.live)) or "none"
            raise UsageError(
                f"field to remove must be one with an index in '{generations.name}' ({names}), "
                f"got {field!r}"
            )
        return RemovePayloadIndex(field)

    with use_store(store, connection) as opened:
        return _change(opened, collection, field, choose)


def _change(
    store: Store,
    collection: str,
    field: str,
    choose: Callable[[Store, Generations, PayloadIndex | None], Operation],
) -> str:
    """Apply an operation to every physical collection, the live one first, under the lock."""
    name = read_generations(store, collection).name  # refuses a physical name
    locks = store.migration_locks
    with hold_lock(locks, name, store.dsn) as ours:
        generations = read_generations(store, name)
        indexes = store.collection(generations.live).spec().payload_indexes
        operation = choose(store, generations, index_kind(indexes, meta_key(field)))
        live = Generation(generations.live, generations.metadata)
        cost = operation.cost(_target(store, live))
        for generation in (live, *generations.others):
            target = _target(store, generation, lambda: require_lock(locks, name, ours))
            operation.apply(target)
    return cost


def _indexes(store: Store, physical: str) -> Mapping[str, PayloadIndex]:
    if not store.capabilities.payload_indexes:
        return {}
    found = store.collection(physical).spec().payload_indexes
    return {
        key.removeprefix(_META): kind
        for key, kind in indexes_by_field(found).items()
        if key.startswith(_META)
    }


def _target(
    store: Store, generation: Generation, check: Callable[[], None] = lambda: None
) -> Target:
    spec, metadata = store.collection(generation.physical).spec(), generation.metadata
    plan = CollectionPlan(
        generation.physical, metadata.encoder, metadata.bm25, spec.storage, spec.payload_indexes
    )
    return Target(store, plan, check=check)
