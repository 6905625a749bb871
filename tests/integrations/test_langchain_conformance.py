"""LangChain's own conformance suites, on each kind of store, without an override."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_tests.integration_tests import (
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.integrations.langchain import MsmarcoRetriever, MsmarcoVectorStore
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import new_store


class _VectorStoreTests(VectorStoreIntegrationTests):
    """`VectorStoreIntegrationTests` of LangChain, with its embeddings."""

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
    def vectorstore(self) -> Iterator[MsmarcoVectorStore]:
        """An empty vector store."""
        embedding = self.get_embeddings()
        with MsmarcoVectorStore.open(self.store, embedding=embedding, create=True) as opened:
            yield opened
        drop_collection(self.store, "msmarco")


class TestVectorStoreOnEdge(_VectorStoreTests):
    """On Qdrant Edge."""

    engine = "edge"


class TestVectorStoreInMemory(_VectorStoreTests):
    """In memory."""

    engine = "memory"


class TestVectorStoreOnServer(_VectorStoreTests):
    """On the loopback server."""

    engine = "loopback"


class _RetrieverTests(RetrieversIntegrationTests):
    """`RetrieversIntegrationTests` of LangChain, with the encoder of this package."""

    engine = ""
    client: SearchClient

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def opened(cls, make_folder: Callable[[str], Path]) -> Iterator[None]:
        """A collection of four passages."""
        encoder = HashingEncoder()
        rows = [(str(number), f"london has number {number}") for number in range(4)]
        with new_store(cls.engine, make_folder("retriever")) as store:
            ingest_passages(rows, store, encoder=encoder)
            with SearchClient.open(store, encoder=encoder) as client:
                cls.client = client
                yield

    @property
    def retriever_constructor(self) -> type[MsmarcoRetriever]:
        """The class."""
        return MsmarcoRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        """Its arguments."""
        return {"client": self.client}

    @property
    def retriever_query_example(self) -> str:
        """A query."""
        return "how big is london"


class TestRetrieverOnEdge(_RetrieverTests):
    """On Qdrant Edge."""

    engine = "edge"


class TestRetrieverInMemory(_RetrieverTests):
    """In memory."""

    engine = "memory"


class TestRetrieverOnServer(_RetrieverTests):
    """On the loopback server."""

    engine = "loopback"
