"""A shard key: each tenant has shards of its own, and a pid is in those of one tenant only.

The loopback server refuses a write without a key, and one that would put an id into two shards.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant import AsyncSearchClient, SearchClient
from msmarco_qdrant.cli.output import print_description
from msmarco_qdrant.collection.backup import backup_collection
from msmarco_qdrant.collection.delete import delete_pids
from msmarco_qdrant.collection.describe import describe_store
from msmarco_qdrant.collection.passages import get_passages
from msmarco_qdrant.collection.restore import restore_collection
from msmarco_qdrant.core.collection_types import SparseVector
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import SchemaError, StoreError, UnsupportedError, UsageError
from msmarco_qdrant.filters import All, Not
from msmarco_qdrant.filters import Any as EitherOf
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.stores import Connection, Store, open_store
from msmarco_qdrant.stores.alias import open_async_collection
from msmarco_qdrant.stores.filters import to_qdrant
from msmarco_qdrant.stores.server.shard_keys import wanted_values
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import BY_REST, new_store
from tests.loopback import LoopbackServer, access
from tests.loopback.sharding import KeyedShards

ENCODER = HashingEncoder()
PASSAGES = [
    Passage("a1", "rivers of the north", {"customer": "a"}),
    Passage("b1", "rivers of the south", {"customer": "b"}),
    Passage("a2", "hills", {"customer": ["a"]}),
]


def ingest(store: Store | str | Path, rows: Sequence[Passage] = PASSAGES, **options: Any) -> Any:
    """Ingest with the key, and without an index."""
    options = {"sharding": {"shard_key": "customer"}, "encoder": ENCODER, **options}
    return ingest_passages(rows, store, optimize=False, **options)


def _all_points(store: Store) -> tuple[list[Any], list[dict[str, Any]]]:
    """The ids and the payloads, in the order of ids."""
    found = dict(store.collection("msmarco").scan(("text", "seq")))
    return [*found], [*found.values()]


def _count(texts: Iterable[str]) -> dict[str, int]:
    """The texts that are there twice or more."""
    return {text: count for text, count in Counter(texts).items() if count > 1}


@pytest.fixture(params=["loopback", "rest"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A server with three passages of two tenants."""
    with new_store(request.param, tmp_path) as opened:
        assert 3 == ingest(opened).written
        yield opened


def pids(store: Store, tenant: str, query: str = "rivers") -> list[str]:
    """The pids that a tenant finds."""
    with SearchClient(store, "msmarco", ENCODER) as client:
        return sorted(hit.pid for hit in client.search(query, tenant=tenant))


def test_a_tenant_finds_its_own_passages(store: Store) -> None:
    """By vectors; the field is the tenant field, and cannot be another one."""
    assert ["a1", "a2"] == pids(store, "a")
    assert ["b1"] == pids(store, "b")
    assert [] == pids(store, "c")
    with pytest.raises(UsageError, match="one tenant at a time"):
        SearchClient(store, "msmarco", ENCODER).search("rivers")
    for field in ("lang", None):
        with pytest.raises(UsageError, match="must be its shard key 'customer', got"):
            set_tenant_field(store, "msmarco", field)
    set_tenant_field(store, "msmarco", "customer")


def test_a_passage_is_changed_moved_and_deleted(store: Store) -> None:
    """It moves to another tenant after it was deleted; before, it is rejected."""
    changed = [
        Passage("a1", "rivers of the north", {"customer": "a", "new": 1}),
        Passage("b1", "seas", {"customer": "b"}),
        Passage("a2", "hills", {"customer": "c"}),
    ]
    rejects: list[str] = []
    report = ingest(store, changed, on_reject=lambda reject: rejects.append(reject.reason))
    assert (2, 1, 1) == (report.written, report.encoded, report.rejected)
    assert "of another tenant" in rejects[0]
    (found,) = get_passages(store, ["a1"], tenant="a").values()
    assert {"customer": "a", "new": 1} == found.meta
    assert 1 == delete_pids(store, "msmarco", ["a2"])
    assert 1 == ingest(store, changed[2:]).written
    assert (["a1"], ["a2"]) == (pids(store, "a"), pids(store, "c"))
    assert 3 == ingest(store, changed).unchanged


