"""The server as a process: one collection, over standard input and output or over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from typing import Any, TypeAlias

from msmarco_qdrant.collection.create import check_collection_name
from msmarco_qdrant.collection.tenants import tenant_filter
from msmarco_qdrant.integrations.mcp.access import Access
from msmarco_qdrant.integrations.mcp.backend import ClientBackend
from msmarco_qdrant.integrations.mcp.http import PATH, McpApp
from msmarco_qdrant.integrations.mcp.server import server_over
from msmarco_qdrant.integrations.mcp.stdio import serve_stdio
from msmarco_qdrant.runtime.stop_signals import on_signals, until
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.service.http.cors import with_cors
from msmarco_qdrant.service.http.server import HttpServer, listen, url_of
from msmarco_qdrant.service.http.tokens import check_binding, check_origins
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.stores import open_store

_Source: TypeAlias = Callable[[], Awaitable[AsyncSearchClient]]
_Serve: TypeAlias = Callable[[ClientBackend, asyncio.Event], Awaitable[None]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class McpOptions:
    """Options of the server besides the settings.

    Attributes:
        model: Location of the collection's model; None for the name in its metadata.
        tenant: The tenant whose passages are read and written.
        write: True to offer the tools that write.
        collections: Other collections that searches may name.
    """

    model: str | None = None
    tenant: str | None = None
    write: bool = False
    collections: Sequence[str] = ()

    @property
    def access(self) -> Access:
        """The access of every caller."""
        return Access(write=self.write, tenant=self.tenant)


async def run_stdio(settings: SidecarSettings, options: McpOptions) -> int:
    """Serve over standard input and output until the client closes it.

    Returns:
        The number of the signal that ended it, 0 for none.

    Raises:
        UsageError: For an invalid option.
        StoreError: If the store or the collection cannot be opened.
        ModelError: If the model cannot be loaded.
    """
    return await _run(
        settings,
        options,
        lambda backend, stopping: _run_until(
            stopping, serve_stdio(server_over(backend, options.access))
        ),
    )


async def run_http(
    settings: SidecarSettings,
    options: McpOptions,
    on_listening: Callable[[str], None] = lambda _url: None,
) -> int:
    """Serve over HTTP, with the tokens and the address of the settings, until a signal.

    Args:
        settings: The settings.
        options: The options.
        on_listening: Called with the URL once the server listens.

    Returns:
        The number of the signal that ended it.

    Raises:
        UsageError: For an invalid option, a port in use, or one that others reach without tokens.
        StoreError: If the store or the collection cannot be opened.
        ModelError: If the model cannot be loaded.
    """
    tokens, limits = settings.tokens, settings.limits
    check_binding(settings.host, tokens)
    check_origins(settings.origins, tokens)

    async def serve(backend: ClientBackend, stopping: asyncio.Event) -> None:
        app = McpApp(
            backend,
            tokens,
            write=options.write,
            tenant=options.tenant,
            origins=settings.origins,
            limits=limits,
        )
        open_to_sites = with_cors(app, settings.origins)
        server = HttpServer(open_to_sites, grace_s=settings.grace_s, limits=limits)
        async with app.running():
            url = url_of(listening) + PATH
            _log.info("listening on %s", url, extra={"fields": {"url": url}})
            on_listening(url)
            serving = asyncio.create_task(server.serve([listening]))
            try:
                await until(stopping, serving)
            finally:
                server.stop()
                await asyncio.wait({serving})

    with closing(listen(settings.host, settings.port)) as listening:
        return await _run(settings, options, serve)


async def _run(settings: SidecarSettings, options: McpOptions, serve: _Serve) -> int:
    """Open the store, then serve while a thread loads the model; calls of tools wait for it."""
    for name in options.collections:
        check_collection_name(name)
    store = await asyncio.to_thread(open_store, settings.store, connection=settings.connection)
    stopping, signals = asyncio.Event(), list[int]()

    def stop(number: int) -> None:
        signals.append(number)
        stopping.set()

    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, store.close)
        metadata = await asyncio.to_thread(store.metadata, settings.collection)
        if options.tenant is not None or not settings.tokens.tenants:
            tenant_filter(metadata, settings.collection, options.tenant, store.dsn)
        opening = asyncio.create_task(
            AsyncSearchClient.open(
                store,
                collection=settings.collection,
                model=options.model,
                encoder_options=settings.encoder_options,
                reranker=settings.reranker,
            )
        )
        stack.push_async_callback(_close, opening)
        opening.add_done_callback(lambda task: _stop_on_error(task, stopping))
        stack.enter_context(on_signals(stop))
        await serve(ClientBackend(lambda: asyncio.shield(opening), options.collections), stopping)
        if opening.done():
            opening.result()  # raises its error
    return signals[0] if signals else 0


def _stop_on_error(opening: asyncio.Task[AsyncSearchClient], stopping: asyncio.Event) -> None:
    if not opening.cancelled() and opening.exception() is not None:
        stopping.set()


async def _run_until(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Await the end of some work; cancel it if `stopping` is set first."""
    working, stop = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    await asyncio.wait({working, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait({working})
    if not working.cancelled():
        working.result()


async def _close(opening: asyncio.Task[AsyncSearchClient]) -> None:
    """Close the client, or give up its opening."""
    opening.cancel()
    await asyncio.wait({opening})
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().close()
