"""Bulk mode of a collection on a server: no graph is built until everything is written.

The former threshold is recorded before it is changed, and the record is removed after it was
restored. So after any end of a run, the next one that builds the index restores it. The record is
a key of its own: no lock is needed, which a killed process would leave behind.
"""

from __future__ import annotations

from dataclasses import replace

from msmarco_qdrant.core.collection_types import SettingsChange
from msmarco_qdrant.errors import UnsupportedError
from msmarco_qdrant.stores import Store

BULK_THRESHOLD_KB = 0
"""Qdrant builds no graph with an indexing threshold of 0."""
DEFAULT_THRESHOLD_KB = 10_000
"""The threshold of an engine that reports none: the default of Qdrant's config/config.yaml."""


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


def begin_bulk(store: Store, physical: str) -> None:
    """Stop the server from building graphs until `end_bulk`.

    Args:
        store: The store.
        physical: The physical collection.

    Raises:
        UnsupportedError: If the store is not a server.
    """
    require_bulk(store)
    admin = store.admin_collection(physical)
    found = admin.optimizers().indexing_threshold_kb
    if found == BULK_THRESHOLD_KB:
        return  # of an interrupted run, or chosen by the user, who keeps it
    # An older record is replaced: the threshold was changed since.
    store.record_bulk_threshold(physical, DEFAULT_THRESHOLD_KB if found is None else found)
    admin.alter(SettingsChange(indexing_threshold_kb=BULK_THRESHOLD_KB))


def end_bulk(store: Store, name: str) -> bool:
    """Restore the threshold of a collection in bulk mode; the server then builds the graphs.

    A threshold that was changed during the bulk mode stays.

    Args:
        store: The store.
        name: The collection, by either name.

    Returns:
        True if the collection was in bulk mode.
    """
    before = store.bulk_threshold(name)
    if before is None:
        return False
    admin = store.admin_collection(name)
    if admin.optimizers().indexing_threshold_kb == BULK_THRESHOLD_KB:
        admin.alter(SettingsChange(indexing_threshold_kb=before))
    store.record_bulk_threshold(name, None)
    return True


def lasting_optimizers(store: Store, physical: str) -> SettingsChange:
    """Return the thresholds of a collection without those of a bulk mode, for a copy of it."""
    found = store.admin_collection(physical).optimizers()
    before = store.bulk_threshold(physical)
    if before is None or found.indexing_threshold_kb != BULK_THRESHOLD_KB:
        return found
    return replace(found, indexing_threshold_kb=before)
