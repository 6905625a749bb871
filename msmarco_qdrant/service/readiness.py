"""Checks of a sidecar's readiness: models, store, migrations, worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    ModelError,
    MsmarcoQdrantError,
    StoreError,
)
from msmarco_qdrant.migrate.runner import MigrationStatus, migration_status
from msmarco_qdrant.service.interfaces import Check
from msmarco_qdrant.service.startup import Running, Startup

_OK = ""


class SidecarReadiness:
    """Asks everything that the sidecar needs; see `Readiness`. Of one event loop.

    Args:
        collection: The collection's name.
        opening: What opens the rest.
        running: What runs once that is done, None before.
        within_s: Seconds in which the store has to answer.
    """

    def __init__(
        self,
        collection: str,
        opening: Startup,
        running: Callable[[], Running | None],
        *,
        within_s: float,
    ) -> None:
        self._collection = collection
        self._opening = opening
        self._running = running
        self._within_s = within_s
        self._looking: asyncio.Task[Sequence[Check]] | None = None

    async def checks(self) -> Sequence[Check]:
        """The model, the store, the migrations and the worker."""
        running = self._running()
        if running is None:
            return self._checks_before()
        worker = Check("worker", _OK if running.worker.alive else "has ended: see the log")
        return [*await self._look(running), worker]

    def _checks_before(self) -> Sequence[Check]:
        if self._opening.stage == "store":
            return [Check("model", "waits for the store"), Check("store", "is not reached yet")]
        return [Check("model", "is being loaded"), Check("store")]

    async def _look(self, running: Running) -> Sequence[Check]:
        """Ask the store; one question at a time, however many ask for its answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._asked(running))
        try:
            async with asyncio.timeout(self._within_s):
                return await asyncio.shield(self._looking)
        except TimeoutError:
            return [Check("store", f"has not answered within {self._within_s:g} s")]

    async def _asked(self, running: Running) -> Sequence[Check]:
        """Ask by a search, too: one that meets another model than the client's loads it."""
        checks = await asyncio.to_thread(self._compared, running)
        if any(check.problem for check in checks):
            return [Check("model"), *checks]
        try:
            await running.client.search("ready", limit=1)
        except ModelError:
            return [Check("model", "the collection has another one now, not loaded yet"), *checks]
        except StoreError:
            return [Check("model"), Check("store", "cannot be searched")]
        return [Check("model"), *checks]

    def _compared(self, running: Running) -> Sequence[Check]:
        store = running.opened.searching
        try:
            status = migration_status(store, self._collection)
            running.census.count()
        except CollectionNotFoundError:
            return [Check("store"), Check("migrations", "there is no collection")]
        except MsmarcoQdrantError:  # what it says may name a place
            return [Check("store", "does not answer")]
        return [Check("store"), Check("migrations", _told(status))]


def _told(status: MigrationStatus) -> str:
    pending = [migration.name for migration in status.pending]
    told = [f"pending: {', '.join(pending)}"] if pending else []
    told += [f"unknown: {', '.join(status.unknown)}"] if status.unknown else []
    return "; ".join(told)
