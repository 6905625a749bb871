"""The names that migration files use, and the loader of their folders."""

from msmarco_qdrant.collection.migration import (
    CollectionPlan,
    Migration,
    Operation,
    Target,
    load_migrations,
)
from msmarco_qdrant.core.collection_types import CollectionSpec, HnswSettings, PayloadIndex
from msmarco_qdrant.stores.payload import SPARSE_VECTOR

__all__ = [
    "SPARSE_VECTOR",
    "CollectionPlan",
    "CollectionSpec",
    "HnswSettings",
    "Migration",
    "Operation",
    "PayloadIndex",
    "Target",
    "load_migrations",
]
