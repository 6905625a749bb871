"""Tenants, over every engine: no read finds a passage of another one."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.collection.facets import count_facets
from msmarco_qdrant.collection.passages import (
    count_passages,
    delete_passages,
    get_passages,
    list_passages,
)
from msmarco_qdrant.collection.scroll import scroll_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import PassageNotFoundError, UsageError
from msmarco_qdrant.filters import Not
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.indexes import list_indexes
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.engines import ENGINES_AND_SERVER, new_store

TENANTS = ("acme", "beta")
_WORDS = ("city", "river", "bridge", "market", "castle", "garden", "harbor", "tower")


def tenant_passages(count: int) -> list[Passage]:
    """Passages of both tenants by turns, with the same words; the pid and a field say whose."""
    random = Random(3)
    made = []
    for number in range(count):
        tenant = TENANTS[number % 2]
        text = " ".join(random.choices(_WORDS, k=6))
        meta = {
            "customer": tenant,
            "lang": f"{tenant}-{random.choice(['en', 'de'])}",
            "year": 2000 + random.randrange(10),
        }
        made.append(Passage(f"{tenant}-{number}", text, meta))
    return made


PASSAGES = tenant_passages(40)


@pytest.fixture(scope="module", params=ENGINES_AND_SERVER)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SearchClient]:
    """A client on the passages of both tenants, of each engine in turn."""
    name = f"tenants-{uuid.uuid4().hex[:12]}"
    with new_store(request.param, tmp_path_factory.mktemp("tenants")) as store:
        indexes: Any = {"year": "integer"} if store.capabilities.payload_indexes else {}
        ingest_passages(
            PASSAGES, store, collection=name, encoder=HashingEncoder(), payload_indexes=indexes
        )
        set_tenant_field(store, name, "customer")
        with SearchClient.open(
            store, collection=name, encoder=HashingEncoder(), reranker=WordOverlapReranker()
        ) as opened:
            yield opened
        drop_collection(store, name)


_PIDS = [one.pid for one in PASSAGES]
READS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "dense": lambda client, options: client.search("old castle", limit=50, **options),
    "bm25": lambda client, options: client.search("castle", limit=50, mode="bm25", **options),
    "hybrid": lambda client, options: client.search("castle", limit=50, mode="hybrid", **options),
    "reranked": lambda client, options: client.search(
        "castle", limit=5, rerank_depth=50, **options
    ),
    "grouped": lambda client, options: client.search(
        "castle", limit=50, group_by="lang", **options
    ),
    "a filter": lambda client, options: client.search(
        "castle", limit=50, meta_filter={"lang": Not("acme-en")}, **options
    ),
    "rank": lambda client, options: client.rank("castle", _PIDS, mode="hybrid", **options),
    "rank by bm25": lambda client, options: client.rank("castle", _PIDS, mode="bm25", **options),
    "similar": lambda client, options: client.similar(text="castle", limit=50, **options),
    "get": lambda client, options: client.get(_PIDS, **options),
    "count": lambda client, options: client.count(meta_filter={"lang": Not("x")}, **options),
    "facets": lambda client, options: client.facets("lang", **options),
    "facets of the field": lambda client, options: client.facets("customer", **options),
    "scroll": lambda client, options: client.scroll(**options),
    "ordered": lambda client, options: client.scroll(order_by="-year", **options),
}


def _words(found: Any) -> set[str]:
    """The pids or the values that an answer shows."""
    if isinstance(found, dict):
        return set(found)
    return {str(getattr(one, "pid", None) or one.value) for one in found}


async def _by_async(client: SearchClient, name: str, options: dict[str, Any]) -> Any:
    opened = await AsyncSearchClient.open(
        client.store,
        collection=client.collection,
        encoder=HashingEncoder(),
        reranker=WordOverlapReranker(),
    )
    async with opened:
        found = READS[name](opened, options)
        if hasattr(found, "__aiter__"):
            return [one async for one in found]
        return await found


@pytest.mark.slow_over("edge")
@pytest.mark.parametrize("name", READS)
def test_a_tenant_reads_its_own_passages(client: SearchClient, name: str) -> None:
    """And all that there are, by both clients; each read needs a tenant."""
    for tenant in TENANTS:
        found = READS[name](client, {"tenant": tenant})
        found = [*found] if name in ("scroll", "ordered") else found
        assert found == asyncio.run(_by_async(client, name, {"tenant": tenant}))
        if name == "count":
            assert len(PASSAGES) // 2 == found
            continue
        assert found
        assert all(word.startswith(tenant) for word in _words(found))
        if name in ("dense", "rank", "get", "scroll", "ordered", "rank by bm25"):
            assert len(PASSAGES) // 2 == len(found)
    with pytest.raises(UsageError, match=r"by one tenant at a time, .* 'customer': pass tenant="):
        READS[name](client, {})
    with pytest.raises(UsageError, match="tenant must be a non-empty string, got ''"):
        READS[name](client, {"tenant": ""})
    stranger = READS[name](client, {"tenant": "nobody"})
    assert not (stranger if isinstance(stranger, int) else [*stranger])


def test_functions_and_pages_keep_to_the_tenant(client: SearchClient) -> None:
    """Those that open the store themselves; a cursor is of one tenant."""
    place: dict[str, Any] = {"collection": client.collection, "tenant": "acme"}
    own = {one.pid for one in PASSAGES if one.meta["customer"] == "acme"}
    assert len(own) == count_passages(client.store, **place)
    assert own == set(get_passages(client.store, _PIDS, **place))
    assert own == {one.pid for one in list_passages(client.store, limit=100, **place)}
    assert own == {one.pid for one in scroll_passages(client.store, **place)}
    assert {"acme"} == {one.value for one in count_facets(client.store, "customer", **place)}
    first = client.search("castle", limit=4, tenant="acme")
    second = client.search("castle", limit=4, cursor=first.cursor, tenant="acme")
    assert 8 == len({hit.pid for hit in [*first, *second]} & own)
    with pytest.raises(PassageNotFoundError, match="no passage 'beta-1'"):
        client.similar("beta-1", tenant="acme")
    with pytest.raises(UsageError, match="cursor"):
        client.search("castle", limit=4, cursor=first.cursor, tenant="beta")


def test_a_note_shows_no_value_of_another_tenant(
    client: SearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    """An explanation of an empty answer reads passages, too."""
    asked = {"lang": 7}
    with caplog.at_level(logging.WARNING):
        assert [] == client.search("castle", meta_filter=asked, tenant="acme")
        assert 0 == client.count(meta_filter=asked, tenant="acme")
        assert [] == client.facets("year", meta_filter=asked, tenant="acme")
        assert [] == [*client.scroll(meta_filter=asked, tenant="acme")]
    assert "acme-" in caplog.text
    assert "beta" not in caplog.text


def test_a_delete_of_a_tenant_keeps_the_others(client: SearchClient) -> None:
    """By pids and by a filter."""
    new = [Passage("gamma-1", "castle", {"customer": "gamma"}), Passage("gamma-2", "river")]
    new[1].meta["customer"] = "gamma"
    client.upsert(new)
    assert 1 == client.delete([*_PIDS, "gamma-1"], tenant="gamma")
    assert 1 == delete_passages(
        client.store,
        meta_filter={"customer": Not("acme")},
        tenant="gamma",
        collection=client.collection,
    )
    assert len(PASSAGES) // 2 == client.count(tenant="acme") == client.count(tenant="beta")


def test_the_field_is_chosen_and_removed(client: SearchClient) -> None:
    """It has an index of its kind; without it a tenant is refused."""
    store, name = client.store, client.collection
    if store.capabilities.payload_indexes:
        assert "tenant" == list_indexes(store, name)["customer"]
    for field, reason in (("", "name of a field"), ("a.b", "inside of an object")):
        with pytest.raises(UsageError, match=reason):
            set_tenant_field(store, name, field)
    set_tenant_field(store, name, None)
    try:
        assert len(PASSAGES) == count_passages(store, collection=name)
        with pytest.raises(UsageError, match=r"has no tenant field, got the tenant 'acme'"):
            count_passages(store, collection=name, tenant="acme")
    finally:
        set_tenant_field(store, name, "customer")


def test_a_client_that_never_searches_sees_a_new_field_after_a_minute(client: SearchClient) -> None:
    """Counts, facets and scrolls then refuse to read all tenants; asyncio's too."""
    store, name = client.store, client.collection
    set_tenant_field(store, name, None)
    try:
        other = SearchClient(store, name, HashingEncoder())
        assert len(PASSAGES) == other.count()
    finally:
        set_tenant_field(store, name, "customer")
    now = other.session.refresh.clock()
    for read in (other.count, lambda: other.facets("year"), other.scroll):
        now += 61.0
        other.session.refresh.clock = lambda: now  # noqa: B023  # called in this turn
        with pytest.raises(UsageError, match="one tenant at a time"):
            read()
    assert 20 == other.count(tenant="acme")


