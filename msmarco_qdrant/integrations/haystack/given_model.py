"""The model of a collection whose vectors all come from an embedder of Haystack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from msmarco_qdrant.core.encoder_types import EncodedBatch, EncoderInfo, Similarity
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError, UsageError
from msmarco_qdrant.integrations.text_encoder import TextTokenizer, named_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREFIX = "haystack:"
_MAX_DIMENSION = 65_536


class GivenModel:
    """An encoder that has no model: documents and queries come with their embeddings.

    Args:
        model: Name of the embedder's model. The same name must always mean the same vectors.
        dimension: Numbers of an embedding.
        similarity: "cosine" or "dot".

    Raises:
        UsageError: For an invalid dimension or similarity.
    """

    def __init__(self, model: str, dimension: int, similarity: Similarity = "cosine") -> None:
        whole = isinstance(dimension, int) and not isinstance(dimension, bool)
        if not whole or not 1 <= dimension <= _MAX_DIMENSION:
            raise UsageError(f"embedding_dim must be 1 to {_MAX_DIMENSION:,}, got {dimension!r}")
        if similarity not in get_args(Similarity):
            raise UsageError(f"similarity must be cosine or dot, got {similarity!r}")
        self._info = named_model(f"{PREFIX}{model}", dimension, similarity)

    @classmethod
    def stored(cls, info: EncoderInfo) -> GivenModel:
        """Return the model that a collection was made with."""
        return cls(info.model.removeprefix(PREFIX), info.dimension, info.similarity)

    @property
    def info(self) -> EncoderInfo:
        """The properties that a collection stores."""
        return self._info

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer, which only carries the texts."""
        return TextTokenizer()

    def warm_up(self) -> None:
        """Do nothing."""

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Raise, if there is a passage.

        Raises:
            EncodingError: For any passage.
        """
        if len(passages):
            raise EncodingError(
                f"a document must have an embedding of {self._info.model}: run the documents "
                "through that embedder first"
            )
        return iter(())

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Raise, as the collection has no model.

        Raises:
            EncodingError: Always.
        """
        raise EncodingError(
            f"the collection has vectors of {self._info.model}, which cannot embed {queries!r} "
            "here: use MsmarcoEmbeddingRetriever behind that text embedder, or mode='bm25'"
        )
