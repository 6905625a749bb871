"""Retrievers of Haystack: by the text of a query, and by its embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.haystack.document_store import MsmarcoDocumentStore
from msmarco_qdrant.integrations.haystack.documents import to_document
from msmarco_qdrant.integrations.haystack.filters import to_filter
from msmarco_qdrant.search.options import SearchOptions, SimilarOptions

with imports_of("haystack", "the Haystack integration", "haystack"):
    from haystack import component, default_from_dict, default_to_dict
    from haystack.dataclasses import Document
    from haystack.document_stores.types import FilterPolicy
    from haystack.document_stores.types.filter_policy import apply_filter_policy

_OWN = frozenset({"limit", "meta_filter", "with_vectors", "with_meta", "with_text", "snippets"})
"""Options that the retriever sets, and those whose results a document has no field for."""


class _Retriever:
    """Base of both retrievers: their settings, and the options of a call."""

    _options: frozenset[str]

    def __init__(
        self,
        document_store: MsmarcoDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        search_options: Mapping[str, Any] | None = None,
        return_embedding: bool = False,
    ) -> None:
        if not isinstance(document_store, MsmarcoDocumentStore):
            raise UsageError(f"document_store must be a MsmarcoDocumentStore, got {document_store}")
        known = self._options - _OWN
        if unknown := {*(search_options or {})} - known:
            raise UsageError(
                f"unknown search option {min(unknown)!r}; the options are "
                f"{', '.join(sorted(known))}"
            )
        _check_top_k(top_k)
        to_filter(filters)
        self.document_store, self.filters, self.top_k = document_store, filters, top_k
        self.filter_policy = (
            FilterPolicy.from_str(filter_policy)
            if isinstance(filter_policy, str)
            else filter_policy
        )
        self.search_options = dict(search_options or {})
        self.return_embedding = return_embedding

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component, with its document store."""
        data: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store,
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            search_options=self.search_options,
            return_embedding=self.return_embedding,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """Make the component that `to_dict` serialized."""
        return default_from_dict(cls, data)

    def _to_options(self, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, Any]:
        merged = apply_filter_policy(self.filter_policy, self.filters, filters)
        limit = self.top_k if top_k is None else top_k
        _check_top_k(limit)
        return {**self.search_options, "limit": limit, "meta_filter": to_filter(merged)}

    def _to_documents(self, hits: Hits) -> dict[str, list[Document]]:
        found = [
            to_document(hit, score=hit.score, with_embedding=self.return_embedding) for hit in hits
        ]
        return {"documents": found}


def _check_top_k(top_k: object) -> None:
    if not isinstance(top_k, int) or isinstance(top_k, bool) or not 1 <= top_k <= 10_000:
        raise UsageError(f"top_k must be 1 to 10,000, got {top_k!r}")


@component
class MsmarcoRetriever(_Retriever):
    """Retrieves the documents that answer a query best, by the collection's own model.

    Args:
        document_store: The document store.
        filters: A filter of Haystack for every call.
        top_k: Number of documents, 1 to 10,000.
        filter_policy: REPLACE for the filter of a call instead of this one, MERGE for both.
        search_options: Options of `SearchClient.search`, such as `{"mode": "hybrid"}` or
            `{"rerank_depth": 50}`.
        return_embedding: Return the embeddings that documents were written with.

    Raises:
        UsageError: For an invalid argument.
        FilterError: For an invalid filter.
    """

    _options = frozenset(SearchOptions.__annotations__)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Retrieve documents.

        Args:
            query: Keywords, a sentence or a question.
            filters: A filter of Haystack.
            top_k: Number of documents instead of the component's.
        """
        options = self._to_options(filters, top_k)
        return self._to_documents(self.document_store.client.search(query, **options))

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Retrieve documents without blocking the event loop; see `run`."""
        options = self._to_options(filters, top_k)
        client = await self.document_store.async_client()
        return self._to_documents(await client.search(query, **options))


@component
class MsmarcoEmbeddingRetriever(_Retriever):
    """Retrieves the documents whose embeddings are most similar to that of a query.

    Args:
        document_store: The document store.
        filters: A filter of Haystack for every call.
        top_k: Number of documents, 1 to 10,000.
        filter_policy: REPLACE for the filter of a call instead of this one, MERGE for both.
        search_options: Options of `SearchClient.similar`, such as `{"exact": True}`.
        return_embedding: Return the embeddings that documents were written with.

    Raises:
        UsageError: For an invalid argument.
        FilterError: For an invalid filter.
    """

    _options = frozenset(SimilarOptions.__annotations__)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Retrieve documents.

        Args:
            query_embedding: The embedding of the query.
            filters: A filter of Haystack.
            top_k: Number of documents instead of the component's.
        """
        options = self._to_options(filters, top_k)
        client = self.document_store.client
        return self._to_documents(client.similar(vector=query_embedding, **options))

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Retrieve documents without blocking the event loop; see `run`."""
        options = self._to_options(filters, top_k)
        client = await self.document_store.async_client()
        return self._to_documents(await client.similar(vector=query_embedding, **options))
