"""The collection behind the tools: an interface, and a search client that implements it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from msmarco_qdrant.collection.filter_notes import FILTER_NOTES
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import UpsertReport
from msmarco_qdrant.migrate.indexes import list_indexes
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.options import RERANK_DEPTH
from msmarco_qdrant.service.interfaces import About, Searcher

_T = TypeVar("_T")


class Backend(Protocol):
    """Reads and writes of one collection. Its methods raise the errors of the search clients."""

    @property
    def collections(self) -> Sequence[str]:
        """Other collections that searches may name."""

    async def about(self) -> About:
        """Describe the collection."""

    async def run(self, call: Callable[[Searcher], Awaitable[_T]]) -> tuple[_T, Sequence[str]]:
        """Return the result of a call of the search client, and the warnings of its filter."""

    async def add(self, passages: Sequence[Passage]) -> UpsertReport | None:
        """Write passages, durably; the line of a reject is the passage's position, from 1.

        None if they are accepted on disk and will be written later.
        """

    async def delete(self, pids: Sequence[str], tenant: str | None) -> int | None:
        """Delete passages, durably; return the number of those that existed, or None as `add`."""


class ClientBackend:
    """Implements `Backend` over a search client.

    Args:
        client: Returns the client, which the caller closes; calls wait for it.
        collections: Other collections that searches may name.
    """

    def __init__(
        self,
        client: Callable[[], Awaitable[AsyncSearchClient]],
        collections: Sequence[str] = (),
    ) -> None:
        self._client = client
        self.collections = collections

    async def about(self) -> About:
        """Describe the collection; the number of passages is left out."""
        client = await self._client()
        metadata = client.metadata
        return About(
            client.collection,
            metadata.encoder.model,
            metadata.encoder.dimension,
            client.session.modes,
            rerank=client.session.can_rerank,
            rerank_depth=metadata.search_defaults.rerank_depth or RERANK_DEPTH,
            fields=await asyncio.to_thread(list_indexes, client.store, client.collection),
            tenant_field=metadata.tenant_field,
        )

    async def run(self, call: Callable[[Searcher], Awaitable[_T]]) -> tuple[_T, Sequence[str]]:
        """Return the result of a call, and the warnings of its filter."""
        client = await self._client()
        notes: list[str] = []
        FILTER_NOTES.set(notes)
        return await call(client), [*dict.fromkeys(notes)]

    async def add(self, passages: Sequence[Passage]) -> UpsertReport:
        """Write passages."""
        client = await self._client()
        return await client.upsert(passages)

    async def delete(self, pids: Sequence[str], tenant: str | None) -> int:
        """Delete passages."""
        client = await self._client()
        return await client.delete(pids, tenant=tenant)
