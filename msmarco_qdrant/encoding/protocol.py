"""What ingest and search ask of an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from msmarco_qdrant.records import EncodedBatch, EncoderCard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Encoder(Protocol):
    """A bi-encoder: phrases and passages to vectors of one space.

    Implementations are `BiEncoder` (sentence-transformers) and `testing.CostlessEncoder`.
    """

    @property
    def card(self) -> EncoderCard:
        """What a collection has to know about this encoder."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> Iterator[EncodedBatch]:
        """Encode a window of passages, yielding them in batches as they are ready.

        Args:
            texts: Any number of passages; the order in which they come back is the encoder's.

        Yields:
            Batches that together hold every position of `texts` exactly once.
        """
        ...

    def encode_queries(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """Encode phrases.

        Args:
            phrases: Any number of phrases.

        Returns:
            float32 `(len(phrases), dimension)`, of unit length where the similarity is cosine.

        Raises:
            EncodingError: If a phrase has no finite, non-zero vector.
        """
        ...
