"""A collection as a document store of Haystack."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from typing import Any, cast

from msmarco_qdrant.collection.create import create_collection, drop_collection
from msmarco_qdrant.collection.metadata import save_search_defaults
from msmarco_qdrant.core.encoder_types import Similarity
from msmarco_qdrant.core.search_defaults import NO_DEFAULTS
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.errors import CollectionNotFoundError, StoreNotFoundError, UsageError
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.haystack.documents import order_of, to_document, with_meta
from msmarco_qdrant.integrations.haystack.filters import to_filter
from msmarco_qdrant.integrations.haystack.given_model import PREFIX, GivenModel
from msmarco_qdrant.integrations.haystack.metadata import (
    distinct_values,
    field_kinds,
    least_and_most,
)
from msmarco_qdrant.integrations.haystack.write import (
    OrderClock,
    check_documents,
    write_documents,
    write_passages,
)
from msmarco_qdrant.integrations.loop_clients import LoopClients
from msmarco_qdrant.integrations.open_client import open_client
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Connection, Store, open_store, use_store

with imports_of("haystack", "the Haystack integration", "haystack"):
    from haystack import default_from_dict, default_to_dict
    from haystack.dataclasses import Document
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.utils import Secret


class MsmarcoDocumentStore:
    """A collection of this package as a document store of Haystack. Thread-safe.

    A document without an embedding is encoded by the collection's model. One with an embedding
    keeps it, as with an embedder of Haystack in front; `embedding_dim` creates a collection for
    such documents only, without a model. Documents are returned as they were written. The
    collection is opened by the first call, and created if it does not exist.

    Args:
        store: The path or URL of a store, or an open store, which stays open.
        collection: Name of the collection.
        model: Location of the model; by default the collection's own, or the default model for a
            new collection.
        encoder: A loaded encoder instead of `model`; such a store cannot be serialized.
        reranker: A cross-encoder, or the location of one, for `rerank_depth` of a retriever.
        embedding_dim: Numbers of the embeddings, for a new collection without a model.
        embedding_model: Name of the embedder's model, stored with that collection.
        similarity: Its similarity, "cosine" or "dot".
        api_key: The API key of a server.

    Raises:
        UsageError: For a combination of these that excludes itself.
    """

    def __init__(  # noqa: PLR0913  # all but one have defaults
        self,
        store: Store | str | PathLike[str],
        *,
        collection: str = "msmarco",
        model: str | PathLike[str] | None = None,
        encoder: Encoder | None = None,
        reranker: str | PathLike[str] | Reranker | None = None,
        embedding_dim: int | None = None,
        embedding_model: str = "embedder",
        similarity: Similarity = "cosine",
        api_key: Secret | None = None,
    ) -> None:
        if sum(one is not None for one in (model, encoder, embedding_dim)) > 1:
            raise UsageError("pass one of model, encoder and embedding_dim")
        if embedding_dim is not None:
            encoder = GivenModel(embedding_model, embedding_dim, similarity)
        self._store, self._model, self._encoder = store, model, encoder
        self._collection, self._reranker, self._api_key = collection, reranker, api_key
        self._embedding = (embedding_dim, embedding_model, similarity)
        self._clock = OrderClock()
        self._lock = threading.Lock()
        self._opened: tuple[SearchClient, LoopClients] | None = None
        self._in_memory: Store | None = None

    # ---- the client ------------------------------------------------------------------------

    @property
    def client(self) -> SearchClient:
        """The search client of the collection."""
        return self._open()[0]

    async def async_client(self) -> AsyncSearchClient:
        """Return the asyncio client of the running event loop."""
        _, loops = await asyncio.to_thread(self._open)
        return await loops.client()

    def close(self) -> None:
        """Close the client, and the store unless it was passed open. A later call opens it."""
        with self._lock:
            if self._opened is not None:
                self._opened[0].close()
                self._opened = None
            if self._in_memory is not None:
                self._in_memory.close()
                self._store, self._in_memory = ":memory:", None

    def _open(self) -> tuple[SearchClient, LoopClients]:
        with self._lock:
            if self._opened is None:
                key = None if self._api_key is None else self._api_key.resolve_value()
                connection = Connection(api_key=key)
                if self._store == ":memory:":  # each opening of that is another store
                    self._store = self._in_memory = open_store(":memory:", create=True)
                client = open_client(
                    self._store,
                    collection=self._collection,
                    encoder=self._encoder or self._stored_model(connection),
                    model=self._model,
                    reranker=self._reranker,
                    create=True,
                    connection=connection,
                )
                self._opened = client, LoopClients(client)
            return self._opened

    def _stored_model(self, connection: Connection) -> Encoder | None:
        """Return the model of a collection of given embeddings, None for another's."""
        if self._model is not None:
            return None
        try:
            with use_store(self._store, connection) as opened:
                info = opened.metadata(self._collection).encoder
        except (StoreNotFoundError, CollectionNotFoundError):
            return None
        return GivenModel.stored(info) if info.model.startswith(PREFIX) else None

    def to_dict(self) -> dict[str, Any]:
        """Serialize the store; an API key must be that of an environment variable.

        Raises:
            UsageError: If it was made with an open store, an encoder or a loaded reranker.
        """
        dimension, embedding_model, similarity = self._embedding
        encoder = None if dimension is not None else self._encoder
        store = self._store if self._in_memory is None else ":memory:"
        for name, value in (
            ("store", store),
            ("encoder", encoder),
            ("reranker", self._reranker),
        ):
            if value is not None and not isinstance(value, str | PathLike):
                raise UsageError(
                    f"a document store is serialized with a path or a URL as its {name}, got "
                    f"{value!r}: pass the location instead"
                )
        model, reranker = self._model, cast("str | PathLike[str] | None", self._reranker)
        data: dict[str, Any] = default_to_dict(
            self,
            store=fspath(cast("str | PathLike[str]", store)),
            collection=self._collection,
            model=None if model is None else fspath(model),
            reranker=None if reranker is None else fspath(reranker),
            embedding_dim=dimension,
            embedding_model=embedding_model,
            similarity=similarity,
            api_key=self._api_key,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MsmarcoDocumentStore:
        """Make the store that `to_dict` serialized."""
        return cast("MsmarcoDocumentStore", default_from_dict(cls, data))

    # ---- documents -------------------------------------------------------------------------

    def count_documents(self) -> int:
        """Count all documents."""
        return self.client.count()

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return the documents that match a filter, in the order of their first writes.

        Raises:
            FilterError: If the filter is invalid.
        """
        found = sorted(self.client.scroll(meta_filter=to_filter(filters)), key=order_of)
        return [to_document(passage) for passage in found]

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Write documents durably; one that did not change is neither encoded nor written.

        Args:
            documents: The documents.
            policy: What to do with an id that exists. NONE is FAIL, which is checked before the
                write: another process may write the same id between.

        Returns:
            The number of documents written; with OVERWRITE that of `documents`.

        Raises:
            ValueError: If `documents` is not a list of documents.
            DuplicateDocumentError: If the policy forbids an id; nothing was written.
            DocumentStoreError: If a document cannot be stored.
            EncodingError: If the collection has no model, and a document no embedding.
            ModelMismatchError: If an embedding has another dimension than the collection's.
        """
        checked = check_documents(documents)
        return write_documents(self.client, checked, policy, self._clock) if checked else 0

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents; those that do not exist are passed over."""
        self.client.delete(document_ids)

    def delete_all_documents(self, recreate_index: bool = False) -> None:
        """Delete all documents.

        Args:
            recreate_index: Drop the collection and create it with the same model and settings,
                which is faster. Migrations of your own are not applied again.

        Raises:
            UsageError: If the collection has tenants.
        """
        client = self.client
        if not recreate_index:
            client.delete([passage.pid for passage in client.scroll()])
            return
        with self._lock:
            _recreate(client.store, self._collection)
            self._opened = None  # the next call opens the new collection
        client.close()

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete the documents that match a filter; return their number."""
        return self.client.delete(meta_filter=to_filter(filters) or {})

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Set fields of `meta` of the documents that match a filter; return their number."""
        client = self.client
        found = [with_meta(one, meta) for one in client.scroll(meta_filter=to_filter(filters))]
        write_passages(client, found)
        return len(found)

    # ---- summaries of meta -----------------------------------------------------------------

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """Count the documents that match a filter."""
        return self.client.count(meta_filter=to_filter(filters))

    def count_unique_metadata_by_filter(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """Count the distinct values of fields among the documents that match a filter."""
        metas = [*self._metas(filters)]
        return {
            field.removeprefix("meta."): len(distinct_values(metas, field))
            for field in metadata_fields
        }

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """Return the kind of each field of `meta`: boolean, int, float or keyword."""
        return field_kinds(self._metas(None))

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """Return the least and the greatest value of a field as "min" and "max", or None."""
        return least_and_most(self._metas(None), metadata_field)

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """Return a page of the distinct values of a field, and the number of all.

        Args:
            metadata_field: The field, with or without "meta." in front.
            search_term: Only values whose text contains it, in upper or lower case.
            from_: Number of values to skip.
            size: Most values to return.
            filters: Only values of the documents that match.
        """
        values = distinct_values(self._metas(filters), metadata_field)
        wanted = (search_term or "").lower()
        chosen = [value for value in values if wanted in str(value).lower()]
        return chosen[from_ : from_ + size], len(chosen)

    def _metas(self, filters: dict[str, Any] | None) -> Iterator[Mapping[str, Any]]:
        found = self.client.scroll(meta_filter=to_filter(filters))
        return (passage.meta for passage in found)

    # ---- the same without blocking the event loop --------------------------------------------

    async def count_documents_async(self) -> int:
        """`count_documents` in a thread."""
        return await asyncio.to_thread(self.count_documents)

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """`filter_documents` in a thread."""
        return await asyncio.to_thread(self.filter_documents, filters)

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """`write_documents` in a thread."""
        return await asyncio.to_thread(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """`delete_documents` in a thread."""
        await asyncio.to_thread(self.delete_documents, document_ids)

    async def delete_all_documents_async(self, recreate_index: bool = False) -> None:
        """`delete_all_documents` in a thread."""
        await asyncio.to_thread(self.delete_all_documents, recreate_index)

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """`delete_by_filter` in a thread."""
        return await asyncio.to_thread(self.delete_by_filter, filters)

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """`update_by_filter` in a thread."""
        return await asyncio.to_thread(self.update_by_filter, filters, meta)

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """`count_documents_by_filter` in a thread."""
        return await asyncio.to_thread(self.count_documents_by_filter, filters)

    async def count_unique_metadata_by_filter_async(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """`count_unique_metadata_by_filter` in a thread."""
        return await asyncio.to_thread(
            self.count_unique_metadata_by_filter, filters, metadata_fields
        )

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """`get_metadata_fields_info` in a thread."""
        return await asyncio.to_thread(self.get_metadata_fields_info)

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """`get_metadata_field_min_max` in a thread."""
        return await asyncio.to_thread(self.get_metadata_field_min_max, metadata_field)

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """`get_metadata_field_unique_values` in a thread."""
        return await asyncio.to_thread(
            self.get_metadata_field_unique_values, metadata_field, search_term, from_, size, filters
        )


def _recreate(store: Store, name: str) -> None:
    """Drop a collection, and create it with the same model and settings."""
    metadata, spec = store.metadata(name), store.collection(name).spec()
    if metadata.tenant_field is not None:
        raise UsageError(
            f"collection '{name}' must not have tenants to be recreated, got the tenant field "
            f"'{metadata.tenant_field}': delete the documents of each tenant"
        )
    sharding = spec.sharding if store.capabilities.replicas else None
    indexes = {key: kind for key, kind in spec.payload_indexes.items() if key != "seq"}
    settings = (metadata.encoder, metadata.bm25, spec.storage, indexes, sharding)
    drop_collection(store, name)
    create_collection(store, name, *settings)
    if metadata.search_defaults != NO_DEFAULTS:
        save_search_defaults(store, metadata.search_defaults, collection=name)
