"""Haystack's own conformance suites, on each kind of store; documents are compared as they are.

The suites leave `test_write_documents` to each store, as it depends on the default policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("haystack")

from haystack import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.testing import document_store as suites
from haystack.testing import document_store_async as async_suites

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.integrations.haystack import MsmarcoDocumentStore
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import new_store


class _Suites(
    suites.DocumentStoreBaseExtendedTests,
    suites.CountDocumentsByFilterTest,
    suites.CountUniqueMetadataByFilterTest,
    suites.GetMetadataFieldsInfoTest,
    suites.GetMetadataFieldMinMaxTest,
    suites.GetMetadataFieldUniqueValuesTest,
    async_suites.DeleteAllAsyncTest,
    async_suites.CountDocumentsAsyncTest,
    async_suites.CountDocumentsByFilterAsyncTest,
    async_suites.CountUniqueMetadataByFilterAsyncTest,
    async_suites.DeleteByFilterAsyncTest,
    async_suites.UpdateByFilterAsyncTest,
    async_suites.WriteDocumentsAsyncTest,
    async_suites.DeleteDocumentsAsyncTest,
    async_suites.GetMetadataFieldsInfoAsyncTest,
    async_suites.GetMetadataFieldMinMaxAsyncTest,
    async_suites.GetMetadataFieldUniqueValuesAsyncTest,
    async_suites.FilterDocumentsAsyncTest,
):
    """All suites of Haystack."""

    engine = ""
    store: Store

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def opened(cls, make_folder: Callable[[str], Path]) -> Iterator[None]:
        """A store for the class."""
        with new_store(cls.engine, make_folder("store")) as store:
            cls.store = store
            yield

    @pytest.fixture
    def document_store(self) -> Iterator[MsmarcoDocumentStore]:
        """An empty document store, whose encoder has the dimension of the suites' embeddings."""
        store = MsmarcoDocumentStore(self.store, encoder=HashingEncoder(768))
        yield store
        store.close()
        if "msmarco" in self.store.aliases():
            drop_collection(self.store, "msmarco")

    def test_write_documents(self, document_store: MsmarcoDocumentStore) -> None:
        """The default policy fails, and writes nothing, if a document exists."""
        documents = [Document(content="test doc 1")]
        assert 1 == document_store.write_documents(documents)
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([Document(content="test doc 2"), *documents])
        assert documents == document_store.filter_documents()

    async def test_write_documents_async(self, document_store: MsmarcoDocumentStore) -> None:
        """The same, asynchronously."""
        documents = [Document(content="test doc 1")]
        assert 1 == await document_store.write_documents_async(documents)
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async(documents)
        assert documents == await document_store.filter_documents_async()


class TestHaystackOnEdge(_Suites):
    """On Qdrant Edge."""

    engine = "edge"


class TestHaystackInMemory(_Suites):
    """In memory."""

    engine = "memory"


class TestHaystackOnServer(_Suites):
    """On the loopback server."""

    engine = "loopback"
