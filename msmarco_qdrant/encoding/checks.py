"""Checks of encoders and rerankers that a user passes, and of what they return."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.encoder_types import EncodedBatch, EncoderInfo, Int8Loss
from msmarco_qdrant.encoding.protocols import Encoder, Reranker
from msmarco_qdrant.errors import EncodingError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ENCODER = ("tokenizer", "warm_up", "encode_passages", "encode_queries")
_RERANKER = ("model", "warm_up", "scores")


def check_encoder(encoder: object) -> None:
    """Require an object with the members of `Encoder`.

    Raises:
        UsageError: Naming what it lacks.
    """
    missing = [name for name in _ENCODER if not hasattr(encoder, name)]
    if not isinstance(getattr(encoder, "info", None), EncoderInfo):
        missing.insert(0, "info")
    if missing:
        raise UsageError(
            f"encoder must have the members of Encoder, got {_kind(encoder)} without "
            f"{', '.join(missing)}: pass load_encoder(DIRECTORY_OR_NAME), or model=..."
        )


def check_reranker(reranker: object) -> None:
    """Require an object with the members of `Reranker`.

    Raises:
        UsageError: Naming what it lacks.
    """
    if missing := [name for name in _RERANKER if not hasattr(reranker, name)]:
        raise UsageError(
            f"reranker must have the members of Reranker, got {_kind(reranker)} without "
            f"{', '.join(missing)}: pass the directory or name of the cross-encoder"
        )


def applies_sigmoid(reranker: Reranker) -> bool:
    """True if the scores of a cross-encoder are those of its own logistic function."""
    return bool(getattr(reranker, "applies_sigmoid", False))


def int8_loss_of(encoder: Encoder | None) -> Int8Loss | None:
    """Return the measured loss of an encoder's passages in int8; None if it does not use int8."""
    return getattr(encoder, "int8_loss", None)


def encode_queries(encoder: Encoder, queries: Sequence[str]) -> NDArray[np.float32]:
    """Encode queries; see `Encoder.encode_queries`.

    Raises:
        EncodingError: If the encoder fails, or returns other than a finite float32 row per query.
    """
    import numpy as np

    expected = (len(queries), encoder.info.dimension)
    vectors: Any = encoder.encode_queries(queries)
    shape, dtype = _shape_of(vectors)
    if shape != expected or dtype != "float32":
        raise EncodingError(
            f"the encoder must return float32 {expected} for {len(queries)} queries, got {dtype} "
            f"{shape}"
        )
    found: NDArray[np.float32] = vectors
    # A sum of squares is faster; it is infinite, too, for numbers of more than 1e19.
    if not (math.isfinite(np.vdot(found, found)) or np.isfinite(found).all()):
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        raise EncodingError(
            f"{encoder.info.model} returns no finite vector for the query "
            f"{queries[int(bad[0])][:200]!r}"
        )
    return found


def score_pairs(reranker: Reranker, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """Score pairs; see `Reranker.scores`.

    Raises:
        EncodingError: If the reranker fails, or returns other than a finite number per pair.
    """
    import numpy as np

    returned: Any = reranker.scores(pairs)
    try:
        scores: NDArray[np.float32] = np.asarray(returned, np.float32)
    except (TypeError, ValueError) as exc:
        raise EncodingError(
            f"the reranker must return one number per pair, got {_kind(returned)}: {exc}"
        ) from exc
    if scores.shape != (len(pairs),):
        raise EncodingError(
            f"the reranker must return {len(pairs)} scores for {len(pairs)} pairs, got shape "
            f"{scores.shape}"
        )
    if len(bad := np.flatnonzero(~np.isfinite(scores))):
        query, passage = pairs[int(bad[0])]
        raise EncodingError(
            f"{reranker.model} returns the score {scores[bad[0]]} for the query {query[:200]!r} "
            f"and the passage {passage[:200]!r}"
        )
    return scores


def check_batch(batch: EncodedBatch, missing: set[int], dimension: int) -> None:
    """Remove the batch's positions from `missing`.

    Raises:
        EncodingError: If a position would be repeated, or the vectors have another shape or type.
    """
    expected = (len(batch.positions), dimension)
    shape, dtype = _shape_of(batch.vectors)
    if shape != expected or dtype != "float32":
        raise EncodingError(
            f"the encoder must return float32 {expected} for this batch, got {dtype} {shape}"
        )
    for position in batch.positions.tolist():
        if position not in missing:
            raise EncodingError(
                f"the encoder must return each position once, got position {position} twice or "
                "out of range"
            )
        missing.remove(position)


def _shape_of(values: Any) -> tuple[Any, Any]:
    """Return the shape and the type of an array, or of what was returned instead."""
    return getattr(values, "shape", None), getattr(values, "dtype", _kind(values))


def _kind(value: object) -> str:
    return type(value).__name__
