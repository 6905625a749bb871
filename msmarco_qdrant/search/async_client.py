"""Queries to ranked passages, from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Unpack

from msmarco_qdrant.core.records import CollectionMetadata
from msmarco_qdrant.core.search_types import Fusion, Hit, SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import SchemaError, StoreError, UsageError
from msmarco_qdrant.runtime.micro_batcher import MicroBatcher
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.options import CONVEX, SearchOptions
from msmarco_qdrant.search.session import LoadEncoder
from msmarco_qdrant.search.steps import (
    Encode,
    GetPayloadIndexes,
    Query,
    Refresh,
    Retrieve,
    Score,
    Searcher,
    Step,
    Steps,
)
from msmarco_qdrant.stores import (
    DEFAULT_CONNECTION,
    AsyncCollection,
    Connection,
    Store,
    async_collection,
)
from msmarco_qdrant.stores.payload import HIT_FIELDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_QUERIES_AT_ONCE = 64
_PAIRS_AT_ONCE = 256
MAX_WAIT_S = 0.003

_T = TypeVar("_T")
_Query: TypeAlias = tuple[Encoder, str]
_Opened: TypeAlias = tuple[SearchClient, AsyncCollection]


class AsyncSearchClient:
    """Answers queries from one collection, without blocking the event loop.

    Queries that are searched for at the same time are encoded in one forward pass, in a thread of
    its own. If the collection is re-embedded meanwhile, the searches that notice it wait until the
    new model has been loaded, in a thread too. A search may be cancelled, or given a time-out by
    `asyncio.timeout`::

        async with await AsyncSearchClient.open("./qdrant_data", collection="msmarco") as client:
            hits = await client.search("how big is london", limit=5)

    It belongs to the event loop that it was opened in.

    Args:
        client: The client whose encoder and store it uses; it is closed with this one.
        collection: That client's collection; it is closed with this one, too.
        max_wait_s: How long a query waits for others to be encoded with, at most, in seconds.
    """

    def __init__(
        self,
        client: SearchClient,
        collection: AsyncCollection,
        *,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        _check_wait(max_wait_s)
        self._client = client
        self._session = client.session
        self._loop = asyncio.get_running_loop()
        self._collection = collection
        self._encode: MicroBatcher[_Query, NDArray[np.float32]] = MicroBatcher(
            _encoded,
            max_items=_QUERIES_AT_ONCE,
            max_wait_s=max_wait_s,
            name="msmarco-qdrant-encode",
        )
        self._score: MicroBatcher[tuple[str, str], float] = MicroBatcher(
            lambda pairs: client.reranker.scores(pairs).tolist(),
            max_items=_PAIRS_AT_ONCE,
            max_wait_s=0.0,  # one search brings many
            name="msmarco-qdrant-rerank",
        )
        self._renewals: dict[Searcher, asyncio.Task[Searcher]] = {}
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(  # noqa: PLR0913  # all but one have defaults
        cls,
        store: Store | str | PathLike[str],
        *,
        collection: str = "msmarco",
        model: str | PathLike[str] | None = None,
        encoder: Encoder | None = None,
        encoder_options: EncoderOptions | None = None,
        reranker: str | PathLike[str] | Reranker | None = None,
        bm25_only: bool = False,
        connection: Connection = DEFAULT_CONNECTION,
        load_encoder: LoadEncoder | None = None,
        max_wait_s: float = MAX_WAIT_S,
    ) -> AsyncSearchClient:
        """Open a client on a collection; store and model are opened in a thread.

        Arguments and errors are those of `SearchClient.open`.

        Args:
            store: Where the collection is, or an open store, which stays the caller's.
            collection: Its name.
            model: Where to load its model from, if not by the name that the collection remembers.
            encoder: A ready encoder, instead.
            encoder_options: Where and how the model runs; see `SearchClient.open`.
            reranker: A cross-encoder, or what to load one from; see `SearchClient.open`.
            bm25_only: Load no model: only "bm25" searches can be served.
            connection: The API key, port and time limits of a server, where `store` is a URL.
            load_encoder: What loads the model of a collection that was re-embedded meanwhile, in
                a thread; see `SearchClient.open`.
            max_wait_s: How long a query waits for others to be encoded with, at most, in seconds.
        """
        _check_wait(max_wait_s)  # before anything is opened

        def opened() -> _Opened:
            client = SearchClient.open(
                store,
                collection=collection,
                model=model,
                encoder=encoder,
                encoder_options=encoder_options,
                reranker=reranker,
                bm25_only=bm25_only,
                connection=connection,
                load_encoder=load_encoder,
            )
            try:
                return client, async_collection(client.store, client.collection)
            except BaseException:
                client.close()
                raise

        opening = _in_thread(opened)
        try:
            client, searched = await asyncio.wrap_future(opening)
        except BaseException:
            opening.add_done_callback(_give_back)  # nobody waits for it any more
            raise
        return cls(client, searched, max_wait_s=max_wait_s)

    @property
    def metadata(self) -> CollectionMetadata:
        """What the collection says of itself; see `SearchClient.metadata`."""
        return self._client.metadata

    async def search(self, query: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """The passages that answer a query best; see `SearchClient.search`."""
        (hits,) = await self.search_many([query], **options)
        return hits

    async def search_many(
        self, queries: Sequence[str], **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """The passages that answer each of several queries; see `SearchClient.search_many`."""
        with self._counted():
            return await self._done(self._session.search(queries, options))

    async def rank(
        self,
        query: str,
        pids: Sequence[str],
        *,
        mode: SearchMode = "dense",
        fusion: Fusion = CONVEX,
        rerank: bool = False,
    ) -> list[Hit]:
        """Given passages by how well they answer a query; see `SearchClient.rank`."""
        (hits,) = await self.rank_many([query], [pids], mode=mode, fusion=fusion, rerank=rerank)
        return hits

    async def rank_many(
        self,
        queries: Sequence[str],
        pids: Sequence[Sequence[str]],
        *,
        mode: SearchMode = "dense",
        fusion: Fusion = CONVEX,
        rerank: bool = False,
    ) -> list[list[Hit]]:
        """Given passages for each of several queries; see `SearchClient.rank`."""
        with self._counted():
            steps = self._session.rank(queries, pids, mode=mode, fusion=fusion, rerank=rerank)
            return await self._done(steps)

    async def warm_up(self) -> None:
        """Do now what happens once in the model, so that the first search does not wait for it."""
        with self._counted():
            await asyncio.to_thread(self._client.warm_up)

    async def close(self) -> None:
        """Take no more searches, wait for those under way, and give back what was opened.

        Closing twice is no error. A close that is cancelled goes on in the background.

        Raises:
            UsageError: In another event loop than its own, unless that one has been closed.
        """
        if not self._loop.is_closed():
            self._check_loop()
        if self._closing is None:
            self._closing = asyncio.create_task(self._drain())
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> AsyncSearchClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _done(self, steps: Steps[_T]) -> _T:
        """Do every step of a search, one after the other."""
        try:
            step = next(steps)
            while True:
                try:
                    told = await self._do(step)
                except SchemaError as exc:  # which the search may get over
                    step = steps.throw(exc)
                else:
                    step = steps.send(told)
        except StopIteration as end:
            found: _T = end.value
            return found

    async def _do(self, step: Step) -> Any:
        """Do one step, without blocking the loop, and together with others where that pays."""
        import numpy as np

        match step:
            case Encode(encoder, queries):
                vectors = await self._encode([(encoder, query) for query in queries])
                return np.stack(vectors) if vectors else np.empty((0, 0), "f4")
            case Query(point_queries):
                return await self._collection.query(point_queries)
            case Retrieve(ids):
                return await self._collection.retrieve(ids, HIT_FIELDS)
            case Score(pairs):
                return np.asarray(await self._score(pairs), np.float32)
            case GetPayloadIndexes():
                return await asyncio.to_thread(self._session.do, step)
            case Refresh(used):
                return await self._renewed(used)

    async def _renewed(self, used: Searcher) -> Searcher:
        """What to go by instead; one thread finds out for all searches that went by the same."""
        renewal = self._renewals.get(used)
        if renewal is None:
            renewal = asyncio.create_task(asyncio.to_thread(self._session.do, Refresh(used)))
            self._renewals[used] = renewal
            renewal.add_done_callback(lambda done: self._end_renewal(used, done))
        return await asyncio.shield(renewal)  # the others wait on when one is cancelled

    def _end_renewal(self, used: Searcher, done: asyncio.Task[Searcher]) -> None:
        del self._renewals[used]
        if not done.cancelled():
            done.exception()  # which every search that waited has; there may be none left

    async def _drain(self) -> None:
        async with AsyncExitStack() as stack:  # each is closed, whatever becomes of the others
            stack.push_async_callback(asyncio.to_thread, self._client.close)
            stack.push_async_callback(self._collection.close)
            stack.push_async_callback(self._encode.close)
            stack.push_async_callback(self._score.close)
            await self._idle.wait()
            if self._renewals:  # of searches that were cancelled
                await asyncio.wait(self._renewals.values())

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A search is under way: `close` waits for it."""
        self._check_loop()
        if self._closing is not None:
            raise StoreError(f"this client of '{self._client.collection}' was closed: open another")
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("this client belongs to another event loop: open one in each loop")


def _encoded(queries: Sequence[_Query]) -> list[NDArray[np.float32]]:
    """The vectors of queries, each by its own encoder: during a swap there are two."""
    vectors: dict[int, NDArray[np.float32]] = {}
    for encoder in {id(encoder): encoder for encoder, _ in queries}.values():
        places = [place for place, (its, _) in enumerate(queries) if its is encoder]
        rows = encoder.encode_queries([queries[place][1] for place in places])
        vectors.update(zip(places, rows, strict=True))
    return [vectors[place] for place in range(len(queries))]


def _check_wait(max_wait_s: float) -> None:
    if not 0 <= max_wait_s <= 1:
        raise UsageError(f"max_wait_s={max_wait_s} cannot be: expected 0 to 1 second")


def _in_thread(function: Callable[[], _Opened]) -> Future[_Opened]:
    """Call a function in a thread of its own, which ends with it."""
    worker = ThreadPoolExecutor(1, thread_name_prefix="msmarco-qdrant-open")
    try:
        return worker.submit(function)
    finally:
        worker.shutdown(wait=False)


def _give_back(opening: Future[_Opened]) -> None:
    """Close what was opened, in the thread that opened it, if it was."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()
