"""Searches while the alias of their collection points to another model's collection."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pytest

from msmarco_qdrant.collection.create import create_physical
from msmarco_qdrant.collection.migration import CollectionPlan, load_migrations
from msmarco_qdrant.core.collection_types import Bm25Settings, StorageSettings
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Hit, PointQuery, ScoredPoint
from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.errors import EncodingError, ModelMismatchError, ModelNotFoundError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.async_driver import _encode_queries
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.driver import execute_step
from msmarco_qdrant.stores import Collection, Store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.engines import new_store
from tests.search.support import Gate, near, run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

pytestmark = pytest.mark.timeout(120)

Answer: TypeAlias = list[Hit]
Call: TypeAlias = Callable[[Any], Any]

_NAMES = ("msmarco__0001", "msmarco__0002")
# No two of these score alike for the queries, by any of the models.
_TEXTS = (
    "london is a big city",
    "paris is a city in france",
    "a spy is rich and lonely alas",
    "berlin is a green city in germany on the spree",
    "what is a number beyond 64 bits and a string to boot",
)
_PIDS = [str(number) for number in range(len(_TEXTS))]
_CITY, _SPY = "is a city", "who is a spy"
_CALLS: Mapping[str, Call] = {
    "search": lambda client: client.search(_CITY),
    "exact": lambda client: client.search(_CITY, exact=True, limit=2),
    "search_many": lambda client: client.search_many([_CITY, _SPY, _CITY]),
    "hybrid": lambda client: client.search(_CITY, mode="hybrid"),
    "many hybrid": lambda client: client.search_many([_SPY, _CITY], mode="hybrid", limit=3),
    "reranked": lambda client: client.search(_CITY, rerank_depth=4, limit=3),
    "reranked hybrid": lambda client: client.search(_CITY, mode="hybrid", rerank_depth=4, limit=3),
    "grouped": lambda client: client.search(_CITY, group_by="parity", limit=2),
    "grouped hybrid": lambda client: client.search(_SPY, mode="hybrid", group_by="parity", limit=2),
    "filtered": lambda client: client.search(_CITY, meta_filter={"parity": 1}),
    "rank": lambda client: client.rank(_CITY, _PIDS),
    "rank_many": lambda client: client.rank_many([_CITY, _SPY], [_PIDS[:3], ["9"]], rerank=True),
    "rank hybrid": lambda client: client.rank(_SPY, [*_PIDS, "9"], mode="hybrid"),
}
_BY_WORDS: Mapping[str, Call] = {
    "bm25": lambda client: client.search(_CITY, mode="bm25"),
    "rank bm25": lambda client: client.rank(_CITY, [*_PIDS, "9"], mode="bm25"),
}


# ---- two collections of two models, and one name -------------------------------------------


@dataclass(frozen=True)
class Two:
    """A store with two physical collections, whose texts and vectors tell them apart.

    Attributes:
        store: Where they are.
        encoders: Of the first, which the name leads to at the beginning, and of the second.
    """

    store: Store
    encoders: tuple[Encoder, Encoder]

    def swap(self, to: int) -> None:
        """Lead the name to the first (0) or the second (1)."""
        self.store.set_alias("msmarco", _NAMES[to])

    def swaps(self, *to: int) -> Callable[[], None]:
        """What swaps to the next of these each time it is called, until none is left."""
        left = iter(to)

        def swap() -> None:
            for one in islice(left, 1):
                self.swap(one)

        return swap

    def load(self, encoder_info: EncoderInfo) -> Encoder:
        """The encoder that a collection's metadata speak of."""
        return next(
            one for one in self.encoders if one.info.fingerprint == encoder_info.fingerprint
        )

    def client(self, **options: Any) -> SearchClient:
        """A client, opened while the name leads to the first."""
        options = {"encoder": self.encoders[0], "load_encoder": self.load, **options}
        return SearchClient.open(self.store, reranker=WordOverlapReranker(), **options)

    async def async_client(self, **options: Any) -> AsyncSearchClient:
        """The same for an event loop."""
        options = {"encoder": self.encoders[0], "load_encoder": self.load, **options}
        return await AsyncSearchClient.open(self.store, reranker=WordOverlapReranker(), **options)

    def expected(self, call: Call) -> list[Any]:
        """The answers of each collection, of clients that know of no other."""
        return [
            near(
                call(
                    SearchClient.open(
                        self.store, collection=name, encoder=encoder, reranker=WordOverlapReranker()
                    )
                )
            )
            for name, encoder in zip(_NAMES, self.encoders, strict=True)
        ]


