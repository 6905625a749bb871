"""A vector store, a retriever and an embedding model for LlamaIndex (extra `llamaindex`).

A node is a passage with the same id. Its text is what LlamaIndex embeds of the node, and its
`meta` is what LlamaIndex's other vector stores keep in a payload::

    store = MsmarcoVectorStore.open("./qdrant_data", collection="msmarco")
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
    index.as_retriever(similarity_top_k=3).retrieve("how big is london")
"""

from msmarco_qdrant.integrations.llamaindex.embedding import MsmarcoEmbedding
from msmarco_qdrant.integrations.llamaindex.retriever import MsmarcoRetriever
from msmarco_qdrant.integrations.llamaindex.vector_store import MsmarcoVectorStore

__all__ = ["MsmarcoEmbedding", "MsmarcoRetriever", "MsmarcoVectorStore"]
