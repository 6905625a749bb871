"""Reading through a collection's name while a re-embedding repoints it.

A collection's name is an alias of a physical collection. `Store.collection` resolves it once; a
search resolves it at each call, with or without an event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from msmarco_qdrant.core.collection_types import CollectionInfo, CollectionSpec, PointId
from msmarco_qdrant.core.search_types import (
    Facet,
    OrderedPoint,
    PointOrder,
    PointQuery,
    ScoredPoint,
)
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.runtime.micro_batcher import MicroBatcher
from msmarco_qdrant.stores.base import Store
from msmarco_qdrant.stores.protocols import AsyncCollection, Collection

_T = TypeVar("_T")
_MAX_QUERIES = 64


class AliasedCollection:
    """The collection that a name points to at the moment of each call. Thread-safe, for reading.

    One physical collection answers a call; another may answer the next. A server resolves the
    alias in the request itself; for any other engine it is looked up before each call. A physical
    name points to itself.

    Raises:
        CollectionNotFoundError: For an unknown name; each call raises it, too.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._unresolved: Collection | None = None
        if store.capabilities.resolves_aliases:
            self._unresolved = store.unresolved_collection(name)
        else:
            store.collection(name)

    def info(self, *, all_replicas: bool = True) -> CollectionInfo:
        """Return counts, index state and settings; see `Collection.info`."""
        return self._call(lambda collection: collection.info(all_replicas=all_replicas))

    def spec(self) -> CollectionSpec:
        """Return the settings alone; see `Collection.spec`."""
        return self._call(lambda collection: collection.spec())

    def count(self, meta_filter: SearchFilter | None = None, *, exact: bool = True) -> int:
        """Count the points, or those that match a filter; see `Collection.count`."""
        return self._call(lambda collection: collection.count(meta_filter, exact=exact))

    def facet(
        self,
        key: str,
        *,
        limit: int,
        meta_filter: SearchFilter | None = None,
        exact: bool = True,
    ) -> list[Facet] | None:
        """Return the most frequent values of a payload key; see `Collection.facet`."""
        return self._call(
            lambda one: one.facet(key, limit=limit, meta_filter=meta_filter, exact=exact)
        )

    def scan(
        self,
        fields: Sequence[str],
        *,
        meta_filter: SearchFilter | None = None,
        start: PointId | None = None,
    ) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Yield every point of the collection that the name points to now; see `Collection.scan`.

        A server resolves the name for each page.
        """
        collection = self._unresolved or self._store.collection(self._name)
        return collection.scan(fields, meta_filter=meta_filter, start=start)

    def read_ordered(
        self,
        order: PointOrder,
        fields: Sequence[str],
        *,
        limit: int,
        meta_filter: SearchFilter | None = None,
    ) -> list[OrderedPoint] | None:
        """Return the first points of an order; see `Collection.read_ordered`."""
        return self._call(
            lambda one: one.read_ordered(order, fields, limit=limit, meta_filter=meta_filter)
        )

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch; see `Collection.query`."""
        return self._call(lambda collection: collection.query(queries))

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Return payload fields of those ids that exist; see `Collection.retrieve`."""
        return self._call(lambda collection: collection.retrieve(ids, fields))

    def _call(self, request: Callable[[Collection], _T]) -> _T:
        """Call the current collection; if that fails and the alias has moved, the new one."""
        if self._unresolved is not None:
            return request(self._unresolved)
        physical = self._resolve()
        while True:
            try:
                return request(self._store.collection(physical))
            except StoreError:  # the collection may have been dropped after the look-up
                current = self._resolve()
                if current == physical:
                    raise
                physical = current

    def _resolve(self) -> str:
        return self._store.aliases().get(self._name, self._name)


def open_async_collection(store: Store, name: str) -> AsyncCollection:
    """Return the collection behind a name, resolved at each call, for the running event loop.

    A server is called without a thread. Any other engine gets one thread, which sends all waiting
    queries in one batch.

    Raises:
        CollectionNotFoundError: For an unknown name.
    """
    if store.capabilities.async_search:
        return store.async_collection(name)
    return WorkerCollection(AliasedCollection(store, name))


class WorkerCollection:
    """A collection of an in-process engine, called through one worker thread."""

    def __init__(self, collection: AliasedCollection) -> None:
        self._collection = collection
        self._query = MicroBatcher(
            collection.query,
            max_items=_MAX_QUERIES,
            name="msmarco-qdrant-query",
        )

    async def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries, together with those of other callers."""
        return await self._query(queries)

    async def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Return payload fields of those ids that exist."""
        return await asyncio.to_thread(self._collection.retrieve, ids, fields)

    async def close(self) -> None:
        """End the thread; the collection stays open."""
        await self._query.close()