@pytest.fixture(
    scope="module",
    params=[("edge", 64), ("memory", 32), ("loopback", 32)],
    ids=str,
)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Two]:
    """The two collections in a store of each engine, of the same dimension or not."""
    engine, dimension = request.param
    with new_store(engine, tmp_path_factory.mktemp("two")) as store:
        made = Two(store, (HashingEncoder(64), HashingEncoder(dimension, salt="v3")))
        fill(made)
        yield made


@pytest.fixture
def two(shared: Two) -> Two:
    """The same, with the alias pointing to the first."""
    shared.swap(0)
    return shared


def fill(two: Two) -> None:
    """Make both, the second as what a re-embed makes; other words in each."""
    ingest_passages(_passages("old"), two.store, encoder=two.encoders[0], optimize=False)
    plan = CollectionPlan(
        _NAMES[1], two.encoders[1].info, Bm25Settings(), StorageSettings(quantization="none"), {}
    )
    create_physical(two.store, plan, load_migrations())
    two.swap(1)
    ingest_passages(_passages("new"), two.store, encoder=two.encoders[1], optimize=False)
    two.swap(0)


def _passages(marker: str) -> list[Passage]:
    return [
        Passage(pid, f"{text} {marker}", {"parity": int(pid) % 2, "marker": marker})
        for pid, text in zip(_PIDS, _TEXTS, strict=True)
    ]


class _SlowLoader:
    """Loads behind a gate, and counts."""

    def __init__(self, two: Two) -> None:
        self._two = two
        self.gate = Gate()
        self.gate.shut()
        self.loaded: list[str] = []

    def __call__(self, encoder_info: EncoderInfo) -> Encoder:
        """Load what a collection's metadata speak of."""
        self.loaded.append(encoder_info.model)
        self.gate.pass_through()
        return self._two.load(encoder_info)


