"""Facets, passages like one, and the newest batches on the search page, driven in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from msmarco_qdrant.core.records import Passage
from tests.service.page.browser import Site, ask, looking, served, settle, shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

_LANGS = ("en", "de", "fr")
_PASSAGES = [
    Passage(
        str(number),
        f"the harbor of town {number} has a lighthouse",
        {"lang": _LANGS[number % 3], "year": 2000 + number % 2, "new": number > 5},
    )
    for number in range(8)
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Eight passages with three fields, of which one is text."""
    with served(tmp_path_factory.mktemp("site"), _PASSAGES) as opened:
        opened.fields = {"lang": "keyword", "year": "integer", "new": "bool", "body": "text"}
        yield opened


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """The page, with its facets."""
    with looking(browser, site.url) as opened:
        opened.locator("#facets:not([hidden])").wait_for()
        yield opened


def _facets(page: Page) -> dict[str, list[str]]:
    """The values of each field with their counts, as they are shown."""
    return {
        group.locator("legend").inner_text(): group.get_by_role("button").all_inner_texts()
        for group in page.locator("#facets fieldset").all()
    }


def _choose(page: Page, value: str) -> None:
    """Choose a value, and wait until the results and the counts are those of the new filter."""
    with page.expect_response("**/facets"), page.expect_response("**/search"):
        page.locator("#facets").get_by_role("button", name=value).click()
    page.wait_for_load_state("networkidle")
    settle(page, "harbor")


def test_values_of_the_indexed_fields_are_counted(page: Page) -> None:
    """Strings, numbers and booleans; the most frequent first, text by words not at all."""
    assert {
        "lang": ["de 3", "en 3", "fr 2"],
        "year": ["2000 4", "2001 4"],
        "new": ["false 6", "true 2"],
    } == _facets(page)


def test_a_chosen_value_is_in_the_filter(page: Page, site: Site) -> None:
    """The results have it, other fields count within it; values of one field add up."""
    ask(page, "harbor")
    _choose(page, "de")
    assert {"lang": "de"} == json.loads(page.get_by_label("Filter").input_value())
    hits = site.hits("harbor", filter={"lang": "de"})
    assert {hit["pid"] for hit in hits} == set(shown(page, "left", ".pid dd"))
    assert {
        "lang": ["de 3", "en 3", "fr 2"],
        "year": ["2001 2", "2000 1"],
        "new": ["false 2", "true 1"],
    } == _facets(page)
    _choose(page, "fr")
    assert {"lang": ["de", "fr"]} == json.loads(page.get_by_label("Filter").input_value())
    assert 5 == len(shown(page, "left", ".hit"))
    pressed = page.locator("#facets [aria-pressed=true]").all_inner_texts()
    assert ["de 3", "fr 2"] == pressed
    for value in ("de", "fr"):
        _choose(page, value)
    assert "" == page.get_by_label("Filter").input_value()
    assert 8 == len(shown(page, "left", ".hit"))


def test_a_filter_that_is_typed_shows_in_the_facets(page: Page) -> None:
    """A condition of another form stays until a value of its field is chosen."""
    ask(page, "harbor")
    page.get_by_text("Limit and filter").click()
    page.get_by_label("Filter").fill('{"lang": ["en", "it"], "year": {"gte": 2001}}')
    with page.expect_response("**/facets"):
        page.get_by_role("button", name="Search").click()
    page.locator("#facets").get_by_role("button", name="it 0", exact=True).wait_for()
    assert ["en 1", "it 0"] == page.locator("#facets [aria-pressed=true]").all_inner_texts()
    _choose(page, "2000")
    found = json.loads(page.get_by_label("Filter").input_value())
    assert {"lang": ["en", "it"], "year": 2000} == found


