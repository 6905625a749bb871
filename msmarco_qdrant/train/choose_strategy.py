"""Strategies that choose hard negatives among candidates, as values with a written form."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from statistics import median
from typing import Any, Literal, TypeAlias, cast, get_args

from msmarco_qdrant.errors import UsageError

Reference: TypeAlias = Literal["lowest", "median", "highest"]
"""The score of a query's positives that a margin is counted from."""

Pick: TypeAlias = Literal["random", "top"]
"""Which of the allowed candidates become negatives."""

FORM = "rules joined by commas, such as ranks:1-60,margin:3,top"
"""The written form of a strategy, for messages and help."""

_RANKS = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
_REFERENCES: dict[Reference, Callable[[Sequence[float]], float]] = {
    "lowest": min,
    "median": median,
    "highest": max,
}

SOURCES = {
    "random": "sampled evenly from the candidates",
    "top": "the best candidates: the default of mine_hard_negatives (sentence-transformers)",
    "ranks": "rank window: ANCE samples from the best 200, arXiv:2007.00808",
    "max-score": "absolute threshold: RocketQA takes negatives below 0.1, arXiv:2010.08191",
    "margin": "margin to the positive: 3.0 in the MS MARCO recipe of sentence-transformers; "
    "TopK-MarginPos of NV-Retriever, arXiv:2407.15831",
    "relative": "share of the positive's score: TopK-PercPos of NV-Retriever, 0.95, "
    "arXiv:2407.15831",
}
"""What each rule of a strategy is, and where it comes from."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """The candidates that may become negatives, and which of them do.

    A candidate must meet all rules that are given. Rules of scores need a judge's scores, and a
    candidate without a score never meets them.

    Attributes:
        ranks: First and last position in a system's list, from 1; of several systems the best.
        max_score: The candidate's score is at most this.
        margin: The candidate's score is below that of the positive by at least this.
        relative: The candidate's score is at most this share of the positive's, 0 to 1. The
            distance is `(1 - relative) * |score|`, also below 0, as in sentence-transformers.
        to: The positive that `margin` and `relative` compare with, if a query has several. The
            lowest never keeps a candidate that scores as a positive does.
        pick: "top" takes the candidates with the best scores, without scores those of the best
            ranks; "random" samples evenly.

    Raises:
        UsageError: For a value of another type or out of range, or `to` without a margin.
    """

    ranks: tuple[int, int] | None = None
    max_score: float | None = None
    margin: float | None = None
    relative: float | None = None
    to: Reference = "lowest"
    pick: Pick = "random"

    def __post_init__(self) -> None:
        if self.ranks is not None:
            object.__setattr__(self, "ranks", _checked_ranks(self.ranks))
        _check_number("max_score", self.max_score, -math.inf, "a finite number")
        _check_number("margin", self.margin, 0, "a finite number, 0 or more")
        _check_number("relative", self.relative, 0, "0 to 1", 1)
        _check_word("to", self.to, get_args(Reference))
        _check_word("pick", self.pick, get_args(Pick))
        if self.to != "lowest" and self.margin is None and self.relative is None:
            raise UsageError(f"to={self.to!r} needs margin or relative, which it compares with")

    @classmethod
    def parse(cls, text: str) -> Strategy:
        """Return the strategy of a written form, such as "ranks:1-60,margin:3,to:median,top".

        Raises:
            UsageError: For an unknown or repeated rule, or an invalid value.
        """
        if not isinstance(text, str):
            raise UsageError(f"a strategy must be a Strategy or a string, got {text!r}")
        given: dict[str, Any] = {}
        for rule in text.split(","):
            name, value = _parse_rule(rule.strip(), text)
            if name in given:
                twice = "random or top" if name == "pick" else _option(name)
                raise UsageError(
                    f"strategy must have each rule once, got {twice} twice in {text!r}"
                )
            given[name] = value
        return cls(**given)

    @property
    def needs_scores(self) -> bool:
        """True if a rule compares scores."""
        rules = (self.max_score, self.margin, self.relative)
        return any(rule is not None for rule in rules)

    def limit(self, positives: Sequence[float]) -> float | None:
        """Return the highest score of a negative, given the scores of the query's positives.

        None if a rule compares with the positives and none has a score; infinity without a rule
        of scores.
        """
        limits = [math.inf if self.max_score is None else self.max_score]
        if self.margin is None and self.relative is None:
            return limits[0]
        if not positives:
            return None
        reference = _REFERENCES[self.to](positives)
        if self.margin is not None:
            limits.append(reference - self.margin)
        if self.relative is not None:
            limits.append(reference - (1 - self.relative) * abs(reference))
        return min(limits)

    def sources(self) -> list[str]:
        """Return what each rule is and where it comes from."""
        names = [_option(name) for name in ("ranks", "max_score", "margin", "relative")]
        used = [one for one in names if getattr(self, one.replace("-", "_")) is not None]
        return [SOURCES[name] for name in used or [self.pick]]

    def __str__(self) -> str:
        return ",".join(self._rules()) or "random"

    def _rules(self) -> Iterator[str]:
        """Yield the rules that are not the default, as `parse` reads them."""
        if self.ranks is not None:
            yield f"ranks:{self.ranks[0]}-{self.ranks[1]}"
        for name in ("max_score", "margin", "relative"):
            value = getattr(self, name)
            if value is not None:
                yield f"{_option(name)}:{value!r}".removesuffix(".0")
        if self.to != "lowest":
            yield f"to:{self.to}"
        if self.pick != "random":
            yield self.pick


def to_strategy(given: Strategy | str) -> Strategy:
    """Return the strategy that was given, or that of a written form.

    Raises:
        UsageError: If it is neither.
    """
    return given if isinstance(given, Strategy) else Strategy.parse(given)


def _option(name: str) -> str:
    """Return the name of a rule in the written form."""
    return name.replace("_", "-")


def _parse_rule(rule: str, text: str) -> tuple[str, object]:
    """Return the field and the value of a rule."""
    if rule in get_args(Pick):
        return "pick", rule
    name, colon, value = rule.partition(":")
    field = name.replace("-", "_")
    if not colon or "_" in name or field not in {one.name for one in fields(Strategy)} - {"pick"}:
        known = ", ".join([*SOURCES, "to"])
        raise UsageError(f"strategy must be {FORM}, of {known}; got {text!r}")
    if field == "to":
        return field, value
    if field == "ranks":
        found = _RANKS.fullmatch(value)
        if found is None:
            raise UsageError(f"ranks must be FIRST-LAST, such as ranks:1-60, got {rule!r}")
        return field, (int(found[1]), int(found[2]))
    try:
        return field, float(value)
    except ValueError:
        raise UsageError(f"{name} must be a number, such as {name}:0.95, got {rule!r}") from None


def _checked_ranks(ranks: object) -> tuple[int, int]:
    """Return the first and last rank as integers."""
    is_pair = isinstance(ranks, tuple | list) and len(ranks) == 2
    pair = [*cast("tuple[object, object]", ranks)] if is_pair else []
    numbers = [int(one) for one in pair if isinstance(one, Integral) and not isinstance(one, bool)]
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise UsageError(
            f"ranks must be the first and the last rank, 1 or more, such as (1, 60), got {ranks!r}"
        )
    return numbers[0], numbers[1]


def _check_number(name: str, value: object, low: float, rule: str, high: float = math.inf) -> None:
    if value is None:
        return
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(cast("float", value)):
        raise UsageError(f"{name} must be {rule}, got {value!r}")
    if not low <= cast("float", value) <= high:
        raise UsageError(f"{name} must be {rule}, got {value!r}")


def _check_word(name: str, value: object, words: Sequence[str]) -> None:
    if value not in words:
        raise UsageError(f"{name} must be one of {', '.join(words)}, got {value!r}")


RANKED = (
    Strategy(pick="top"),
    Strategy(),
    Strategy(ranks=(1, 60)),
    Strategy(ranks=(10, 200)),
)
"""Strategies to compare without scores."""

SCORED = (
    *RANKED,
    Strategy(relative=0.95),
    Strategy(relative=0.95, pick="top"),
    Strategy(relative=0.95, to="median"),
    Strategy(margin=3.0),
    Strategy(margin=3.0, to="median"),
    Strategy(margin=0.05),
)
"""Strategies to compare with scores."""
