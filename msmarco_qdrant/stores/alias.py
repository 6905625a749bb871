"""What a name leads to, at the moment of each question to it.

A collection's name is an alias, and a re-embed lets it lead to another physical collection. What
is opened by `Store.collection` stays with the one that it led to then; a search follows it.

Searching a collection from an event loop, without blocking it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from msmarco_qdrant.core.records import CollectionInfo, PointId
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.runtime.micro_batcher import MicroBatcher
from msmarco_qdrant.stores.base import Collection, Store
from msmarco_qdrant.stores.server.store import ServerStore

_T = TypeVar("_T")


class LiveCollection(Protocol):
    """What a name leads to, for who only reads. Safe to use from several threads.

    One call is answered by one physical collection; the next may be answered by another.
    """

    def info(self) -> CollectionInfo:
        """Counts, index state and settings; see `Collection.info`."""
        ...

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch; see `Collection.query`."""
        ...

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Payload fields of those ids that exist; see `Collection.retrieve`."""
        ...


def live_collection(store: Store, name: str) -> LiveCollection:
    """What a name leads to, at the moment of each call. A physical name leads to itself.

    A server is asked by the name itself, which costs no request more; any other engine is in this
    process, where names are looked up at each call.

    Raises:
        CollectionNotFoundError: If it leads nowhere now; each call raises it if it does then.
    """
    if isinstance(store, ServerStore):
        return store.live(name)
    return AliasedCollection(store, name)


class AliasedCollection:
    """A collection of an engine in this process, looked up by its name at each call."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        store.collection(name)

    def info(self) -> CollectionInfo:
        """Counts, index state and settings."""
        return self._answered(lambda collection: collection.info())

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        return self._answered(lambda collection: collection.query(queries))

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Payload fields of those ids that exist."""
        return self._answered(lambda collection: collection.retrieve(ids, fields))

    def _answered(self, ask: Callable[[Collection], _T]) -> _T:
        """The answer of what the name leads to.

        If that fails and the name leads elsewhere by now, the collection may have been removed
        between the look-up and the question: then the other is asked.
        """
        physical = self._led_to()
        while True:
            try:
                return ask(self._store.collection(physical))
            except StoreError:
                current = self._led_to()
                if current == physical:
                    raise
                physical = current

    def _led_to(self) -> str:
        return self._store.aliases().get(self._name, self._name)


_QUERIES_AT_ONCE = 64


class AsyncCollection(Protocol):
    """What a name leads to, searched from one event loop; see `LiveCollection`."""

    async def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch; see `Collection.query`. May be cancelled."""
        ...

    async def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Payload fields of those ids that exist; see `Collection.retrieve`."""
        ...

    async def close(self) -> None:
        """Wait for what is under way, and give back what was opened for it."""
        ...


def async_collection(store: Store, name: str) -> AsyncCollection:
    """What a name leads to at the moment of each call, for the running event loop.

    A server is asked without a thread; any other engine in one thread of its own, which takes
    what has queued up meanwhile in one batch.

    Raises:
        CollectionNotFoundError: If it leads nowhere now.
    """
    if isinstance(store, ServerStore) and store.is_remote:
        return store.asynchronous(name)
    return WorkerCollection(live_collection(store, name))


class WorkerCollection:
    """A collection of an engine in this process, used through one worker thread."""

    def __init__(self, collection: LiveCollection) -> None:
        self._collection = collection
        self._query = MicroBatcher(
            collection.query,
            max_items=_QUERIES_AT_ONCE,
            max_wait_s=0.0,  # the engine is fast, and queries were merged before
            name="msmarco-qdrant-query",
        )

    async def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries, together with those of other callers."""
        return await self._query(queries)

    async def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Payload fields of those ids that exist."""
        return await asyncio.to_thread(self._collection.retrieve, ids, fields)

    async def close(self) -> None:
        """End the thread; the collection stays open."""
        await self._query.close()
