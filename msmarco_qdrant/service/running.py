"""What runs in a sidecar once everything is there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import get_args

from msmarco_qdrant.async_search import AsyncSearchClient
from msmarco_qdrant.search_records import SearchMode
from msmarco_qdrant.service.opening import Opened
from msmarco_qdrant.service.ports import About
from msmarco_qdrant.service.worker import Worker
from msmarco_qdrant.stores import Store


class Census:
    """How many passages a collection holds, as it was last counted.

    Args:
        store: Where it is.
        collection: Its name.

    Attributes:
        passages: How many, None before anybody has counted.
    """

    def __init__(self, store: Store, collection: str) -> None:
        self._store = store
        self._collection = collection
        self.passages: int | None = None

    def count(self) -> None:
        """Ask the store.

        Raises:
            StoreError: If it cannot say.
        """
        self.passages = self._store.collection(self._collection).info().points


@dataclass(frozen=True, slots=True)
class Running:
    """The client of searches and the worker, over what was opened."""

    collection: str
    opened: Opened
    client: AsyncSearchClient
    worker: Worker
    census: Census

    @property
    def about(self) -> About:
        """What is searched, from memory."""
        card = self.client.metadata.encoder
        return About(
            self.collection,
            card.model,
            card.dimension,
            get_args(SearchMode),
            rerank=self.opened.reranker is not None,
            passages=self.census.passages,
        )

    async def stop_working(self, grace_s: float) -> bool:
        """Finish the batch in hand, or give it back; whether the worker has ended."""
        return await asyncio.to_thread(self.worker.stop, grace_s)

    async def close(self) -> None:
        """Answer the searches under way, and give the store back."""
        await self.client.close()
        await asyncio.to_thread(self.opened.close)
