"""A document store and components for Haystack (extra `haystack`).

`content` is the text of a passage, `meta` its `meta`, and `id` its pid::

    store = MsmarcoDocumentStore("./qdrant_data", collection="msmarco")
    retriever = MsmarcoRetriever(store, top_k=5, search_options={"mode": "hybrid"})
    retriever.run("how big is london")["documents"]
"""

from msmarco_qdrant.integrations.haystack.document_store import MsmarcoDocumentStore
from msmarco_qdrant.integrations.haystack.embedders import (
    MsmarcoDocumentEmbedder,
    MsmarcoTextEmbedder,
)
from msmarco_qdrant.integrations.haystack.ranker import MsmarcoRanker
from msmarco_qdrant.integrations.haystack.retrievers import (
    MsmarcoEmbeddingRetriever,
    MsmarcoRetriever,
)

__all__ = [
    "MsmarcoDocumentEmbedder",
    "MsmarcoDocumentStore",
    "MsmarcoEmbeddingRetriever",
    "MsmarcoRanker",
    "MsmarcoRetriever",
    "MsmarcoTextEmbedder",
]
