"""Sparse vectors made anew from the texts of a collection, where they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msmarco_qdrant._in_batches import in_batches
from msmarco_qdrant.encoding import Bm25Encoder
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.records import PointId, SparseVector
from msmarco_qdrant.stores import Alterable, Collection, alterable
from msmarco_qdrant.stores.points import in_token_order, passage_of

if TYPE_CHECKING:
    from msmarco_qdrant.migration import Target

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
    """
    collection, changed = target.collection, alterable(target.store, target.plan.physical)
    written, done, expected = 0, 0, collection.info().points
    for page in in_batches(collection.scan(_FIELDS), _AT_ONCE):
        texts = {id_: passage_of(id_, payload).text for id_, payload in page}
        wrong = _wrong(changed, {id_: bm25.encode_passage(text) for id_, text in texts.items()})
        newest = max(int(payload["seq"]) for _, payload in page)
        written += _write(collection, changed, wrong, newest)
        done += len(page)
        target.on_progress(done, max(done, expected))
    collection.flush()
    return written


def _wrong(
    changed: Alterable, wanted: Mapping[PointId, SparseVector]
) -> dict[PointId, SparseVector]:
    """Those that do not have their vector yet."""
    found = changed.sparse_vectors([*wanted])
    empty = SparseVector([], [])  # an engine may keep none for it
    return {
        id_: vector
        for id_, vector in wanted.items()
        if not _same(found.get(id_, empty), in_token_order(vector.indices, vector.values))
    }


def _same(one: SparseVector, other: SparseVector) -> bool:
    return one.indices == other.indices and all(
        math.isclose(a, b, rel_tol=_FLOAT32_STEP)
        for a, b in zip(one.values, other.values, strict=True)
    )


def _write(
    collection: Collection,
    changed: Alterable,
    vectors: Mapping[PointId, SparseVector],
    up_to_seq: int,
) -> int:
    """Write vectors, but for points that were removed since they were read."""
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
    return len(ids)
