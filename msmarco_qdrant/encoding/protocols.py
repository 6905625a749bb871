"""What ingest and search ask of an encoder.

What search asks of a reranker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from msmarco_qdrant.core.records import EncodedBatch, EncoderInfo
from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Tokenizer(Protocol):
    """Texts to token ids. Any number of threads may call it at once."""

    @property
    def portable(self) -> bool:
        """Whether it can be pickled, to be called in other processes."""
        ...

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Token ids of each text, prompt and special tokens included, cut to the model's length."""
        ...


class Encoder(Protocol):
    """A bi-encoder: queries and passages to vectors of one space.

    Implementations are `BiEncoder` (sentence-transformers) and `testing.HashingEncoder`.
    """

    @property
    def info(self) -> EncoderInfo:
        """What a collection has to know about this encoder."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """What makes passages into what `encode_passages` takes."""
        ...

    def warm_up(self) -> None:
        """Do now what happens once, so that the first batch or query does not wait for it."""
        ...

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Encode a window of passages, yielding them in batches as they are ready.

        Args:
            passages: What `tokenizer` made of any number of passages; the order in which they
                come back is the encoder's.

        Yields:
            Batches that together hold every position of `passages` exactly once.
        """
        ...

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries.

        Args:
            queries: Any number of queries.

        Returns:
            float32 `(len(queries), dimension)`, of unit length where the similarity is cosine.

        Raises:
            EncodingError: If a query has no finite, non-zero vector.
        """
        ...


class Reranker(Protocol):
    """A model that reads a query and a passage together. Any number of threads may call it.

    Implementations are `CrossEncoderReranker` (sentence-transformers) and
    `testing.WordOverlapReranker`.
    """

    @property
    def model(self) -> str:
        """The name that people know it by."""
        ...

    def warm_up(self) -> None:
        """Do now what happens once, so that the first pairs do not wait for it."""
        ...

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Tell how well each passage answers its query.

        Args:
            pairs: Any number of a query and a passage; a passage may be empty.

        Returns:
            float32 `(len(pairs),)`, in the order of `pairs`; higher is better, and only scores of
            one query compare.

        Raises:
            EncodingError: If the forward pass fails, or a score is not finite.
            UsageError: For one string, or one pair, instead of a list of pairs.
        """
        ...
