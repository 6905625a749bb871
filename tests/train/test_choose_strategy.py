"""Strategies: their written form, their limits, and values that are refused."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.train import Strategy
from msmarco_qdrant.train.choose_strategy import RANKED, SCORED


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("random", Strategy()),
        ("top", Strategy(pick="top")),
        ("ranks:1-60", Strategy(ranks=(1, 60))),
        ("max-score:0.1", Strategy(max_score=0.1)),
        ("max-score:-2", Strategy(max_score=-2)),
        ("margin:3", Strategy(margin=3)),
        ("margin:3,to:median", Strategy(margin=3.0, to="median")),
        ("relative:0.95,top", Strategy(relative=0.95, pick="top")),
        ("ranks:2-9,margin:0.05,top", Strategy(ranks=(2, 9), margin=0.05, pick="top")),
    ],
)
def test_the_written_form_is_read_and_written(text: str, strategy: Strategy) -> None:
    """Equal values have equal forms."""
    assert strategy == Strategy.parse(text)
    assert text == str(strategy)


def test_spaces_and_the_order_of_rules_do_not_matter() -> None:
    """Nor does the default, if it is written out."""
    given = Strategy.parse(" top , margin:3.0, ranks:01-60,to:lowest")
    assert "ranks:1-60,margin:3,top" == str(given)


def test_strategies_to_compare_are_different_and_have_sources() -> None:
    """Those without scores need none."""
    assert len(SCORED) == len({*map(str, SCORED)})
    assert not any(one.needs_scores for one in RANKED)
    assert any("NV-Retriever" in source for one in SCORED for source in one.sources())


@pytest.mark.parametrize(
    ("text", "positives", "limit"),
    [
        ("ranks:1-60", [1.0], inf),
        ("max-score:0.5", [], 0.5),
        ("margin:3", [8.0, 2.0], -1.0),
        ("margin:3,to:highest", [8.0, 2.0], 5.0),
        ("margin:3,to:median", [8.0, 2.0, 4.0], 1.0),
        ("relative:0.75", [0.8], 0.6),
        ("relative:0.75", [-2.0], -2.5),
        ("relative:1", [-2.0], -2.0),
        ("margin:1,max-score:0.5,relative:0.5", [4.0], 0.5),
        ("margin:1", [], None),
    ],
)
def test_the_highest_score_of_a_negative(
    text: str, positives: list[float], limit: float | None
) -> None:
    """The strictest rule decides; a share of a negative score is below it, not above."""
    assert limit == pytest.approx(Strategy.parse(text).limit(positives))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "strategy must be rules joined by commas"),
        ("best", "strategy must be rules joined by commas"),
        ("max_score:1", "strategy must be rules joined by commas"),
        ("pick:top", "strategy must be rules joined by commas"),
        ("margin", "strategy must be rules joined by commas"),
        ("margin:much", "margin must be a number"),
        ("margin:nan", "margin must be a finite number, 0 or more, got nan"),
        ("margin:-1", "margin must be a finite number, 0 or more, got -1.0"),
        ("relative:95", "relative must be 0 to 1, got 95.0"),
        ("max-score:inf", "max_score must be a finite number, got inf"),
        ("ranks:60-1", "ranks must be the first and the last rank"),
        ("ranks:0-9", "ranks must be the first and the last rank"),
        ("ranks:1", "ranks must be FIRST-LAST"),
        ("top,random", "got random or top twice"),
        ("margin:1,margin:2", "got margin twice"),
        ("to:median", "needs margin or relative"),
        ("margin:1,to:mean", "to must be one of lowest, median, highest"),
    ],
)
def test_invalid_texts_are_refused(text: str, message: str) -> None:
    """With the rule and the value."""
    with pytest.raises(UsageError, match=message):
        Strategy.parse(text)


@pytest.mark.parametrize(
    "values",
    [
        {"ranks": (1, 2, 3)},
        {"ranks": (1.0, 2)},
        {"ranks": (True, 2)},
        {"ranks": 60},
        {"ranks": "1-60"},
        {"margin": "3"},
        {"margin": True},
        {"relative": 1.01},
        {"max_score": float("nan")},
        {"pick": "best"},
        {"pick": None},
        {"to": "mean", "margin": 1.0},
    ],
)
def test_invalid_values_are_refused(values: dict[str, Any]) -> None:
    """Those of another type, or out of range."""
    with pytest.raises(UsageError, match="must be"):
        Strategy(**values)


@pytest.mark.parametrize("given", [None, 3, ["top"]])
def test_only_texts_are_parsed(given: Any) -> None:
    """Another type is named."""
    with pytest.raises(UsageError, match="must be a Strategy or a string"):
        Strategy.parse(given)
