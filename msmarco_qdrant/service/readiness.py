"""Running parts of a sidecar, and the checks of their readiness."""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.core.server_state import ServerState
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    ModelError,
    MsmarcoQdrantError,
    StoreError,
)
from msmarco_qdrant.migrate.status import MigrationStatus, migration_status
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.options import RERANK_DEPTH
from msmarco_qdrant.service.interfaces import About, Check
from msmarco_qdrant.service.startup import Opened, Startup
from msmarco_qdrant.service.worker.worker import Worker
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.filters import indexes_by_field

_META = "meta."
_REPLICAS_S = 10.0
_SHARD = re.compile(r"shard \d+( on peer \d+)?", re.ASCII)


@dataclass(slots=True)
class PassageCount:
    """Cached number of passages and indexed fields of a collection; None before the first count."""

    store: Store
    collection: str
    passages: int | None = None
    fields: Mapping[str, PayloadIndex] = field(default_factory=dict)

    def refresh(self) -> None:
        """Count again; raise a StoreError if the store does not answer."""
        collection = self.store.collection(self.collection)
        self.passages = collection.info(all_replicas=False).points
        self.fields = {
            key.removeprefix(_META): kind
            for key, kind in indexes_by_field(collection.spec().payload_indexes).items()
            if key.startswith(_META)
        }


class ReplicaWatch:
    """Replicas of the collection on a cluster, read again after some seconds. Thread-safe.

    Args:
        store: The store to ask.
        collection: The collection's name.
        clock: Returns seconds.
    """

    def __init__(
        self, store: Store, collection: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._collection = collection
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at = -math.inf
        self._checks: Sequence[Check] = ()

    def checks(self) -> Sequence[Check]:
        """Return a check of the replicas; none on a single server, or if it does not show them.

        It fails only for a shard without a replica that answers.

        Raises:
            StoreError: If the store does not answer.
        """
        with self._lock:
            if self._clock() - self._read_at >= _REPLICAS_S:
                self._checks = _check_replicas(self._store.server_state(self._collection))
                self._read_at = self._clock()
            return self._checks


def _check_replicas(state: ServerState | None) -> Sequence[Check]:
    if state is None or not state.replicas:
        return ()
    away = ", ".join(map(str, state.away))
    return (Check("replicas", away) if state.lost_shards else Check("replicas", note=away),)


@dataclass(frozen=True, slots=True)
class Running:
    """The search client and the worker, over the opened store."""

    collection: str
    opened: Opened
    client: AsyncSearchClient
    worker: Worker
    count: PassageCount
    replicas: ReplicaWatch

    @property
    def about(self) -> About:
        """Describe the collection, from memory."""
        encoder_info = self.client.metadata.encoder
        return About(
            self.collection,
            encoder_info.model,
            encoder_info.dimension,
            get_args(SearchMode),
            rerank=self.opened.reranker is not None,
            passages=self.count.passages,
            rerank_depth=self.client.metadata.search_defaults.rerank_depth or RERANK_DEPTH,
            fields=self.count.fields,
            tenant_field=self.client.metadata.tenant_field,
        )

    async def close(self) -> None:
        """Wait for searches under way, and close the store."""
        await self.client.close()
        await asyncio.to_thread(self.opened.close)


class SidecarReadiness:
    """Implements `Readiness`: checks model, store, migrations and worker. Of one event loop.

    Args:
        startup: The startup, for the time before `running` returns the parts.
        running: Returns the running parts, None during the startup.
        timeout_s: Seconds in which the store has to answer.
        fresh_s: Seconds for which an answer of the store is returned again, so that many probes,
            which need no token, cost no more than one.
        clock: Returns seconds.
    """

    def __init__(  # two for tests
        self,
        startup: Startup,
        running: Callable[[], Running | None],
        *,
        timeout_s: float,
        fresh_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._startup = startup
        self._running = running
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._clock = clock
        self._asked_at = -math.inf
        self._task: asyncio.Task[Sequence[Check]] | None = None

    async def checks(self) -> Sequence[Check]:
        """Check the model, the store, the migrations and the worker."""
        running = self._running()
        if running is None:
            if self._startup.stage == "store":
                return [Check("model", "waits for the store"), Check("store", "is not reached yet")]
            return [Check("model", "is being loaded"), Check("store")]
        worker = Check("worker", "" if running.worker.alive else "has ended: see the log")
        return [*await self._store_checks(running), worker]

    async def _store_checks(self, running: Running) -> Sequence[Check]:
        """Check the store once at a time; concurrent and later callers share a fresh result."""
        is_old = self._clock() - self._asked_at >= self._fresh_s
        if self._task is None or (is_old and self._task.done()):
            self._asked_at = self._clock()
            self._task = asyncio.create_task(_check_by_search(running))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(self._task)
        except TimeoutError:
            return [Check("store", f"has not answered within {self._timeout_s:g} s")]


async def _check_by_search(running: Running) -> Sequence[Check]:
    """Check the store, then search: a search also loads the model of a re-embedded collection."""
    checks = await asyncio.to_thread(_check_store, running)
    if any(check.problem for check in checks):
        return [Check("model"), *checks]
    try:
        tenant = None if running.client.metadata.tenant_field is None else "ready"
        await running.client.search("ready", limit=1, tenant=tenant)
    except ModelError:
        return [Check("model", "the collection has another one now, not loaded yet"), *checks]
    except StoreError as exc:
        return [Check("model"), Check("store", f"cannot be searched{_place_of(exc)}")]
    return [Check("model"), *checks]


def _place_of(error: StoreError) -> str:
    """Return the shard and the peer that a server's error names; "" without any."""
    found = _SHARD.search(str(error))
    return f": {found[0]}" if found else ""


def _check_store(running: Running) -> Sequence[Check]:
    try:
        status = migration_status(running.opened.searching, running.collection)
        running.count.refresh()
        replicas = running.replicas.checks()
    except CollectionNotFoundError:
        return [Check("store"), Check("migrations", "the collection is missing")]
    except MsmarcoQdrantError as exc:  # its message may contain a path or URL
        place = _place_of(exc) if isinstance(exc, StoreError) else ""
        return [Check("store", f"does not answer{place}")]
    return [Check("store"), *replicas, Check("migrations", _migrations_problem(status))]


def _migrations_problem(status: MigrationStatus) -> str:
    pending = [migration.name for migration in status.pending]
    problems = [f"pending: {', '.join(pending)}"] if pending else []
    problems += [f"unknown: {', '.join(status.unknown)}"] if status.unknown else []
    return "; ".join(problems)
