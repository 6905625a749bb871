"""Queries to ranked passages, from an event loop: over Edge, in memory, and over a server."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import grpc  # type: ignore[import-untyped]
import pytest

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Fusion, Hit, PointQuery, ScoredPoint
from msmarco_qdrant.errors import (
    EncodingError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Collection, Connection, Store, open_store
from msmarco_qdrant.stores.connection import parse_address
from msmarco_qdrant.stores.server.async_collection import AsyncServerCollection
from msmarco_qdrant.stores.server.limits import StoredLimits
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.loopback import Cut, Fault, LoopbackServer, LostAnswer, Refused, Slow
from tests.search.support import Gate, in_loop, near, refused, run, threads, turn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

pytestmark = pytest.mark.timeout(120)

_P = ParamSpec("_P")
_T = TypeVar("_T")
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
# No two of these score alike for a query with "is" or "a" in it, and every one scores: the last
# bit of a sum differs from call to call in qdrant-client's local mode, so ties would not stand.
_PASSAGES = (
    Passage("1", "london is a big city", {"lang": "en", "year": 2001, "score": 1.5}),
    Passage("2", "paris is a city in france", {"lang": "fr", "year": 2002, "live": True}),
    Passage("007", "a spy is rich and lonely alas", {"lang": "en", "tags": ["film", "book"]}),
    Passage(
        "b6c0e8a2-0d7e-4f43-b4d2-7d2f1a8f1d2c", "berlin is a green city in germany on the spree"
    ),
    Passage("18446744073709551616", "what is a number beyond 64 bits and a string to boot"),
)
_CITY, _SPY = "is a city", "is a spy"
_QUERIES = (
    "is there a city in france",
    "who is a spy",
    "is a number big",
    "is berlin a city or london",
    "what is a string",
)


# ---- encoders and stores that can be held --------------------------------------------------


class GatedEncoder(HashingEncoder):
    """The costless encoder behind a gate, which refuses what has no vector, as a model does.

    Attributes:
        gate: Every forward pass goes through it.
        passes: The queries of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.passes: list[list[str]] = []

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries in one pass."""
        import numpy as np

        self.passes.append([*queries])
        self.gate.pass_through()
        vectors = super().encode_queries(queries)
        if (bad := np.flatnonzero(np.isnan(vectors).any(axis=1))).size:
            raise EncodingError(f"no vector for the query {queries[int(bad[0])]!r}")
        return vectors


class GatedReranker(WordOverlapReranker):
    """A reranker behind a gate.

    Attributes:
        gate: Every call goes through it.
        sizes: The number of pairs of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.sizes: list[int] = []

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Score pairs in one call."""
        self.sizes.append(len(pairs))
        self.gate.pass_through()
        return super().scores(pairs)


class SlowToDescribe(HashingEncoder):
    """An encoder that holds whoever opens a client with it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    @property
    def info(self) -> EncoderInfo:
        """The card, behind the gate."""
        self.gate.pass_through()
        return super().info


class GatedCollection:
    """A collection whose queries go through a gate."""

    def __init__(self, collection: Collection, gate: Gate) -> None:
        self._collection = collection
        self._gate = gate

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        self._gate.pass_through()
        return self._collection.query(queries)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)


class GatedStore:
    """A store whose collections are gated, and otherwise the store that it stands for."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def collection(self, name: str) -> GatedCollection:
        """The collection behind a name, behind the gate."""
        return GatedCollection(self._store.collection(name), self._gate)


@dataclass
class Place:
    """A store with the five passages, and how to search in it.

    Attributes:
        store: A handle on it.
        dsn: What it is opened by, if it can be opened twice.
        server: The server that it is on, if it is on one.
    """

    store: Store
    dsn: str | Path | None = None
    server: LoopbackServer | None = None
    _gate: Gate = field(default_factory=Gate)

    async def open(self, encoder: HashingEncoder | None = None) -> AsyncSearchClient:
        """A client over the open store, whose queries can be held."""
        store = self.store if self.server else cast(Store, GatedStore(self.store, self._gate))
        return await AsyncSearchClient.open(
            store, encoder=encoder or HashingEncoder(), reranker=WordOverlapReranker()
        )

    def sync(self) -> SearchClient:
        """The sync client over the open store."""
        return SearchClient.open(self.store, encoder=GatedEncoder(), reranker=WordOverlapReranker())

    def expected(self, query: str) -> Any:
        """What the sync client answers."""
        return near(self.sync().search(query))

    @contextmanager
    def queries_held(self) -> Iterator[None]:
        """Answer no query meanwhile."""
        if self.server is not None:
            self.server.requests.clear()
            with self.server.inspect():
                yield
            return
        self._gate.shut()
        try:
            yield
        finally:
            self._gate.open()

    async def query_held(self) -> None:
        """Wait until a query is held."""
        if self.server is None:
            await self._gate.reached()
        else:
            await asyncio.to_thread(self.server.requests.wait_for, "QueryBatch")


@pytest.fixture(scope="module", params=["edge", "memory", "loopback"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A filled store of each engine in turn, for all tests of this module."""
    with open_place(request.param, tmp_path_factory.mktemp("async")) as made:
        yield made


