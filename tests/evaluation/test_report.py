"""The report: all parts, safe with hostile queries and passages, one file."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.evaluation import Run, evaluate_runs, worst_queries
from msmarco_qdrant.evaluation.report import report_html
from tests.evaluation.cases import BETTER, PLAIN, QRELS, QUERIES, SWEEP, evaluated

FACTS = {"collection": "msmarco", "model": "all-MiniLM-L6-v2", "date": "2026-01-02"}
HOSTILE = """</td></svg><script>alert("x")</script><img src=x onerror='alert(1)'>{{ 7 * 7 }}"""
_VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page; refuses one that is closed out of turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert [] == self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Require that it closes the last open element."""
        assert tag == self._open.pop()

    def handle_data(self, data: str) -> None:
        """Keep the text, and the style."""
        self.text += data

    def count(self, tag: str) -> int:
        """The number of elements of this name."""
        return sum(name == tag for name, _ in self.elements)


@cache
def whole_report() -> str:
    """A report with every part."""
    texts = dict.fromkeys("abcdex", "a text")
    evaluation = evaluated()
    worst = {
        run.name: worst_queries(evaluation, run, QUERIES, QRELS, texts) for run in (PLAIN, BETTER)
    }
    return report_html("DL 19", FACTS, evaluation=evaluation, worst=worst, sweep=SWEEP)


def test_report_has_all_parts() -> None:
    """Facts, tables with captions, plots, comparisons and the worst queries."""
    page = Page(whole_report())

    for part in (
        "DL 19",
        "all-MiniLM-L6-v2",
        "2026-01-02",
        "judged queries: 3; 1 without judgments left out",
        "published: nDCG@10, TREC DL 2019, reranking the given 1,000",
        "0.7051",
        "+0.3333",
        "Worst queries of plain",
        "No passage was found.",
        "not found",
        "unjudged",
        "Recall@10 and time of a query",
        "a text",
    ):
        assert part in page.text
    assert 3 == page.count("svg")
    assert page.count("table") == page.count("caption") > 5
    assert all(attrs.get("scope") for tag, attrs in page.elements if tag == "th")
    assert "nan" not in page.text.lower()


def test_report_fetches_nothing() -> None:
    """No script, nothing fetched, and a policy that forbids both."""
    report = whole_report()
    page = Page(report)

    policies = [attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs]
    assert [
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ] == policies
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "image", "iframe", "object", "embed", "form", "a"}
    for _, attrs in page.elements:
        assert not any(name.startswith("on") or name == "src" for name in attrs)
        assert all(
            (value or "").startswith("#") for name, value in attrs.items() if name.endswith("href")
        )
    assert set() == set(re.findall(r"https?://[^\"' <]*", report)) - {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_hostile_text_stays_text() -> None:
    """In a passage, a query, a name of a run, a pid, a fact and the title."""
    plain = Page(whole_report())
    run, other = Run(HOSTILE, {"q1": [(HOSTILE, 1.0)]}), Run("other", {})
    queries, qrels = [Query("q1", HOSTILE)], {"q1": {HOSTILE: 0, "b": 1}}
    evaluation = evaluate_runs(queries, qrels, [run, other], "RR@10")
    worst = {HOSTILE: worst_queries(evaluation, run, queries, qrels, {HOSTILE: HOSTILE})}

    report = report_html(HOSTILE, {HOSTILE: HOSTILE}, evaluation=evaluation, worst=worst)
    page = Page(report)

    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements}
    assert page.text.count(HOSTILE) >= 8
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


def test_parts_that_are_not_given_are_left_out() -> None:
    """A sweep alone, and an evaluation of one run."""
    sweep = Page(report_html("ANN", FACTS, sweep=SWEEP))
    single = Page(report_html("one", {}, evaluation=evaluated(Run("x", {}))))

    assert (1, 1) == (sweep.count("svg"), sweep.count("table"))
    assert (1, 1) == (single.count("svg"), single.count("table"))
    assert "Comparisons" not in single.text
