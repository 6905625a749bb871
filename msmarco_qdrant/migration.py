"""The types that migration files use; they live in `collection`."""

from msmarco_qdrant.collection.migration import (
    CollectionPlan,
    Migration,
    Operation,
    Target,
    load_migrations,
)

__all__ = ["CollectionPlan", "Migration", "Operation", "Target", "load_migrations"]