@pytest.fixture(params=["edge", "loopback"])
def own_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A filled store for a test that closes it."""
    with open_place(request.param, tmp_path) as made:
        yield made


@contextmanager
def open_place(engine: str, folder: Path) -> Iterator[Place]:
    """A filled store of an engine."""
    with ExitStack() as stack:
        if engine == "edge":
            made = Place(open_store(folder / "store", create=True), folder / "store")
        elif engine == "memory":
            made = Place(open_store(":memory:", create=True))
        else:
            made = served(stack.enter_context(LoopbackServer()))
        stack.callback(made.store.close)
        fill(made)
        yield made


@pytest.fixture
def on_server(server: LoopbackServer) -> Iterator[Place]:
    """A filled store on that server."""
    made = served(server)
    with closing(made.store):
        fill(made)
        yield made


def served(server: LoopbackServer) -> Place:
    """A place on a server."""
    return Place(open_store(server.url), server.url, server)


def fill(place: Place) -> None:
    """Put the passages in; on a server by another handle, whose threads end with it."""
    target = place.store if place.server is None else place.server.url
    ingest_passages(_PASSAGES, target, encoder=HashingEncoder(), optimize=False)
    if place.server is not None:
        place.server.requests.clear()


# ---- the same answers as the sync client's -------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"meta_filter": {"lang": ["fr", "de"]}},
        {"meta_filter": {"live": True}, "limit": 1, "exact": True},
        {"mode": "bm25"},
        {"mode": "hybrid", "fusion": Fusion("dbsf"), "group_by": "lang"},
        {"mode": "bm25", "rerank_depth": 4, "limit": 2},
    ],
    ids=str,
)
@in_loop
async def test_answers_are_those_of_the_sync_client(place: Place, options: Any) -> None:
    """Hits, ranks, scores, texts and meta, of one query and of many."""
    sync = place.sync()
    async with await place.open() as client:
        for query in _QUERIES:
            expected = near(sync.search(query, **options))
            assert expected == await client.search(query, **options)
        expected_of_each = near(sync.search_many(_QUERIES, **options))
        assert expected_of_each == await client.search_many([*_QUERIES], **options)
        assert [] == await client.search_many([], **options)
        assert sync.metadata == client.metadata


def test_an_invalid_call_is_refused(place: Place) -> None:
    """With the message of the sync client, and before anything is encoded."""
    encoder = GatedEncoder()
    calls: list[Callable[[Any], object]] = [
        lambda client: client.search(""),
        lambda client: client.search("x", limit=0),
        lambda client: client.search_many(_CITY),
        lambda client: client.search_many([], meta_filter={"lang": []}),
        lambda client: client.rank("x", "1"),
        lambda client: client.rank("x", ["1"], mode="sparse"),
    ]

    async def main() -> None:
        sync = place.sync()
        async with await place.open(encoder) as client:
            for call in calls:
                assert await refused(partial(call, sync)) == await refused(partial(call, client))

    run(main)
    assert [] == encoder.passes


@pytest.mark.parametrize(
    "arguments",
    [
        {"collection": "films", "encoder": HashingEncoder()},
        {"encoder": HashingEncoder(salt="x")},
        {"encoder": HashingEncoder(), "model": "x"},
    ],
    ids=["unknown collection", "another model", "model and encoder"],
)
@in_loop
async def test_what_cannot_be_opened(place: Place, arguments: dict[str, Any]) -> None:
    """Unknown collection, wrong model: as the sync client says it; the store stays open."""
    expected = await refused(lambda: SearchClient.open(place.store, **arguments))
    assert expected == await refused(lambda: AsyncSearchClient.open(place.store, **arguments))
    assert {"msmarco": "msmarco__0001"} == place.store.aliases()


@in_loop
async def test_a_collection_that_was_dropped_meanwhile(place: Place) -> None:
    """As the sync client says it."""
    encoder = HashingEncoder()
    ingest_passages(_PASSAGES, place.store, collection="more", encoder=encoder, optimize=False)
    sync = SearchClient.open(place.store, collection="more", encoder=encoder)
    async with await AsyncSearchClient.open(
        place.store, collection="more", encoder=encoder
    ) as client:
        place.store.drop_collection("more__0001")
        expected = await refused(lambda: sync.search(_CITY))
        assert expected == await refused(lambda: client.search(_CITY))


def test_a_store_opened_by_name_is_closed(own_place: Place) -> None:
    """With the client, and with it go all threads of this package."""
    expected = own_place.expected(_CITY)
    own_place.store.close()
    before = threads("")

    async def main() -> Store:
        assert own_place.dsn is not None
        async with await AsyncSearchClient.open(own_place.dsn, encoder=HashingEncoder()) as client:
            assert expected == await client.search(_CITY)
        return client._client.store

    store = run(main)
    with pytest.raises(StoreError, match="was closed"):
        store.aliases()
    assert before == threads("")


# ---- merging -------------------------------------------------------------------------------


@in_loop
async def test_concurrent_queries_share_forward_passes(place: Place) -> None:
    """Of at most 64 queries, in the order of the calls; each gets its own answer."""
    encoder = GatedEncoder()
    queries = [f"is a city {number}" for number in range(150)]
    expected = near(place.sync().search_many(queries))
    async with await place.open(encoder) as client:
        assert expected == await asyncio.gather(*map(client.search, queries))
    assert [queries[:64], queries[64:128], queries[128:]] == encoder.passes


@in_loop
async def test_queries_queue_while_a_pass_is_under_way(place: Place) -> None:
    """And go together in the next one, single ones and lists."""
    encoder = GatedEncoder()
    expected = [place.expected(query) for query in _QUERIES]
    async with await place.open(encoder) as client:
        encoder.gate.shut()
        first = asyncio.create_task(client.search(_QUERIES[0]))
        await encoder.gate.reached()
        second = asyncio.create_task(client.search(_QUERIES[1]))
        third = asyncio.create_task(client.search_many(_QUERIES[2:4]))
        fourth = asyncio.create_task(client.search(_QUERIES[4]))
        await turn()
        encoder.gate.open()
        assert expected == [await first, await second, *await third, await fourth]
    assert [[*_QUERIES[:1]], [*_QUERIES[1:]]] == encoder.passes


@in_loop
async def test_a_query_without_a_vector_fails_alone(place: Place) -> None:
    """Those that were encoded with it are answered."""
    expected = [place.expected(query) for query in ("is a london", "is a paris")]
    async with await place.open(GatedEncoder()) as client:
        found = await asyncio.gather(
            *map(client.search, ("is a london", "...", "is a paris")), return_exceptions=True
        )
    assert expected == [found[0], found[2]]
    assert isinstance(found[1], EncodingError)


# ---- the loop goes on ----------------------------------------------------------------------


@in_loop
async def test_the_loop_goes_on_while_the_store_is_asked(place: Place) -> None:
    """The same, with the query held; another query is encoded meanwhile."""
    encoder = GatedEncoder()
    async with await place.open(encoder) as client:
        with place.queries_held():
            searches = [asyncio.create_task(client.search(_CITY))]
            await place.query_held()
            searches.append(asyncio.create_task(client.search(_SPY)))
            while len(encoder.passes) < 2:
                await asyncio.sleep(0)
            await turn(100)
            assert [False, False] == [search.done() for search in searches]
        expected = [place.expected(_CITY), place.expected(_SPY)]
        assert expected == await asyncio.gather(*searches)


@pytest.mark.parametrize("place", ["edge", "loopback"], indirect=True)
@in_loop
async def test_the_loop_goes_on_while_a_client_is_opened(place: Place) -> None:
    """The same, with the encoder held that tells which model it is."""
    encoder = SlowToDescribe()
    encoder.gate.shut()
    assert place.dsn is not None
    opening = asyncio.create_task(AsyncSearchClient.open(place.dsn, encoder=encoder))
    await encoder.gate.reached()
    await turn(100)
    assert not opening.done()
    encoder.gate.open()
    async with await opening as client:
        assert place.expected(_CITY) == await client.search(_CITY)


@in_loop
async def test_the_loop_asks_the_server_nothing_itself(
    on_server: Place, server: LoopbackServer
) -> None:
    """While the loop turns the server answers nothing: a call of the loop's would time out."""
    impatient = Connection(retry_s=0)
    opening = asyncio.create_task(
        AsyncSearchClient.open(server.url, encoder=HashingEncoder(), connection=impatient)
    )
    while not opening.done():
        with server.inspect():
            await asyncio.sleep(0)
        server.settle()
    async with await opening as client:
        assert on_server.expected(_CITY) == await client.search(_CITY)


