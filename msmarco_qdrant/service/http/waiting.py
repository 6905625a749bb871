"""Waits for a batch, each of at most so many seconds."""

from __future__ import annotations

import asyncio

from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.interfaces import BatchState, Ingester, ShuttingDownError


async def finished_within(ingester: Ingester, batch: str, seconds: float) -> BatchState | None:
    """Return the final state of a batch, None if it is not known in time; it is on disk."""
    try:
        async with asyncio.timeout(seconds):
            return await ingester.finished(batch)
    except (TimeoutError, ShuttingDownError, SpoolError):
        return None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # this request, not the batch
            raise
        return None
