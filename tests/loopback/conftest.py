"""Fixtures of this package's own tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from tests.loopback import LoopbackServer
from tests.loopback.gate import Admission, Gate

NAME = "passages__0001"


def client_of(server: LoopbackServer, api_key: str | None = None) -> QdrantClient:
    """The real client, over gRPC, that waits little before it connects again."""
    return QdrantClient(
        url=f"http://127.0.0.1:{server.port}",
        grpc_port=server.port,
        prefer_grpc=True,
        check_compatibility=False,
        timeout=30,
        headers={} if api_key is None else {"api-key": api_key},
        # not `min_reconnect_backoff_ms`: that is how long one attempt to connect may take
        grpc_options={
            "grpc.initial_reconnect_backoff_ms": 10,
            "grpc.max_reconnect_backoff_ms": 20,
        },
    )


def keys_of(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The API key of each call that reaches a server from now on, by either port."""
    seen: list[str | None] = []
    admit = Gate.admit

    def record(gate: Gate, rpc: str, headers: dict[str, Any]) -> Admission:
        if gate._requests is server.requests:
            seen.append(headers.get("api-key"))
        return admit(gate, rpc, headers)

    monkeypatch.setattr(Gate, "admit", record)
    return seen


def make_collection(client: QdrantClient, name: str = NAME) -> None:
    """A collection with a named dense vector of 4 and a sparse one."""
    client.create_collection(
        name,
        vectors_config={"dense": models.VectorParams(size=4, distance=models.Distance.DOT)},
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        metadata={"schema": 1, "model": {"name": "costless"}},
    )


def point(number: int, *, size: int = 4, **payload: object) -> models.PointStruct:
    """A point whose dense vector points the more along the first axis the larger the number."""
    return models.PointStruct(
        id=number,
        vector={
            "dense": [float(number)] + [1.0] * (size - 1),
            "bm25": models.SparseVector(indices=[7, 100 + number], values=[1.0, 2.0]),
        },
        payload={"pid": str(number), "seq": number, **payload},
    )


def fill(server: LoopbackServer, client: QdrantClient) -> None:
    """Make a collection of five points, and forget the requests."""
    make_collection(client)
    client.upsert(NAME, [point(number, even=number % 2 == 0) for number in range(1, 6)])
    server.requests.clear()


@pytest.fixture
def client(server: LoopbackServer) -> Iterator[QdrantClient]:
    """A client of it, with a collection of five points."""
    made = client_of(server)
    fill(server, made)
    yield made
    made.close()
