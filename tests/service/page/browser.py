"""The app over real parts, served on a free port of loopback, and a browser that looks at it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.service.http.app import create_app
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.server import HttpServer
from msmarco_qdrant.service.http.tokens import Tokens
from msmarco_qdrant.service.interfaces import About
from tests.service.real_parts import Real, real_parts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_WAIT_MS: Final = 120_000  # only a failure takes that long
_LISTENING: Final = """addEventListener("securitypolicyviolation", (event) =>
    console.error(`violated: ${event.violatedDirective} ${event.blockedURI}`))"""
# A status that is no success; what the page makes of it is what the tests look at.
_STATUS: Final = "Failed to load resource: the server responded with a status of"


@dataclass
class Site:
    """An app that is served.

    Attributes:
        url: Where.
        tokens: Who may do what.
        rerank: Whether it says that it can rerank.
        loading: Whether it says that its model is being loaded.
        fields: The fields that it says have a payload index.
        tenant_field: The field that it says has the tenants.
    """

    url: str
    tokens: Tokens = field(default_factory=Tokens)
    rerank: bool = True
    loading: bool = False
    fields: Mapping[str, PayloadIndex] = field(default_factory=dict)
    tenant_field: str | None = None

    def post(self, passages: Sequence[Mapping[str, object]]) -> None:
        """Bring passages by HTTP, and wait until they can be found."""
        answer = self._sent("passages?wait=true", passages, self.tokens.write)
        assert "done" == answer["state"]

    def hits(self, query: str, **options: object) -> list[dict[str, Any]]:
        """What a search answers by HTTP."""
        answer = self._sent("search", {"query": query, **options}, self.tokens.read)
        hits: list[dict[str, Any]] = answer["hits"]
        return hits

    def _sent(self, path: str, body: object, token: str | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = httpx.post(self.url + path, json=body, headers=headers, timeout=60)
        assert 200 == answer.status_code, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def altered(self, real: Real) -> AppDependencies:
        """The real parts, as far as this lets them be seen."""
        searcher = real.parts.searcher
        return replace(
            real.parts,
            searcher=lambda: None if self.loading else searcher(),
            about=lambda: None if self.loading else self._about(real),
        )

    def _about(self, real: Real) -> About:
        points = real.store.collection("msmarco").info().points
        encoder_info = real.store.metadata("msmarco").encoder
        modes: Sequence[SearchMode] = ("dense", "bm25", "hybrid")
        return About(
            "msmarco",
            encoder_info.model,
            encoder_info.dimension,
            modes,
            self.rerank,
            points,
            fields=self.fields,
            tenant_field=self.tenant_field,
        )


def sample() -> Sequence[Passage]:
    """The package's own three hundred passages."""
    with sample_passages() as source:
        rows = [line.split("\t") for line in source.read_text().splitlines()]
    return [Passage(pid, text) for pid, text in rows]


@contextmanager
def served(
    folder: Path, passages: Sequence[Passage], *, tokens: Tokens | None = None
) -> Iterator[Site]:
    """Serve the page over passages in memory, in a thread with an event loop of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        site = Site(f"http://127.0.0.1:{listening.getsockname()[1]}/", tokens or Tokens())
        started: Future[HttpServer] = Future()

        async def serve() -> None:
            async with real_parts(folder, tokens=site.tokens, passages=passages) as real:
                server = HttpServer(create_app(site.altered(real)), grace_s=1)
                started.set_result(server)
                await server.serve([listening])

        thread = threading.Thread(target=_run, args=(serve, started), name="site")
        thread.start()
        try:
            server = started.result(60)
            yield site
            server.stop()
        finally:
            thread.join(60)


def _run(serve: Callable[[], Any], started: Future[Any]) -> None:
    try:
        asyncio.run(serve())
    except BaseException as exc:
        if started.done():
            raise
        started.set_exception(exc)


# ---- the browser ---------------------------------------------------------------------------


@contextmanager
def browsing() -> Iterator[Browser]:
    """The system's Chromium, or a visible skip; none is ever downloaded.

    While it is open, its thread has an event loop: let no test that calls `asyncio.run` into the
    module that holds it.
    """
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: expected {' or '.join(_NAMES)} (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=False)
        yield browser
        browser.close()


@contextmanager
def looking(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page in a fresh profile; at the end no error was told, and no policy violated."""
    faults: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(_STATUS):
            faults.append(message.text)

    context = browser.new_context(**options)
    context.set_default_timeout(_WAIT_MS)
    page = context.new_page()
    page.add_init_script(_LISTENING)
    page.on("console", listen)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    assert [] == faults


def ask(page: Page, query: str) -> None:
    """Type a query once the page has its status, and wait for the results."""
    page.locator("#spool:not([data-state=unknown])").wait_for()
    page.get_by_label("Query").fill(query)
    page.get_by_role("button", name="Search").click()
    settle(page, query)


def settle(page: Page, query: str) -> None:
    """Wait until the results of a query are shown."""
    from playwright.sync_api import expect

    expect(page).to_have_title(f"{query} · msmarco-qdrant", timeout=_WAIT_MS)
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true", timeout=_WAIT_MS)
    expect(page.get_by_role("status")).not_to_be_empty(timeout=_WAIT_MS)


def shown(page: Page, side: str, part: str) -> list[str]:
    """Of each hit of a ranking, "left" or "right", the text of a part, such as ".pid dd"."""
    return page.locator(f"#{side}-hits {part}").all_inner_texts()
