"""A retriever of LangChain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.langchain.vector_store import MsmarcoVectorStore
from msmarco_qdrant.search.client import SearchClient

with imports_of("langchain_core", "the LangChain integration", "langchain"):
    from langchain_core.retrievers import BaseRetriever

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document


class MsmarcoRetriever(BaseRetriever):
    """A retriever of LangChain on a search client. Thread-safe.

    Options of a call replace those of the retriever::

        retriever = MsmarcoRetriever(client=client, k=5, search_options={"mode": "hybrid"})
        retriever.invoke("how big is london", filter={"lang": "en"})

    Attributes:
        client: The client, which stays open.
        k: Number of documents.
        search_options: Options of `SearchClient.search`; `filter` is its `meta_filter`.
    """

    client: SearchClient
    k: int = 4
    search_options: dict[str, Any] = {}  # noqa: RUF012  # pydantic copies it

    _store: MsmarcoVectorStore

    def model_post_init(self, context: Any, /) -> None:
        """Check the options.

        Raises:
            UsageError: For an invalid one.
        """
        super().model_post_init(context)
        self._store = MsmarcoVectorStore(self.client, search_options=self.search_options)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  # named by the base class
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        return self._store.similarity_search(query, self.k if k is None else k, **options)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        return await self._store.asimilarity_search(query, self.k if k is None else k, **options)
