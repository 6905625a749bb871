"""Changes to a collection with points on Qdrant Edge.

Edge 0.9 has no call for it, but `EdgeShard.load(path, config)` stores other settings, and the next
`optimize()` rebuilds what depends on them: graph, quantization, memory placement and thresholds.
So no shard is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import qdrant_edge

from msmarco_qdrant.core.collection_types import (
    PayloadIndex,
    PointBatch,
    PointId,
    SettingsChange,
    SparseVector,
)
from msmarco_qdrant.stores.convert import split_by_presence
from msmarco_qdrant.stores.edge.collection import EdgeCollection
from msmarco_qdrant.stores.edge.convert import change_config, payload_schema, to_points
from msmarco_qdrant.stores.payload import (
    LEAST_SEQ,
    SPARSE_VECTOR,
    page_size,
    seq_bound,
    to_all_sparse_vectors,
    to_dense_vectors,
    to_point_batch,
)


class EdgeAdminCollection:
    """A shard to be changed; see `AdminCollection` for its methods."""

    def __init__(self, collection: EdgeCollection) -> None:
        self._collection = collection

    def alter(self, change: SettingsChange) -> None:
        """Store other settings."""
        self._collection.reload(change_config(self._collection.config(), change))

    def optimizers(self) -> SettingsChange:
        """Return the thresholds in force."""
        optimizers = self._collection.config().get("optimizers") or {}
        return SettingsChange(
            indexing_threshold_kb=optimizers.get("indexing_threshold"),
            max_segment_size_kb=optimizers.get("max_segment_size"),
        )

    def create_payload_index(self, field: str, kind: PayloadIndex) -> None:
        """Index a payload field."""
        operation = qdrant_edge.UpdateOperation.create_field_index(field, payload_schema(kind))
        with self._collection.change_shard("creating a payload index") as shard:
            shard.update(operation)
            shard.flush()

    def drop_payload_index(self, field: str) -> None:
        """Remove the index of a payload field."""
        with self._collection.change_shard("removing a payload index") as shard:
            shard.update(qdrant_edge.UpdateOperation.delete_field_index(field))
            shard.flush()

    def sparse_vectors(self, ids: Sequence[PointId]) -> Mapping[PointId, SparseVector]:
        """Return the sparse vectors of those ids that exist."""
        with self._collection.use_shard("reading sparse vectors") as shard:
            records = shard.retrieve(list(ids), with_payload=False, with_vector=[SPARSE_VECTOR])
        return to_all_sparse_vectors(records)

    def scan_points(self) -> Iterator[PointBatch]:
        """Yield every point with its vectors and whole payload."""
        (dense,) = self._collection.config()["vectors"]
        offset: Any = None
        while True:
            request = qdrant_edge.ScrollRequest(
                limit=page_size(("text",)), offset=offset, with_payload=True, with_vector=True
            )
            with self._collection.use_shard("reading points") as shard:
                records, offset = shard.scroll(request)
            yield to_point_batch(records, dense)
            if offset is None:
                return

    def dense_vectors(self, ids: Sequence[PointId], name: str) -> Mapping[PointId, Sequence[float]]:
        """Return the dense vectors of those ids that have one."""
        with self._collection.use_shard("reading vectors") as shard:
            records = shard.retrieve(list(ids), with_payload=False, with_vector=[name])
        return to_dense_vectors(records, name)

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Replace sparse vectors."""
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
        """Write points whose stored `seq` is still the one seen."""
        existing, seqs, absent = split_by_presence(batch, seen)
        with self._collection.change_shard("writing points") as shard:
            if absent.ids:
                condition = qdrant_edge.Filter(must_not=[qdrant_edge.HasIdCondition({*absent.ids})])
                points = to_points(absent)
                shard.update(qdrant_edge.UpdateOperation.upsert_points(points, condition))
            if existing.ids:
                condition = qdrant_edge.Filter(should=list(map(_has_seq, existing.ids, seqs)))
                mode = qdrant_edge.UpdateMode.UpdateOnly  # deleted points are not written
                points = to_points(existing)
                shard.update(qdrant_edge.UpdateOperation.upsert_points(points, condition, mode))

    def set_payloads_if_seq(
        self,
        ids: Sequence[PointId],
        payloads: Sequence[dict[str, Any]],
        seen: Sequence[int | None],
    ) -> None:
        """Set payload fields of points whose stored `seq` is still the one seen."""
        with self._collection.change_shard("writing payloads") as shard:
            for id_, payload, seq in zip(ids, payloads, seen, strict=True):
                set_fields = qdrant_edge.UpdateOperation.set_payload_by_filter
                shard.update(set_fields(_has_seq(id_, seq), payload))

    def delete_if_seq(self, ids: Sequence[PointId], seen: Sequence[int | None]) -> None:
        """Delete points whose stored `seq` is still the one seen."""
        chosen = qdrant_edge.Filter(should=list(map(_has_seq, ids, seen)))
        if ids:
            with self._collection.change_shard("deleting points") as shard:
                shard.update(qdrant_edge.UpdateOperation.delete_points_by_filter(chosen))


def _has_seq(point: PointId, seq: int | None) -> qdrant_edge.Filter:
    """Match a point with this `seq`, exactly: a range would compare float64; None for no number."""
    if seq is None:
        number = qdrant_edge.FieldCondition(key="seq", range=qdrant_edge.RangeFloat(gte=LEAST_SEQ))
        return qdrant_edge.Filter(must=[qdrant_edge.HasIdCondition({point})], must_not=[number])
    same = qdrant_edge.FieldCondition(key="seq", match=qdrant_edge.MatchValue(seq))
    return qdrant_edge.Filter(must=[qdrant_edge.HasIdCondition({point}), same])
