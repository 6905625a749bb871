"""What the search page is made of, how it comes into a browser, and the state that it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from msmarco_qdrant import __version__
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.service.http.tokens import Tokens
from tests.service.page.browser import Site, served

_READ = "r" * 16
_PAGE = files("msmarco_qdrant.service.http") / "page"
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that asks for a token."""
    tokens = Tokens(_READ, "w" * 16)
    with served(tmp_path_factory.mktemp("site"), [Passage("1", "a")], tokens=tokens) as opened:
        yield opened


def _status(site: Site) -> httpx.Response:
    return httpx.get(f"{site.url}status", headers={"Authorization": f"Bearer {_READ}"})


def test_the_state_is_told(site: Site) -> None:
    """What is searched, how, and what waits; for whoever may read."""
    expected = {
        "version": __version__,
        "collection": "msmarco",
        "model": {"name": "costless-64", "dimension": 64},
        "passages": 1,
        "modes": ["dense", "bm25", "hybrid"],
        "rerank": True,
        "fields": {},
        "tenant_field": None,
        "spool": {"batches": 0, "oldest_s": 0.0},
    }
    assert expected == _status(site).json()
    assert 401 == httpx.get(f"{site.url}status").status_code


def test_the_status_while_the_model_loads(site: Site) -> None:
    """The spool is in it, too."""
    site.loading = True
    try:
        status = _status(site).json()
    finally:
        site.loading = False
    spool = {"batches": 0, "oldest_s": 0.0}
    assert {"version": __version__, "rerank": False, "modes": [], "fields": {}, "spool": spool} == {
        name: value for name, value in status.items() if value is not None
    }
    assert {"collection", "model", "passages"} <= set(status)


def test_every_file_is_in_the_package_and_served(site: Site) -> None:
    """With its type, without a token, and asked for anew each time; nothing else is."""
    names = {path.name for path in _PAGE.iterdir()}
    assert {"index.html", "main.js", "page.css", "icon.svg"} <= names
    for name in names:
        answer = httpx.get(f"{site.url}page/{name}")
        assert (200, "no-cache") == (answer.status_code, answer.headers["cache-control"])
        assert answer.headers["content-type"].startswith(_TYPES[Path(name).suffix])
        assert (_PAGE / name).read_bytes() == answer.content
    assert httpx.get(site.url).content == (_PAGE / "index.html").read_bytes()
    for path in ("page/nothing.js", "page/", "page/..%2Fapp.py", "page/%2e%2e/app.py"):
        assert 404 == httpx.get(site.url + path).status_code


def test_what_a_file_asks_for_is_there() -> None:
    """Each script and style that another names, and nothing from elsewhere."""
    texts = {path.name: path.read_text() for path in _PAGE.iterdir()}
    asked = re.findall(r'(?:src|href)="page/([^"]+)"', texts["index.html"])
    for text in texts.values():
        asked += re.findall(r'(?:from|import) *\(?"\./([^"]+)"', text)
    assert set(texts) - {"index.html"} == set(asked)
    everything = "".join(texts.values())
    assert ["http://www.w3.org/2000/svg"] == re.findall(r"https?://[^\s\"]+", everything)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write", everything)


def test_nothing_is_inline(site: Site) -> None:
    """No script, style or handler in the page, which the policy would block."""
    answer = httpx.get(site.url)
    assert [] == re.findall(r"<style|<script(?![^>]* src=)|\s(?:on\w+|style)=", answer.text)
    policy = answer.headers["content-security-policy"]
    for part in ("script-src 'self'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'"):
        assert part in policy
