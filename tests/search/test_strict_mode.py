"""V7, V8, V9: collections whose strict mode allows less than Qdrant's defaults."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client import models

from msmarco_qdrant.collection.passages import delete_passages, export_passages, get_passages
from msmarco_qdrant.core.records import Passage, PrunePolicy, Query
from msmarco_qdrant.core.search_types import Fusion, Hit, SearchMode
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.evaluation.ann import sweep_ann
from msmarco_qdrant.filters import Range
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.cli.runner import command
from tests.engines import BY_REST
from tests.loopback import LoopbackServer, Refused
from tests.loopback.conftest import client_of
from tests.search.support import near

COUNT = 60
ROWS = [
    Passage(str(number), f"a city {number}", {"year": number % 6, "n": number})
    for number in range(COUNT)
]
HYBRID_FIRST = [
    "hybrid",
    *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("dense", "bm25")),
]
HOSTED: dict[str, Any] = {
    "unindexed_filtering_retrieve": False,
    "unindexed_filtering_update": False,
}
"""As hosted clusters set it."""


@pytest.fixture
def store(server: LoopbackServer) -> Iterator[Store]:
    """Sixty passages on a server."""
    with closing(open_store(server.url)) as opened:
        ingest_passages(ROWS, opened, encoder=HashingEncoder(), optimize=False)
        yield opened


def restrict(server: LoopbackServer, **settings: Any) -> None:
    """Another client restricts the collections, also after they were opened."""
    client = client_of(server)
    for collection in client.get_collections().collections:
        config = models.StrictModeConfig(enabled=True, **settings)
        client.update_collection(collection.name, strict_mode_config=config)
    client.close()


def open_client(server: LoopbackServer) -> SearchClient:
    """A client that opened the collection after it was restricted."""
    reranker = WordOverlapReranker()
    return SearchClient.open(server.url, encoder=HashingEncoder(), reranker=reranker)


# ---- exact search --------------------------------------------------------------------------


def test_v7_an_ingest_counts_by_an_estimate(
    server: LoopbackServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes through, and says once that the count is not exact."""
    restrict(server, search_allow_exact=False)
    more = [*ROWS, Passage("new", "a town", {})]
    with caplog.at_level(logging.WARNING):
        report = ingest_passages(more, store, encoder=HashingEncoder(), optimize=False)
    assert (1, COUNT) == (report.written, report.unchanged)
    (line,) = caplog.messages
    assert "search_allow_exact is false" in line
    assert not store.collection("msmarco").info().is_exact


@pytest.mark.parametrize("mode", HYBRID_FIRST)
def test_v7_searches_are_approximate(
    server: LoopbackServer, store: Store, mode: SearchMode
) -> None:
    """Also where the engine scores given points, and the best of two rankings."""
    with closing(SearchClient.open(store, encoder=HashingEncoder())) as before:
        expected = before.search("city 7", mode=mode)
        ranked = before.rank("city 7", ["1", "7", "50"], mode=mode)
    restrict(server, search_allow_exact=False)
    with closing(open_client(server)) as client:
        assert near(expected) == client.search("city 7", mode=mode)
        assert near(ranked) == client.rank("city 7", ["1", "7", "50"], mode=mode)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_v7_exact_search_is_refused_in_one_line(server: LoopbackServer) -> None:
    """In Python, on the command line, and in an evaluation that needs it."""
    restrict(server, search_allow_exact=False)
    with closing(open_client(server)) as client:
        with pytest.raises(UsageError, match=r"search_allow_exact is false\): omit exact=True"):
            client.search("city", exact=True)
        with pytest.raises(UsageError, match="search_allow_exact is false"):
            sweep_ann(client, [Query("1", "city")])
    done = command("search", "city", "--store", server.url, "--mode", "bm25", "--exact")
    assert (2, 1) == (done.status, len(done.err.strip().splitlines()))
    assert "omit --exact" in done.err