@pytest.mark.parametrize(
    "typed",
    [
        {"$any": [{"year": 2001}, {"new": True}]},
        {"$all": [{"$not": {"lang": "it"}}, {"new": False}]},
    ],
)
def test_a_value_is_chosen_beside_a_combination(page: Page, typed: dict[str, Any]) -> None:
    """Both must hold; choosing it again leaves the filter as it was typed."""
    ask(page, "harbor")
    page.get_by_text("Limit and filter").click()
    page.get_by_label("Filter").fill(json.dumps(typed))
    with page.expect_response("**/facets"):
        page.get_by_role("button", name="Search").click()
    page.wait_for_load_state("networkidle")
    _choose(page, "de")
    found = json.loads(page.get_by_label("Filter").input_value())
    assert "de" == found["$all"][-1]["lang"]
    assert page.locator("#facets [aria-pressed=true]", has_text="de").count() == 1
    _choose(page, "de")
    assert typed == json.loads(page.get_by_label("Filter").input_value())


def test_more_passages_like_one(page: Page, site: Site) -> None:
    """In place of both rankings, with an address of their own, and a way back."""
    ask(page, "harbor")
    pid = shown(page, "left", ".pid dd")[0]
    page.locator("#left-hits").get_by_role("button", name="More like this").first.click()
    page.locator("#like").wait_for()
    settle(page, f"Like {pid}")
    assert f"{site.url}?q=harbor&like={pid}" == page.url
    assert _PASSAGES[int(pid)].text in page.locator("#like").inner_text()
    found = shown(page, "left", ".pid dd")
    assert 7 == len(found)
    assert pid not in found
    assert [] == shown(page, "right", ".hit")
    assert not page.get_by_label("Compared with").is_visible()
    page.reload()
    settle(page, f"Like {pid}")
    assert found == shown(page, "left", ".pid dd")
    page.get_by_role("button", name="Back to the search").click()
    settle(page, "harbor")
    assert not page.locator("#like").is_visible()
    assert 8 == len(shown(page, "right", ".hit"))


def test_the_newest_batches(browser: Browser, tmp_path: Path) -> None:
    """Requested while the list is open; with source, effect, and the reason of a failure."""
    with (
        served(tmp_path, [Passage("1", "a")]) as site,
        looking(browser, site.url) as page,
    ):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        site.post([{"pid": "2", "text": "b"}, {"pid": "1", "text": "a"}])
        page.locator("#spool[data-state=calm]").wait_for()
        assert [] == [url for url in asked if "batches" in url]
        page.get_by_text("Newest batches").click()
        (line,) = _batches(page, 1)
        assert "HTTP" in line
        assert "1 written, 1 unchanged, " in line
        failed = {
            "batch": "0" * 32,
            "source": "films.tsv",
            "state": "failed",
            "accepted_at": "2026-11-30T06:54:58Z",
            "ended_at": "2026-11-30T06:56:58Z",
            **dict.fromkeys(("written", "unchanged", "deleted", "superseded"), 0),
            "rejected": 2,
            "reason": "every row was rejected: row 1: the text is empty",
        }

        def answer(route: Any) -> None:
            answered = route.fetch()
            batches = [failed, *answered.json()["batches"]]
            route.fulfill(response=answered, json={"batches": batches})

        page.route("**/batches?*", answer)
        first, _ = _batches(page, 2)
        assert "films.tsv" in first
        assert "2 rejected, after 2 min" in first
        assert "the text is empty" in first


def _batches(page: Page, number: int) -> list[str]:
    page.locator(f"#batches .batch:nth-child({number})").wait_for()
    return page.locator("#batches .batch").all_inner_texts()


def test_a_tenant_is_needed_and_sent(browser: Browser, tmp_path: Path) -> None:
    """Each request names it; nothing is searched without one."""
    with served(tmp_path, _PASSAGES) as site:
        site.fields, site.tenant_field = {"lang": "keyword"}, "customer"
        with looking(browser, site.url) as page:
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.get_by_label("Tenant").wait_for()
            page.get_by_label("Query").fill("harbor")
            page.get_by_role("button", name="Search").click()
            assert 1 == page.locator("#tenant:invalid").count()
            assert [] == [url for url in asked if url.endswith(("/search", "/facets"))]
            page.get_by_label("Tenant").fill("acme")
            with (
                page.expect_request("**/search") as search,
                page.expect_request("**/facets") as facets,
            ):
                page.get_by_role("button", name="Search").click()
            for request in (search.value, facets.value):
                assert "acme" == json.loads(request.post_data or "")["tenant"]
