"""Bulk mode of a collection on a server: no graph is built until everything is written.

The former threshold is recorded in the metadata before it is changed, and forgotten after it was
restored. So after any end of a run, the next one that builds the index restores it.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from msmarco_qdrant.core.collection_types import SettingsChange
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.errors import StoreInUseError, UnsupportedError
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.migration_locks import hold_lock, require_lock

_log = logging.getLogger(__name__)

BULK_THRESHOLD_KB = 0
"""Qdrant builds no graph with an indexing threshold of 0."""
_DEFAULT_THRESHOLD_KB = 10_000
"""The threshold of a server that reports none: the default of Qdrant's config/config.yaml."""


def require_bulk(store: Store) -> None:
    """Refuse bulk mode on an engine that builds indexes only on request.

    Raises:
        UnsupportedError: If the store is not a server.
    """
    can = store.capabilities
    if not (can.ann and can.multi_process):
        raise UnsupportedError(
            f"bulk mode needs a Qdrant server, got {store.dsn} ({can.engine}), which builds its "
            "index after the ingest in any case: omit it"
        )


def begin_bulk(store: Store, name: str, physical: str) -> None:
    """Stop the server from building graphs until `end_bulk`.

    Args:
        store: The store.
        name: The collection's name, for the lock of its metadata.
        physical: The physical collection.

    Raises:
        StoreInUseError: If another process is migrating the collection.
        UnsupportedError: If the store is not a server.
    """
    require_bulk(store)
    if store.metadata(physical).bulk_threshold_kb is None:
        found = store.admin_collection(physical).optimizers().indexing_threshold_kb
        if found == BULK_THRESHOLD_KB:
            return  # chosen by the user, who keeps it
        _record(store, name, physical, _DEFAULT_THRESHOLD_KB if found is None else found)
    admin = store.admin_collection(physical)
    admin.alter(SettingsChange(indexing_threshold_kb=BULK_THRESHOLD_KB))


def end_bulk(store: Store, name: str, physical: str) -> bool:
    """Restore the threshold of a collection in bulk mode; the server then builds the graphs.

    A threshold that was changed during the bulk mode stays.

    Args:
        store: The store.
        name: The collection's name.
        physical: The physical collection.

    Returns:
        True if the collection was in bulk mode.
    """
    before = store.metadata(physical).bulk_threshold_kb
    if before is None:
        return False
    admin = store.admin_collection(physical)
    if admin.optimizers().indexing_threshold_kb == BULK_THRESHOLD_KB:
        admin.alter(SettingsChange(indexing_threshold_kb=before))
    try:
        _record(store, name, physical, None)
    except StoreInUseError as exc:  # the threshold is restored, which the next run finds out
        _log.info("the record of the bulk mode of '%s' stays: %s", name, exc)
    return True


def lasting_optimizers(store: Store, physical: str, metadata: CollectionMetadata) -> SettingsChange:
    """Return the thresholds of a collection without those of a bulk mode, for a copy of it."""
    found = store.admin_collection(physical).optimizers()
    before = metadata.bulk_threshold_kb
    if before is None or found.indexing_threshold_kb != BULK_THRESHOLD_KB:
        return found
    return replace(found, indexing_threshold_kb=before)


def _record(store: Store, name: str, physical: str, threshold_kb: int | None) -> None:
    """Change the record, under the lock that every other change of the metadata holds, too."""
    locks = store.migration_locks
    with hold_lock(locks, name, store.dsn) as ours:
        metadata = replace(store.metadata(physical), bulk_threshold_kb=threshold_kb)
        require_lock(locks, name, ours)
        store.put_metadata(physical, metadata)
