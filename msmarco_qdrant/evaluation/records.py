"""The values of an evaluation: frozen, slotted, without logic of their own.

Measures are named as `ir_measures` writes them ("nDCG@10"); their values, published ones too, lie
between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Judgments: of each qid, the pids that were looked at and their grades (0: not relevant)."""

Ranking: TypeAlias = Sequence[tuple[str, float]]
"""What was answered to a query: pids with their scores, the best first."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one system answered to a set of queries.

    Attributes:
        name: What tables call it.
        rankings: Of each qid, its ranking, in the order of `runs.ordered`.
        model: A name of the catalog, whose published figures are shown beside the measured ones.
    """

    name: str
    rankings: Mapping[str, Ranking]
    model: str | None = None


class Interval(NamedTuple):
    """A confidence interval of a mean, at 95 %."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Published:
    """A figure that the catalog knows of a model.

    Attributes:
        measure: "nDCG@10" or "RR@10".
        protocol: What was measured, in words.
        value: Between 0 and 1.
        source: The page that published it, by its key in `msmarco_qdrant.catalog`.
    """

    measure: str
    protocol: str
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class MeasuredValue:
    """One measure of one run.

    Attributes:
        mean: Over every judged query, those without an answer included.
        interval: Of that mean; None for a single query.
        per_query: The value of each judged query.
    """

    mean: float
    interval: Interval | None
    per_query: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run and what was measured of it.

    Attributes:
        name: The run's.
        values: By measure, in the order asked for.
        unanswered: Judged queries that it has no passage for; they count 0.
        published: What the catalog knows of its model.
    """

    name: str
    values: Mapping[str, MeasuredValue]
    unanswered: int
    published: tuple[Published, ...] = ()


class PairedTest(NamedTuple):
    """Two tests of the same differences: how probable they are if the two runs are alike.

    `t_test` is None where the differences do not vary or there is only one, `permutation` for
    only one.
    """

    t_test: float | None
    permutation: float | None


@dataclass(frozen=True, slots=True)
class RunComparison:
    """One measure of two runs, query by query.

    Attributes:
        baseline: Name of the run that is compared with.
        run: Name of the run that is compared.
        measure: The measure.
        mean_difference: Of `run` less `baseline`: positive where `run` is better.
        interval: Of that mean; None for a single query.
        test: Of the null hypothesis that both runs are alike.
        wins: Queries on which `run` is better.
        ties: Queries on which both are equal.
        losses: Queries on which `baseline` is better.
        differences: Of each judged query.
    """

    baseline: str
    run: str
    measure: str
    mean_difference: float
    interval: Interval | None
    test: PairedTest
    wins: int
    ties: int
    losses: int
    differences: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Runs over the same queries, measured and compared.

    Attributes:
        measures: In the order asked for; the first is the one that is plotted.
        judged: Queries that have judgments: every mean is over these.
        unjudged: Queries left out, as they have none.
        unasked: Judged queries left out, as they are not among the queries.
        runs: In the order given.
        comparisons: Of each other run with the baseline, measure by measure.
    """

    measures: tuple[str, ...]
    judged: int
    unjudged: int
    unasked: int
    runs: tuple[MeasuredRun, ...]
    comparisons: tuple[RunComparison, ...]


# ---- queries looked at one by one ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnsweredPassage:
    """A passage of a ranking.

    Attributes:
        rank: Its place, counted from 1.
        pid: Its id.
        score: As the run gives it.
        grade: Its judgment; None where nobody looked at it.
        text: None where it was not at hand.
    """

    rank: int
    pid: str
    score: float
    grade: int | None
    text: str | None


@dataclass(frozen=True, slots=True)
class MissedPassage:
    """A passage judged relevant that is not among the first of a ranking.

    Attributes:
        pid: Its id.
        grade: Its judgment, 1 or more.
        rank: Its place in the run, counted from 1; None where the run does not hold it.
        text: None where it was not at hand.
    """

    pid: str
    grade: int
    rank: int | None
    text: str | None


@dataclass(frozen=True, slots=True)
class PoorQuery:
    """A query on which a run did badly.

    Attributes:
        qid: Its id.
        text: Its query.
        value: Of the evaluation's first measure.
        top: The first passages of the ranking.
        missed: Relevant passages that it lacks, the highest grade first; the first of them.
        missed_count: How many they are altogether.
    """

    qid: str
    text: str
    value: float
    top: tuple[AnsweredPassage, ...]
    missed: tuple[MissedPassage, ...]
    missed_count: int


# ---- approximate search --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnnPoint:
    """HNSW with one setting against exact search over the same collection.

    Attributes:
        setting: How vectors are quantized and rescored, as a line of the plot is called.
        ef: Candidates that the graph search keeps.
        recall: Mean over the queries of the share of the exact first k that was found.
        worst: The lowest of any query.
        worst_qid: The query that has it.
        median_ms: Median time of a query, in milliseconds.
        p95_ms: The time that 95 % of the queries keep within, in milliseconds.
    """

    setting: str
    ef: int
    recall: float
    worst: float
    worst_qid: str
    median_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class AnnSweep:
    """A sweep of `ef` and quantization over one collection.

    Attributes:
        k: Hits compared a query.
        queries: How many queries were asked.
        exact_ms: Median time of an exact search, in milliseconds.
        points: In the order measured.
    """

    k: int
    queries: int
    exact_ms: float
    points: tuple[AnnPoint, ...]
