"""Collections that the real packages wrote are adopted, each text once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

from msmarco_qdrant import ForeignPassages, ingest_passages
from msmarco_qdrant.collection.scroll import scroll_passages
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer

pytest.importorskip("langchain_qdrant")
pytest.importorskip("haystack_integrations.document_stores.qdrant")
pytest.importorskip("llama_index.vector_stores.qdrant")

TEXTS = [f"passage {number} is about sea music" for number in range(300)]
_SIZE = 8


def write_langchain(client: QdrantClient, server: LoopbackServer) -> None:  # noqa: ARG001
    """Write with langchain-qdrant, twice the first ten as with a second import."""
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_qdrant import QdrantVectorStore

    vectors = models.VectorParams(size=_SIZE, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=vectors)
    store = QdrantVectorStore(client, "docs", DeterministicFakeEmbedding(size=_SIZE))
    metadatas = [{"n": n} for n in range(len(TEXTS))]
    store.add_texts(TEXTS, metadatas)
    store.add_texts(TEXTS[:10], metadatas[:10])


def write_llamaindex(client: QdrantClient, server: LoopbackServer) -> None:  # noqa: ARG001
    """Write with llama-index-vector-stores-qdrant."""
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    nodes = [
        TextNode(
            text=text,
            id_=str(uuid.UUID(int=n)),
            metadata={"n": n},
            embedding=[1.0] * _SIZE,
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")},
        )
        for n, text in enumerate(TEXTS)
    ]
    QdrantVectorStore(collection_name="docs", client=client).add([*nodes])


def write_haystack(client: QdrantClient, server: LoopbackServer) -> None:  # noqa: ARG001
    """Write with qdrant-haystack."""
    from haystack import Document
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    store = QdrantDocumentStore(
        url=server.rest_url,
        grpc_port=server.port,
        prefer_grpc=True,
        index="docs",
        embedding_dim=_SIZE,
    )
    store.write_documents(
        [
            Document(content=text, meta={"n": n}, embedding=[1.0] * _SIZE)
            for n, text in enumerate(TEXTS)
        ]
    )


def write_client(client: QdrantClient, server: LoopbackServer) -> None:  # noqa: ARG001
    """Write with qdrant-client alone."""
    vectors = models.VectorParams(size=_SIZE, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=vectors)
    client.upsert(
        "docs",
        [
            models.PointStruct(id=n, vector=[1.0] * _SIZE, payload={"chunk": text, "n": n})
            for n, text in enumerate(TEXTS)
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "shape", "duplicates"),
    [
        (write_langchain, "langchain", 10),
        (write_llamaindex, "llamaindex", 0),
        (write_haystack, "haystack", 0),
        (write_client, "plain", 0),
    ],
)
def test_every_text_is_adopted_once(
    write: Callable[[QdrantClient, LoopbackServer], None],
    shape: str,
    duplicates: int,
    server: LoopbackServer,
    tmp_path: Path,
) -> None:
    """Found by itself, with its metadata; a second run writes nothing."""
    client = QdrantClient(
        url=server.rest_url, grpc_port=server.port, prefer_grpc=True, check_compatibility=False
    )
    write(client, server)
    client.close()

    for written in (len(TEXTS), 0):
        with ForeignPassages.open("docs", server.url) as source:
            report = ingest_passages(
                source, tmp_path / "store", encoder=HashingEncoder(), optimize=False
            )
        assert (written, 0) == (report.written, report.rejected)
        assert {shape: len(TEXTS) + duplicates} == source.shapes
        assert duplicates == source.duplicates
    found = sorted((p.meta["n"], p.text) for p in scroll_passages(tmp_path / "store"))
    assert [*enumerate(TEXTS)] == found
