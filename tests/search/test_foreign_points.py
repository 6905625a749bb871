"""V5: points that are not passages are left out of every answer, and said so once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.core.search_types import Fusion, Hit, SearchMode
from msmarco_qdrant.errors import IngestStoppedError, PassageNotFoundError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.engines import new_store

FOREIGN: list[dict[str, Any]] = [
    {},
    {"title": "of the dashboard"},
    {"pid": 3, "text": "city", "meta": {}},
    {"pid": "3", "meta": {}},
    {"pid": "other", "text": "city", "meta": {}},
    {"pid": "5", "text": "city"},
]
SLOW = [pytest.param(engine, marks=pytest.mark.slow) for engine in ("loopback", "edge")]
PIDS = [str(number) for number in range(20)]
MODES: list[SearchMode] = ["dense", "bm25", "hybrid"]


@pytest.fixture(params=["memory", *SLOW])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Twenty passages about one city, whose first six lost parts of their payloads."""
    with new_store(request.param, tmp_path) as opened:
        ingest(opened)
        opened.collection("msmarco").replace_payloads(range(len(FOREIGN)), FOREIGN)
        yield opened


def ingest(store: Store, **options: Any) -> Any:
    """Ingest the passages."""
    rows = [Passage(pid, "a city " * (20 - int(pid)), {"n": int(pid) % 4}) for pid in PIDS]
    return ingest_passages(rows, store, encoder=HashingEncoder(), optimize=False, **options)


