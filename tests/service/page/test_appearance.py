"""Looks and keyboard of the search page: dark mode, contrast, narrow screens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.service.page.browser import Site, ask, looking, settle, shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.slow

_TIDES = "why do the tides rise twice a day"
_WIDE = {"width": 1280, "height": 900}
_READ = [
    "h1",
    "#collection",
    "#about",
    "#spool",
    "#summary",
    "#query",
    "label[for=left]",
    "#left",
    "button[type=submit]",
    "summary",
    ".rank",
    ".text",
    "mark",
    ".facts dt",
    ".facts dd",
    ".move.up",
    ".move.down",
    ".move.new",
    ".move.out",
    "footer p",
    "kbd",
]
# The color of an element, and of the nearest ground that is painted below it.
_COLORS = """(one) => {
    const clear = /rgba\\(.*, 0\\)|transparent/;
    let ground = one;
    while (ground && clear.test(getComputedStyle(ground).backgroundColor))
        ground = ground.parentElement;
    return [getComputedStyle(one).color, getComputedStyle(ground ?? document.body).backgroundColor];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(browser: Browser, site: Site, scheme: str) -> None:
    """WCAG's contrast for text (AA: 4.5 to 1) in both schemes, and dark is another one."""
    with looking(browser, site.url, viewport=_WIDE, color_scheme=scheme) as page:
        _compare(page)
        page.mouse.move(0, 0)
        poor = {}
        for selector in _READ:
            contrast = _contrast(page.locator(selector).first)
            if contrast < 4.5:
                poor[selector] = contrast
        assert {} == poor
        ink, paper = _colors(page.locator("body"))
        assert (_luminance(ink) > _luminance(paper)) == (scheme == "dark")


def _compare(page: Page) -> None:
    """Two rankings with every kind of move."""
    page.locator("#spool[data-state=calm]").wait_for()
    page.locator("#left").select_option("bm25")
    page.locator("#right").select_option("hybrid")
    ask(page, _TIDES)


def _colors(place: Locator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    ink, ground = place.evaluate(_COLORS)
    return _rgb(ink), _rgb(ground)


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", color)[:3])


def _contrast(place: Locator) -> float:
    one, other = sorted(map(_luminance, _colors(place)))
    return (other + 0.05) / (one + 0.05)


def _luminance(color: tuple[int, ...]) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [
        part / 255 / 12.92 if part / 255 <= 0.04045 else ((part / 255 + 0.055) / 1.055) ** 2.4
        for part in color
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_nothing_sticks_out_on_a_narrow_screen(browser: Browser, site: Site) -> None:
    """Down to 320 pixels, with a pid and a word that have no place to break."""
    endless = "x" * 300
    site.post([{"pid": endless, "text": f"tides {endless}", "meta": {endless: endless}}])
    with looking(browser, site.url, viewport={"width": 320, "height": 640}) as page:
        ask(page, f"tides {endless}")
        assert endless in shown(page, "left", ".text")[0]
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert 320 == wide


def test_all_of_it_works_with_the_keyboard(browser: Browser, site: Site) -> None:
    """Type, go through the hits, over to the same passage on the other side, and back."""
    with looking(browser, site.url, viewport=_WIDE) as page:
        page.locator("#spool[data-state=calm]").wait_for()
        assert "query" == _focused(page, "id")
        page.keyboard.type(_TIDES)
        page.keyboard.press("Enter")
        settle(page, _TIDES)
        first, second = shown(page, "left", ".pid dd"), shown(page, "right", ".pid dd")
        page.keyboard.press("ArrowDown")
        assert first[0] == _pid(page)
        assert "2px" == page.locator(".hit:focus").evaluate(
            "(one) => getComputedStyle(one).outlineWidth"
        )
        for keys, place in ((["j", "j"], 2), (["k"], 1), (["ArrowDown"], 2), (["End"], 9)):
            for key in keys:
                page.keyboard.press(key)
            assert first[place] == _pid(page)
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert second.index(first[0]) == page.locator(".hit:focus").evaluate(
            "(one) => [...one.parentElement.children].indexOf(one)"
        )
        assert "right-hits" == page.locator(".hit:focus").locator("..").get_attribute("id")
        assert 2 == page.locator(".twin").count()
        page.keyboard.press("ArrowLeft")
        assert first[0] == _pid(page)
        page.keyboard.press("Escape")
        assert "query" == _focused(page, "id")


def test_the_slash_is_a_letter_within_a_field(browser: Browser, site: Site) -> None:
    """Elsewhere it leads to the query; each thing is reached by Tab, the hits as one."""
    with looking(browser, site.url) as page:
        ask(page, "a/b")
        assert "a/b" == page.get_by_label("Query").input_value()
        page.locator("#results").focus()
        page.keyboard.press("/")
        assert "query" == _focused(page, "id")
        page.keyboard.type("c/d")
        assert "c/d" == page.get_by_label("Query").input_value()
        reached = []
        for _ in range(6):
            page.keyboard.press("Tab")
            reached.append(_focused(page, "id") or _focused(page, "className") or "other")
        assert ["other", "other", "left", "hit", "plain more alike", "right"] == reached


def _focused(page: Page, what: str) -> str:
    return str(page.evaluate(f"document.activeElement.{what}"))


def _pid(page: Page) -> str:
    return page.locator(".hit:focus .pid dd").inner_text()


def test_it_keeps_still_for_those_who_want_that(browser: Browser, site: Site) -> None:
    """With prefers-reduced-motion nothing has a transition."""
    moving = "getComputedStyle(document.querySelector('#left-hits')).transitionDuration"
    with looking(browser, site.url, reduced_motion="reduce") as page:
        page.locator("#results").evaluate("(one) => one.setAttribute('aria-busy', 'true')")
        assert "0s" == page.evaluate(moving)


def test_the_number_of_hits_is_told(browser: Browser, site: Site) -> None:
    """To those who listen, too; and so are problems."""
    with looking(browser, site.url) as page:
        ask(page, _TIDES)
        told = page.get_by_role("status")
        assert told.inner_text().startswith("10 passages in each ranking")
        tree = page.locator("#right-hits li").first.aria_snapshot()
        assert "Rank 1" in tree
        names = page.get_by_role("region").evaluate_all("(all) => all.map((one) => one.id)")
        assert 2 == len(names)
        assert page.get_by_role("region", name="First ranking").is_visible()
        assert page.get_by_role("region", name="Second ranking").is_visible()