def test_a_passage_without_one_key_is_rejected(store: Store) -> None:
    """With the value; the rest is written."""
    values: list[Any] = [None, "", 7, [], ["a", "b"], {"x": "a"}]
    rows = [Passage(f"n{at}", "text", {"customer": value}) for at, value in enumerate(values)]
    rejects: list[str] = []
    rows += [Passage("n", "text"), Passage("b2", "hills", {"customer": "b"})]
    report = ingest(store, rows, on_reject=lambda reject: rejects.append(reject.reason))
    assert (1, 7) == (report.written, report.rejected)
    reason = "the field 'customer' must be one non-empty string, which chooses the shard, got "
    assert [reason + repr(value) for value in values] + [reason + "none"] == rejects


def test_it_is_kept(store: Store, tmp_path: Path) -> None:
    """By an ingest without it, a re-embedding, and a backup that is restored."""
    ingest(store, sharding=None)
    reembed_collection(store, encoder=HashingEncoder(dimension=128))
    backup_collection(store, "msmarco", tmp_path / "saved")
    restore_collection(store, tmp_path / "saved", name="copy")
    for name in ("msmarco", "copy"):
        spec = store.collection(name).spec()
        assert spec.sharding is not None
        assert "customer" == spec.sharding.shard_key
        assert "customer" == store.metadata(name).tenant_field
        assert "tenant" == spec.payload_indexes["meta.customer"]
        assert 3 == store.collection(name).info().points


def test_info_shows_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Among the settings of the collection."""
    print_description(describe_store(store))
    assert ", shard key: customer\n" in capsys.readouterr().out


def test_points_are_changed_wherever_they_are(store: Store) -> None:
    """By their ids and `seq`; a repeated write and an unknown id change nothing."""
    admin = store.admin_collection("msmarco")
    (ids, payloads), new = _all_points(store), SparseVector([7], [1.0])
    seqs = [payload["seq"] for payload in payloads]
    admin.replace_sparse(ids, [new] * 3, up_to_seq=max(seqs))
    assert dict.fromkeys(ids, new) == admin.sparse_vectors(ids)
    with pytest.raises(StoreError):
        admin.replace_sparse([99], [new], up_to_seq=max(seqs))
    admin.set_payloads_if_seq(ids, [{"text": "changed"}] * 3, [seqs[0], 0, seqs[2]])
    assert {"changed": 2} == _count(payload["text"] for payload in _all_points(store)[1])
    (whole,) = admin.scan_points()
    admin.upsert_if_seq(whole, [0, *(payload["seq"] for payload in whole.payloads[1:])])
    admin.delete_if_seq(ids, [seqs[0], 0, seqs[2]])
    assert [ids[1]] == _all_points(store)[0]
    admin.upsert_if_seq(whole, [None] * 3)
    replicas = store.replicas("msmarco")
    replicas.delete_older_writes(ids[:1], [seqs[0] + 9999], up_to_seq=max(seqs) + 9999)
    replicas.delete_unknown(ids[1:2], above=float("-inf"), up_to=float(max(seqs) + 9999))
    assert [ids[1]] == _all_points(store)[0]


def test_a_write_of_conditions_needs_no_shard(tmp_path: Path) -> None:
    """A collection without a passage has none; nothing is sent."""
    with new_store("loopback", tmp_path) as opened:
        ingest(opened, [])
        collection = opened.collection("msmarco")
        collection.delete([1], up_to_seq=1)
        opened.admin_collection("msmarco").set_payloads_if_seq([1], [{"text": ""}], [1])
        assert 0 == collection.info().points
        with pytest.raises(SchemaError, match="needs one string in the field 'customer'"):
            collection.replace_payloads([1], [{"pid": "1"}])


def test_a_key_that_another_client_creates_first_is_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did not exist when it was looked up; the server's refusal is that of the second."""
    create = KeyedShards.create

    def create_twice(shards: KeyedShards, key: str, collection: str) -> None:
        create(shards, key, collection)
        create(shards, key, collection)

    monkeypatch.setattr(KeyedShards, "create", create_twice)
    assert 1 == ingest(store, [Passage("n1", "rivers", {"customer": "new"})]).written
    assert ["n1"] == pids(store, "new")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"customer": "a"}, {"a"}),
        ({"lang": "de", "customer": ["a", "b"]}, {"a", "b"}),
        (All([{"lang": "de"}, All([{"customer": "a"}])]), {"a"}),
        ({"lang": "de"}, None),
        (Not({"customer": "a"}), None),
        (EitherOf([{"customer": "a"}, {"lang": "de"}]), None),
        ({"customer": 5}, None),
    ],
)
def test_values_that_a_filter_demands(given: Any, wanted: set[str] | None) -> None:
    """One of them must be in the field; None for a filter that others match, too."""
    assert wanted == wanted_values(to_qdrant(given), "customer")


