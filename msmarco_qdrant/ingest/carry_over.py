"""Carry a collection of version 0.1 over to the current version of its model's fingerprint.

Version 1 of the fingerprint covers less than version 2, so a collection that has only the first
accepts some changed copies of its model. An ingest therefore encodes a sample of stored passages
and compares the vectors with the stored ones. If they are equal, it adds the second fingerprint to
the metadata. The first one stays the collection's identity and part of its vector's name, so no
vector is written and programs of version 0.1 still open it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import ModelMismatchError, StoreError
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.stores.migration_locks import hold_lock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_SAMPLE = 16
# Quantization and precision change a vector less; another configuration changes it more.
_SAME_COSINE = 0.98


def carry_over(guard: AliasGuard, encoder: Encoder) -> None:
    """Add the newest fingerprint of a collection's model to its metadata, if it lacks it.

    The metadata are written under the migration lock. Without the lock or the right to write them
    they stay; the next ingest tries again.

    Raises:
        ModelMismatchError: If the encoder returns other vectors than the stored ones.
    """
    stored, offered = guard.metadata.encoder, encoder.info
    if max(stored.fingerprints) >= max(offered.fingerprints):
        return
    cosines = _compare_sample(guard, encoder)
    if not cosines:
        return
    if sorted(cosines)[len(cosines) // 2] < _SAME_COSINE:
        raise ModelMismatchError(
            f"collection '{guard.name}' has vectors of another configuration of {stored.model}: "
            f"{len(cosines)} of its passages, encoded again, differ from their stored vectors "
            f"(median cosine {sorted(cosines)[len(cosines) // 2]:.3f}). Pass the original model "
            "with model=DIRECTORY (--model), or ingest into another collection"
        )
    try:
        with hold_lock(guard.store.migration_locks, guard.name, guard.store.dsn):
            metadata = guard.store.metadata(guard.physical)
            updated = offered.stored_as(metadata.encoder).other_fingerprints
            info = replace(metadata.encoder, other_fingerprints=updated)
            guard.store.put_metadata(guard.physical, replace(metadata, encoder=info))
    except StoreError as exc:
        _log.info("collection '%s' keeps its older fingerprint: %s", guard.name, exc)
        return
    _log.info(
        "collection '%s': its model's fingerprint %s was added, after %d passages were compared",
        *(guard.name, offered.fingerprint[:10], len(cosines)),
    )


def _compare_sample(guard: AliasGuard, encoder: Encoder) -> list[float]:
    """Return the cosine of stored and new vectors of some passages."""
    points = islice(guard.collection.scan(("text",)), _SAMPLE)
    texts = {id_: str(payload["text"]) for id_, payload in points if payload.get("text")}
    admin = guard.store.admin_collection(guard.physical)
    stored = admin.dense_vectors([*texts], guard.metadata.encoder.vector_name)
    return [
        cosine
        for id_, vector in zip(texts, _encode(encoder, [*texts.values()]), strict=True)
        if id_ in stored and (cosine := _cosine(stored[id_], vector)) is not None
    ]


def _encode(encoder: Encoder, texts: Sequence[str]) -> list[NDArray[np.float32]]:
    if not texts:
        return []
    found: Mapping[int, NDArray[np.float32]] = {
        position: vector
        for batch in encoder.encode_passages(encoder.tokenizer(texts))
        for position, vector in zip(batch.positions.tolist(), batch.vectors, strict=True)
    }
    return [found[position] for position in range(len(texts))]


def _cosine(left: Sequence[float], right: NDArray[np.float32]) -> float | None:
    """Return the cosine of two vectors, None if one is zero or not finite."""
    import numpy as np

    one = np.asarray(left, np.float64)
    lengths = float(np.linalg.norm(one) * np.linalg.norm(right.astype(np.float64)))
    return float(one @ right) / lengths if np.isfinite(lengths) and lengths > 0 else None
