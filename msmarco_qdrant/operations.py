"""Operations of a migration file, such as `SetHnsw(m=32)`; defined in `migrate.operations`."""

from msmarco_qdrant.migrate.operations import (
    AddPayloadIndex,
    RemovePayloadIndex,
    SetBm25,
    SetHnsw,
    SetOptimizers,
    SetStorage,
)

__all__ = [
    "AddPayloadIndex",
    "RemovePayloadIndex",
    "SetBm25",
    "SetHnsw",
    "SetOptimizers",
    "SetStorage",
]
