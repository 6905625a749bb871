"""The search page, driven in a browser: type, read, compare, and see what comes in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from msmarco_qdrant.core.records import Passage
from tests.service.page.browser import Site, ask, looking, served, settle, shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.slow

_TIDES = "why do the tides rise twice a day"


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """The page, just opened."""
    with looking(browser, site.url) as opened:
        yield opened


def test_a_query_finds_passages(page: Page, site: Site) -> None:
    """With rank, score, pid and text, as the interface gives them; collection and model named."""
    ask(page, _TIDES)
    expected = site.hits(_TIDES, mode="hybrid")
    assert [hit["pid"] for hit in expected] == shown(page, "left", ".pid dd")
    assert [hit["text"] for hit in expected] == shown(page, "left", ".text")
    assert [f"{hit['score']:.3f}" for hit in expected] == shown(page, "left", ".score dd")
    assert [f"Rank {place}" for place in range(1, 11)] == [
        text.replace("\n", "") for text in page.locator("#left-hits .rank").all_text_contents()
    ]
    assert "Search msmarco" == page.get_by_role("heading", level=1).inner_text()
    assert page.locator("#about").inner_text().startswith("costless-64 · 64 dimensions · 3")


def test_words_of_the_query_are_marked(browser: Browser, tmp_path: Path) -> None:
    """In other forms, too, and with accents; not the commonest, and not parts of words."""
    text = "Cities: the CITY of Málaga is a city's rival. Capacity rose, and rising savings run."
    query = "the cities of malaga rise to save runs"
    with (
        served(tmp_path, [Passage("1", text)]) as site,
        looking(browser, f"{site.url}?q={quote(query)}") as page,
    ):
        settle(page, query)
        expected = ["Cities", "CITY", "Málaga", "city's", "rising", "savings", "run"]
        assert expected == shown(page, "left", "mark")
        assert [text] == shown(page, "left", ".text")


@pytest.mark.parametrize("pair", [("dense", "bm25"), ("bm25", "hybrid"), ("dense+rerank", "dense")])
def test_two_rankings_are_compared(page: Page, site: Site, pair: tuple[str, str]) -> None:
    """The second tells of each passage how it moved, in signs and in words."""
    ask(page, _TIDES)
    for label, value in zip(("Ranking", "Compared with"), pair, strict=True):
        page.get_by_label(label, exact=True).select_option(value)  # marks the results as busy
        settle(page, _TIDES)
    first, second = ([hit["pid"] for hit in site.hits(_TIDES, **_asked(one))] for one in pair)
    assert (first, second) == (shown(page, "left", ".pid dd"), shown(page, "right", ".pid dd"))
    moves = [_moved(first, place, pid) for place, pid in enumerate(second)]
    assert moves == page.locator("#right-hits .move").all_text_contents()
    out = len(set(first) - set(second))
    assert ["out, not in the second ranking"] * out == page.locator(
        "#left-hits .move"
    ).all_text_contents()
    assert f"10 passages in each ranking: {10 - out} in both, {out} new in the second." == (
        page.get_by_role("status").inner_text()
    )


def _asked(value: str) -> dict[str, object]:
    mode, _, more = value.partition("+")
    return {"mode": mode, "rerank": more == "rerank"}


def _moved(first: list[str], place: int, pid: str) -> str:
    if pid not in first:
        return "new, not in the first ranking"
    by = first.index(pid) - place
    if by == 0:
        return "=, same place as in the first ranking"
    sign, word = ("▲", "up") if by > 0 else ("▼", "down")
    places = "1 place" if abs(by) == 1 else f"{abs(by)} places"
    return f"{sign}{abs(by)}, {word} {places}, from {first.index(pid) + 1}"


def test_what_can_be_had_is_offered(browser: Browser, site: Site) -> None:
    """With a reranker it shows what that does; without, vectors against words; or one ranking."""
    with looking(browser, site.url) as page:
        ask(page, _TIDES)
        assert ("hybrid", "hybrid+rerank") == _chosen(page)
    site.rerank = False
    try:
        with looking(browser, site.url) as page:
            ask(page, _TIDES)
            assert ("dense", "bm25") == _chosen(page)
            assert ["Dense", "BM25", "Hybrid"] == page.locator("#left option").all_text_contents()
            page.get_by_label("Compared with").select_option("Nothing")
            page.get_by_text("10 passages.", exact=True).wait_for()
            assert [] == shown(page, "right", ".hit") == shown(page, "left", ".move")
    finally:
        site.rerank = True


def _chosen(page: Page) -> tuple[str, str]:
    return page.locator("#left").input_value(), page.locator("#right").input_value()


def test_a_passage_that_was_posted_is_found(page: Page, site: Site) -> None:
    """It comes in by HTTP while the page is open, and the next search has it."""
    query = "who keeps the lighthouse of Lindau"
    ask(page, query)
    assert "lindau-1" not in shown(page, "left", ".pid dd")
    site.post([{"pid": "lindau-1", "text": "Lindau's lighthouse keeps the time", "meta": {"n": 7}}])
    with page.expect_response("**/search"):
        page.get_by_role("button", name="Search").click()
    page.locator("#right-hits").get_by_text("lindau-1").wait_for()
    assert "lindau-1" == shown(page, "left", ".pid dd")[0]
    assert ["Lindau's", "lighthouse", "keeps"] == shown(page, "left", "li:first-child mark")
    assert "n\n7" in page.locator("#left-hits .facts").first.inner_text()


def test_a_search_has_an_address(page: Page, site: Site) -> None:
    """It can be shared and gone back to, and holds the query alone."""
    ask(page, "a & b = tides?")
    assert f"{site.url}?q=a+%26+b+%3D+tides%3F" == page.url
    ask(page, "kettle")
    page.go_back()
    settle(page, "a & b = tides?")
    assert "a & b = tides?" == page.get_by_label("Query").input_value()
    page.goto(f"{site.url}?q=kettle")
    settle(page, "kettle")
    assert [hit["pid"] for hit in site.hits("kettle", mode="hybrid")] == shown(
        page, "left", ".pid dd"
    )


def test_r20_a_late_answer_is_not_shown(page: Page, site: Site) -> None:
    """An earlier search that is still under way is given up."""
    held: list[Route] = []
    given_up: list[str] = []
    page.on("requestfailed", lambda request: given_up.append(request.post_data or ""))

    def hold(route: Route) -> None:
        if "kettle" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/search", hold)
    page.get_by_label("Query").fill("kettle")
    page.get_by_role("button", name="Search").click()
    while len(held) < 2:  # of both rankings; routes are handled in any call
        page.evaluate("null")
    ask(page, _TIDES)
    while len(given_up) < len(held):  # no event is handled between the check and the wait
        page.wait_for_event("requestfailed")
    for route in held:
        route.continue_()
    assert len(given_up) == len(held) > 0
    assert all("kettle" in body for body in given_up)
    assert [hit["pid"] for hit in site.hits(_TIDES, mode="hybrid")] == shown(
        page, "left", ".pid dd"
    )


def test_limit_and_filter(page: Page, site: Site) -> None:
    """They go with the search; what is no JSON is told at the field, and nothing is asked."""
    site.post([{"pid": "f-1", "text": "a kettle of old", "meta": {"year": 1901}}])
    page.get_by_text("Limit and filter").click()
    page.get_by_label("Results per ranking").fill("3")
    ask(page, "kettle")
    assert 3 == len(shown(page, "left", ".hit")) == len(shown(page, "right", ".hit"))
    page.get_by_label("Filter").fill('{"year": {"lt": 1950}}')
    page.get_by_role("button", name="Search").click()
    page.get_by_text("1 passage in each ranking: 1 in both").wait_for()
    assert ["f-1"] == shown(page, "left", ".pid dd")
    page.get_by_label("Filter").fill("{year")
    page.get_by_role("button", name="Search").click()
    invalid = page.locator("#filter:invalid")
    invalid.wait_for()
    assert "JSON" in invalid.evaluate("(field) => field.validationMessage")


def test_a_long_text_is_cut_around_what_was_found(browser: Browser, tmp_path: Path) -> None:
    """And all of it is there for the asking."""
    text = "first " + "filler words " * 500 + "here is the needle " + "more of it " * 500 + "last"
    with served(tmp_path, [Passage("1", text)]) as site, looking(browser, site.url) as page:
        ask(page, "needle")
        (cut,) = shown(page, "left", ".text")
        assert "needle" in cut
        assert cut.startswith("… ")
        assert cut.endswith(" …")
        assert len(cut) < 1000
        page.locator("#left-hits").get_by_role("button", name="Show all").click()
        assert [text] == shown(page, "left", ".text")


def _reload(page: Page) -> None:
    """Reload, and wait for the two states that the page requests before its first pause."""
    states: list[str] = []
    page.on("requestfinished", lambda request: states.append(request.url))
    page.reload()
    while sum(url.endswith("/status") for url in states) < 2:
        page.wait_for_event("requestfinished")


def test_r20_the_spool_is_told_of(page: Page) -> None:
    """Nothing waits; or so many batches, the oldest for so long, as /status has it by and by."""
    page.clock.install()
    _reload(page)
    page.get_by_text("Nothing waits: all passages are searchable").wait_for()

    def delay(route: Route) -> None:
        answer = route.fetch()
        waiting = {"batches": 3, "oldest_s": 75.4}
        route.fulfill(response=answer, json={**answer.json(), "spool": waiting})

    page.route("**/status", delay)
    page.clock.run_for(5_000)
    page.get_by_text("3 batches wait, the oldest for 1 min").wait_for()
    page.unroute("**/status")
    page.clock.run_for(2_000)
    page.get_by_text("Nothing waits: all passages are searchable").wait_for()


def test_r20_nothing_is_asked_while_nobody_looks(page: Page) -> None:
    """The state is asked for again as soon as the page is visible."""
    page.clock.install()
    _reload(page)
    page.get_by_text("Nothing waits").wait_for()
    show = """(state) => {
        Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(show, "hidden")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert [] == asked
    with page.expect_request("**/status"):
        page.evaluate(show, "visible")
