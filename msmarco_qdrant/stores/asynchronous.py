"""Searching a collection from an event loop, without blocking it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msmarco_qdrant._merging import Merger
from msmarco_qdrant.records import PointId
from msmarco_qdrant.search_records import PointQuery, ScoredPoint
from msmarco_qdrant.stores.live import LiveCollection, live_collection
from msmarco_qdrant.stores.protocols import Store
from msmarco_qdrant.stores.server import ServerStore

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
        self._query = Merger(
            collection.query,
            max_items=_QUERIES_AT_ONCE,
            max_wait_s=0.0,  # the engine is fast, and phrases were merged before
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
