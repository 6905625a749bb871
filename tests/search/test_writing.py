"""Writes of both clients: upsert, delete, get and count, beside their searches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant import AsyncSearchClient, Passage, SearchClient, UpsertReport
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.indexing import IndexingSettings
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.search.writer import PassageWriter
from msmarco_qdrant.stores import Store, open_async_collection, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import ENGINES, new_store
from tests.search.support import Gate, run

pytestmark = pytest.mark.timeout(120)

_FIRST = [Passage("1", "london is a big city"), Passage("2", "paris is in france", {"year": 2001})]
_ENCODER = HashingEncoder()


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of two passages, of each engine in turn."""
    with new_store(request.param, tmp_path) as opened:
        ingest_passages(_FIRST, opened, encoder=_ENCODER, optimize=False)
        yield opened


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    """An embedded store of two passages."""
    ingest_passages(_FIRST, tmp_path / "store", encoder=_ENCODER, optimize=False)
    return tmp_path / "store"


def test_what_a_client_writes_it_finds(store: Store) -> None:
    """On every engine: new, changed, unchanged and deleted passages."""
    with SearchClient.open(store, encoder=_ENCODER) as client:
        report = client.upsert(
            [Passage("3", "zebras graze"), Passage("1", "london is old"), *_FIRST[1:]]
        )
        assert UpsertReport(written=2, unchanged=1) == report
        assert "3" == client.search("zebras", limit=1)[0].pid
        assert {"1": Passage("1", "london is old"), "2": _FIRST[1]} == client.get(["1", "9", "2"])
        assert 3 == client.count()
        assert 1 == client.delete(["1", "9"])
        assert (2, {}) == (client.count(), client.get(["1"]))


def test_the_asyncio_client_writes_the_same(store: Store) -> None:
    """Its methods are those of the blocking client."""

    async def write() -> None:
        async with await AsyncSearchClient.open(store, encoder=_ENCODER) as client:
            report = await client.upsert({"pid": pid, "text": "zebras"} for pid in (3, 4))
            assert UpsertReport(written=2) == report
            assert {"3", "4"} == {hit.pid for hit in await client.search("zebras", limit=2)}
            assert 4 == await client.count()
            assert 2 == await client.delete(["3", "4"])
            assert {"1": _FIRST[0]} == await client.get(["1", "3"])

    run(write)


def test_passages_are_counted_and_deleted_by_a_filter(store: Store) -> None:
    """By both clients, on every engine; both a filter and pids, or none, are refused."""

    async def delete() -> None:
        async with await AsyncSearchClient.open(store, encoder=_ENCODER) as client:
            assert 1 == await client.count(meta_filter={"year": 2001})
            assert 1 == await client.delete(meta_filter={"year": 2001})

    with SearchClient.open(store, encoder=_ENCODER) as client:
        client.upsert([Passage("3", "zebras", {"year": 2002}), Passage("4", "lions", {"year": 3})])
        assert (1, 4) == (client.count(meta_filter={"year": 2002}), client.count())
        assert 1 == client.delete(meta_filter={"year": 2002})
        run(delete)
        assert ["1", "4"] == [*client.get(["1", "2", "3", "4"])]
        for arguments in ({}, {"pids": ["1"], "meta_filter": {"year": 3}}):
            with pytest.raises(UsageError):
                client.delete(**arguments)  # type: ignore[arg-type]


