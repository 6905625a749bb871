"""What runs in a sidecar once everything is there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import get_args

from msmarco_qdrant.async_search import AsyncSearchClient
from msmarco_qdrant.search_records import SearchMode
from msmarco_qdrant.service.opening import Opened
from msmarco_qdrant.service.ports import About
from msmarco_qdrant.service.worker import Worker


@dataclass(slots=True)
class Counted:
    """How many passages there were when somebody last looked; None before."""

    passages: int | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """The client of searches and the worker, over what was opened."""

    collection: str
    opened: Opened
    client: AsyncSearchClient
    worker: Worker
    counted: Counted = field(default_factory=Counted)

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
            passages=self.counted.passages,
        )

    async def stop_working(self, grace_s: float) -> bool:
        """Finish the batch in hand, or give it back; whether the worker has ended."""
        return await asyncio.to_thread(self.worker.stop, grace_s)

    async def close(self) -> None:
        """Answer the searches under way, and give the store back."""
        await self.client.close()
        await asyncio.to_thread(self.opened.close)