class _Watched:
    """A store that tells when its metadata or an answer of its collections is on the way."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before_metadata: Callable[[], None] = lambda: None
        self.after_metadata: Callable[[], None] = lambda: None
        self.after_query: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def metadata(self, name: str) -> CollectionMetadata:
        """What was kept with a collection."""
        self.before_metadata()
        found = self._store.metadata(name)
        self.after_metadata()
        return found

    def collection(self, name: str) -> _WatchedCollection:
        """The collection behind a name."""
        return _WatchedCollection(self._store.collection(name), self)

    def unresolved_collection(self, name: str) -> _WatchedCollection:
        """A collection whose alias the server resolves in each request."""
        return _WatchedCollection(self._store.unresolved_collection(name), self)


class _WatchedCollection:
    """A collection of such a store."""

    def __init__(self, collection: Collection, store: _Watched) -> None:
        self._collection = collection
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        answers = self._collection.query(queries)
        self._store.after_query()
        return answers


# ---- every search, there and back ----------------------------------------------------------


def test_a_search_follows_the_name(two: Two) -> None:
    """To the other model, back, and there again: each kind of it, as the first to notice."""
    for call in _CALLS.values():
        two.swap(0)
        expected = two.expected(call)
        assert expected[0] != expected[1]
        with two.client() as client:
            for now in (1, 0):
                two.swap(now)
                assert expected[now] == call(client)


@pytest.mark.slow
def test_an_async_search_follows_the_name(two: Two) -> None:
    """As the blocking one does, each kind of it, and several at once."""

    async def main() -> None:
        async with await two.async_client() as client:
            for now in (0, 1, 0, 1):
                two.swap(now)
                told = await asyncio.gather(*(call(client) for call in _CALLS.values()))
                assert [one[now] for one in expected] == told

    expected = [two.expected(call) for call in _CALLS.values()]
    run(main)


def test_what_the_client_tells_is_the_new_one(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    """Its encoder and its metadata, as of the search that noticed; and it is logged."""
    caplog.set_level(logging.INFO, "msmarco_qdrant")
    old, new = (encoder.info for encoder in two.encoders)
    with two.client() as client:
        two.swap(1)
        assert (old, old) == (client.encoder.info, client.metadata.encoder)
        client.search(_CITY)
        assert (new, new) == (client.encoder.info, client.metadata.encoder)
    (told,) = [one.getMessage() for one in caplog.records if "now holds" in one.getMessage()]
    assert told.startswith(
        f"collection 'msmarco' now holds vectors of {new.model} (before: {old.model}), loaded in "
    )


@pytest.mark.parametrize("call", _BY_WORDS.values(), ids=_BY_WORDS)
def test_words_are_searched_by_any_model(two: Two, call: Call) -> None:
    """A search by words alone loads no model, with and without `bm25_only`."""
    expected = two.expected(call)
    loader = _SlowLoader(two)
    for options in ({}, {"encoder": None, "bm25_only": True}):
        two.swap(0)
        with two.client(load_encoder=loader, **options) as client:
            for now in (0, 1, 0):
                two.swap(now)
                assert expected[now] == call(client)
    assert [] == loader.loaded


def test_words_of_several_collections_load_no_model_after_a_minute(two: Two) -> None:
    """Also if the collections were re-embedded."""
    expected = two.expected(_BY_WORDS["bm25"])
    loader = _SlowLoader(two)
    later = itertools.count(time.monotonic() + 100, 100)
    two.swap(0)
    with two.client(load_encoder=loader) as client:
        client.session.refresh.clock = lambda: next(later)
        for now in (0, 1, 0):
            two.swap(now)
            hits = client.search(_CITY, mode="bm25", collections=["msmarco"])
            assert [hit.pid for hit in expected[now]] == [hit.pid for hit in hits]
    assert [] == loader.loaded


@pytest.mark.parametrize("call", _BY_WORDS.values(), ids=_BY_WORDS)
def test_words_load_no_model_after_a_minute(two: Two, call: Call) -> None:
    """Also if a search reads the metadata again, in both clients; the next by vectors loads it."""
    two.swap(0)
    expected, dense = two.expected(call), two.expected(_CALLS["search"])
    loader = _SlowLoader(two)
    later = itertools.count(time.monotonic() + 100, 100)

    async def main() -> None:
        async with await two.async_client(load_encoder=loader) as client:
            client.session.refresh.clock = lambda: next(later)
            for now in (0, 1, 0, 1):
                two.swap(now)
                assert expected[now] == await call(client)

    with two.client(load_encoder=loader) as client:
        client.session.refresh.clock = lambda: next(later)
        for now in (0, 1, 0, 1):
            two.swap(now)
            assert expected[now] == call(client)
        two.swap(0)
        run(main)
        assert [] == loader.loaded
        loader.gate.open()
        assert dense[1] == client.search(_CITY)
        assert 1 == len(loader.loaded)


@pytest.mark.parametrize("call", [_CALLS["hybrid"], _CALLS["grouped hybrid"]])
def test_a_swap_in_the_middle_of_a_search(two: Two, call: Call) -> None:
    """Between two questions of it: it is done again as a whole, by the other model."""
    expected = two.expected(call)
    watched = _Watched(two.store)
    with SearchClient.open(
        cast(Store, watched), encoder=two.encoders[0], load_encoder=two.load
    ) as client:
        for now in (1, 0):
            watched.after_query = two.swaps(now)
            assert expected[now] == call(client)


@pytest.mark.parametrize("call", [_CALLS["search"], _CALLS["rank"], _CALLS["rank hybrid"]])
def test_a_swap_after_the_only_question(two: Two, call: Call) -> None:
    """Nothing is read any more: texts and scores are of the collection that was asked."""
    expected = two.expected(call)
    watched = _Watched(two.store)
    with SearchClient.open(
        cast(Store, watched), encoder=two.encoders[0], load_encoder=two.load
    ) as client:
        watched.after_query = two.swaps(1)
        assert expected[0] == call(client)


def test_a_search_that_two_swaps_overtake(two: Two) -> None:
    """It began by the old model, and goes by it to its end, whatever the client goes by."""
    expected = two.expected(_CALLS["search"])
    with two.client() as client:
        begun = client.session.search([_CITY], {})
        step = next(begun)
        two.swap(1)
        client.search(_CITY)
        two.swap(0)
        told = None
        try:
            while told is None:
                step = begun.send(execute_step(client.session, step))
        except StopIteration as end:
            told = end.value
    assert [expected[0]] == told


@pytest.mark.parametrize("times", [1, 3])
def test_a_swap_that_is_undone_at_once(two: Two, times: int) -> None:
    """The engine has refused the vectors, and the metadata are the old ones again."""
    expected = two.expected(_CALLS["search"])
    watched = _Watched(two.store)
    with SearchClient.open(cast(Store, watched), encoder=two.encoders[0]) as client:
        two.swap(1)
        watched.before_metadata = two.swaps(*[0] * times)
        watched.after_metadata = two.swaps(*[1] * (times - 1))
        assert expected[0] == near(client.search(_CITY))


class _Liar(HashingEncoder):
    """An encoder whose vectors are longer than its card says."""

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Twice what it should be."""
        import numpy as np

        return np.tile(super().encode_queries(queries), 2)


