"""Plots: whole SVG elements, the same every time, readable on light and dark pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from xml.etree import ElementTree as ET

import pytest

from msmarco_qdrant.evaluation import AnnPoint, AnnSweep, Run
from msmarco_qdrant.evaluation.plots import plot_differences, plot_measures, plot_sweep
from tests.evaluation.cases import PLAIN, SWEEP, evaluated

PLOTS: dict[str, Callable[[], str]] = {
    "measures": lambda: plot_measures(evaluated()),
    "differences": lambda: plot_differences(evaluated().comparisons[0]),
    "sweep": lambda: plot_sweep(SWEEP),
}


@cache
def drawn(name: str) -> str:
    """One of the plots."""
    return PLOTS[name]()


def texts_of(svg: str) -> list[str]:
    """The visible texts."""
    root = ET.fromstring(svg)  # noqa: S314  # our own
    return [
        "".join(one.itertext()).strip() for one in root.iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_an_element(name: str) -> None:
    """Well-formed, without a prolog, a date, a script or a reference to another file."""
    svg = drawn(name)

    root = ET.fromstring(svg)  # noqa: S314  # our own
    assert "{http://www.w3.org/2000/svg}svg" == root.tag
    assert "img" == root.get("role")
    assert root.get("aria-label")
    assert svg.startswith("<svg ")
    assert svg == PLOTS[name]()  # byte by byte
    for foreign in ("<script", "<metadata", "<image", "url(http", 'href="http', "dc:date"):
        assert foreign not in svg


@pytest.mark.parametrize("name", PLOTS)
def test_text_takes_the_pages_color(name: str) -> None:
    """No black text, which a dark page would hide, and no background."""
    svg = drawn(name)

    assert "currentColor" in svg
    assert "#010203" not in svg
    assert not re.search(r"fill: ?#(fff|ffffff)\b", svg)
    for style in re.findall(r'<text [^>]*style="([^"]*)"', svg):
        assert "fill: currentColor" in style


def test_references_stay_within_a_plot() -> None:
    """A page has several plots: no id of one is an id of another."""
    ids = {name: set(re.findall(r'\bid="([^"]*)"', drawn(name))) for name in PLOTS}

    assert len(set.union(*ids.values())) == sum(map(len, ids.values()))
    for name, known in ids.items():
        svg = drawn(name)
        assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= known


def test_measures_are_labeled() -> None:
    """A panel per measure, a bar per run, also for values above 1."""
    svg = plot_measures(evaluated(measures="nDCG@10 RR@10 R@2 NumRet"))

    assert {"nDCG@10", "RR@10", "R@2", "NumRet", "plain", "better"} <= set(texts_of(svg))


def test_names_are_text_and_nothing_else() -> None:
    """Neither mathematics nor markup, nor a warning for letters that no font here has."""
    names = ["$a^2$", "<script>alert(1)</script>", "_hidden", "\u4e2d\u6587"]
    svg = plot_measures(evaluated(*(Run(name, PLAIN.rankings) for name in names)))

    assert set(names) <= set(texts_of(svg))
    assert "<script" not in svg


@pytest.mark.slow
def test_edge_cases_are_drawn() -> None:
    """A single query without an interval, equal runs, and more settings than colors."""
    assert "one" in texts_of(plot_measures(evaluated(Run("one", {}))))
    equal = evaluated(PLAIN, Run("copy", PLAIN.rankings)).comparisons[0]
    assert "3 queries, sorted; dashed: the mean" in texts_of(plot_differences(equal))
    points = tuple(AnnPoint(f"s{n}", 64, 0.9, 0.5, "q", 1.0 + n, 2.0) for n in range(8))
    assert {f"s{n}" for n in range(8)} <= set(texts_of(plot_sweep(AnnSweep(10, 1, 9.0, points))))


def test_a_sweep_is_labeled() -> None:
    """A line per setting, each point with its `ef`."""
    texts = texts_of(plot_sweep(SWEEP))

    assert {"none", "int8", "16", "64", "recall@10"} <= set(texts)
    assert 2 == texts.count("16")
