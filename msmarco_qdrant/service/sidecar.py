"""The sidecar, put together: what takes passages in, what writes them, what searches and tells.

It listens and takes batches in at once. The store and the models are opened meanwhile; then it
searches, and works off what was taken in. When it is stopped it closes the doors first, finishes
the batch in hand or gives it back, and ends when every request has its answer.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from typing import TypeVar, get_args

from msmarco_qdrant import __version__
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.errors import StoreError, StoreUnavailableError
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.service.http.app import create_app
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.server import HttpServer, listen, url_of
from msmarco_qdrant.service.ingester import SpoolIngester
from msmarco_qdrant.service.interfaces import is_loopback
from msmarco_qdrant.service.metrics import Metrics, MetricsEvents
from msmarco_qdrant.service.options import SidecarOptions
from msmarco_qdrant.service.readiness import SidecarReadiness
from msmarco_qdrant.service.spool.inbox import Inbox
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.spool.state import BatchState
from msmarco_qdrant.service.startup import (
    ModelSource,
    NamedModels,
    Opened,
    PassageCount,
    Running,
    SharedModels,
    Startup,
)
from msmarco_qdrant.service.worker.worker import Worker, WorkerEvents, WorkerSettings

_T = TypeVar("_T")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger(__name__)


class Sidecar:
    """One process that ingests and searches one collection, by HTTP and from an inbox.

    Args:
        options: What it is told.
        models: What loads the models; by default by their names.
        on_listening: Called with its URL when it takes passages in.

    Attributes:
        left_behind: Whether, after `run`, a thread is still busy in a model or an engine. Nothing
            is lost by ending the process without it.
    """

    def __init__(
        self,
        options: SidecarOptions,
        models: ModelSource | None = None,
        *,
        on_listening: Callable[[str], None] = lambda _url: None,
    ) -> None:
        self._options = options
        self._models = SharedModels(models or NamedModels(options))
        self._opening = Startup(options, self._models)
        self._on_listening = on_listening
        self._running: Running | None = None
        self.left_behind = False

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until it is cancelled.

        Raises:
            UsageError: If the port cannot be had.
            SpoolError: If the spool cannot be used, or another process uses it.
            SourceError: If the inbox cannot be.
            StoreError: If the store cannot be used, and waiting would not help.
            ModelError: If a model cannot be loaded.
        """
        options = self._options
        with ExitStack() as stack:
            listening = stack.enter_context(closing(listen(options.host, options.port)))
            spool = stack.enter_context(
                Spool.open(
                    options.spool,
                    max_bytes=options.spool_bytes,
                    max_batches=options.spool_batches,
                )
            )
            inbox = Inbox(options.inbox, spool) if options.inbox else None
            if inbox is not None:
                inbox.start()
                stack.callback(inbox.stop)
            await self._serve(listening, spool)

    # ---- from the start to the end ---------------------------------------------------------

    async def _serve(self, listening: socket.socket, spool: Spool) -> None:
        ingester = SpoolIngester(spool)
        metrics = Metrics(ingester.backlog)
        grace_s = self._options.grace_s
        app = create_app(self._parts(ingester, metrics))
        server = HttpServer(app, grace_s=grace_s, limits=self._options.limits)
        stopping = asyncio.Event()
        with _on_signals(stopping.set):
            serving = asyncio.create_task(server.serve([listening]))
            starting = asyncio.create_task(self._start(spool, metrics, stopping))
            self._tell_listening(url_of(listening))
            try:
                await _until(stopping, serving, starting)
            finally:
                ingester.close()
                _log.info(
                    "the doors are closed; the batch in hand has %g s, and a second signal ends "
                    "everything at once, of which nothing is lost",
                    grace_s,
                )
                server.stop()
                await asyncio.gather(serving, self._stop_working(starting))
                if self._running is not None and not self.left_behind:
                    await self._running.close()
                _log.info("stopped")

    async def _start(self, spool: Spool, metrics: Metrics, stopping: asyncio.Event) -> None:
        """Open everything, then search and work, unless it is to stop by then."""
        while self._running is None:
            opened = await asyncio.wrap_future(_in_thread(self._opening.run, "opening"))
            try:
                self._running = await self._begun(opened, spool, metrics)
            except StoreUnavailableError as exc:
                _log.warning("the store is away again: %s", exc)
        if stopping.is_set():
            return
        info = self._info(self._running.client)
        metrics.set_info(info)
        _log.info("ready", extra={"fields": info})
        self._running.worker.start()

    async def _begun(self, opened: Opened, spool: Spool, metrics: Metrics) -> Running:
        """What searches and works, warm; what was opened is closed if there is an error."""
        name = self._options.collection
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
            census = PassageCount(opened.searching, name)
            await asyncio.to_thread(census.count)
            worker = self._worker(spool, opened, _Events(metrics, census))
            stack.pop_all()
        return Running(name, opened, client, worker, census)

    async def _stop_working(self, starting: asyncio.Task[None]) -> None:
        """End what opens, and then what works."""
        self._opening.stop()
        grace_s = self._options.grace_s
        done, _ = await asyncio.wait({starting}, timeout=grace_s)
        if not done:
            self.left_behind = True
            starting.cancel()
        elif self._running is not None:
            self.left_behind = not await self._running.stop_working(grace_s)
        elif not starting.cancelled():
            starting.exception()  # `run` raises it, unless it was to end before

    # ---- its parts -------------------------------------------------------------------------

    def _parts(self, ingester: SpoolIngester, metrics: Metrics) -> AppDependencies:
        options = self._options
        readiness = SidecarReadiness(
            options.collection,
            self._opening,
            lambda: self._running,
            within_s=0.8 * options.limits.checks_s,
        )
        return AppDependencies(
            ingester,
            lambda: self._running.client if self._running else None,
            readiness,
            metrics,
            options.tokens,
            options.limits,
            about=lambda: self._running.about if self._running else None,
        )

    def _worker(self, spool: Spool, opened: Opened, events: WorkerEvents) -> Worker:
        return Worker(
            spool,
            opened.writing,
            opened.encoder,
            WorkerSettings(self._options.collection, indexing=self._options.indexing),
            reload=lambda _name, encoder_info: self._models.of(encoder_info),
            events=events,
            storage=self._options.storage,
        )

    def _info(self, client: AsyncSearchClient) -> dict[str, str]:
        encoder_info = client.metadata.encoder
        return {
            "version": __version__,
            "collection": self._options.collection,
            "model": encoder_info.model,
            "dimension": str(encoder_info.dimension),
        }

    def _tell_listening(self, url: str) -> None:
        open_to = "whoever has a token"
        if is_loopback(self._options.host):
            open_to = "this machine"
        _log.info("listening on %s, for %s", url, open_to, extra={"fields": {"url": url}})
        self._on_listening(url)