def test_what_no_swap_explains_is_told(two: Two) -> None:
    """A vector of a wrong dimension is refused, and not tried for ever."""
    with two.client(encoder=_Liar(64)) as client, pytest.raises(EncodingError):
        client.search(_CITY)


def test_a_dropped_collection_created_again(two: Two) -> None:
    """By another model, under the same names: a client that was open all the time goes on."""
    with two.client() as client:
        client.search(_CITY)
        for name in _NAMES:
            two.store.drop_collection(name)
        ingest_passages(_passages("new"), two.store, encoder=two.encoders[1], optimize=False)
        assert {"new"} == {hit.meta["marker"] for hit in client.search(_CITY)}
    two.store.drop_collection(_NAMES[0])
    fill(two)  # for the next tests


# ---- many at once --------------------------------------------------------------------------


class _Swapper:
    """Swaps there and back, each time when everybody has got an answer since the last time.

    So every search meets one swap at most, whatever the machine is busy with, and every swap is
    met.
    """

    def __init__(self, two: Two, searchers: int, swaps: int) -> None:
        self._two = two
        self._turn = threading.Condition()
        self._waiting_for = set(range(searchers))
        self._everybody = frozenset(self._waiting_for)
        self._left = swaps

    @property
    def done(self) -> bool:
        """Whether there are no swaps any more, and everybody has got an answer since the last."""
        return self._left == 0

    @property
    def left(self) -> int:
        """How many swaps are to come."""
        return self._left

    def answered(self, searcher: int, begun: int) -> None:
        """A searcher has an answer to what it asked when `begun` swaps were left."""
        with self._turn:
            if begun != self._left or self.done:
                return
            self._waiting_for.discard(searcher)
            if not self._waiting_for:
                self._waiting_for = set(self._everybody)
                self._two.swap((self._left + 1) % 2)
                self._left -= 1


_KINDS = ("search", "hybrid", "rank hybrid", "reranked hybrid")


