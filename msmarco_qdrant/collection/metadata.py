"""Change the metadata of a collection while others use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from os import PathLike

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.search_defaults import SearchDefaults
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.migration_locks import hold_lock, require_lock
from msmarco_qdrant.stores.names import base_name


def change_metadata(
    store: Store, collection: str, change: Callable[[CollectionMetadata], CollectionMetadata]
) -> CollectionMetadata:
    """Read the metadata of the collection behind a name, change and write them; return the new.

    The migration lock is held, so that no other change is lost.

    Args:
        store: An open store.
        collection: The collection's name.
        change: Returns the new metadata of the given ones.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreInUseError: If a migration or re-embedding of it is running.
    """
    store.metadata(collection)  # refuses a name that does not exist, or is another program's
    name = base_name(collection)
    locks = store.migration_locks
    with hold_lock(locks, name, store.dsn) as ours:
        physical = store.aliases().get(collection, collection)
        found = store.metadata(physical)
        changed = change(found)
        if changed != found:
            require_lock(locks, name, ours)
            store.put_metadata(physical, changed)
    return changed


@suggest_keywords
def save_search_defaults(
    store: Store | str | PathLike[str],
    defaults: SearchDefaults,
    *,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Keep search options with a collection, for every search that omits them.

    Clients use them, in Python, on the command line and in the sidecar: those that are open search
    with them after a minute. Backups and migrations keep them. A re-embedding with another model
    starts without: they were chosen for the vectors of the old one, to which a rollback returns.

    Args:
        store: The path or URL of a store, or an open store, which stays open.
        defaults: The options; `SearchDefaults()` removes those that were kept.
        collection: Name of the collection.
        connection: API key, port and timeouts, if `store` is a URL.

    Raises:
        UsageError: If `defaults` are of another type.
        CollectionNotFoundError: If the store has no collection of that name.
        StoreInUseError: If a migration or re-embedding of it is running.
        StoreError: If the store fails.
    """
    if not isinstance(defaults, SearchDefaults):
        raise UsageError(f"defaults must be SearchDefaults, got {defaults!r}")
    with use_store(store, connection) as opened:
        change_metadata(
            opened, collection, lambda metadata: replace(metadata, search_defaults=defaults)
        )
