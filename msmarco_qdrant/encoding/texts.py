"""Vectors of plain texts, as one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.encoding.protocols import Encoder
from msmarco_qdrant.errors import EncodingError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Encode texts as passages.

    Args:
        encoder: The encoder.
        texts: Any number of texts.

    Returns:
        float32 `(len(texts), dimension)`, of unit length if the similarity is cosine.

    Raises:
        EncodingError: If a text has no finite, non-zero vector.
        UsageError: If it is not a list of strings.
    """
    import numpy as np

    if isinstance(texts, str | bytes):
        raise UsageError("texts must be a list of strings, also for one text")
    texts = [*texts]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise UsageError(f"texts must be strings, got {with_article(type(wrong[0]).__name__)}")
    vectors = np.full((len(texts), encoder.info.dimension), np.nan, np.float32)
    if texts:
        for batch in encoder.encode_passages(encoder.tokenizer(texts)):
            vectors[batch.positions] = batch.vectors
    if len(bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
        raise EncodingError(
            f"{encoder.info.model} returns no finite, non-zero vector for the text "
            f"{texts[int(bad[0])][:200]!r}"
        )
    return vectors