def test_it_cannot_be_changed(store: Store) -> None:
    """Nothing is written."""
    with pytest.raises(UsageError, match="shard_key must be the customer of collection 'msmarco'"):
        ingest(store, sharding={"shard_key": "lang"})
    ingest(store, collection="plain", sharding=None)
    with pytest.raises(UsageError, match="shard_key must be absent, as in collection 'plain'"):
        ingest(store, collection="plain")


def test_a_search_asks_the_shards_of_its_tenant_only() -> None:
    """Also from an event loop, and in a client that was opened before the tenant existed."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ingest(store)

        with closing(open_store(server.url)) as reader:

            async def search(tenant: str) -> list[str]:
                sync = SearchClient(reader, "msmarco", ENCODER)
                opened = open_async_collection(reader, "msmarco")
                async with AsyncSearchClient(sync, opened) as client:
                    return sorted(hit.pid for hit in await client.search("rivers", tenant=tenant))

            for tenant in ("a", "new"):
                ingest(server.url, [Passage("x", "rivers", {"customer": "new"})])
                server.requests.clear()
                assert pids(reader, tenant) == asyncio.run(search(tenant))
                sent = [
                    one for batch in server.requests.of("QueryBatch") for one in batch.query_points
                ]
                keys = [[key.keyword for key in one.shard_key_selector.shard_keys] for one in sent]
                assert [[tenant]] * 2 == keys


def test_a_key_that_another_client_dropped_is_not_asked() -> None:
    """The search is repeated with the shards that exist."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ingest(store)
        assert ["b1"] == pids(store, "b")
        engine: Any = server._engine
        engine.shelves["msmarco__0001"].keyed.keys.remove("b")
        assert ["b1"] == pids(store, "b")  # the loopback server keeps the points themselves


def test_indexes_are_kept_for_shards_that_do_not_exist_yet() -> None:
    """Qdrant 1.16 fails after it has recorded them, and shows none until the first shard."""
    with LoopbackServer(version="1.16.3") as server, closing(open_store(server.url)) as store:
        ingest(store, [])
        assert {} == store.collection("msmarco").spec().payload_indexes
        assert 3 == ingest(store, payload_indexes={"lang": "keyword"}).written
        indexes = store.collection("msmarco").spec().payload_indexes
        assert ("tenant", "keyword") == (indexes["meta.customer"], indexes["meta.lang"])
        assert ["a1", "a2"] == pids(store, "a")


def test_a_key_without_the_right_to_see_shards_searches_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The hits are the same; one warning says why it takes longer."""
    reads = access._COLLECTION_READS - {"Collections.CollectionClusterInfo"}
    monkeypatch.setattr(access, "_COLLECTION_READS", reads)
    rights: Any = {"msmarco": "r", "msmarco__0001": "r"}
    with LoopbackServer("key", tokens={"reader": rights}) as server:
        ingest(server.url, connection=Connection(api_key="key"))
        with closing(open_store(server.url, connection=Connection(api_key="reader"))) as reader:

            async def search() -> list[str]:
                opened = open_async_collection(reader, "msmarco")
                async with AsyncSearchClient(SearchClient(reader, "msmarco", ENCODER), opened) as c:
                    return sorted(hit.pid for hit in await c.search("rivers", tenant="a"))

            assert ["a1", "a2"] == pids(reader, "a") == asyncio.run(search())
            assert ["b1"] == pids(reader, "b")
    assert 1 == caplog.text.count("So each search asks the shards of every tenant")


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        (
            {"sharding": {"shard_key": ""}},
            UsageError,
            "must be the name of a field of meta, got ''",
        ),
        ({"sharding": {"shard_key": 5}}, UsageError, "shard_key of sharding must be a"),
        ({"sharding": {"shard_key": "a.b"}}, UsageError, "must not be inside of an object"),
        ({"payload_indexes": {"customer": "integer"}}, UsageError, "of kind tenant, got integer"),
        ({}, UnsupportedError, "needs a Qdrant server for shards and replicas"),
    ],
)
def test_invalid_settings_are_refused(
    options: dict[str, Any], error: type[Exception], reason: str, tmp_path: Path
) -> None:
    """Before a model is loaded; nothing is created."""
    with pytest.raises(error, match=reason):
        ingest(tmp_path / "new", encoder=None, model="no-such-model", **options)
    assert not (tmp_path / "new").exists()


def test_rest_is_used() -> None:
    """The store of these tests calls by REST where it is to."""
    with LoopbackServer(serve_grpc=False) as server:
        with closing(open_store(server.rest_url, connection=BY_REST)) as store:
            ingest(store)
        assert 2 == server.requests.count("CreateShardKey")
