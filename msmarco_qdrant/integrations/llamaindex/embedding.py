"""The encoder of a collection as an embedding model of LlamaIndex, and the reverse."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.text_encoder import TextEncoder

with imports_of("llama_index", "the LlamaIndex integration", "llamaindex"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr

_TEXTS_PER_CALL = 256  # the encoder makes its own batches, by length


class MsmarcoEmbedding(BaseEmbedding):
    """An encoder of this package as an embedding model of LlamaIndex.

    Args:
        encoder: A loaded encoder, such as `SearchClient.encoder`.
    """

    _encoder: Encoder = PrivateAttr()

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(model_name=encoder.info.model, embed_batch_size=_TEXTS_PER_CALL)
        self._encoder = encoder

    @property
    def encoder(self) -> Encoder:
        """The encoder."""
        return self._encoder

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class, for LlamaIndex."""
        return "MsmarcoEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return cast("list[float]", self._encoder.encode_queries([query])[0].tolist())

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return cast("list[list[float]]", encode_texts(self._encoder, texts).tolist())

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


def to_encoder(embed_model: Any) -> Encoder:
    """Make an encoder of an embedding model; the collection stores its class and model name.

    Raises:
        UsageError: If it is another object.
    """
    if isinstance(embed_model, MsmarcoEmbedding):
        return embed_model.encoder
    if not isinstance(embed_model, BaseEmbedding):
        kind = with_article(type(embed_model).__name__)
        raise UsageError(f"embed_model must be an embedding model of LlamaIndex, got {kind}")
    return TextEncoder(
        embed_model.get_text_embedding_batch,
        lambda queries: [embed_model.get_query_embedding(query) for query in queries],
        model=f"llamaindex:{type(embed_model).__name__} {embed_model.model_name}",
    )
