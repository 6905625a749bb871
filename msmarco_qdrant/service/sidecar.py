"""Sidecar: one process that ingests and searches one collection, by HTTP and from an inbox.

It listens and accepts batches at once, and opens the store and the models in the meantime. Then it
searches and applies the accepted batches. A stop closes HTTP and inbox first, then finishes the
current batch or requeues it, and ends once every request is answered.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from typing import TypeAlias, get_args

from msmarco_qdrant import __version__
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.ingest.indexing import IndexingSettings
from msmarco_qdrant.runtime.daemon_executor import call_in_daemon_thread
from msmarco_qdrant.runtime.stop_signals import on_signals, until
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.service.http.app import create_app
from msmarco_qdrant.service.http.dependencies import AppDependencies, MountedApp
from msmarco_qdrant.service.http.queries import Queries
from msmarco_qdrant.service.http.server import HttpServer, listen, url_of
from msmarco_qdrant.service.http.tokens import is_loopback
from msmarco_qdrant.service.ingester import SpoolIngester
from msmarco_qdrant.service.interfaces import BatchId, BatchState, WorkerEvents
from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.service.readiness import PassageCount, ReplicaWatch, Running, SidecarReadiness
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.spool.inbox import Inbox
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.spool.sweeper import Sweeper
from msmarco_qdrant.service.startup import ModelSource, NamedModels, Opened, SharedModels, Startup
from msmarco_qdrant.service.worker.worker import Worker, WorkerSettings

Mount: TypeAlias = Callable[[AppDependencies, Queries], MountedApp]
"""Makes an app of another protocol, given the parts of the HTTP app and its searches."""

_log = logging.getLogger(__name__)


class Sidecar:
    """One process that ingests and searches one collection, by HTTP and from an inbox.

    Args:
        settings: Its settings.
        models: Loads the models; by default by their names.
        indexing: Frequency of index builds, where the engine does not build indexes itself.
        on_listening: Called with its URL once it accepts batches.
        mounts: Make apps of other protocols, which are served at paths of their own.

    Attributes:
        left_behind: True if, after `run`, a thread is still busy in a model or an engine. The
            process may end without it: nothing is lost.

    Raises:
        UsageError: For invalid settings; see `SidecarSettings.check`.
        StoreError: If the store's directory cannot be used.
    """

    def __init__(
        self,
        settings: SidecarSettings,
        models: ModelSource | None = None,
        *,
        indexing: IndexingSettings | None = None,
        on_listening: Callable[[str], None] = lambda _url: None,
        mounts: Sequence[Mount] = (),
    ) -> None:
        settings.check()
        self._settings = settings
        self._limits = settings.limits
        self._models = SharedModels(models or NamedModels(settings, settings.reranker))
        self._startup = Startup(settings, self._models, settings.payload_indexes)
        self._indexing = indexing or IndexingSettings()
        self._on_listening = on_listening
        self._mounts = mounts
        self._running: Running | None = None
        self.left_behind = False

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until cancelled.

        Raises:
            UsageError: If the port is in use.
            SpoolError: If the spool cannot be used, or another process uses it.
            SourceError: If the inbox cannot be used.
            StoreError: If the store fails permanently.
            ModelError: If a model cannot be loaded.
        """
        settings = self._settings
        with ExitStack() as stack:
            listening = stack.enter_context(closing(listen(settings.host, settings.port)))
            spool = stack.enter_context(
                Spool.open(
                    settings.spool,
                    max_bytes=settings.spool_bytes,
                    max_batches=settings.spool_batches,
                    total_bytes=settings.spool_total_bytes,
                )
            )
            stack.enter_context(Sweeper(spool.sweep, "spool"))
            if settings.inbox:
                inbox = Inbox(settings.inbox, spool)
                inbox.start()
                stack.callback(inbox.stop)
            await self._serve(listening, spool)

    # ---- from start to stop ----------------------------------------------------------------

    async def _serve(self, listening: socket.socket, spool: Spool) -> None:
        ingester = SpoolIngester(spool)
        metrics = Metrics(
            ingester.backlog,
            lambda: self._running.client.foreign_points if self._running else 0,
            lambda: self._running.opened.request_failures() if self._running else {},
            lambda: spool.use,
        )
        grace_s = self._settings.grace_s
        dependencies = self._dependencies(ingester, metrics)
        queries = Queries(dependencies)
        mounted = [mount(dependencies, queries) for mount in self._mounts]
        app = create_app(dependencies, queries, mounted)
        server = HttpServer(app, grace_s=grace_s, limits=self._limits)
        stopping = asyncio.Event()
        async with AsyncExitStack() as stack:
            for one in mounted:
                await stack.enter_async_context(one.running())
            stack.enter_context(on_signals(lambda _number: stopping.set()))
            serving = asyncio.create_task(server.serve([listening]))
            starting = asyncio.create_task(self._start(spool, metrics, stopping))
            self._announce(url_of(listening))
            try:
                await until(stopping, serving, starting)
            finally:
                ingester.close()
                _log.info(
                    "HTTP and inbox are closed; the current batch has %g s to finish; a second "
                    "signal ends the process at once, without loss",
                    grace_s,
                )
                server.stop()
                await asyncio.gather(serving, self._stop_working(starting))
                if self._running is not None and not self.left_behind:
                    await self._running.close()
                _log.info("stopped")

    async def _start(self, spool: Spool, metrics: Metrics, stopping: asyncio.Event) -> None:
        """Open everything; then search and work, unless the sidecar stops."""
        loop = asyncio.get_running_loop()

        def prepare(opened: Opened) -> Running:
            warming = self._warm_parts(opened, spool, metrics)
            return asyncio.run_coroutine_threadsafe(warming, loop).result()

        starting = call_in_daemon_thread(lambda: self._startup.run(prepare), "startup")
        self._running = await asyncio.wrap_future(starting)
        if stopping.is_set():
            return
        info = self._info(self._running.client)
        metrics.set_info(info)
        _log.info("ready", extra={"fields": info})
        self._running.worker.start()

    async def _warm_parts(self, opened: Opened, spool: Spool, metrics: Metrics) -> Running:
        """Make the search client and the worker, warmed up; on an error, close what was opened."""
        name = self._settings.collection
        async with AsyncExitStack() as stack:
            stack.callback(opened.close)
            client = await AsyncSearchClient.open(
                opened.searching,
                collection=name,
                encoder=opened.encoder,
                reranker=opened.reranker,
                load_encoder=self._models.of,
            )
            stack.push_async_callback(client.close)
            await _warm_up(client)
            count = PassageCount(opened.searching, name)
            await asyncio.to_thread(count.refresh)
            worker = self._worker(spool, opened, _Events(metrics, count))
            stack.pop_all()
        replicas = ReplicaWatch(opened.searching, name)
        return Running(name, opened, client, worker, count, replicas)

    async def _stop_working(self, starting: asyncio.Task[None]) -> None:
        """Stop the startup, then the worker."""
        self._startup.stop()
        grace_s = self._settings.grace_s
        done, _ = await asyncio.wait({starting}, timeout=grace_s)
        if not done:
            self.left_behind = True
            starting.cancel()
        elif self._running is not None:
            self.left_behind = not await asyncio.to_thread(self._running.worker.stop, grace_s)
        elif not starting.cancelled():
            starting.exception()  # `until` raised it, unless the sidecar was stopped first

    # ---- parts -----------------------------------------------------------------------------

    def _dependencies(self, ingester: SpoolIngester, metrics: Metrics) -> AppDependencies:
        readiness = SidecarReadiness(
            self._startup, lambda: self._running, timeout_s=0.8 * self._limits.checks_s
        )
        return AppDependencies(
            ingester,
            lambda: self._running.client if self._running else None,
            readiness,
            metrics,
            self._settings.tokens,
            self._limits,
            self._settings.origins,
            self._settings.permitted_collections,
            about=lambda: self._running.about if self._running else None,
        )

    def _worker(self, spool: Spool, opened: Opened, events: WorkerEvents) -> Worker:
        return Worker(
            spool,
            opened.writing,
            opened.encoder,
            WorkerSettings(
                self._settings.collection,
                indexing=self._indexing,
                window=self._settings.window,
                max_line_bytes=self._settings.max_line_bytes,
                payload_indexes=self._settings.payload_indexes,
            ),
            reload=lambda _name, encoder_info: self._models.of(encoder_info),
            events=events,
            storage=self._settings.storage,
        )

    def _info(self, client: AsyncSearchClient) -> dict[str, str]:
        encoder_info = client.metadata.encoder
        return {
            "version": __version__,
            "collection": self._settings.collection,
            "model": encoder_info.model,
            "dimension": str(encoder_info.dimension),
        }

    def _announce(self, url: str) -> None:
        loopback = is_loopback(self._settings.host)
        access = "from this machine only" if loopback else "with a token"
        _log.info("listening on %s, access %s", url, access, extra={"fields": {"url": url}})
        self._on_listening(url)


class _Events(WorkerEvents):
    """Counts events of a worker, and after each batch the passages of the collection."""

    def __init__(self, metrics: Metrics, count: PassageCount) -> None:
        self._metrics, self._count = metrics, count

    def ended(self, state: BatchState, stages: Sequence[StageTiming]) -> None:
        """Count a batch that is done or failed."""
        self._metrics.ended(state, stages)
        try:
            self._count.refresh()
        except StoreError as exc:
            _log.debug("the passages could not be counted: %s", exc)

    def failing(self, batch: BatchId, attempt: int, error: BaseException) -> None:
        """Count a failed attempt."""
        self._metrics.failing(batch, attempt, error)

    def optimized(self, seconds: float) -> None:
        """Count an index build."""
        self._metrics.optimized(seconds)


async def _warm_up(client: AsyncSearchClient) -> None:
    """Run every one-time cost of models and code now, so that no caller waits for it."""
    await client.warm_up()
    tenant = None if client.metadata.tenant_field is None else "warm up"
    for mode in get_args(SearchMode):
        await client.search("warm up", mode=mode, limit=1, tenant=tenant)
