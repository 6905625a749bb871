"""A client on the small collection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import WordOverlapReranker
from tests.evaluation.collection import PASSAGES, ListeningEncoder
from tests.evaluation.dataset import library

__all__ = ["library"]


@pytest.fixture
def listening() -> ListeningEncoder:
    """The encoder of the client's queries."""
    return ListeningEncoder()


@pytest.fixture
def client(listening: ListeningEncoder) -> Iterator[SearchClient]:
    """A client on the small collection, in memory."""
    store = open_store(":memory:", create=True)
    ingest_passages(PASSAGES, store, encoder=listening, optimize=False)
    with SearchClient.open(store, encoder=listening, reranker=WordOverlapReranker()) as opened:
        yield opened
    store.close()
