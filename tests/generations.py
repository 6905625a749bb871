"""Several physical collections of one name, as a re-embedding makes them."""

from __future__ import annotations

from dataclasses import replace

from msmarco_qdrant.collection.create import create_physical
from msmarco_qdrant.collection.migration import CollectionPlan, load_migrations
from msmarco_qdrant.core.collection_types import Bm25Settings, StorageSettings
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder


def physical(
    store: Store,
    encoder: HashingEncoder,
    name: str = "msmarco__0002",
    *,
    copied_from: str | None = None,
    swaps: int = 1,
) -> None:
    """Make a physical collection that nothing leads to."""
    plan = CollectionPlan(name, encoder.info, Bm25Settings(), StorageSettings(quantization="none"))
    metadata = create_physical(store, plan, load_migrations())
    store.put_metadata(name, replace(metadata, copied_from=copied_from, swaps=swaps))


def swap(store: Store, encoder: HashingEncoder, name: str = "msmarco__0002") -> None:
    """Make a physical collection, and lead the name to it."""
    physical(store, encoder, name)
    store.set_alias("msmarco", name)