# ---- cancelling and time-outs --------------------------------------------------------------


@in_loop
async def test_cancelling_a_query_that_is_being_encoded(place: Place) -> None:
    """At once; the one that is encoded with it is answered, and the next."""
    encoder = GatedEncoder()
    async with await place.open(encoder) as client:
        encoder.gate.shut()
        gone, other = (asyncio.create_task(client.search(one)) for one in ("gone", _SPY))
        await encoder.gate.reached()
        gone.cancel()
        await turn()
        assert (True, False) == (gone.cancelled(), other.done())
        encoder.gate.open()
        assert place.expected(_SPY) == await other
        assert place.expected(_CITY) == await client.search(_CITY)
    assert [["gone", _SPY], [_CITY]] == encoder.passes


@in_loop
async def test_r8_a_large_reranking_is_cancelled_and_lets_others_in(place: Place) -> None:
    """It scores 128 pairs at a time: another search is served next, and none after its end."""
    reranker = GatedReranker()
    many: Any = {"queries": [_CITY] * 60, "rerank_depth": 5, "limit": 5}  # 300 pairs
    few: Any = {"query": _CITY, "rerank_depth": 5, "limit": 5}
    expected = near(place.sync().search(**few))
    async with await AsyncSearchClient.open(
        place.store, encoder=HashingEncoder(), reranker=reranker
    ) as client:
        assert [expected] * 60 == near(await client.search_many(**many))
        assert [128, 128, 44] == reranker.sizes
        reranker.sizes.clear()
        reranker.gate.shut()
        gone = asyncio.create_task(client.search_many(**many))
        await reranker.gate.reached()
        gone.cancel()
        await asyncio.wait([gone])
        other = asyncio.create_task(client.search(**few))
        await turn()
        reranker.gate.open()
        assert expected == near(await other)
    assert [128, 5] == reranker.sizes


