"""A vector store, a retriever and embeddings for LangChain (extra `langchain`).

`page_content` is the text of a passage, `metadata` its `meta`, and `id` its pid::

    store = MsmarcoVectorStore.open("./qdrant_data", collection="msmarco")
    store.similarity_search("how big is london", k=3, filter={"lang": "en"})
"""

from msmarco_qdrant.integrations.langchain.embeddings import MsmarcoEmbeddings
from msmarco_qdrant.integrations.langchain.retriever import MsmarcoRetriever
from msmarco_qdrant.integrations.langchain.vector_store import MsmarcoVectorStore

__all__ = ["MsmarcoEmbeddings", "MsmarcoRetriever", "MsmarcoVectorStore"]
