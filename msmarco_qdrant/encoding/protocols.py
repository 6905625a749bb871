"""Protocols: the encoder of ingest and search, and the reranker of search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from msmarco_qdrant.core.encoder_types import EncodedBatch, EncoderInfo
from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Tokenizer(Protocol):
    """Texts to token ids. Thread-safe."""

    @property
    def portable(self) -> bool:
        """True if it can be pickled, to be called in other processes."""
        ...

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Return token ids, with prompt and special tokens, truncated to the model's length."""
        ...


class Encoder(Protocol):
    """A bi-encoder: queries and passages to vectors of the same space.

    Implementations are `BiEncoder` (sentence-transformers) and `testing.HashingEncoder`. One that
    computes in int8 has an attribute `int8_loss`, an `Int8Loss` once it is known: collections and
    folders of vectors keep it.
    """

    @property
    def info(self) -> EncoderInfo:
        """The encoder's identity, stored with a collection."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of passages, for `encode_passages`."""
        ...

    def warm_up(self) -> None:
        """Encode something, so that one-time costs do not delay the first batch or query."""
        ...

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Encode a window of passages, yielding batches as they are ready.

        Args:
            passages: Any number of passages, tokenized by `tokenizer`.

        Yields:
            Batches, in any order, that together hold every position of `passages` exactly once.
        """
        ...

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries.

        Args:
            queries: Any number of queries.

        Returns:
            float32 `(len(queries), dimension)`, of unit length if the similarity is cosine.

        Raises:
            EncodingError: If a query has no finite, non-zero vector.
        """
        ...


class Reranker(Protocol):
    """A cross-encoder: reads a query and a passage together. Thread-safe.

    Implementations are `CrossEncoderReranker` (sentence-transformers) and
    `testing.WordOverlapReranker`. One whose scores are already those of a logistic function has
    an attribute `applies_sigmoid` that is True: `rerank_sigmoid` leaves its scores as they are.
    """

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    def warm_up(self) -> None:
        """Score something, so that one-time costs do not delay the first pairs."""
        ...

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Score how well each passage answers its query.

        Args:
            pairs: Any number of (query, passage); a passage may be empty.

        Returns:
            float32 `(len(pairs),)`, in the order of `pairs`; higher is better. Only scores of the
            same query are comparable.

        Raises:
            EncodingError: If the forward pass fails, or a score is not finite.
            UsageError: For a string or a single pair instead of a list of pairs.
        """
        ...
