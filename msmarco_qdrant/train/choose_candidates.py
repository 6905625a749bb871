"""The choice among the candidates of one query, and counts of it over many."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from msmarco_qdrant.train.choose_strategy import Strategy
from msmarco_qdrant.train.records import MinedQuery

SYSTEM = "chosen"
"""The name under which chosen negatives are written."""


@dataclass(frozen=True, slots=True)
class ChoiceReport:
    """Counts of the candidates that a strategy keeps.

    Attributes:
        strategy: The strategy's written form.
        number: Negatives per query at most; None for all.
        queries: Number of queries.
        candidates: Their candidates, each counted once per query.
        allowed: Candidates that meet the strategy's rules.
        chosen: Negatives, over all queries.
        full: Queries with `number` negatives, or with any if the number is None.
        empty: Queries without a negative.
        promoted: Candidates that became positives.
        unjudged: Candidates without a score, if scores are given.
        unanchored: Queries whose positives have no score, which a rule compares with.
        mean_rank: Mean position of the negatives in the systems' lists; None without any.
        mean_score: Mean score of the negatives; None without any score.
    """

    strategy: str
    number: int | None
    queries: int
    candidates: int
    allowed: int
    chosen: int
    full: int
    empty: int
    promoted: int
    unjudged: int
    unanchored: int
    mean_rank: float | None
    mean_score: float | None

    def __str__(self) -> str:
        share = self.allowed / self.candidates if self.candidates else 0.0
        of_all = f"{self.allowed:,} of {self.candidates:,} candidates ({share:.1%})"
        wanted = "a negative" if self.number is None else f"{self.number:,} negatives"
        parts = [
            f"{self.strategy} allows {of_all}",
            f"negatives: {self.chosen:,}",
            f"queries with {wanted}: {self.full:,} of {self.queries:,}",
            f"queries without any: {self.empty:,}",
        ]
        notes = {
            "candidates that became positives": self.promoted,
            "candidates without a score": self.unjudged,
            "queries whose positives have no score": self.unanchored,
        }
        parts += [f"{note}: {count:,}" for note, count in notes.items() if count]
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Choice:
    """The choice of one strategy for one query.

    Attributes:
        allowed: Number of candidates that meet the rules.
        chosen: The negatives, best rank first.
        unanchored: True if the query's positives have no score, which a rule compares with.
    """

    allowed: int
    chosen: tuple[str, ...]
    unanchored: bool


class Candidates:
    """The candidates of a query, from all systems, with a judge's scores.

    Args:
        query: The mined query.
        scores: Scores by pid, of positives and candidates; None without a judge.
        promote_above: Candidates that score this or more become positives; None for none.

    Attributes:
        positives: The pids of the positives, the promoted ones last, best score first.
        promoted: Number of promoted candidates.
        ranks: The other candidates' best positions, by pid, in the order of the ranks.
        unjudged: Number of candidates without a score; 0 without a judge.
    """

    def __init__(
        self,
        query: MinedQuery,
        scores: Mapping[str, float] | None = None,
        promote_above: float | None = None,
    ) -> None:
        self.qid = query.qid
        self._scores: Mapping[str, float] = {} if scores is None else scores
        self.ranks = _merge([*query.negatives.values()], {*query.positives})
        self._anchors = [self._scores[pid] for pid in query.positives if pid in self._scores]
        self.unjudged = 0
        if scores is not None:
            self.unjudged = sum(pid not in scores for pid in self.ranks)
        found = [] if promote_above is None else self._above(promote_above)
        for pid in found:
            del self.ranks[pid]
        self.promoted = len(found)
        self.positives = (*query.positives, *found)

    def _above(self, score: float) -> list[str]:
        found = [pid for pid in self.ranks if self._scores.get(pid, -float("inf")) >= score]
        return sorted(found, key=self._scores.__getitem__, reverse=True)

    def score(self, pid: str) -> float | None:
        """Return a candidate's score, None if it has none."""
        return self._scores.get(pid)

    def choose(self, strategy: Strategy, number: int | None, seed: int) -> Choice:
        """Return the choice of a strategy; the same for the same qid and seed, in any file."""
        limit = strategy.limit(self._anchors)
        if limit is None:
            return Choice(0, (), unanchored=True)
        allowed = self._allowed(strategy, limit)
        return Choice(len(allowed), self._pick(allowed, strategy, number, seed), unanchored=False)

    def _allowed(self, strategy: Strategy, limit: float) -> list[str]:
        found = [*self.ranks]
        if strategy.ranks is not None:
            first, last = strategy.ranks
            found = [pid for pid in found if first <= self.ranks[pid] <= last]
        if strategy.needs_scores:
            scores = self._scores
            found = [pid for pid in found if pid in scores and scores[pid] <= limit]
        return found

    def _pick(
        self, allowed: list[str], strategy: Strategy, number: int | None, seed: int
    ) -> tuple[str, ...]:
        if number is None or len(allowed) <= number:
            return tuple(allowed)
        if strategy.pick == "top":  # the order of the ranks stays among equal scores
            best = sorted(allowed, key=self._by_score)[:number]
            return tuple(sorted(best, key=[*self.ranks].index))
        drawn = random.Random(f"{seed}:{self.qid}").sample(range(len(allowed)), number)  # noqa: S311  # not for secrets
        return tuple(allowed[position] for position in sorted(drawn))

    def _by_score(self, pid: str) -> float:
        """Return a key that sorts the best score first and candidates without a score last."""
        return -self._scores.get(pid, -float("inf"))


def _merge(systems: list[tuple[str, ...]], known: set[str]) -> dict[str, int]:
    """Return the best rank of each pid that is not known, by rank and then by system."""
    found: dict[str, int] = {}
    for rank, level in enumerate(zip_longest(*systems), start=1):
        for pid in level:
            if pid is not None and pid not in known:
                found.setdefault(pid, rank)
    return found


@dataclass(slots=True)
class ChoiceCount:
    """Counts the choices of a strategy."""

    strategy: Strategy
    number: int | None
    queries: int = 0
    candidates: int = 0
    allowed: int = 0
    chosen: int = 0
    full: int = 0
    empty: int = 0
    promoted: int = 0
    unjudged: int = 0
    unanchored: int = 0
    _ranks: int = field(default=0)
    _scores: float = field(default=0.0)
    _scored: int = field(default=0)

    def add(self, candidates: Candidates, choice: Choice) -> None:
        """Count the choice of one query."""
        count = len(choice.chosen)
        self.queries += 1
        self.candidates += len(candidates.ranks) + candidates.promoted
        self.allowed += choice.allowed
        self.chosen += count
        self.full += count >= (self.number or 1)
        self.empty += not count
        self.promoted += candidates.promoted
        self.unjudged += candidates.unjudged
        self.unanchored += choice.unanchored
        self._ranks += sum(candidates.ranks[pid] for pid in choice.chosen)
        scores = [score for score in map(candidates.score, choice.chosen) if score is not None]
        self._scores += sum(scores)
        self._scored += len(scores)

    def report(self) -> ChoiceReport:
        """Return the counts."""
        return ChoiceReport(
            strategy=str(self.strategy),
            number=self.number,
            queries=self.queries,
            candidates=self.candidates,
            allowed=self.allowed,
            chosen=self.chosen,
            full=self.full,
            empty=self.empty,
            promoted=self.promoted,
            unjudged=self.unjudged,
            unanchored=self.unanchored,
            mean_rank=self._ranks / self.chosen if self.chosen else None,
            mean_score=self._scores / self._scored if self._scored else None,
        )