def test_rejects_and_repeated_pids_are_reported(
    edge: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A reject has its row and reason, in the report and in the log; the last of a pid counts."""
    rows: list[Any] = [("7", "first"), ("8", " "), ("7", "second"), ("9", "!?"), {"text": "no id"}]
    with SearchClient.open(edge, encoder=_ENCODER) as client, caplog.at_level(logging.WARNING):
        report = client.upsert(rows)
        assert (1, 0, 1, 3) == (
            report.written,
            report.unchanged,
            report.superseded,
            report.rejected,
        )
        assert [2, 4, 5] == [reject.line for reject in report.rejects]
        assert "the text is empty" == report.rejects[0].reason
        assert "second" == client.get(["7"])["7"].text
    assert "1 written, 0 unchanged, 1 superseded, 3 rejected (the first: row 2: " in str(report)
    assert "'msmarco': 3 of 5 rows rejected; the first: row 2: the text is empty" in caplog.text


@pytest.mark.parametrize("passages", [Passage("1", "x"), {"pid": "1", "text": "x"}, "x.tsv", 3])
def test_one_passage_is_not_a_list(edge: Path, passages: Any) -> None:
    """Nor is a path: an upsert takes passages."""
    with (
        SearchClient.open(edge, encoder=_ENCODER) as client,
        pytest.raises(UsageError, match="passages must be"),
    ):
        client.upsert(passages)


def test_a_client_without_a_model_cannot_write(edge: Path) -> None:
    """Nor can a closed one."""
    with (
        SearchClient.open(edge, bm25_only=True) as client,
        pytest.raises(UsageError, match="opened with bm25_only"),
    ):
        client.upsert([("3", "zebras")])
    for write in (lambda: client.upsert([("3", "x")]), lambda: client.delete(["1"]), client.count):
        with pytest.raises(StoreError, match="closed"):
            write()


# ---- many at once ------------------------------------------------------------------------------


class CountingWriter:
    """Counts the batches of a writer, and holds them at a gate."""

    def __init__(self, writer: PassageWriter) -> None:
        self.gate = Gate()
        self.batches: list[int] = []
        self._upsert = writer.upsert
        writer.upsert = self.upsert  # type: ignore[method-assign]

    def upsert(self, rows: Any) -> Any:
        """Write a batch."""
        self.batches.append(len(rows))
        self.gate.pass_through()
        return self._upsert(rows)


async def open_counted(path: Path) -> tuple[AsyncSearchClient, CountingWriter]:
    """A client whose writes are counted; it closes its store."""
    blocking = SearchClient(open_store(path), "msmarco", _ENCODER, owns_store=True)
    counting = CountingWriter(blocking.writer)

    return AsyncSearchClient(blocking, open_async_collection(blocking.store, "msmarco")), counting


def test_32_tasks_write_beside_32_that_search(edge: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All are written once, in few batches, and no index is built."""

    async def work() -> list[int]:
        client, counting = await open_counted(edge)
        async with client:
            searches = [client.search("a big city", limit=3) for _ in range(32)]
            upserts = [client.upsert([(f"new-{n}", f"zebra {n}")]) for n in range(32)]
            reports = await asyncio.gather(*upserts, *searches)
            assert [UpsertReport(written=1)] * 32 == reports[:32]
            assert 34 == await client.count()
            assert 1 == await client.delete(["new-7"])
            assert UpsertReport(unchanged=1) == await client.upsert([("new-8", "zebra 8")])
        return counting.batches

    batches = run(work)
    assert 33 == sum(batches)
    assert 16 > len(batches)
    assert "" == caplog.text
    with closing(open_store(edge)) as reopened:
        info = reopened.collection("msmarco").info()
        assert 33 == info.points
        assert 33 == info.indexed  # the sparse vectors alone: no index was built


def test_a_cancelled_upsert_that_waits_writes_nothing(edge: Path) -> None:
    """The one before it, which is being written, is; the event loop is never blocked."""

    async def work() -> None:
        client, counting = await open_counted(edge)
        async with client:
            counting.gate.shut()
            first = asyncio.create_task(client.upsert([("a", "zebras")]))
            await counting.gate.reached()
            second = asyncio.create_task(client.upsert([("b", "zebras")]))
            while not client._upsert._waiting:
                await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert await client.search("city")  # while the write is held
            counting.gate.open()
            assert UpsertReport(written=1) == await first
            assert ["a"] == [*await client.get(["a", "b"])]

    run(work)


def test_one_bad_call_does_not_fail_the_others(edge: Path) -> None:
    """Merged calls get their own results: here, one has a row that is rejected."""

    async def work() -> None:
        async with await AsyncSearchClient.open(edge, encoder=_ENCODER) as client:
            good, bad = await asyncio.gather(
                client.upsert([("a", "zebras")]), client.upsert([("b", "")])
            )
        assert UpsertReport(written=1) == good
        assert (0, 1, 1) == (bad.written, bad.rejected, bad.rejects[0].line)

    run(work)


# ---- indexes and models ------------------------------------------------------------------------


@pytest.mark.slow
def test_an_index_is_built_after_so_many_passages(edge: Path) -> None:
    """Not by each call, and not by unchanged passages."""
    settings = IndexingSettings(every=50, latest=100, segment=200, least=25)
    with SearchClient.open(edge, encoder=_ENCODER) as client:
        client.writer = PassageWriter(client.session, client.store, "msmarco", settings)
        collection = client.store.collection("msmarco")

        def unindexed() -> int:
            info = collection.info()
            return 2 * info.points - info.indexed

        rows = [(f"p{n}", f"zebra {n}") for n in range(48)]
        client.upsert(rows[:47])
        assert 49 == unindexed()
        client.upsert(rows[:47])
        assert 49 == unindexed()
        client.upsert(rows[47:])
        assert 0 == unindexed()


def test_a_write_after_a_reembedding_uses_the_new_model(edge: Path) -> None:
    """The client loads it, as for a search, and the passage is found."""
    new = HashingEncoder(salt="new")

    def load(info: EncoderInfo) -> Encoder:
        assert new.info.fingerprint == info.fingerprint
        return new

    with SearchClient.open(edge, encoder=_ENCODER, load_encoder=load) as client:
        reembed_collection(edge, encoder=new, load_old=lambda _info: _ENCODER)
        assert UpsertReport(written=1) == client.upsert([("3", "zebras graze")])
        assert client.encoder is new
        assert "3" == client.search("zebras", limit=1)[0].pid
        assert 3 == client.count()
