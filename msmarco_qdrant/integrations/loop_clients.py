"""One asyncio client for each event loop that uses a search client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_async_collection


class LoopClients:
    """The asyncio clients of a search client, one for each event loop.

    A framework may call one object from several event loops. The client of a loop is opened by its
    first call, and closed when the loop ends (`asyncio.run` closes asynchronous generators then).

    Args:
        client: The client whose store, encoder and reranker they share. It stays open.
    """

    def __init__(self, client: SearchClient) -> None:
        self._client = client
        self._opening: dict[asyncio.AbstractEventLoop, asyncio.Task[AsyncSearchClient]] = {}
        self._lives: dict[asyncio.AbstractEventLoop, AsyncGenerator[AsyncSearchClient]] = {}

    async def client(self) -> AsyncSearchClient:
        """Return the client of the running event loop."""
        loop = asyncio.get_running_loop()
        opening = self._opening.get(loop)
        if opening is None or (opening.done() and _has_failed(opening)):
            opening = self._opening[loop] = loop.create_task(self._open(loop))
        return await asyncio.shield(opening)  # a cancelled caller does not cancel the others

    async def close(self) -> None:
        """Close the client of the running event loop; a further call opens another."""
        loop = asyncio.get_running_loop()
        if loop in self._opening:
            await self.client()
            await self._lives[loop].aclose()

    async def _open(self, loop: asyncio.AbstractEventLoop) -> AsyncSearchClient:
        life = self._live(loop)
        client = await anext(life)
        self._lives[loop] = life
        return client

    async def _live(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[AsyncSearchClient]:
        """Yield the client, and close it when the generator is closed."""
        store, name = self._client.store, self._client.collection
        collection = await asyncio.to_thread(open_async_collection, store, name)
        client = AsyncSearchClient(self._client, collection, owns_client=False)
        try:
            yield client
        finally:
            self._lives.pop(loop, None)
            self._opening.pop(loop, None)
            await client.close()


def _has_failed(opening: asyncio.Task[AsyncSearchClient]) -> bool:
    return opening.cancelled() or opening.exception() is not None