@in_loop
async def test_cancelling_while_the_store_is_asked(place: Place) -> None:
    """At once; the others are answered."""
    async with await place.open() as client:
        with place.queries_held():
            gone = asyncio.create_task(client.search("gone"))
            await place.query_held()
            other = asyncio.create_task(client.search(_SPY))
            await turn()
            gone.cancel()
            await asyncio.wait([gone])
            assert (True, False) == (gone.cancelled(), other.done())
        assert place.expected(_SPY) == await other


@in_loop
async def test_cancelling_ends_the_call_to_the_server(
    on_server: Place, server: LoopbackServer
) -> None:
    """The server hears of it, so it can leave the query alone."""
    async with await on_server.open() as client:
        server.faults.inject(Slow(600, drop_if_cancelled=True), "QueryBatch")
        gone = asyncio.create_task(client.search("gone"))
        await asyncio.to_thread(server.requests.wait_for, "QueryBatch")
        gone.cancel()
        await asyncio.wait([gone])
        await asyncio.to_thread(server.settle)
        assert gone.cancelled()
        assert on_server.expected(_CITY) == await client.search(_CITY)


@in_loop
async def test_a_time_out_around_a_search(place: Place) -> None:
    """TimeoutError while it is encoded, and while the store is asked; then the client works."""
    encoder = GatedEncoder()

    async def search_within(limit: asyncio.Timeout) -> None:
        async with limit:
            await client.search("gone")

    async def let_it_run_out_at(reached: Callable[[], Awaitable[None]]) -> None:
        limit = asyncio.timeout(None)
        search = asyncio.create_task(search_within(limit))
        await reached()
        limit.reschedule(asyncio.get_running_loop().time())
        with pytest.raises(TimeoutError):
            await search

    async with await place.open(encoder) as client:
        encoder.gate.shut()
        await let_it_run_out_at(encoder.gate.reached)
        encoder.gate.open()
        with place.queries_held():
            await let_it_run_out_at(place.query_held)
        assert place.expected(_CITY) == await client.search(_CITY)