class _Events(MetricsEvents):
    """Counts what a worker does, and after each batch the passages that there are."""

    def __init__(self, metrics: Metrics, census: PassageCount) -> None:
        super().__init__(metrics)
        self._census = census

    def ended(self, state: BatchState, stages: Sequence[StageTiming]) -> None:
        """A batch is done or has failed."""
        super().ended(state, stages)
        try:
            self._census.count()
        except StoreError as exc:
            _log.debug("the passages could not be counted: %s", exc)


async def _warm_up(client: AsyncSearchClient) -> None:
    """Do now what happens once, so that no caller waits for it: in the models, and in the code."""
    await client.warm_up()
    for mode in get_args(SearchMode):
        await client.search("warm up", mode=mode, limit=1)


async def _until(stopping: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    """Return when it is to stop; raise what one of the tasks raises before that."""
    asked = asyncio.create_task(stopping.wait())
    waiting: set[asyncio.Task[bool] | asyncio.Task[None]] = {asked, *tasks}
    try:
        while not asked.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        asked.cancel()


@contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first signal stop it in order; a second one ends the process as it does usually."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def leave_alone() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def once() -> None:
        leave_alone()
        stop()

    for number in _SIGNALS:
        loop.add_signal_handler(number, once)
    try:
        yield
    finally:
        leave_alone()


def _in_thread(function: Callable[[], _T], name: str) -> Future[_T]:
    """Call a function in a thread that does not keep the process from ending."""
    future: Future[_T] = Future()
    future.set_running_or_notify_cancel()  # so that nobody cancels it

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as exc:  # noqa: BLE001  # whoever waits for it raises it
            future.set_exception(exc)

    threading.Thread(target=call, name=name, daemon=True).start()
    return future