def client_of(store: Store) -> SearchClient:
    """A client with a reranker."""
    return SearchClient.open(store, encoder=HashingEncoder(), reranker=WordOverlapReranker())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options", [{}, {"rerank_depth": 8}, {"group_by": "n"}, {"meta_filter": {"n": [0, 1, 2, 3]}}]
)
def test_v5_searches_leave_them_out(
    store: Store, mode: SearchMode, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As many others are found instead, and one warning names the command that lists them."""
    limit = 4
    client = client_of(store)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            hits = client.search("city", mode=mode, limit=limit, **options)
    assert limit == len(hits)
    assert {hit.pid for hit in hits} <= set(PIDS[len(FOREIGN) :])
    assert [1, 2, 3, 4] == [hit.rank for hit in hits]
    told = [line for line in caplog.messages if "not passages" in line]
    assert len(told) <= 1
    if told:
        assert "`msmarco-qdrant check msmarco --store " in told[0]
        assert client.session.foreign_points > 0


def test_pages_of_diverse_hits_fit_together_beside_them(tmp_path: Path) -> None:
    """Also if the first page shows none of them: they are candidates of it, too."""
    with new_store("edge", tmp_path) as store:
        rows = [Passage(str(n), "town " * 10 + "river " * n, {}) for n in range(120)]
        ingest_passages(rows, store, encoder=HashingEncoder(), optimize=False)
        foreign = range(90, 96)
        store.collection("msmarco").replace_payloads([*foreign], [{}] * len(foreign))
        client = client_of(store)
        pages = [client.search("town", limit=5, offset=n, diversity=0.8) for n in range(0, 100, 5)]
        found = [hit.pid for page in pages for hit in page]
        assert 100 == len(found) == len({*found})
        whole = client_of(store).search("town", limit=100, offset=0, diversity=0.8)
        assert found == [hit.pid for hit in whole]


@pytest.mark.parametrize("mode", MODES)
def test_v5_a_large_limit_gives_all_others(store: Store, mode: SearchMode) -> None:
    """And the clients agree: asyncio's, and the ranking of given pids."""
    hits = client_of(store).search("city", mode=mode, limit=20)
    assert set(PIDS[len(FOREIGN) :]) == {hit.pid for hit in hits}
    ranked = client_of(store).rank("city", PIDS, mode=mode)
    assert {hit.pid for hit in hits} == {hit.pid for hit in ranked}

    async def search() -> tuple[list[Hit], int]:
        async with await AsyncSearchClient.open(store, encoder=HashingEncoder()) as client:
            return await client.search("city", mode=mode, limit=20), client.foreign_points

    found, left_out = asyncio.run(search())
    assert hits == found
    assert left_out >= len(FOREIGN)


def test_they_are_not_examples(store: Store) -> None:
    """A search by a point that is not a passage is refused, alone and among others."""
    client = client_of(store)
    for pid in ("0", "1", "2", "4"):
        for positive in ([pid], ["7", pid]):
            with pytest.raises(PassageNotFoundError, match=f"no passage '{pid}' in collection"):
                client.similar(positive=positive)
    assert {*PIDS[len(FOREIGN) :]} - {"7"} == {hit.pid for hit in client.similar("7", limit=20)}


@pytest.mark.parametrize("engine", ["memory", *SLOW])
def test_pages_of_diverse_hits_leave_them_out(engine: str, tmp_path: Path) -> None:
    """No hit is repeated after a page in whose place the engine has such a point."""
    rows = [Passage(str(n), "castle " * (30 - n) + f"w{n} x{n}") for n in range(30)]
    with new_store(engine, tmp_path) as store:
        ingest_passages(rows, store, encoder=HashingEncoder(), optimize=False)
        store.collection("msmarco").replace_payloads([0, 3], [{}, {}])
        client = client_of(store)
        pages = [
            hit.pid
            for offset in range(0, 12, 3)
            for hit in client.search("castle", limit=3, offset=offset, diversity=0.3)
        ]
        assert [hit.pid for hit in client.search("castle", limit=12, diversity=0.3)] == pages
        assert not {"0", "3"} & {*pages}


def test_a_fusion_over_collections_leaves_them_out(tmp_path: Path) -> None:
    """Also if they are most of the best points."""
    rows = [Passage(str(n), "a city " * (1 if n else 2)) for n in range(600)]
    with new_store("memory", tmp_path) as store:
        ingest_passages(rows, store, encoder=HashingEncoder(), optimize=False)
        store.collection("msmarco").replace_payloads(range(599), [{}] * 599)
        options: dict[str, Any] = {"mode": "hybrid", "limit": 1, "fusion": Fusion(depth=1)}
        found = client_of(store).search("city", collections=["msmarco"], **options)
        assert ["599"] == [hit.pid for hit in found]


def test_v5_an_ingest_writes_what_lost_its_pid_again(store: Store) -> None:
    """A point with another pid is refused until it is removed; one without its pid is healed."""
    with pytest.raises(IngestStoppedError, match="the point of pid '4' has pid 'other'"):
        ingest(store)
    store.collection("msmarco").replace_payloads([4], [{}])
    report = ingest(store)
    assert (6, 14) == (report.written, report.unchanged)
    assert set(PIDS) == {hit.pid for hit in client_of(store).search("city", limit=20)}


def test_v5_a_point_that_lost_its_seq_is_written_again(tmp_path: Path) -> None:
    """Without one it could be neither deleted nor pruned."""
    with new_store("memory", tmp_path) as store:
        ingest(store)
        things = store.collection("msmarco")
        fields = ("pid", "text", "meta", "text_digest", "meta_digest")
        things.replace_payloads([7], [things.retrieve([7], fields)[7]])
        assert 1 == ingest(store).written


def test_v5_a_prune_leaves_them(store: Store) -> None:
    """Only passages are removed."""
    rows = [Passage(pid, "a city " * (20 - int(pid)), {"n": int(pid) % 4}) for pid in PIDS[8:]]
    report = ingest_passages(
        rows, store, encoder=HashingEncoder(), optimize=False, prune=PrunePolicy(max_share=1)
    )
    assert 2 == report.pruned
    assert 18 == store.collection("msmarco").info().points


def test_v5_a_reembedding_copies_the_others(store: Store) -> None:
    """Passages come over, foreign points do not."""
    other = HashingEncoder(32, salt="other")
    report = reembed_collection(store, encoder=other, load_old=lambda _: HashingEncoder())
    assert (14, 14) == (report.copied, report.passages)
