"""Ingester of the HTTP app: accepts batches into the spool."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.interfaces import (
    Backlog,
    BatchState,
    Operation,
    ShuttingDownError,
    Write,
)
from msmarco_qdrant.service.spool.spool import Spool


class SpoolIngester:
    """Implements `Ingester` over a spool. Create it in the app's event loop.

    Args:
        spool: The spool, which the caller closes.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._closed = asyncio.Event()

    def accept(self, operations: Sequence[Operation]) -> str:
        """Store operations durably as one batch; see `Ingester` and `Spool.accept`."""
        if self._closed.is_set():
            raise ShuttingDownError("the sidecar is shutting down; nothing was accepted")
        return self._spool.accept(_rows(operations))

    def close(self) -> None:
        """Accept no more batches, and end every wait."""
        self._closed.set()

    def state(self, batch: str) -> BatchState | None:
        """Return the state of a batch, None for an unknown id."""
        return self._spool.state(batch)

    def recent(self, limit: int) -> Sequence[BatchState]:
        """Return the newest batches; see `Spool.recent`."""
        return self._spool.recent(limit)

    async def finished(self, batch: str) -> BatchState:
        """Wait until a batch is done or failed; see `Ingester`.

        Raises:
            SpoolError: If the batch is unknown, or its report cannot be read.
            CancelledError: If the spool is closed first.
        """
        outcome = await asyncio.to_thread(self._spool.outcome, batch)
        if outcome is None:
            raise SpoolError(f"the spool does not contain the batch {batch}")
        ended = asyncio.wrap_future(outcome)
        closed = asyncio.create_task(self._closed.wait())
        either: set[asyncio.Future[Any]] = {ended, closed}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                raise ShuttingDownError(f"the sidecar is shutting down; it keeps the batch {batch}")
            return ended.result()
        finally:
            closed.cancel()
            ended.cancel()

    def backlog(self) -> Backlog:
        """Return the backlog of the spool."""
        return Backlog(self._spool.depth, self._spool.oldest_age_s)


def _rows(operations: Sequence[Operation]) -> Iterator[Mapping[str, Any]]:
    for operation in operations:
        if isinstance(operation, Write):
            row = {"op": "write", "pid": operation.pid, "text": operation.text}
            yield {**row, "meta": operation.meta} if operation.meta else row
        else:
            yield {"op": "delete", "pid": operation.pid}
