"""Every mistake's status and message, as the real server answers them."""

from __future__ import annotations

from collections.abc import Callable

import grpc as grpcio  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient, grpc, models

from tests.loopback import LoopbackServer, Mistake, Refused
from tests.loopback.conftest import NAME, client_of, make_collection, point, point_alias
from tests.loopback.mistake_cases import CASES, Call, Fields


def refused(call: Callable[[], object]) -> tuple[grpcio.StatusCode, str]:
    """The status and the message that a call ends in."""
    with pytest.raises(grpcio.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def said(mistake: Mistake, **fields: object) -> tuple[grpcio.StatusCode, str]:
    """What the table says of a mistake."""
    return mistake.code, mistake.message(**fields)


@pytest.mark.parametrize(
    ("call", "mistake", "fields"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_a_mistake_is_refused_as_the_server_does(
    client: QdrantClient, call: Call, mistake: Mistake, fields: Fields
) -> None:
    """The row of the table, whole, and nothing is changed by it but what came before."""
    point_alias(client, "passages", NAME)
    client.create_payload_index(NAME, "pid", models.PayloadSchemaType.KEYWORD)
    assert said(mistake, **fields) == refused(lambda: call(client))
    assert 5 == client.count(NAME).count


def test_a_refused_upsert_writes_nothing(client: QdrantClient) -> None:
    """Not even the points before the wrong one."""
    refused(lambda: client.upsert(NAME, [point(6), point(7, size=3)]))
    refused(lambda: client.upsert(NAME, [point(6), models.PointStruct(id=7, vector={"x": [1.0]})]))
    assert 5 == client.count(NAME).count


def test_without_wait_a_late_mistake_is_not_heard_of(client: QdrantClient) -> None:
    """The server has acknowledged the write by then; it logs, and drops it."""
    answer = client.upsert(NAME, [models.PointStruct(id=9, vector={"x": [1.0]})], wait=False)
    assert models.UpdateStatus.ACKNOWLEDGED == answer.status
    assert 5 == client.count(NAME).count


def test_alias_actions_before_a_refused_one_stay(client: QdrantClient) -> None:
    """The list is applied under one lock, but not undone."""

    def created(alias: str, name: str) -> models.CreateAliasOperation:
        return models.CreateAliasOperation(
            create_alias=models.CreateAlias(alias_name=alias, collection_name=name)
        )

    refused(lambda: client.update_collection_aliases([created("one", NAME), created("two", "no")]))
    assert ["one"] == [one.alias_name for one in client.get_aliases().aliases]


def test_keys() -> None:
    """Without a key, with a wrong one, with the right one in both headers; health is for all."""
    with LoopbackServer(api_key="secret") as server:
        nobody, wrong, right = (client_of(server, key) for key in (None, "guess", "secret"))
        assert said(Mistake.NO_KEY) == refused(nobody.get_collections)
        assert said(Mistake.WRONG_KEY) == refused(wrong.get_collections)
        assert "1.20.0" == nobody.info().version
        make_collection(right)
        bearer = nobody.grpc_collections.List(
            grpc.ListCollectionsRequest(), metadata=(("authorization", "Bearer secret"),)
        )
        assert [NAME] == [one.name for one in bearer.collections]
        for one in (nobody, wrong, right):
            one.close()


def test_a_read_only_key_reads() -> None:
    """And is refused every write."""
    with LoopbackServer(api_key="secret", read_only_api_key="look") as server:
        writer, reader = client_of(server, "secret"), client_of(server, "look")
        make_collection(writer)
        assert 0 == reader.count(NAME).count
        assert said(Mistake.READ_ONLY_KEY) == refused(lambda: reader.upsert(NAME, [point(1)]))
        assert said(Mistake.READ_ONLY_KEY) == refused(lambda: reader.delete_collection(NAME))
        writer.close()
        reader.close()


def test_a_call_with_a_wrong_key_takes_no_fault() -> None:
    """Keys are looked at first, as on the real server."""
    with LoopbackServer(api_key="secret") as server:
        server.faults.inject(Refused(grpcio.StatusCode.UNAVAILABLE))
        wrong = client_of(server, "guess")
        assert said(Mistake.WRONG_KEY) == refused(wrong.get_collections)
        assert (1, 0) == (server.faults.pending, server.faults.count())
        wrong.close()
