"""Where passages are kept: one behavior, whichever engine is behind it."""

from __future__ import annotations

from msmarco_qdrant.stores.alias import (
    AsyncCollection,
    LiveCollection,
    async_collection,
    live_collection,
)
from msmarco_qdrant.stores.base import AdminCollection, Capabilities, Collection, Store, alterable
from msmarco_qdrant.stores.connection import DEFAULT_CONNECTION, Connection, shown_dsn
from msmarco_qdrant.stores.open import check_creatable, open_store

__all__ = [
    "DEFAULT_CONNECTION",
    "AdminCollection",
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
    "shown_dsn",
]