@in_loop
async def test_nobody_is_harmed_by_many_cancellations(place: Place) -> None:
    """Every other one of two hundred is cancelled, each some turns later than the one before."""
    expected = place.expected(_CITY)
    async with await place.open() as client:
        searches = [asyncio.create_task(client.search(_CITY)) for _ in range(200)]
        for search in searches[::2]:
            search.cancel()
            await asyncio.sleep(0)
        found = await asyncio.gather(*searches, return_exceptions=True)
    assert [expected] * 100 == found[1::2]
    assert all(isinstance(one, asyncio.CancelledError) or one == expected for one in found[::2])


def test_a_program_may_end_while_a_client_is_opened(tmp_path: Path) -> None:
    """Its end waits for the model that is being loaded: else native code aborts the process."""
    model = save_tiny(tmp_path / "model", Recipe("bert"))
    ingest_passages(_PASSAGES, tmp_path / "store", model=model)
    program = (
        "import asyncio, atexit, threading\n"
        "from msmarco_qdrant import AsyncSearchClient\n"
        "def is_loading():\n"
        "    return any('open_' in one.name for one in threading.enumerate())\n"
        "atexit.register(lambda: print('is loading:', is_loading()))\n"
        "async def run():\n"
        f"    opening = AsyncSearchClient.open({str(tmp_path / 'store')!r})\n"
        "    task = asyncio.create_task(opening)\n"
        "    while not is_loading():\n"
        "        await asyncio.sleep(0)\n"
        "asyncio.run(run())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (0, b"is loading: False\n") == (done.returncode, done.stdout), done.stderr.decode()


@pytest.mark.parametrize("own_place", ["edge"], indirect=True)
@in_loop
async def test_cancelling_while_a_client_is_opened(own_place: Place) -> None:
    """What the thread opens for nobody is closed again: the directory is free."""
    place = own_place
    place.store.close()
    encoder = SlowToDescribe()
    encoder.gate.shut()
    assert isinstance(place.dsn, Path)
    opening = asyncio.create_task(AsyncSearchClient.open(place.dsn, encoder=encoder))
    await encoder.gate.reached()
    opening.cancel()
    await turn()
    assert opening.cancelled()
    encoder.gate.open()
    for thread in threads("open"):
        await asyncio.to_thread(thread.join)
    with (place.dsn / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---- faults on the way to a server ---------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Refused(_UNAVAILABLE),
        Refused(grpc.StatusCode.RESOURCE_EXHAUSTED),
        Cut(after_bytes=10),
        LostAnswer(),
    ],
    ids=str,
)
@in_loop
async def test_what_passes_is_tried_again(
    on_server: Place, server: LoopbackServer, fault: Fault
) -> None:
    """The caller does not hear of it."""
    expected = on_server.expected(_CITY)
    async with await on_server.open() as client:
        server.faults.inject(fault, "QueryBatch")
        assert expected == await client.search(_CITY)
    assert 1 == server.faults.count()


@in_loop
async def test_a_server_that_starts_again_answers(on_server: Place, server: LoopbackServer) -> None:
    """A search that began while it was down."""
    expected = on_server.expected(_CITY)
    async with await on_server.open() as client:
        assert expected == await client.search(_CITY)
        await asyncio.to_thread(server.stop)
        search = asyncio.create_task(client.search(_CITY))
        await turn()
        await asyncio.to_thread(server.start)
        assert expected == await search


@pytest.mark.parametrize("retry_s", [0, 0.3])
@in_loop
async def test_what_lasts_is_told(on_server: Place, server: LoopbackServer, retry_s: float) -> None:
    """When the time for trying again is up; once the server answers again, so does the client."""
    expected = on_server.expected(_CITY)
    async with await AsyncSearchClient.open(
        server.url, encoder=HashingEncoder(), connection=Connection(retry_s=retry_s)
    ) as client:
        server.faults.inject(Refused(_UNAVAILABLE), "QueryBatch", times=None)
        with pytest.raises(StoreUnavailableError, match=r"searching in .* failed"):
            await client.search(_CITY)
        assert server.faults.count() == 1 or retry_s > 0
        server.faults.clear()
        assert expected == await client.search(_CITY)