@pytest.mark.slow
def test_v7_a_reembedding_counts_one_by_one(server: LoopbackServer, store: Store) -> None:
    """Its verification needs exact numbers."""
    restrict(server, search_allow_exact=False)
    other = HashingEncoder(32, salt="other")
    report = reembed_collection(store, encoder=other, load_old=lambda _: HashingEncoder())
    assert (COUNT, COUNT) == (report.copied, report.passages)


# ---- limits --------------------------------------------------------------------------------

LIMITS: dict[str, Any] = {
    "max_query_limit": 8,
    "search_max_hnsw_ef": 16,
    "search_max_oversampling": 1.5,
    "upsert_max_batchsize": 5,
    "search_max_batchsize": 2,
    "filter_max_conditions": 12,
    "condition_max_size": 7,
    "max_timeout": 5,
}


@pytest.mark.slow
@pytest.mark.parametrize("when", ["after", pytest.param("before", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("store")
def test_v8_everything_keeps_to_the_limits(
    server: LoopbackServer, when: str, tmp_path: Path
) -> None:
    """Pages, batches and conditions; whether they were set before the store was opened or since."""
    if when == "after":
        restrict(server, **LIMITS)
    with closing(open_store(server.url)) as again:
        if when == "before":
            again.collection("msmarco").limits()  # type: ignore[attr-defined]
            restrict(server, **LIMITS)
        more = [*ROWS[10:], *(Passage(f"new-{n}", "a town", {}) for n in range(20))]
        policy = PrunePolicy(max_share=1)
        report = ingest_passages(
            more, again, encoder=HashingEncoder(), optimize=False, prune=policy
        )
        assert (20, 10) == (report.written, report.pruned)
        assert 70 == export_passages(again, tmp_path / "out.jsonl")
        pids = [row.pid for row in more]
        assert pids == [*get_passages(again, pids)]
        assert 20 == delete_passages(again, pids[-20:])
        other = HashingEncoder(32, salt="other")
        done = reembed_collection(again, encoder=other, load_old=lambda _: HashingEncoder())
        assert 50 == done.passages


@pytest.mark.parametrize("write", ["payloads", "fields", "replicas"])
def test_v8_every_write_follows_limits_that_were_set_since(
    server: LoopbackServer, store: Store, write: str
) -> None:
    """The server refuses a request made for the former ones."""
    name = "msmarco__0001"
    things, admin, others = store.collection(name), store.admin_collection(name), [2**63]
    seen = things.retrieve([7], ("seq",))[7]["seq"]
    store.request_limits(name)
    restrict(server, upsert_max_batchsize=5)
    words = 'Limit exceeded 7 > 5 for "update limit"'
    refusal = Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{words}. Help: Reduce it.")
    server.faults.inject(refusal, "Points.Delete" if write == "replicas" else "UpdateBatch")
    if write == "payloads":
        things.replace_payloads([7], [{"pid": "7", "seq": seen}])
    elif write == "fields":
        admin.set_payloads_if_seq([7], [{"meta": {}}], [seen])
    else:
        store.replicas(name).delete_unknown(others, above=2.0**62, up_to=2.0**63)
    assert 0 == server.faults.pending


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_v8_rest_keeps_to_the_limits_too(server: LoopbackServer, tmp_path: Path) -> None:
    """Set after the store was opened, so that the server's refusals are understood."""
    with closing(open_store(server.rest_url, connection=BY_REST)) as again:
        assert COUNT == again.collection("msmarco").info().points
        restrict(server, search_allow_exact=False, **LIMITS)
        more = [Passage(f"new-{n}", "a town", {}) for n in range(20)]
        ingest_passages(more, again, encoder=HashingEncoder(), optimize=False)
        assert COUNT + 20 == export_passages(again, tmp_path / "out.jsonl")
        assert 20 == delete_passages(again, [row.pid for row in more])
        with closing(SearchClient.open(again, encoder=HashingEncoder())) as client:
            assert 4 == len(client.search("city", limit=4))


@pytest.mark.parametrize("mode", HYBRID_FIRST)
@pytest.mark.usefixtures("store")
def test_v8_searches_keep_to_the_limits(server: LoopbackServer, mode: SearchMode) -> None:
    """Groups, many queries at once, ranking of many pids, and both clients."""
    restrict(server, **LIMITS)
    with closing(open_client(server)) as client:
        assert 4 == len(client.search("city", mode=mode, limit=4))
        assert client.search("city", mode=mode, limit=2, group_by="year")
        assert [3] * 5 == [
            len(hits) for hits in client.search_many(["city"] * 5, mode=mode, limit=3)
        ]
        ranked = client.rank("city 7", [row.pid for row in ROWS], mode=mode)
        assert COUNT == len(ranked)
        assert [*ranked] == sorted(ranked, key=lambda hit: -hit.score)

    async def search() -> list[Hit]:
        async with await AsyncSearchClient.open(server.url, encoder=HashingEncoder()) as opened:
            return await opened.search("city", mode=mode, limit=4)

    assert 4 == len(asyncio.run(search()))


@pytest.mark.parametrize("mode", HYBRID_FIRST)
@pytest.mark.usefixtures("store")
def test_v8_an_open_client_follows_the_limits(server: LoopbackServer, mode: SearchMode) -> None:
    """They are read again after an error, and the search starts over."""
    with closing(open_client(server)) as client:
        client.search("city", mode=mode)
        restrict(server, **LIMITS)
        assert 4 == len(client.search("city", mode=mode, limit=4))
        restrict(server, max_query_limit=6)
        assert client.search("city", mode=mode, limit=2, group_by="year")
        restrict(server, max_query_limit=4)
        with pytest.raises(UsageError, match="limit must be at most"):
            client.search("city", mode=mode, limit=5)

    async def search() -> list[Hit]:
        restrict(server, max_query_limit=100)
        async with await AsyncSearchClient.open(server.url, encoder=HashingEncoder()) as opened:
            restrict(server, max_query_limit=6)
            return await opened.search("city", mode=mode, limit=3)

    assert 3 == len(asyncio.run(search()))


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.usefixtures("store")
def test_v8_an_open_client_follows_relaxed_limits(server: LoopbackServer, is_async: bool) -> None:
    """A number above the limits as last read is refused only if they are read again."""
    wanted: Any = {"limit": 30, "mode": "hybrid", "exact": True}

    async def search() -> int:
        async with await AsyncSearchClient.open(server.url, encoder=HashingEncoder()) as client:
            with pytest.raises(UsageError, match="forbids exact search"):
                await client.search("city", **wanted)
            restrict(server, search_allow_exact=True, max_query_limit=COUNT)
            return len(await client.search("city", **wanted))

    def search_blocking() -> int:
        with closing(open_client(server)) as client:
            with pytest.raises(UsageError, match="forbids exact search"):
                client.search("city", **wanted)
            restrict(server, search_allow_exact=True, max_query_limit=COUNT)
            return len(client.search("city", **wanted))

    restrict(server, search_allow_exact=False, max_query_limit=8)
    assert 30 == (asyncio.run(search()) if is_async else search_blocking())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 9}, r"limit must be at most 8 .*'msmarco' \(max_query_limit\), got 9"),
        ({"limit": 5, "mode": "hybrid"}, r"limit must be at most 4 .*half of max_query_limit"),
        ({"limit": 2, "rerank_depth": 20}, "rerank_depth must be at most 8"),
        ({"ef": 32}, r"ef must be at most 16 .*search_max_hnsw_ef\), got 32"),
        ({"oversampling": 3.0}, r"oversampling must be at most 1.5 .*, got 3"),
        (
            {"limit": 2, "mode": "hybrid", "fusion": Fusion(depth=50)},
            "fusion depth must be at most 4",
        ),
    ],
)
@pytest.mark.usefixtures("store")
def test_v8_a_callers_own_number_is_refused_with_the_bound(
    server: LoopbackServer, options: dict[str, Any], message: str
) -> None:
    """In one line."""
    restrict(server, **LIMITS)
    with closing(open_client(server)) as client:
        options = {"limit": 4, **options}
        with pytest.raises(UsageError, match=message):
            client.search("city", **options)


