"""A collection as a vector store of LlamaIndex."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.encoding import Reranker
from msmarco_qdrant.encoding.options import EncoderChoices
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.integrations.arguments import require_all, to_options
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.given_vectors import upsert_with_vectors
from msmarco_qdrant.integrations.llamaindex.embedding import MsmarcoEmbedding, to_encoder
from msmarco_qdrant.integrations.llamaindex.filters import to_filter
from msmarco_qdrant.integrations.llamaindex.nodes import DOCUMENT_FIELD, to_node, to_passages
from msmarco_qdrant.integrations.llamaindex.queries import PlannedQuery, plan_query
from msmarco_qdrant.integrations.loop_clients import LoopClients
from msmarco_qdrant.integrations.open_client import open_client
from msmarco_qdrant.integrations.text_encoder import require_same_vector
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store
from msmarco_qdrant.stores.filters import combine, has_ids
from msmarco_qdrant.stores.payload import point_id

with imports_of("llama_index", "the LlamaIndex integration", "llamaindex"):
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryResult,
    )


class MsmarcoVectorStore(BasePydanticVectorStore):
    """A collection of this package as a vector store of LlamaIndex. Thread-safe.

    Nodes that come with an embedding keep it; the collection's model embeds the others. Unchanged
    nodes are not written again. Query modes are `DEFAULT`, `MMR`, `SPARSE`, `TEXT_SEARCH` (both
    BM25), `HYBRID`, and `SEMANTIC_HYBRID`, which also reranks. `vector_store_kwargs` of an index's
    retriever are options of `SearchClient.search`, such as `{"rerank_depth": 50}`. Asynchronous
    queries call a server without a thread.

    Args:
        client: The client of the collection; `close` closes it.
        search_options: Options of every query, such as `{"tenant": "a"}`.

    Raises:
        UsageError: For an unknown option.
    """

    stores_text: bool = True
    is_embedding_query: bool = True

    _client: SearchClient = PrivateAttr()
    _options: dict[str, Any] = PrivateAttr()
    _loops: LoopClients = PrivateAttr()
    _is_checked: bool = PrivateAttr(default=False)

    def __init__(
        self, client: SearchClient, *, search_options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(stores_text=True)
        self._client = client
        self._options = to_options(search_options or {})
        self._loops = LoopClients(client)

    @classmethod
    def open(  # noqa: PLR0913  # all but one have defaults
        cls,
        store: Store | str | PathLike[str],
        *,
        collection: str = "msmarco",
        embed_model: Any = None,
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
            embed_model: An embedding model of LlamaIndex that made the collection's vectors, or
                that makes those of a new collection; None for the collection's model, which is
                loaded.
            model: Location of that model; by default the name in the collection's metadata.
            encoder_options: Device, precision and so on; see `SearchClient.open`.
            reranker: A cross-encoder, or the location of one, for `rerank_depth`.
            search_options: Options of every query.
            create: Create the collection if it does not exist.
            connection: API key, port and timeouts, if `store` is a URL.

        Raises:
            ModelMismatchError: If the collection has vectors of another model.
            StoreError: If the store cannot be opened, or has no such collection.
            UsageError: If the collection needs an embedding model of LlamaIndex, or for both
                `embed_model` and `model`.
        """
        to_options(search_options or {})  # checked before a model is loaded
        client = open_client(
            store,
            collection=collection,
            encoder=None if embed_model is None else to_encoder(embed_model),
            model=model,
            encoder_options=encoder_options,
            reranker=reranker,
            create=create,
            payload_indexes={DOCUMENT_FIELD: "keyword"},
            connection=connection,
            encoder_name="embed_model",
        )
        return cls(client, search_options=search_options)

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class, for LlamaIndex."""
        return "MsmarcoVectorStore"

    @property
    def client(self) -> SearchClient:
        """The search client."""
        return self._client

    @property
    def embed_model(self) -> MsmarcoEmbedding:
        """The collection's model, to pass to an index."""
        return MsmarcoEmbedding(self._client.encoder)

    # ---- writes ----------------------------------------------------------------------------

    def add(self, nodes: Sequence[Any], **kwargs: Any) -> list[str]:
        """Add nodes, or overwrite those with the same ids.

        Args:
            nodes: The nodes.
            **kwargs: Ignored, as LlamaIndex passes what other stores need.

        Returns:
            Their ids.

        Raises:
            ModelMismatchError: If the first embedding is not that of the collection's model.
            UsageError: If a node cannot be added, such as one without text.
        """
        del kwargs
        passages, vectors = to_passages(nodes)
        if vectors and not self._is_checked:
            self._check_embedding({passage.pid: passage.text for passage in passages}, vectors)
        require_all(upsert_with_vectors(self._client, passages, vectors), "node")
        return [passage.pid for passage in passages]

    async def async_add(self, nodes: Sequence[Any], **kwargs: Any) -> list[str]:
        """Add nodes in a thread; see `add`."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document.

        Args:
            ref_doc_id: The id of the document.
            **delete_kwargs: Ignored.

        Raises:
            UsageError: If the id is not a non-empty string.
        """
        del delete_kwargs
        self._client.delete(meta_filter=_of_document(ref_doc_id), tenant=self._tenant)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document; see `delete`."""
        del delete_kwargs
        client = await self._loops.client()
        await client.delete(meta_filter=_of_document(ref_doc_id), tenant=self._tenant)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete nodes by their ids, by filters, or those that meet both.

        Args:
            node_ids: The ids; those that the collection lacks are ignored.
            filters: Filters of LlamaIndex.
            **delete_kwargs: Ignored.

        Raises:
            UsageError: For none of both: `clear` deletes every node.
        """
        del delete_kwargs
        pids, meta_filter = _to_delete(node_ids, filters)
        self._client.delete(pids, meta_filter=meta_filter, tenant=self._tenant)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete nodes; see `delete_nodes`."""
        del delete_kwargs
        pids, meta_filter = _to_delete(node_ids, filters)
        client = await self._loops.client()
        await client.delete(pids, meta_filter=meta_filter, tenant=self._tenant)

    def clear(self) -> None:
        """Delete every node of the collection, or of the tenant in the store's search options."""
        found = self._client.scroll(tenant=self._tenant)
        self._client.delete(passage.pid for passage in found)

    async def aclear(self) -> None:
        """Delete every node in a thread; see `clear`."""
        await asyncio.to_thread(self.clear)

    # ---- reads -----------------------------------------------------------------------------

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[Any]:
        """Read nodes by their ids, by filters, those that meet both, or all, without embeddings."""
        if node_ids is not None and filters is None:
            return [*map(to_node, self._client.get(node_ids, tenant=self._tenant).values())]
        meta_filter = _restricted(to_filter(filters), node_ids)
        return [*map(to_node, self._client.scroll(meta_filter=meta_filter, tenant=self._tenant))]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[Any]:
        """Read nodes in a thread; see `get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search.

        Args:
            query: The query of LlamaIndex. `alpha` is the weight of the vectors in a hybrid query.
            **kwargs: Options of `SearchClient.search`; for `MMR` also `mmr_threshold` and
                `mmr_prefetch_factor` (4) or `mmr_prefetch_k`.

        Raises:
            UsageError: For a query mode that does not exist here, or an invalid option.
        """
        plan = self._plan(query, kwargs)
        if plan.vector is None:
            hits = self._client.search(plan.text, **plan.options)
        else:
            hits = self._client.similar(vector=plan.vector, **plan.options)
        return _to_result(plan.select(hits, self._client.encoder.encode_queries))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search; see `query`."""
        plan = self._plan(query, kwargs)
        client = await self._loops.client()
        if plan.vector is None:
            hits = await client.search(plan.text, **plan.options)
        else:
            hits = await client.similar(vector=plan.vector, **plan.options)
        encode = self._client.encoder.encode_queries
        return _to_result(await asyncio.to_thread(plan.select, hits, encode))

    # ---- closing ---------------------------------------------------------------------------

    def close(self) -> None:
        """Close the client. Further calls have no effect."""
        self._client.close()

    async def aclose(self) -> None:
        """Close the client, also that of the running event loop."""
        await self._loops.close()
        await asyncio.to_thread(self._client.close)

    def __enter__(self) -> MsmarcoVectorStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _tenant(self) -> str | None:
        tenant: str | None = self._options.get("tenant")
        return tenant

    def _plan(self, query: VectorStoreQuery, kwargs: Mapping[str, Any]) -> PlannedQuery:
        meta_filter = to_filter(query.filters)
        if query.doc_ids:
            of_documents: SearchFilter = {DOCUMENT_FIELD: [*query.doc_ids]}
            meta_filter = combine(meta_filter, of_documents)
        node_ids = query.node_ids or None  # LlamaIndex passes an empty list for all
        own = self._options
        if "filter" in kwargs:  # another name of `meta_filter`, which it replaces
            own = {name: own[name] for name in own if name != "meta_filter"}
        return plan_query(query, {**own, **kwargs}, _restricted(meta_filter, node_ids))

    def _check_embedding(
        self, texts: Mapping[str, str], vectors: Mapping[str, Sequence[float]]
    ) -> None:
        """Refuse embeddings of another model, once for this object."""
        import numpy as np

        pid, vector = next(iter(vectors.items()))
        row = np.asarray(vector, np.float32)
        require_same_vector(self._client.collection, texts[pid], row, self._client.encoder)
        self._is_checked = True


def _of_document(ref_doc_id: object) -> SearchFilter:
    if not isinstance(ref_doc_id, str) or not ref_doc_id:
        raise UsageError(f"ref_doc_id must be a non-empty string, got {ref_doc_id!r}")
    return {DOCUMENT_FIELD: ref_doc_id}


def _to_delete(
    node_ids: list[str] | None, filters: MetadataFilters | None
) -> tuple[list[str] | None, SearchFilter | None]:
    """Return the ids or the filter of a deletion, one of which is None."""
    if node_ids is None and filters is None:
        raise UsageError("pass node_ids or filters; clear() deletes every node")
    if filters is None:
        return node_ids, None
    meta_filter = to_filter(filters)
    if meta_filter is None and node_ids is None:
        raise UsageError("filters must have a condition; clear() deletes every node")
    return None, _restricted(meta_filter, node_ids)


def _restricted(
    meta_filter: SearchFilter | None, node_ids: Sequence[str] | None
) -> SearchFilter | None:
    """Return a filter that also leaves out other nodes than these; None for all."""
    if node_ids is None:
        return meta_filter
    return combine(meta_filter, has_ids([*map(point_id, node_ids)]))


def _to_result(hits: Sequence[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[*map(to_node, hits)],
        similarities=[hit.score for hit in hits],
        ids=[hit.pid for hit in hits],
    )