@in_loop
async def test_a_server_that_is_too_slow_is_told(on_server: Place, server: LoopbackServer) -> None:
    """When it has not answered in time."""
    impatient = Connection(timeout_s=1, retry_s=0)
    address = parse_address(server.url, impatient)
    collection = AsyncServerCollection(
        "msmarco__0001", server.url, address, impatient, StoredLimits()
    )
    async with AsyncSearchClient(on_server.sync(), collection) as client:
        server.faults.inject(Slow(600), "QueryBatch")
        with pytest.raises(StoreUnavailableError, match=r"searching in .* failed"):
            await client.search(_CITY)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED]
)
@in_loop
async def test_a_key_that_does_not_do_is_told_at_once(
    on_server: Place, server: LoopbackServer, code: grpc.StatusCode
) -> None:
    """It is not tried again."""
    async with await on_server.open() as client:
        server.faults.inject(Refused(code), "QueryBatch", times=None)
        with pytest.raises(StoreAccessError, match="MSMARCO_QDRANT_API_KEY"):
            await client.search(_CITY)
    assert 1 == server.faults.count()


def test_the_key_reaches_the_server() -> None:
    """Of the connection that a client is opened with."""
    with LoopbackServer(api_key="secret") as server:
        connection = Connection(api_key="secret")
        ingest_passages(
            _PASSAGES, server.url, encoder=HashingEncoder(), connection=connection, optimize=False
        )

        async def main() -> list[Hit]:
            with pytest.raises(StoreAccessError):
                await AsyncSearchClient.open(server.url, encoder=HashingEncoder())
            async with await AsyncSearchClient.open(
                server.url, encoder=HashingEncoder(), connection=connection
            ) as client:
                return await client.search(_CITY)

        assert ["2", "1"] == [hit.pid for hit in run(main)[:2]]


@in_loop
async def test_a_fault_of_one_is_not_told_to_others(
    on_server: Place, server: LoopbackServer
) -> None:
    """Queries share a forward pass, but each asks the server for itself."""
    expected = on_server.expected(_CITY)
    async with await on_server.open() as client:
        server.faults.inject(Refused(grpc.StatusCode.INTERNAL), "QueryBatch", times=2)
        found = await asyncio.gather(
            *(client.search(_CITY) for _ in range(8)), return_exceptions=True
        )
    assert 2 == sum(isinstance(one, StoreError) for one in found)
    assert 6 == found.count(expected)


# ---- closing -------------------------------------------------------------------------------


@in_loop
async def test_close_waits_for_queries_that_are_encoded(place: Place) -> None:
    """They are answered, those that wait for their turn too; new ones are refused."""
    encoder = GatedEncoder()
    client = await place.open(encoder)
    encoder.gate.shut()
    searches = [asyncio.create_task(client.search(_CITY))]
    await encoder.gate.reached()
    searches.append(asyncio.create_task(client.search(_SPY)))
    await turn()
    close = asyncio.create_task(client.close())
    await turn()
    assert not close.done()
    with pytest.raises(StoreError, match="'msmarco' was closed"):
        await client.search("late")
    encoder.gate.open()
    await close
    assert [True, True] == [search.done() for search in searches]
    expected = [place.expected(_CITY), place.expected(_SPY)]
    assert expected == [search.result() for search in searches]
    assert [[_CITY], [_SPY]] == encoder.passes


@in_loop
async def test_close_waits_for_the_store(place: Place) -> None:
    """What the store is being asked is answered; new searches are refused."""
    client = await place.open()
    with place.queries_held():
        search = asyncio.create_task(client.search(_CITY))
        await place.query_held()
        close = asyncio.create_task(client.close())
        await turn()
        assert not close.done()
        with pytest.raises(StoreError, match="'msmarco' was closed"):
            await client.search("late")
    await close
    assert search.done()
    assert place.expected(_CITY) == search.result()


@in_loop
async def test_a_cancelled_close_still_finishes(place: Place) -> None:
    """In the background: what is under way is answered, and a second close waits for the end."""
    encoder = GatedEncoder()
    client = await place.open(encoder)
    encoder.gate.shut()
    search = asyncio.create_task(client.search(_CITY))
    await encoder.gate.reached()
    close = asyncio.create_task(client.close())
    await turn()
    close.cancel()
    await turn()
    assert (True, False) == (close.cancelled(), search.done())
    with pytest.raises(StoreError, match="'msmarco' was closed"):
        await client.search("late")
    encoder.gate.open()
    await asyncio.gather(client.close(), client.close())
    await client.close()
    assert place.expected(_CITY) == search.result()