@pytest.mark.slow
def test_threads_search_during_swaps(two: Two) -> None:
    """Every search succeeds, and each answer is one collection's whole."""
    expected = [two.expected(_CALLS[kind]) for kind in _KINDS]
    swapper = _Swapper(two, searchers=8, swaps=4)

    def search(number: int, client: SearchClient) -> set[int]:
        call, right = _CALLS[_KINDS[number % 4]], expected[number % 4]
        told = set()
        while not swapper.done:
            begun = swapper.left
            told.add(right.index(call(client)))
            swapper.answered(number, begun)
        return told

    with two.client() as client, ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda number: search(number, client), range(8)))
    assert [{0, 1}] * 8 == told


@pytest.mark.slow
def test_async_searches_during_swaps(two: Two) -> None:
    """The same with 16 at once in one event loop."""
    expected = [two.expected(_CALLS[kind]) for kind in _KINDS]
    swapper = _Swapper(two, searchers=16, swaps=4)

    async def search(number: int, client: AsyncSearchClient) -> set[int]:
        call, right = _CALLS[_KINDS[number % 4]], expected[number % 4]
        told = set()
        while not swapper.done:
            begun = swapper.left
            told.add(right.index(await call(client)))
            swapper.answered(number, begun)
        return told

    async def main() -> None:
        async with await two.async_client() as client:
            told = await asyncio.gather(*(search(number, client) for number in range(16)))
            assert [{0, 1}] * 16 == told

    run(main)


