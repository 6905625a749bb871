"""The spool as the HTTP app sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.interfaces import Backlog, Operation, ShuttingDownError, Write
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.spool.state import BatchState


class SpoolIngester:
    """Takes batches for a spool, and asks it; see `Ingester`. Made in the app's event loop.

    Args:
        spool: Where batches are kept; it stays the caller's.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._closed = asyncio.Event()

    def accept(self, operations: Sequence[Operation]) -> str:
        """Put operations on disk for good, as one batch.

        Raises:
            ShuttingDownError: During the shutdown.
            SpoolFullError: If there are too many.
            SpoolError: If the disk does not take them; see `Spool.accept`.
        """
        if self._closed.is_set():
            raise ShuttingDownError("the sidecar is being shut down: nothing was accepted")
        return self._spool.accept(_rows(operations))

    def close(self) -> None:
        """Take nothing in any more, and let nobody wait."""
        self._closed.set()

    def state(self, batch: str) -> BatchState | None:
        """How far a batch is."""
        return self._spool.state(batch)

    async def finished(self, batch: str) -> BatchState:
        """Wait until a batch is done or failed.

        Raises:
            ShuttingDownError: If the sidecar is shut down before; the batch is kept.
            SpoolError: If it is not known any more, or its report cannot be read.
            CancelledError: If the spool is closed before.
        """
        outcome = await asyncio.to_thread(self._spool.outcome, batch)
        if outcome is None:
            raise SpoolError(f"the batch {batch} is not in the spool any more")
        ended = asyncio.wrap_future(outcome)
        closed = asyncio.create_task(self._closed.wait())
        either: set[asyncio.Future[Any]] = {ended, closed}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                raise ShuttingDownError(
                    f"the sidecar is being shut down; the batch {batch} is kept"
                )
            return ended.result()
        finally:
            closed.cancel()
            ended.cancel()

    def backlog(self) -> Backlog:
        """What waits."""
        return Backlog(self._spool.depth, self._spool.oldest_age_s)


def _rows(operations: Sequence[Operation]) -> Iterator[Mapping[str, Any]]:
    for operation in operations:
        if isinstance(operation, Write):
            row = {"op": "write", "pid": operation.pid, "text": operation.text}
            yield {**row, "meta": operation.meta} if operation.meta else row
        else:
            yield {"op": "delete", "pid": operation.pid}
