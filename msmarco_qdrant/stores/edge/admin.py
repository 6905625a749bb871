"""Changing a collection of Qdrant Edge that holds points.

Edge 0.9 has no call for it, but `EdgeShard.load(path, config)` keeps other settings than the shard
had, and the next `optimize()` builds anew what was built by the old ones: graph shape,
quantization, memory placement and thresholds alike. So nothing has to be copied to a new directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.records import (
    PayloadIndex,
    PointBatch,
    PointId,
    SettingsChange,
    SparseVector,
)
from msmarco_qdrant.stores.base import split_by_presence
from msmarco_qdrant.stores.edge.collection import EdgeCollection, to_id, to_points
from msmarco_qdrant.stores.edge.convert import change_config, payload_schema
from msmarco_qdrant.stores.payload import SPARSE_VECTOR, seq_bound, sort_tokens

if TYPE_CHECKING:
    import qdrant_edge


class EdgeAdminCollection:
    """A shard to be changed; see `AdminCollection` for what its methods promise."""

    def __init__(self, collection: EdgeCollection) -> None:
        self._collection = collection

    def alter(self, change: SettingsChange) -> None:
        """Keep other settings."""
        self._collection.reload(change_config(self._collection.config(), change))

    def optimizers(self) -> SettingsChange:
        """The thresholds in force."""
        told = self._collection.config().get("optimizers") or {}
        return SettingsChange(
            indexing_threshold_kb=told.get("indexing_threshold"),
            max_segment_size_kb=told.get("max_segment_size"),
        )

    def create_payload_index(self, field: str, kind: PayloadIndex) -> None:
        """Index a payload field."""
        import qdrant_edge

        operation = qdrant_edge.UpdateOperation.create_field_index(field, payload_schema(kind))
        with self._collection.change_shard("creating a payload index") as shard:
            shard.update(operation)
            shard.flush()

    def drop_payload_index(self, field: str) -> None:
        """Remove the index of a payload field."""
        import qdrant_edge

        with self._collection.change_shard("removing a payload index") as shard:
            shard.update(qdrant_edge.UpdateOperation.delete_field_index(field))
            shard.flush()

    def sparse_vectors(self, ids: Sequence[PointId]) -> Mapping[PointId, SparseVector]:
        """Sparse vectors of those ids that exist."""
        with self._collection.use_shard("reading sparse vectors") as shard:
            records = shard.retrieve(list(ids), with_payload=False, with_vector=[SPARSE_VECTOR])
        found: dict[PointId, SparseVector] = {}
        for record in records:
            vectors: Any = record.vector or {}
            if (sparse := vectors.get(SPARSE_VECTOR)) is not None:
                found[to_id(record.id)] = sort_tokens(sparse.indices, sparse.values)
        return found

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Replace sparse vectors."""
        import qdrant_edge

        old = qdrant_edge.RangeFloat(lte=seq_bound(up_to_seq))
        condition = qdrant_edge.Filter(must=[qdrant_edge.FieldCondition(key="seq", range=old)])
        rows = [
            qdrant_edge.PointVectors(
                id_, {SPARSE_VECTOR: qdrant_edge.SparseVector(vector.indices, vector.values)}
            )
            for id_, vector in zip(ids, vectors, strict=True)
        ]
        with self._collection.change_shard("writing sparse vectors") as shard:
            shard.update(qdrant_edge.UpdateOperation.update_vectors(rows, condition))

    def upsert_if_seq(self, batch: PointBatch, seen: Sequence[int | None]) -> None:
        """Write points where what is there is as it was seen."""
        import qdrant_edge

        there, seqs, absent = split_by_presence(batch, seen)
        with self._collection.change_shard("writing points") as shard:
            if absent.ids:
                condition = qdrant_edge.Filter(must_not=[qdrant_edge.HasIdCondition({*absent.ids})])
                points = to_points(absent)
                shard.update(qdrant_edge.UpdateOperation.upsert_points(points, condition))
            if there.ids:
                condition = qdrant_edge.Filter(should=list(map(_as_seen, there.ids, seqs)))
                mode = qdrant_edge.UpdateMode.UpdateOnly  # what is gone is not written
                points = to_points(there)
                shard.update(qdrant_edge.UpdateOperation.upsert_points(points, condition, mode))


def _as_seen(point: PointId, seq: int) -> qdrant_edge.Filter:
    """Whether a point still has a `seq`; ranges would compare it as float64."""
    import qdrant_edge

    same = qdrant_edge.FieldCondition(key="seq", match=qdrant_edge.MatchValue(seq))
    return qdrant_edge.Filter(must=[qdrant_edge.HasIdCondition({point}), same])
