"""Phrases to ranked passages, from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant._merging import Merger
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.records import CollectionMetadata, Hit, MetaFilter
from msmarco_qdrant.search import (
    SearchClient,
    check_filter,
    check_request,
    dense_queries,
    to_hits,
)
from msmarco_qdrant.stores import (
    NO_SETTINGS,
    AsyncCollection,
    Connection,
    Store,
    async_collection,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PHRASES_AT_ONCE = 64
MAX_WAIT_S = 0.003

_Opened: TypeAlias = tuple[SearchClient, AsyncCollection]


class AsyncSearchClient:
    """Answers phrases from one collection, without blocking the event loop.

    Phrases that are searched for at the same time are encoded in one forward pass, in a thread of
    its own. A search may be cancelled, or given a time-out by `asyncio.timeout`::

        async with await AsyncSearchClient.open("./qdrant_data", collection="msmarco") as client:
            hits = await client.search("how big is london", limit=5)

    It belongs to the event loop that it was opened in.

    Args:
        client: The client whose encoder and store it uses; it is closed with this one.
        collection: That client's collection; it is closed with this one, too.
        max_wait_s: How long a phrase waits for others to be encoded with, at most, in seconds.
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
        self._loop = asyncio.get_running_loop()
        self._collection = collection
        self._encode: Merger[str, NDArray[np.float32]] = Merger(
            client.encoder.encode_queries,  # type: ignore[arg-type]  # an array is a sequence of rows
            max_items=_PHRASES_AT_ONCE,
            max_wait_s=max_wait_s,
            name="msmarco-qdrant-encode",
        )
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(  # all but one have defaults
        cls,
        store: Store | str | PathLike[str],
        *,
        collection: str = "msmarco",
        model: str | PathLike[str] | None = None,
        encoder: Encoder | None = None,
        encoder_options: EncoderOptions | None = None,
        connection: Connection = NO_SETTINGS,
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
            connection: The API key, port and time limits of a server, where `store` is a URL.
            max_wait_s: How long a phrase waits for others to be encoded with, at most, in seconds.
        """
        _check_wait(max_wait_s)  # before anything is opened

        def opened() -> _Opened:
            client = SearchClient.open(
                store,
                collection=collection,
                model=model,
                encoder=encoder,
                encoder_options=encoder_options,
                connection=connection,
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
        """What the collection says of itself: its encoder, BM25 settings and migrations."""
        return self._client.metadata

    async def search(
        self,
        phrase: str,
        *,
        limit: int = 10,
        meta_filter: MetaFilter | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """The passages nearest to a phrase; see `SearchClient.search`."""
        (hits,) = await self.search_many(
            [phrase], limit=limit, meta_filter=meta_filter, exact=exact
        )
        return hits

    async def search_many(
        self,
        phrases: Sequence[str],
        *,
        limit: int = 10,
        meta_filter: MetaFilter | None = None,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """The passages nearest to each of several phrases; see `SearchClient.search_many`."""
        import numpy as np

        with self._counted():
            check_request(phrases, limit)
            check_filter(meta_filter)
            if not phrases:
                return []
            vectors = np.stack(await self._encode(phrases))
            queries = dense_queries(
                vectors, self.metadata, limit=limit, meta_filter=meta_filter, exact=exact
            )
            return [to_hits(points) for points in await self._collection.query(queries)]

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

    async def _drain(self) -> None:
        async with AsyncExitStack() as stack:  # each is closed, whatever becomes of the others
            stack.push_async_callback(asyncio.to_thread, self._client.close)
            stack.push_async_callback(self._collection.close)
            stack.push_async_callback(self._encode.close)
            await self._idle.wait()

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
