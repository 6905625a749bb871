"""Where passages are kept: one behaviour, whichever engine is behind it."""

from __future__ import annotations

from msmarco_qdrant.stores.altering import Alterable, alterable
from msmarco_qdrant.stores.asynchronous import AsyncCollection, async_collection
from msmarco_qdrant.stores.connection import NO_SETTINGS, Connection, shown_dsn
from msmarco_qdrant.stores.generations import physical_collections
from msmarco_qdrant.stores.live import LiveCollection, live_collection
from msmarco_qdrant.stores.opening import check_creatable, open_store
from msmarco_qdrant.stores.protocols import Capabilities, Collection, Store

__all__ = [
    "NO_SETTINGS",
    "Alterable",
    "AsyncCollection",
    "Capabilities",
    "Collection",
    "Connection",
    "LiveCollection",
    "Store",
    "alterable",
    "async_collection",
    "check_creatable",
    "live_collection",
    "open_store",
    "physical_collections",
    "shown_dsn",
]