class _Counting(HashingEncoder):
    """An encoder that keeps the queries of each pass, and holds as many threads as are to come."""

    def __init__(self, dimension: int = 64, *, salt: str = "", threads: int = 1) -> None:
        super().__init__(dimension, salt=salt)
        self._barrier = threading.Barrier(threads)
        self.passes: list[list[str]] = []

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries in one pass."""
        self.passes.append([*queries])
        self._barrier.wait(60)
        return super().encode_queries(queries)


def test_queries_of_two_models_are_not_mixed() -> None:
    """Merged in one pass of each, they have the vectors of the encoder that they came with."""
    old, new = _Counting(64), _Counting(32, salt="v3")
    asked = [(old, "a city"), (new, "a city"), (old, "a spy"), (new, "a number")]
    told = _encode_queries(asked)
    assert [["a city", "a spy"]] == old.passes
    assert [["a city", "a number"]] == new.passes
    for (encoder, query), vector in zip(asked, told, strict=True):
        assert encoder.encode_queries([query])[0].tolist() == vector.tolist()


# ---- loading the new model -----------------------------------------------------------------


def test_threads_wait_for_one_to_load(two: Two) -> None:
    """Eight that all have the old model's vectors: it is loaded once."""
    expected = two.expected(_CALLS["search"])
    loader = _SlowLoader(two)
    loader.gate.open()
    with (
        two.client(encoder=_Counting(64, threads=8), load_encoder=loader) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        two.swap(1)
        told = list(threads.map(lambda _: client.search(_CITY), range(8)))
    assert [expected[1]] * 8 == told
    assert [two.encoders[1].info.model] == loader.loaded


def test_the_loop_goes_on_while_a_model_is_loaded(two: Two) -> None:
    """Loaded once for all that wait; one may give up, and others search by words meanwhile."""
    expected, by_words = two.expected(_CALLS["search"]), two.expected(_BY_WORDS["bm25"])
    loader = _SlowLoader(two)

    async def main() -> None:
        async with await two.async_client(load_encoder=loader) as client:
            two.swap(1)
            searches = [asyncio.create_task(client.search(_CITY)) for _ in range(32)]
            await loader.gate.reached()
            # by now the others wait, too: over Edge and in memory one thread asks for all in turn
            assert by_words[1] == await client.search(_CITY, mode="bm25")
            for search in searches[:2]:
                search.cancel()
            for search in searches[:2]:
                with pytest.raises(asyncio.CancelledError):
                    await search
            assert not any(search.done() for search in searches[2:])
            loader.gate.open()
            assert [expected[1]] * 30 == await asyncio.gather(*searches[2:])

    run(main)
    assert [two.encoders[1].info.model] == loader.loaded


def test_closing_waits_for_what_is_loaded(two: Two) -> None:
    """Also when the search that began it has been cancelled."""
    loader = _SlowLoader(two)

    async def main() -> None:
        client = await two.async_client(load_encoder=loader)
        two.swap(1)
        search = asyncio.create_task(client.search(_CITY))
        await loader.gate.reached()
        search.cancel()
        with suppress(asyncio.CancelledError):
            await search
        closing = asyncio.create_task(client.close())
        for _ in range(50):  # far more turns, and threads, than a close takes
            await asyncio.to_thread(threading.active_count)
        assert not closing.done()
        loader.gate.open()
        await closing

    run(main)


class _Failing:
    """A loader that finds nothing until it is mended."""

    def __init__(self, two: Two) -> None:
        self._two = two
        self.mended = False

    def __call__(self, encoder_info: EncoderInfo) -> Encoder:
        """Load, or fail."""
        if not self.mended:
            raise OSError("no such model")
        return self._two.load(encoder_info)


def test_a_model_that_cannot_be_loaded_is_told(two: Two) -> None:
    """With what happened to the collection; the next search tries again."""
    expected = two.expected(_CALLS["search"])
    loader = _Failing(two)
    with two.client(load_encoder=loader) as client:
        two.swap(1)
        for _ in range(2):
            with pytest.raises(
                ModelNotFoundError, match=r"re-embedded with .*v3 \(before: "
            ) as told:
                client.search(_CITY)
            assert isinstance(told.value.__cause__, OSError)
        loader.mended = True
        assert expected[1] == client.search(_CITY)


def test_another_model_than_the_collections_is_refused(two: Two) -> None:
    """Loaded for the new one, it is as good as none."""
    with two.client(load_encoder=lambda _: HashingEncoder(salt="other")) as client:
        two.swap(1)
        with pytest.raises(ModelNotFoundError, match="re-embedded") as told:
            client.search(_CITY)
    assert isinstance(told.value.__cause__, ModelMismatchError)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models on disk."""
    place = tmp_path_factory.mktemp("models")
    return save_tiny(place / "old", Recipe()), save_tiny(place / "new", Recipe(seed=7))


@pytest.fixture(scope="module")
def shared_on_disk(directories: tuple[Path, Path]) -> Iterator[Two]:
    """Two collections of models that are loaded from the directories in their metadata."""
    old, new = (load_encoder(one, device="cpu") for one in directories)
    with new_store("memory", directories[0]) as store:
        made = Two(store, (old, new))
        fill(made)
        yield made


@pytest.fixture
def on_disk(shared_on_disk: Two) -> Two:
    """The same, with the alias pointing to the first."""
    shared_on_disk.swap(0)
    return shared_on_disk


@pytest.mark.parametrize("by_path", [False, True])
def test_it_is_loaded_by_its_name(
    on_disk: Two, directories: tuple[Path, Path], by_path: bool
) -> None:
    """Which the metadata remember, also by a client that was told where the first one is."""
    expected = on_disk.expected(_CALLS["search"])
    model = directories[0] if by_path else None
    with SearchClient.open(on_disk.store, model=model) as client:
        for now in (0, 1):
            on_disk.swap(now)
            assert expected[now] == near(client.search(_CITY))


def test_a_swap_while_a_client_is_opened(on_disk: Two) -> None:
    """It has loaded the old model meanwhile, and loads the new one."""
    watched = _Watched(on_disk.store)
    watched.after_metadata = on_disk.swaps(1)
    expected = on_disk.expected(_CALLS["search"])
    with SearchClient.open(cast(Store, watched)) as client:
        assert on_disk.encoders[1].info.fingerprint == client.encoder.info.fingerprint
        assert expected[1] == near(client.search(_CITY))
