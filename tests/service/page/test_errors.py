"""The search page when not all is well: tokens, refusals, hostile passages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.service.http.tokens import Tokens
from tests.service.page.browser import Site, ask, looking, served, settle, shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

_TOKENS = Tokens("read-" + "r" * 16, "write-" + "w" * 16)
_PASSAGES = (Passage("1", "london is a big city"), Passage("2", "paris is a city in france"))
_KEPT = """async () => JSON.stringify([
    {...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state,
    document.documentElement.outerHTML, (await indexedDB.databases()).length,
    (await caches.keys()).length, document.querySelector("#token").value
])"""
_HOSTILE = (
    "<script>attacked()</script>",
    "<img src=x onerror=attacked()>",
    "</p></li><iframe srcdoc='<script>parent.attacked()</script>'>",
    "javascript:attacked()",
    '" onfocus=attacked() autofocus x="\'${attacked()}{{attacked()}}',
    "\u202egnirts desrever",
)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Site]:
    """A site that asks for tokens."""
    with served(tmp_path, _PASSAGES, tokens=_TOKENS) as opened:
        yield opened


def _give(page: Page, token: str) -> None:
    page.get_by_label("Read token").fill(token)
    page.get_by_role("button", name="Continue").click()


def test_a_token_is_asked_for_and_forgotten(browser: Browser, guarded: Site) -> None:
    """A wrong one, and the one to write, are asked for again; a reload asks for it once more."""
    with looking(browser, guarded.url) as page:
        dialog = page.get_by_role("dialog", name="A bearer token is needed")
        dialog.get_by_text("The sidecar answers only requests with this token.").wait_for()
        _give(page, "of-somebody-else")
        dialog.get_by_text("The token was not accepted. Expected the token to read.").wait_for()
        with page.expect_response(lambda response: response.status == 403):
            _give(page, str(_TOKENS.write))
        _give(page, str(_TOKENS.read))
        dialog.wait_for(state="hidden")
        ask(page, "a city")
        assert ["1", "2"] == sorted(shown(page, "left", ".pid dd"))
        page.reload()
        dialog.wait_for()
        assert [] == shown(page, "left", ".hit")


def test_a_token_is_kept_nowhere(browser: Browser, guarded: Site) -> None:
    """In no storage, cookie, address or attribute, and not in the field that it was typed into."""
    with looking(browser, guarded.url) as page:
        _give(page, f" {_TOKENS.read} ")
        ask(page, "a city")
        kept = page.evaluate(_KEPT)
        assert str(_TOKENS.read) not in kept
        assert [{}, {}, ""] == json.loads(kept)[:3]
        assert [0, 0, ""] == json.loads(kept)[6:]
        assert [] == page.context.cookies()
        assert [] == page.context.storage_state()["origins"]


def test_a_token_can_be_declined_and_dropped(browser: Browser, guarded: Site) -> None:
    """Esc declines, a problem says what is missing; a search asks again, a button forgets it."""
    with looking(browser, guarded.url) as page:
        dialog = page.get_by_role("dialog")
        dialog.wait_for()
        page.keyboard.press("Escape")
        page.locator("#spool").get_by_text("A bearer token is needed").wait_for()
        page.get_by_label("Query").fill("a city")
        page.keyboard.press("Enter")
        dialog.get_by_role("button", name="Not now").click()
        problem = page.get_by_role("alert")
        problem.get_by_text("Expected the header 'Authorization: Bearer TOKEN'.").wait_for()
        page.get_by_role("button", name="Enter the token").click()
        _give(page, str(_TOKENS.read))
        settle(page, "a city")
        assert "" == problem.inner_text()
        page.get_by_role("button", name="Forget the token").click()
        assert [] == shown(page, "left", ".hit")
        page.get_by_role("button", name="Search").click()
        dialog.wait_for()


def test_while_the_model_is_loaded_it_waits(browser: Browser, tmp_path: Path) -> None:
    """The problem is shown, and after Retry-After the same search finds what is there."""
    with served(tmp_path, _PASSAGES) as site, looking(browser, "about:blank") as page:
        site.loading = True
        page.clock.install()
        page.goto(site.url)
        page.get_by_text("The model is loading…").wait_for()
        page.get_by_label("Query").fill("a city")
        page.keyboard.press("Enter")
        problem = page.get_by_role("alert")
        problem.get_by_text("Trying again every 5 seconds.").wait_for()
        shown_texts = ["The sidecar is not ready", "The model is loading: see /readyz."]
        assert shown_texts == problem.inner_text().split("\n\n")[:2]
        assert "bm25" == page.get_by_label("Compared with").input_value()
        page.route("**/status", lambda _: None)  # without an answer: the search alone goes on
        site.loading = False
        page.clock.run_for(5_000)
        settle(page, "a city")
        assert ["1", "2"] == sorted(shown(page, "left", ".pid dd"))
        assert "" == problem.inner_text()


def test_a_refusal_is_shown_as_it_was_told(browser: Browser, tmp_path: Path) -> None:
    """Title, detail, and what is wrong, one by one; nothing is tried again."""
    with served(tmp_path, _PASSAGES) as site, looking(browser, site.url) as page:
        page.get_by_text("Limit and filter").click()
        page.get_by_label("Filter").fill('{"year": {"about": 2001}}')
        page.get_by_label("Query").fill("a city")
        page.keyboard.press("Enter")
        problem = page.get_by_role("alert")
        problem.get_by_text("The search is invalid: see errors.").wait_for()
        assert problem.inner_text().startswith("The request is invalid\n")
        assert problem.get_by_role("listitem").first.inner_text().startswith("filter.year")
        assert "Trying again" not in problem.inner_text()


def test_whatever_comes_in_is_text(browser: Browser, tmp_path: Path) -> None:
    """Markup in text, pid, meta, query and problems is shown, and nothing of it happens."""
    passages = [
        Passage(one, f"a city {one}", {"field": one, "deeper": {"<b>": [one]}, one[:20]: 1})
        for one in _HOSTILE
    ]
    query = "city <script>attacked()</script> \"'><img src=x onerror=attacked()>"
    with served(tmp_path, passages) as site, looking(browser, "about:blank") as page:
        attacks: list[str] = []
        page.expose_function("attacked", lambda: attacks.append("attacked"))
        page.goto(site.url)
        ask(page, query)
        for path in (f"?q={quote(query)}", f"?q=city&x={quote(query)}#<b>"):
            page.goto(site.url + path)
            page.locator("#left-hits .hit").first.wait_for()
        found = shown(page, "left", ".text")
        assert {f"a city {one}" for one in _HOSTILE} == set(found)
        assert set(_HOSTILE) == set(shown(page, "left", ".pid dd"))
        markup = "script:not([src]), iframe, img, b, [onerror], [onfocus], [style]"
        assert 0 == page.locator(f"body :is({markup})").count()
        page.get_by_text("Limit and filter").click()
        page.get_by_label("Filter").fill(json.dumps({_HOSTILE[1]: {"x": 1}}))
        page.get_by_role("button", name="Search").click()
        page.get_by_role("alert").get_by_text(_HOSTILE[1]).first.wait_for()
        assert 0 == page.locator("img").count()
        assert [] == attacks
