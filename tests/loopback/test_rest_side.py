"""The REST port of the loopback server, asked by qdrant-client's REST client."""

from __future__ import annotations

from collections.abc import Iterator

import grpc as grpcio  # type: ignore[import-untyped]
import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tests.loopback import Cut, LoopbackServer, LostAnswer, Refused, Slow
from tests.loopback.conftest import NAME, fill, make_collection, point


def rest_client(server: LoopbackServer, api_key: str | None = None) -> QdrantClient:
    """The real client, over REST."""
    headers = {} if api_key is None else {"api-key": api_key}
    return QdrantClient(url=server.rest_url, check_compatibility=False, headers=headers, timeout=30)


@pytest.fixture
def rest(server: LoopbackServer) -> Iterator[QdrantClient]:
    """A REST client of a server with a collection of five points, made by REST."""
    client = rest_client(server)
    fill(server, client)
    yield client
    client.close()


def test_every_method_that_the_package_calls(rest: QdrantClient) -> None:
    """Collections, aliases, indexes, writes, reads and queries answer as by gRPC."""
    assert "1.20.0" == rest.info().version
    assert [NAME] == [one.name for one in rest.get_collections().collections]
    creation = models.CreateAlias(collection_name=NAME, alias_name="passages")
    rest.update_collection_aliases([models.CreateAliasOperation(create_alias=creation)])
    assert ["passages"] == [one.alias_name for one in rest.get_aliases().aliases]
    assert rest.collection_exists("passages")
    rest.create_payload_index(NAME, "seq", models.PayloadSchemaType.INTEGER)
    rest.update_collection(NAME, metadata={"more": [1, 2.5]})
    info = rest.get_collection(NAME)
    assert ({"seq"}, 5) == (set(info.payload_schema), info.points_count)
    assert {"schema": 1, "model": {"name": "costless"}, "more": [1, 2.5]} == info.config.metadata
    high = models.Filter(must=[models.FieldCondition(key="seq", range=models.Range(gte=3))])
    assert 3 == rest.count(NAME, count_filter=high).count
    rest.delete(NAME, models.FilterSelector(filter=high))
    rest.update_vectors(NAME, [models.PointVectors(id=1, vector={"dense": [0.1, 0, 0, 9.0]})])
    overwrite = models.SetPayload(payload={"pid": "one"}, points=[1])
    rest.batch_update_points(NAME, [models.OverwritePayloadOperation(overwrite_payload=overwrite)])
    (one,) = rest.retrieve(NAME, [1], with_vectors=True)
    assert ({"pid": "one"}, [0.10000000149011612, 0.0, 0.0, 9.0]) == (
        one.payload,
        one.vector["dense"],  # type: ignore[index,call-overload]
    )
    records, following = rest.scroll(NAME, limit=1, with_payload=["pid"])
    assert ([1], 2) == ([record.id for record in records], following)
    request = models.QueryRequest(query=[0.0, 0, 0, 1.0], using="dense", limit=1)
    (answer,) = rest.query_batch_points(NAME, [request])
    assert [1] == [hit.id for hit in answer.points]
    rest.delete_payload_index(NAME, "seq")
    assert rest.delete_collection(NAME)


def test_errors_have_the_server_s_body(server: LoopbackServer, rest: QdrantClient) -> None:
    """A status of HTTP, and `status.error`."""
    with pytest.raises(UnexpectedResponse) as caught:
        rest.count("missing")
    assert (404, "Not found: Collection `missing` doesn't exist!") == (
        caught.value.status_code,
        caught.value.structured()["status"]["error"],
    )
    server.faults.inject(Refused(grpcio.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=7), "Count")
    with pytest.raises(ResourceExhaustedResponse) as limited:
        rest.count(NAME)
    assert 7 == limited.value.retry_after_s
    large = httpx.put(
        f"{server.rest_url}/collections/{NAME}/points", content=b" " * (32 * 2**20 + 1)
    )
    assert (400, "Payload error: JSON payload (33554433 bytes) is larger than allowed") == (
        large.status_code,
        large.json()["status"]["error"].partition(" (limit")[0],
    )


def test_faults_are_those_of_the_grpc_port(server: LoopbackServer, rest: QdrantClient) -> None:
    """Cut and lost answers cut the client's connection; a client that has gone ends a wait."""
    server.faults.inject(Cut(10), "Upsert")
    server.faults.inject(LostAnswer(), "Upsert")
    for number in (6, 7):
        with pytest.raises(ResponseHandlingException):
            rest.upsert(NAME, [point(number)])
    assert (1, 6) == (server.requests.count("Upsert"), rest.count(NAME).count)
    server.faults.inject(Slow(600, drop_if_cancelled=True), "Upsert")
    with pytest.raises(httpx.ReadTimeout):
        httpx.put(
            f"{server.rest_url}/collections/{NAME}/points",
            json={"points": [{"id": 8, "vector": {"dense": [1, 2, 3, 4]}}]},
            timeout=0.1,
        )
    server.settle()
    assert 6 == rest.count(NAME).count


def test_keys_and_prefix() -> None:
    """Without a key 401, with one for reads 403, behind a path."""
    with LoopbackServer("key", read_only_api_key="read", prefix="/a/b", serve_grpc=False) as server:
        assert server.rest_url.endswith("/a/b")
        make_collection(rest_client(server, "key"))
        assert 1 == len(rest_client(server, "read").get_collections().collections)
        for key, status in (("read", 403), (None, 401)):
            with pytest.raises(UnexpectedResponse) as caught:
                rest_client(server, key).delete_collection(NAME)
            assert status == caught.value.status_code
        assert 404 == httpx.get(server.rest_url.removesuffix("/a/b") + "/collections").status_code
