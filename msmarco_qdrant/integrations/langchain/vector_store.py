"""A collection as a vector store of LangChain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.encoding import Reranker
from msmarco_qdrant.encoding.options import EncoderChoices
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.integrations.arguments import (
    check_k,
    options_of_similar,
    require_all,
    to_options,
)
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.langchain.documents import to_document, to_passages
from msmarco_qdrant.integrations.langchain.embeddings import MsmarcoEmbeddings, to_encoder
from msmarco_qdrant.integrations.langchain.relevance import relevance_scale
from msmarco_qdrant.integrations.loop_clients import LoopClients
from msmarco_qdrant.integrations.mmr import select_by_mmr
from msmarco_qdrant.integrations.open_client import open_client
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store

with imports_of("langchain_core", "the LangChain integration", "langchain"):
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore


class MsmarcoVectorStore(VectorStore):
    """A collection of this package as a vector store of LangChain. Thread-safe.

    A document without an id gets one made from its content, so that adding it again adds nothing.
    Unchanged documents are not embedded again. Searches take options of `SearchClient.search` as
    keywords, such as `mode="hybrid"`, `rerank_depth=50` or `tenant="a"`; `filter` is its
    `meta_filter`. Asynchronous methods call a server without a thread, and embed concurrent
    queries together.

    Args:
        client: The client of the collection; it is closed with this store.
        embedding: The embeddings that the client's encoder is made of; None for its own model.
        search_options: Options of every search, such as `{"mode": "hybrid"}`.

    Attributes:
        client: The client.

    Raises:
        UsageError: For an unknown option.
    """

    def __init__(
        self,
        client: SearchClient,
        *,
        embedding: Embeddings | None = None,
        search_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.client = client
        self._embedding = embedding
        self._options = to_options(search_options or {})
        self._loops = LoopClients(client)

    @classmethod
    def open(  # noqa: PLR0913  # all but one have defaults
        cls,
        store: Store | str | PathLike[str],
        *,
        collection: str = "msmarco",
        embedding: Embeddings | None = None,
        model: str | PathLike[str] | None = None,
        encoder_options: EncoderChoices | None = None,
        reranker: str | PathLike[str] | Reranker | None = None,
        search_options: Mapping[str, Any] | None = None,
        create: bool = False,
        connection: Connection = DEFAULT_CONNECTION,
    ) -> MsmarcoVectorStore:
        """Open a collection.

        Args:
            store: The path or URL of a store, or an open store, which stays open.
            collection: Name of the collection.
            embedding: Embeddings of LangChain that made the collection's vectors, or that make
                those of a new collection; None for the collection's model, which is loaded.
            model: Location of that model; by default the name in the collection's metadata.
            encoder_options: Device, precision and so on; see `SearchClient.open`.
            reranker: A cross-encoder, or the location of one, for `rerank_depth`.
            search_options: Options of every search.
            create: Create the collection if it does not exist.
            connection: API key, port and timeouts, if `store` is a URL.

        Raises:
            ModelMismatchError: If the collection has vectors of another model.
            StoreError: If the store cannot be opened, or has no such collection.
            UsageError: If the collection needs embeddings of LangChain, or for both `embedding` and
                `model`.
        """
        to_options(search_options or {})  # checked before a model is loaded
        client = open_client(
            store,
            collection=collection,
            encoder=None if embedding is None else to_encoder(embedding),
            model=model,
            encoder_options=encoder_options,
            reranker=reranker,
            create=create,
            connection=connection,
            encoder_name="embedding",
        )
        return cls(client, embedding=embedding, search_options=search_options)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> MsmarcoVectorStore:
        """Add texts to a collection, which is created if it does not exist.

        Args:
            texts: The texts.
            embedding: Embeddings of LangChain; None for the collection's model.
            metadatas: The metadata of each text.
            ids: The ids of the texts.
            **kwargs: Those of `open`; `store` is required.

        Raises:
            UsageError: Without `store`, or for a text that cannot be added.
        """
        if "store" not in kwargs:
            raise UsageError("from_texts needs store=..., a path, a URL or an open store")
        opened = cls.open(**{"embedding": embedding, "create": True, **kwargs})
        try:
            opened.add_texts(texts, metadatas, ids=ids)
        except BaseException:
            opened.close()
            raise
        return opened

    @property
    def embeddings(self) -> Embeddings:
        """The embeddings of the collection."""
        return self._embedding or MsmarcoEmbeddings(self.client.encoder)

    # ---- writes ----------------------------------------------------------------------------

    def add_documents(
        self,
        documents: Iterable[Document],
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,  # noqa: ARG002  # passed by index() of LangChain
    ) -> list[str]:
        """Add documents, or overwrite those with the same ids.

        Args:
            documents: The documents.
            ids: Their ids, instead of those that they have.
            batch_size: Ignored: batches are made by length.

        Returns:
            The id of each document.

        Raises:
            UsageError: If a document cannot be added, such as one without text.
        """
        passages = to_passages(documents, ids)
        require_all(self.client.upsert(passages), "document")
        return [passage.pid for passage in passages]

    async def aadd_documents(
        self,
        documents: Iterable[Document],
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,  # noqa: ARG002
    ) -> list[str]:
        """Add documents; see `add_documents`."""
        passages = to_passages(documents, ids)
        client = await self._loops.client()
        require_all(await client.upsert(passages), "document")
        return [passage.pid for passage in passages]

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: SearchFilter | None = None,  # noqa: A002  # the word of LangChain
    ) -> bool:
        """Delete documents. Ids that the collection lacks are ignored.

        Args:
            ids: The ids.
            filter: Instead of ids: conditions on the metadata.

        Returns:
            True.

        Raises:
            UsageError: For none or both of them: nothing deletes every document by omission.
        """
        self.client.delete(ids, meta_filter=filter, tenant=self._tenant)
        return True

    async def adelete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: SearchFilter | None = None,  # noqa: A002
    ) -> bool:
        """Delete documents; see `delete`."""
        client = await self._loops.client()
        await client.delete(ids, meta_filter=filter, tenant=self._tenant)
        return True

    # ---- reads -----------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Read documents by their ids; those that the collection lacks are omitted."""
        return [*map(to_document, self.client.get(ids, tenant=self._tenant).values())]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Read documents by their ids; those that the collection lacks are omitted."""
        client = await self._loops.client()
        return [*map(to_document, (await client.get(ids, tenant=self._tenant)).values())]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Search for `k` documents; `**kwargs` are options of `SearchClient.search`."""
        return [*map(to_document, self._search(query, k, to_options(kwargs)))]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Search; see `similarity_search`."""
        return [*map(to_document, await self._asearch(query, k, to_options(kwargs)))]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search, with `Hit.score` for each document: higher is better."""
        return _scored(self._search(query, k, to_options(kwargs)))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search, with `Hit.score` for each document: higher is better."""
        return _scored(await self._asearch(query, k, to_options(kwargs)))

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Search by a vector; `**kwargs` are options of `SearchClient.similar`."""
        return [*map(to_document, self._similar(embedding, k, to_options(kwargs)))]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Search by a vector; see `similarity_search_by_vector`."""
        return [*map(to_document, await self._asimilar(embedding, k, to_options(kwargs)))]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Search for documents that are relevant and differ from each other.

        Args:
            query: The query.
            k: Number of documents.
            fetch_k: Number of best hits to select from.
            lambda_mult: 1 for the most relevant documents, 0 for the most different ones.
            **kwargs: Options of `SearchClient.search`.
        """
        fetched = _fetched(k, fetch_k)
        hits = self._search(query, fetched, {**to_options(kwargs), "with_vectors": True})
        vector = self.client.encoder.encode_queries([query])[0]
        return [*map(to_document, select_by_mmr(hits, vector, k, lambda_mult))]

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Search; see `max_marginal_relevance_search`."""
        fetched = _fetched(k, fetch_k)
        hits = await self._asearch(query, fetched, {**to_options(kwargs), "with_vectors": True})
        (vector,) = await asyncio.to_thread(self.client.encoder.encode_queries, [query])
        return [*map(to_document, select_by_mmr(hits, vector, k, lambda_mult))]

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Search by a vector; see `max_marginal_relevance_search`."""
        fetched = _fetched(k, fetch_k)
        hits = self._similar(embedding, fetched, {**to_options(kwargs), "with_vectors": True})
        return [*map(to_document, select_by_mmr(hits, embedding, k, lambda_mult))]

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Search by a vector; see `max_marginal_relevance_search`."""
        fetched = _fetched(k, fetch_k)
        hits = await self._asimilar(
            embedding, fetched, {**to_options(kwargs), "with_vectors": True}
        )
        return [*map(to_document, select_by_mmr(hits, embedding, k, lambda_mult))]

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        scale = relevance_scale(self.client, {**self._options, **to_options(kwargs)})
        found = self.similarity_search_with_score(query, k, **kwargs)
        return [(document, scale(score)) for document, score in found]

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        scale = relevance_scale(self.client, {**self._options, **to_options(kwargs)})
        found = await self.asimilarity_search_with_score(query, k, **kwargs)
        return [(document, scale(score)) for document, score in found]

    # ---- closing ---------------------------------------------------------------------------

    def close(self) -> None:
        """Close the client. Further calls have no effect."""
        self.client.close()

    async def aclose(self) -> None:
        """Close the client, also that of the running event loop."""
        await self._loops.close()
        await asyncio.to_thread(self.client.close)

    def __enter__(self) -> MsmarcoVectorStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> MsmarcoVectorStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # ---- shared by the blocking and the asynchronous methods -------------------------------

    @property
    def _tenant(self) -> str | None:
        tenant: str | None = self._options.get("tenant")
        return tenant

    def _search(self, query: str, k: int, options: Mapping[str, Any]) -> Hits:
        check_k(k)
        return self.client.search(query, limit=k, **{**self._options, **options})

    async def _asearch(self, query: str, k: int, options: Mapping[str, Any]) -> Hits:
        check_k(k)
        client = await self._loops.client()
        return await client.search(query, limit=k, **{**self._options, **options})

    def _similar(self, vector: list[float], k: int, options: Mapping[str, Any]) -> Hits:
        check_k(k)
        known = options_of_similar(self._options, options)
        return self.client.similar(vector=vector, limit=k, **known)

    async def _asimilar(self, vector: list[float], k: int, options: Mapping[str, Any]) -> Hits:
        check_k(k)
        known = options_of_similar(self._options, options)
        client = await self._loops.client()
        return await client.similar(vector=vector, limit=k, **known)


def _scored(hits: Iterable[Hit]) -> list[tuple[Document, float]]:
    return [(to_document(hit), hit.score) for hit in hits]


def _fetched(k: int, fetch_k: int) -> int:
    """Return the number of hits to select from, after a check of both numbers."""
    check_k(k)
    check_k(fetch_k, "fetch_k")
    return max(k, fetch_k)