@pytest.mark.usefixtures("store")
def test_v8_a_sweep_leaves_out_what_is_not_allowed(
    server: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The default numbers adapt, with a warning; the caller's own are refused."""
    restrict(server, search_max_hnsw_ef=64, search_max_oversampling=4.0)
    with closing(open_client(server)) as client:
        sweep = sweep_ann(client, [Query("1", "city")], k=3)
        assert {16, 32, 64} == {point.ef for point in sweep.points}
        assert any("up to ef=64" in line for line in caplog.messages)
        with pytest.raises(UsageError, match="each ef must be at most 64"):
            sweep_ann(client, [Query("1", "city")], efs=(16, 512))
        restrict(server, search_max_hnsw_ef=512)
        assert sweep_ann(client, [Query("1", "city")], k=3, efs=(16, 512)).points


# ---- filters without an index --------------------------------------------------------------


@pytest.mark.usefixtures("store")
def test_v9_the_error_names_the_command_that_adds_the_index(
    server: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Pasted, it works, and the filter does then; no warning comes first."""
    restrict(server, **HOSTED)
    with closing(open_client(server)) as client:
        with pytest.raises(UsageError, match=r"'meta\.year' without a payload index") as caught:
            client.search("city", meta_filter={"year": Range(gte=3)})
        assert [] == caplog.messages
        advised = str(caught.value).split("`")[1]
        done = command(*shlex.split(advised)[1:])
        assert (0, "no index -> integer") == (
            done.status,
            done.out.split(": ")[1].split(";")[0][:19],
        )
        assert 10 == len(client.search("city", meta_filter={"year": Range(gte=3)}))
    done = command("search", "city", "--filter", "n=3", "--mode", "bm25", "--store", server.url)
    assert "`msmarco-qdrant index add n=integer --collection msmarco --store" in done.err
    filtered = ("--filter", "year=3", "--mode", "bm25", "--store", server.url)
    assert 0 == command("search", "city", *filtered).status


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.usefixtures("store")
def test_v9_a_mode_set_later_is_told_too(server: LoopbackServer, is_async: bool) -> None:
    """A client opened before gets the server's error, with the same command."""
    wanted: Any = {"year": Range(gte=3)}
    command_line = "`msmarco-qdrant index add year=integer --collection msmarco --store "

    async def search() -> None:
        async with await AsyncSearchClient.open(server.url, encoder=HashingEncoder()) as client:
            restrict(server, **HOSTED)
            await client.search("city", meta_filter=wanted)

    def search_blocking() -> None:
        with closing(open_client(server)) as client:
            restrict(server, **HOSTED)
            client.search("city", meta_filter=wanted)

    with pytest.raises(StoreError, match="Index required") as caught:
        asyncio.run(search()) if is_async else search_blocking()
    assert command_line in str(caught.value)


@pytest.mark.slow
def test_v9_our_own_filters_have_their_indexes(server: LoopbackServer, store: Store) -> None:
    """Deletes, prunes, conditional writes, locks and re-embeddings need no other."""
    restrict(server, **HOSTED)
    policy = PrunePolicy(max_share=1)
    report = ingest_passages(
        ROWS[5:], store, encoder=HashingEncoder(), optimize=False, prune=policy
    )
    assert 5 == report.pruned
    assert 1 == delete_passages(store, ["7"])
    other = HashingEncoder(32, salt="other")
    done = reembed_collection(store, encoder=other, load_old=lambda _: HashingEncoder())
    assert 54 == done.passages
    restrict(server, **HOSTED)  # the new collection and that of the locks
    assert (
        54 == reembed_collection(store, encoder=HashingEncoder(), load_old=lambda _: other).passages
    )
