"""Stores for passages: one interface over Qdrant Edge, a Qdrant server and the local mode."""

from __future__ import annotations

from msmarco_qdrant.stores.alias import AliasedCollection, open_async_collection
from msmarco_qdrant.stores.base import Capabilities, Store
from msmarco_qdrant.stores.connection import DEFAULT_CONNECTION, Connection, redact_dsn
from msmarco_qdrant.stores.open import check_creatable, open_shared, open_store, use_store
from msmarco_qdrant.stores.protocols import (
    INDEX_STALL_S,
    AdminCollection,
    AsyncCollection,
    Collection,
)

__all__ = [
    "DEFAULT_CONNECTION",
    "INDEX_STALL_S",
    "AdminCollection",
    "AliasedCollection",
    "AsyncCollection",
    "Capabilities",
    "Collection",
    "Connection",
    "Store",
    "check_creatable",
    "open_async_collection",
    "open_shared",
    "open_store",
    "redact_dsn",
    "use_store",
]
