"""The replicas of one physical collection of a Qdrant cluster, to compare and to settle them.

No read returns the points of every replica: a node answers from its own replica, or with what all
replicas agree on. A point that only another replica holds can be counted and deleted, but not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from qdrant_client import models

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import PointBatch, PointId
from msmarco_qdrant.core.server_state import ReplicaCounts
from msmarco_qdrant.stores.filters import from_id
from msmarco_qdrant.stores.payload import page_size, seq_bound, to_point_batch
from msmarco_qdrant.stores.server.collection import ServerCollection


class ServerReplicas(ServerCollection):
    """The replicas of a collection; see `Replicas` for its methods."""

    def counts(self) -> ReplicaCounts:
        """Count the points of the replicas.

        Of three replicas the server does not return the highest count. Its versions differ in which
        of two consistencies returns the middle one, so the higher is used.
        """
        factor = self.read_info().config.params.replication_factor or 1
        fewest = self.count_replicas(models.ReadConsistencyType.ALL)
        if factor == 1:
            return ReplicaCounts(factor, fewest, fewest)
        kinds = (models.ReadConsistencyType.MAJORITY, models.ReadConsistencyType.QUORUM)
        return ReplicaCounts(factor, fewest, max(fewest, *map(self.count_replicas, kinds)))

    def read_points(self, ids: Sequence[PointId]) -> PointBatch:
        """Return whole points, as one replica has them."""
        records: list[models.Record] = []
        for page in in_batches(map(from_id, ids), page_size(("text",))):
            read = self._client.retrieve
            records += self._call(
                "reading points", read, page, with_payload=True, with_vectors=True
            )
        return to_point_batch(records, self.spec().dense)

    def delete_older_writes(
        self, ids: Sequence[PointId], kept: Sequence[int], *, up_to_seq: int
    ) -> None:
        """Delete points from the replicas that have an older write of them."""
        pairs = zip(ids, kept, strict=True)
        for page in in_batches(pairs, self._connection.batch_points):
            older: list[models.Condition] = [_older_write(id_, seq, up_to_seq) for id_, seq in page]
            self._delete_all(models.Filter(should=older))

    def delete_unknown(self, known: Sequence[PointId], *, above: float, up_to: float) -> None:
        """Delete all other points of a range of `seq`."""
        low = None if math.isinf(above) else above
        bounds = models.FieldCondition(key="seq", range=models.Range(gt=low, lte=up_to))
        kept = models.HasIdCondition(has_id=[from_id(id_) for id_ in known])
        self._delete_all(models.Filter(must=[bounds], must_not=[kept] if known else None))

    def _delete_all(self, chosen: models.Filter) -> None:
        selector = models.FilterSelector(filter=chosen)
        self.within_limits(lambda limits: self._delete(selector, limits))


def _older_write(id_: PointId, seq: int, up_to_seq: int) -> models.Filter:
    """Match a point with an older write than this one, and not a newer one than the bound."""
    below = float(seq)  # the server may round what it compares, but never past this number
    if below > seq:
        below = math.nextafter(below, -math.inf)
    old = models.FieldCondition(key="seq", range=models.Range(lt=below, lte=seq_bound(up_to_seq)))
    return models.Filter(must=[models.HasIdCondition(has_id=[from_id(id_)]), old])
