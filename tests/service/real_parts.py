"""The app over real parts: a spool on disk, its worker, a search client on a store in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.service.http.app import create_app
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens
from msmarco_qdrant.service.ingester import SpoolIngester
from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.worker.worker import Worker
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.service.http.driver import GivenChecks

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

PASSAGES = (
    Passage("1", "london is a big city", {"lang": "en", "year": 2001}),
    Passage("2", "paris is a city in france", {"lang": "fr", "author": {"name": "a"}}),
)


@dataclass(frozen=True, slots=True)
class Real:
    """What a test holds."""

    app: FastAPI
    spool: Spool
    store: Store
    metrics: Metrics
    parts: AppDependencies


@asynccontextmanager
async def real_parts(
    folder: Path,
    *,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    passages: Sequence[Passage] = PASSAGES,
) -> AsyncIterator[Real]:
    """Open them in the running loop, work off what comes in, and close them.

    Args:
        folder: Where the spool is made.
        tokens: Who may do what.
        limits: Bounds of requests.
        passages: What is there to be found.
    """
    encoder = HashingEncoder()
    with (
        closing(open_store(":memory:", create=True)) as store,
        Spool.open(folder / "spool") as spool,
    ):
        ingest_passages(passages, store, collection="msmarco", encoder=encoder)
        async with await AsyncSearchClient.open(
            store, encoder=encoder, reranker=WordOverlapReranker()
        ) as searcher:
            ingester = SpoolIngester(spool)
            metrics = Metrics(ingester.backlog)
            parts = AppDependencies(
                ingester,
                lambda: searcher,
                GivenChecks(),
                metrics,
                tokens or Tokens(),
                limits or Limits(),
            )
            worker = Worker(spool, store, encoder, events=metrics)
            worker.start()
            try:
                yield Real(create_app(parts), spool, store, metrics, parts)
            finally:
                ingester.close()
                await asyncio.to_thread(worker.stop, 10)


class OpenedApp:
    """An app that opens its real parts when a server starts it, and closes them at the end (ASGI).

    Args:
        folder: Where the spool is made.
        tokens: Who may do what.
        describe: Changes the app's OpenAPI description.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tokens: Tokens | None = None,
        describe: Callable[[dict[str, Any]], None],
    ) -> None:
        self._folder, self._tokens, self._describe = folder, tokens, describe
        self.real: Real | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start, end, or answer."""
        if scope["type"] != "lifespan":
            assert self.real is not None
            await self.real.app(scope, receive, send)
            return
        await receive()
        async with real_parts(self._folder, tokens=self._tokens) as self.real:
            self._describe(self.real.app.openapi())
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def traces(folder: Path) -> Mapping[str, str]:
    """Every path below a folder, with a digest of its content, "" for a folder."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        for path in sorted(folder.rglob("*"))
    }
