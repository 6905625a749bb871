"""The encoder of a collection as embeddings of LangChain, and the reverse."""

from __future__ import annotations

from typing import cast

from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.text_encoder import TextEncoder

with imports_of("langchain_core", "the LangChain integration", "langchain"):
    from langchain_core.embeddings import Embeddings

_NAMES = ("model", "model_name", "model_id", "deployment", "size")
"""Attributes by which classes of embeddings name their model."""


class MsmarcoEmbeddings(Embeddings):
    """An encoder of this package as embeddings of LangChain.

    Args:
        encoder: A loaded encoder, such as `SearchClient.encoder`.

    Attributes:
        encoder: The encoder.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed passages."""
        return cast("list[list[float]]", encode_texts(self.encoder, texts).tolist())

    def embed_query(self, text: str) -> list[float]:
        """Embed a query."""
        return cast("list[float]", self.encoder.encode_queries([text])[0].tolist())


def to_encoder(embedding: Embeddings) -> Encoder:
    """Make an encoder of embeddings; the collection stores their class and model as its name.

    Raises:
        UsageError: If it is another object.
    """
    if isinstance(embedding, MsmarcoEmbeddings):
        return embedding.encoder
    if not isinstance(embedding, Embeddings):
        kind = with_article(type(embedding).__name__)
        raise UsageError(f"embedding must be embeddings of LangChain, got {kind}")
    given = (getattr(embedding, name, None) for name in _NAMES)
    model = next((str(one) for one in given if isinstance(one, str | int)), "")
    return TextEncoder(
        embedding.embed_documents,
        lambda queries: [embedding.embed_query(query) for query in queries],
        model=f"langchain:{type(embedding).__name__} {model}".strip(),
    )