@in_loop
async def test_close_does_not_wait_for_who_gave_up(place: Place) -> None:
    """But for the forward pass that is under way: its thread has to end."""
    encoder = GatedEncoder()
    client = await place.open(encoder)
    encoder.gate.shut()
    gone = [asyncio.create_task(client.search(query)) for query in ("a", "b")]
    await encoder.gate.reached()
    gone += [asyncio.create_task(client.search(query)) for query in ("c", "d")]
    close = asyncio.create_task(client.close())
    await turn()
    for search in gone:
        search.cancel()
    await turn()
    encoder.gate.open()
    await close
    assert [True] * 4 == [search.cancelled() for search in gone]
    assert [["a", "b"]] == encoder.passes


@in_loop
async def test_a_block_that_is_cancelled_closes(place: Place) -> None:
    """As at Ctrl-C: the store is free when the task has ended."""
    encoder = GatedEncoder()
    encoder.gate.shut()

    async def search() -> None:
        async with client:
            await client.search("gone")

    client = await place.open(encoder)
    task = asyncio.create_task(search())
    await encoder.gate.reached()
    task.cancel()
    await turn()
    assert not task.done()  # its forward pass is under way
    encoder.gate.open()
    await asyncio.wait([task])
    assert task.cancelled()
    assert [] == threads("encode", "query")


@in_loop
async def test_another_event_loop_is_refused(place: Place) -> None:
    """For searching and closing; the client's own goes on."""
    async with await place.open() as client:

        def elsewhere(call: Callable[[], Awaitable[object]]) -> tuple[type, str]:
            return asyncio.run(refused(call))

        for call in (
            partial(client.search, _CITY),
            partial(client.search_many, []),
            client.close,
        ):
            kind, message = await asyncio.to_thread(elsewhere, call)
            assert (UsageError, True) == (kind, "another event loop" in message)
        assert place.expected(_CITY) == await client.search(_CITY)


def test_a_client_that_outlives_its_loop_can_be_closed(place: Place) -> None:
    """In another loop, which cannot search with it."""
    expected = place.expected(_CITY)

    async def begin() -> AsyncSearchClient:
        client = await place.open()
        assert expected == await client.search(_CITY)
        return client

    async def end(client: AsyncSearchClient) -> None:
        with pytest.raises(UsageError, match="another event loop"):
            await client.search(_CITY)
        await client.close()
        await client.close()

    client = asyncio.run(begin())
    run(lambda: end(client))


@pytest.mark.slow
def test_a_loop_that_ends_with_a_search_under_way(place: Place) -> None:
    """Nothing hangs and nothing is logged; the client can be closed."""
    encoder = GatedEncoder()
    logged: list[dict[str, Any]] = []

    async def begin() -> AsyncSearchClient:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: logged.append(told))
        client = await place.open(encoder)
        encoder.gate.shut()
        searches.extend(asyncio.create_task(client.search(one)) for one in ("a", "b"))
        await encoder.gate.reached()
        searches.append(asyncio.create_task(client.search("c")))
        await turn()
        return client

    searches: list[asyncio.Task[list[Hit]]] = []
    client = asyncio.run(begin())
    assert [True] * 3 == [search.cancelled() for search in searches]
    encoder.gate.open()
    run(client.close)
    gc.collect()
    assert [] == logged


@pytest.mark.parametrize("place", ["edge", "loopback"], indirect=True)
def test_a_loop_that_ends_while_the_client_closes(place: Place) -> None:
    """All the same it is closed, and what it opened."""
    encoder = GatedEncoder()
    tasks: list[asyncio.Task[Any]] = []

    async def main() -> Store:
        assert place.dsn is not None
        client = await AsyncSearchClient.open(place.dsn, encoder=encoder)
        encoder.gate.shut()
        tasks.append(asyncio.create_task(client.search("gone")))
        await encoder.gate.reached()
        tasks.append(asyncio.create_task(client.close()))
        await turn()
        encoder.gate.open()
        return client._client.store

    store = run(main)
    with pytest.raises(StoreError, match="was closed"):
        store.aliases()
