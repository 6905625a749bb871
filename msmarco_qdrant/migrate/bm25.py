"""Recompute the sparse vectors of a collection from its texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msmarco_qdrant.collection.migration import Target
from msmarco_qdrant.collection.replicas import mark_unreachable_replicas
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import PointId, SparseVector
from msmarco_qdrant.encoding import Bm25Encoder
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.stores import AdminCollection, Collection
from msmarco_qdrant.stores.foreign import ForeignPoints
from msmarco_qdrant.stores.payload import sort_tokens

_BATCH = 256
_FIELDS = ("pid", "text", "meta", "seq")
_FLOAT32_STEP = 1e-6  # weights that differ by less are the same float32


def rewrite_sparse(target: Target, bm25: Bm25Encoder) -> int:
    """Write the sparse vector of every passage whose vector differs from that of its text.

    Points that are not passages are left out, with a warning. It may be interrupted and repeated:
    correct vectors are not written again.

    Returns:
        The number of vectors written, durably.

    Raises:
        StoreInUseError: If the migration's lock was taken away.
    """
    mark_unreachable_replicas(target.store, target.plan.physical)
    collection = target.collection
    foreign = ForeignPoints(target.plan.physical, target.store.dsn)
    written, done, expected = 0, 0, collection.info().points
    for page in in_batches(collection.scan(_FIELDS), _BATCH):
        written += _rewrite(target, bm25, page, foreign)
        done += len(page)
        target.on_progress(done, max(done, expected))
    collection.flush()
    return written


def _rewrite(
    target: Target,
    bm25: Bm25Encoder,
    points: Iterable[tuple[PointId, Mapping[str, Any]]],
    foreign: ForeignPoints,
) -> int:
    """Rewrite a page until no point in it is newer than the text that was read.

    A write covers all points up to the page's highest `seq`. A point that another client replaced
    after it was read may get the vector of its older text; it is rewritten in the next round.
    """
    collection, admin = target.collection, target.store.admin_collection(target.plan.physical)
    pending, written = dict(points), 0
    while pending:
        target.check()
        wanted = {
            id_: bm25.encode_passage(passage.text)
            for id_, payload in pending.items()
            if (passage := foreign.passage(id_, payload)) and foreign.is_written(id_, payload)
        }
        outdated = _find_outdated(admin, wanted)
        newest = max((int(pending[id_]["seq"]) for id_ in outdated), default=0)
        ids = _write(collection, admin, outdated, newest)
        written += len(ids)
        current = collection.retrieve(ids, ["seq"]) if ids else {}
        newer = [
            id_ for id_, payload in current.items() if payload.get("seq") != pending[id_]["seq"]
        ]
        pending = dict(collection.retrieve(newer, _FIELDS)) if newer else {}
    return written


def _find_outdated(
    admin: AdminCollection, wanted: Mapping[PointId, SparseVector]
) -> dict[PointId, SparseVector]:
    """Select the wanted vectors that differ from the stored ones."""
    stored = admin.sparse_vectors([*wanted])  # of all replicas: some may have missed a rewrite
    return {
        id_: vector
        for id_, vector in wanted.items()
        if id_ not in stored
        or not _is_same(stored[id_], sort_tokens(vector.indices, vector.values))
    }


def _is_same(first: SparseVector, second: SparseVector) -> bool:
    return first.indices == second.indices and all(
        math.isclose(a, b, rel_tol=_FLOAT32_STEP)
        for a, b in zip(first.values, second.values, strict=True)
    )


def _write(
    collection: Collection,
    admin: AdminCollection,
    vectors: Mapping[PointId, SparseVector],
    up_to_seq: int,
) -> Sequence[PointId]:
    """Write the vectors of points that still exist; returns their ids."""
    ids: Sequence[PointId] = [*vectors]
    while ids:
        try:
            admin.replace_sparse(ids, [vectors[id_] for id_ in ids], up_to_seq=up_to_seq)
        except StoreError:
            # A point that only some replicas hold fails, too: its deletion failed on the others.
            existing = [*collection.retrieve(ids, ["pid"], all_replicas=True)]
            if len(existing) == len(ids):
                raise
            ids = existing
        else:
            break
    return ids
