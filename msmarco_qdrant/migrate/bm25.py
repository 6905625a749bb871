"""Sparse vectors made anew from the texts of a collection, where they differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import PointId, SparseVector
from msmarco_qdrant.encoding import Bm25Encoder
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.stores import AdminCollection, Collection
from msmarco_qdrant.stores.payload import passage_of, sort_tokens

if TYPE_CHECKING:
    from msmarco_qdrant.collection.migration import Target

_AT_ONCE = 256
_FIELDS = ("pid", "text", "meta", "seq")
_FLOAT32_STEP = 1e-6  # two weights that differ less are the same float32


def rewrite_sparse(target: Target, bm25: Bm25Encoder) -> int:
    """Give every point the sparse vector that an encoder makes of its text.

    One that has it already is left alone: so it can be interrupted and run again, and a second
    pass writes only what came meanwhile.

    Returns:
        How many were written, durably.

    Raises:
        PidCollisionError: If a point was not written by this package.
        StoreInUseError: If the migration's lock was taken away.
    """
    collection = target.collection
    written, done, expected = 0, 0, collection.info().points
    for page in in_batches(collection.scan(_FIELDS), _AT_ONCE):
        written += _rewrite(target, bm25, page)
        done += len(page)
        target.on_progress(done, max(done, expected))
    collection.flush()
    return written


def _rewrite(
    target: Target, bm25: Bm25Encoder, points: Iterable[tuple[PointId, Mapping[str, Any]]]
) -> int:
    """Rewrite a page until nothing in it is newer than what was read.

    A write reaches the points up to the page's highest `seq`, so one that another writer has
    replaced since it was read may get the vector of its older text: it is done again.
    """
    collection, changed = target.collection, target.store.admin_collection(target.plan.physical)
    read, written = dict(points), 0
    while read:
        target.check()
        texts = {id_: passage_of(id_, payload).text for id_, payload in read.items()}
        wrong = _wrong(changed, {id_: bm25.encode_passage(text) for id_, text in texts.items()})
        newest = max((int(read[id_]["seq"]) for id_ in wrong), default=0)
        ids = _write(collection, changed, wrong, newest)
        written += len(ids)
        found = collection.retrieve(ids, ["seq"]) if ids else {}
        newer = [id_ for id_, payload in found.items() if payload["seq"] != read[id_]["seq"]]
        read = dict(collection.retrieve(newer, _FIELDS)) if newer else {}
    return written


def _wrong(
    changed: AdminCollection, wanted: Mapping[PointId, SparseVector]
) -> dict[PointId, SparseVector]:
    """Those that do not have their vector yet."""
    found = changed.sparse_vectors([*wanted])
    empty = SparseVector([], [])  # an engine may keep none for it
    return {
        id_: vector
        for id_, vector in wanted.items()
        if not _same(found.get(id_, empty), sort_tokens(vector.indices, vector.values))
    }


def _same(one: SparseVector, other: SparseVector) -> bool:
    return one.indices == other.indices and all(
        math.isclose(a, b, rel_tol=_FLOAT32_STEP)
        for a, b in zip(one.values, other.values, strict=True)
    )


def _write(
    collection: Collection,
    changed: AdminCollection,
    vectors: Mapping[PointId, SparseVector],
    up_to_seq: int,
) -> Sequence[PointId]:
    """Write vectors, but for points that were removed since they were read; the ids of the rest."""
    ids: Sequence[PointId] = [*vectors]
    while ids:
        try:
            changed.replace_sparse(ids, [vectors[id_] for id_ in ids], up_to_seq=up_to_seq)
        except StoreError:
            left = [*collection.retrieve(ids, ["seq"])]
            if len(left) == len(ids):
                raise
            ids = left
        else:
            break
    return ids
