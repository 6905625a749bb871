"""What a store holds, told in one value."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from qdrant_client import QdrantClient, models

from msmarco_qdrant.collection.create import create_collection
from msmarco_qdrant.collection.describe import describe_store
from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import CollectionNotFoundError, StoreCorruptError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer


def test_a_store_is_described(
    store: Store, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Where it is, and each collection with its state and what was kept with it."""
    before = int(time.time())
    for name in ("b", "a"):
        ingest_passages(passages, store, collection=name, encoder=encoder, optimize=False)

    described = describe_store(store)

    assert store.dsn == described.store
    assert {"msmarco-qdrant", "qdrant-edge-py", "qdrant-client"} <= described.versions.keys()
    assert ["a", "b"] == [entry.name for entry in described.collections]
    for entry in described.collections:
        assert store.collection(entry.name).info() == entry.info
        assert store.metadata(entry.name) == entry.metadata
        assert entry.last_write is not None
        assert before <= entry.last_write.timestamp() <= time.time()
        assert entry.last_write.utcoffset() is not None


def test_one_collection_is_described(store: Store, encoder: HashingEncoder) -> None:
    """Alone; one that was never written to has no time of a last write."""
    for name in ("a", "b"):
        create_collection(store, name, encoder.info, Bm25Settings())

    (entry,) = describe_store(store, "b").collections

    assert ("b", "b__0001", 0, None) == (
        entry.name,
        entry.info.name,
        entry.info.points,
        entry.last_write,
    )
    with pytest.raises(CollectionNotFoundError, match="'c'"):
        describe_store(store, "c")


def test_a_collection_without_metadata_is_left_out_with_a_warning(
    store: Store, encoder: HashingEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad collection does not hide the good ones; asked for by name it is an error."""
    create_collection(store, "good", encoder.info, Bm25Settings())
    store.create_collection("bad__0001", store.collection("good").info().spec)
    store.set_alias("bad", "bad__0001")

    assert ["good"] == [entry.name for entry in describe_store(store).collections]
    assert "skipped a collection: collection 'bad__0001' in " in caplog.text
    with pytest.raises(StoreCorruptError, match="bad__0001"):
        describe_store(store, "bad")


def test_what_else_a_server_holds_is_left_out(encoder: HashingEncoder) -> None:
    """Collections of others, with aliases and without, of names like ours and not."""
    with LoopbackServer() as server:
        theirs = QdrantClient(
            host="127.0.0.1", grpc_port=server.port, prefer_grpc=True, check_compatibility=False
        )
        vectors = models.VectorParams(size=4, distance=models.Distance.COSINE)
        for name in ("products", "films__0001"):
            theirs.create_collection(name, vectors)
        for alias, name in (("shop", "products"), ("films", "films__0001")):
            create = models.CreateAlias(alias_name=alias, collection_name=name)
            theirs.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
        theirs.close()
        store = open_store(server.url)
        create_collection(store, "ours", encoder.info, Bm25Settings())

        assert ["ours"] == [entry.name for entry in describe_store(store).collections]
        store.close()