@pytest.mark.slow_over("edge")
def test_a_pid_of_another_tenant_is_not_replaced(client: SearchClient) -> None:
    """By an upsert and an ingest; its own tenant and one that shares it replace it."""
    mine = Passage("acme-0", "castle", {"customer": "acme"})
    theirs = Passage("acme-0", "stolen", {"customer": "beta"})
    nobody = Passage("acme-0", "stolen", {})
    old = client.get(["acme-0"], tenant="acme")["acme-0"]
    upserted = client.upsert([theirs])
    assert (0, 1) == (upserted.written, upserted.rejected)
    reason = "pid 'acme-0' is of a passage of another tenant by the field 'customer', which is not"
    assert upserted.rejects[0].reason.startswith(reason)
    place: dict[str, Any] = {"collection": client.collection, "encoder": HashingEncoder()}
    report = ingest_passages(
        [nobody, Passage("acme-2", old.text, {"customer": "beta"}), PASSAGES[1]],
        client.store,
        optimize=False,
        **place,
    )
    assert (0, 1, 2) == (report.written, report.unchanged, report.rejected)
    assert {"acme-0": old} == client.get(["acme-0"], tenant="acme")
    shared = Passage("acme-0", "castle", {"customer": ["acme", "beta"]})
    try:
        for passage in (mine, shared):
            assert 1 == client.upsert([passage]).written
        assert {"acme-0": shared} == client.get(["acme-0"], tenant="beta")
        assert 1 == client.upsert([theirs]).written
    finally:
        client.delete(["acme-0"])
        client.upsert([old])


def test_only_strings_are_tenants(client: SearchClient, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could name them; a field that no passage has is reported."""
    store, name = client.store, client.collection
    with pytest.raises(
        UsageError, match=r"a tenant field must be strings, got 20\d\d in the field"
    ):
        set_tenant_field(store, name, "year")
    assert "customer" == store.metadata(name).tenant_field
    try:
        with caplog.at_level(logging.WARNING):
            set_tenant_field(store, name, "owner")
    finally:
        set_tenant_field(store, name, "customer")
    assert "none of the first 40 passages of" in caplog.text
    assert "has the field 'owner'" in caplog.text
