"""Values of an evaluation: frozen, slotted, without logic.

Measures have the names of `ir_measures` ("nDCG@10"). Their values, published ones too, are between
0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from msmarco_qdrant.core.search_defaults import SearchDefaults
from msmarco_qdrant.core.search_types import Fusion

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Judgments: the grade (0: not relevant) of each judged pid, by qid."""

Ranking: TypeAlias = Sequence[tuple[str, float]]
"""Ranked passages of a query: pids with scores, best first."""


@dataclass(frozen=True, slots=True)
class Run:
    """A TREC run: the rankings of one system for a set of queries.

    Attributes:
        rankings: A ranking by qid, in the order of `runs.rank_scores`.
        model: A name of the catalog; tables also show its published figures.
    """

    name: str
    rankings: Mapping[str, Ranking]
    model: str | None = None


class Interval(NamedTuple):
    """A 95 % confidence interval of a mean."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Published:
    """A published figure of a model.

    Attributes:
        measure: "nDCG@10" or "RR@10".
        protocol: Queries and candidates, in words.
        value: Between 0 and 1.
        source: The page that published it, as its key in `msmarco_qdrant.encoding.catalog`.
    """

    measure: str
    protocol: str
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class MeasuredValue:
    """One measure of one run.

    Attributes:
        mean: Over every judged query, including those without an answer.
        interval: Of the mean; None for a single query.
        per_query: The value of each judged query, by qid.
    """

    mean: float
    interval: Interval | None
    per_query: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """The measures of one run.

    Attributes:
        values: By measure, in the order of the evaluation's measures.
        unanswered: Judged queries without a passage in the run; they count 0.
        published: Published figures of its model.
    """

    name: str
    values: Mapping[str, MeasuredValue]
    unanswered: int
    published: tuple[Published, ...] = ()


class PairedTest(NamedTuple):
    """The p-values of two tests of the same differences.

    `t_test` is None for a single difference, or if all are equal; `permutation` is None for a
    single one.
    """

    t_test: float | None
    permutation: float | None


@dataclass(frozen=True, slots=True)
class RunComparison:
    """One measure of two runs, query by query.

    Attributes:
        mean_difference: `run` minus `baseline`: positive if `run` is better.
        interval: Of that mean; None for a single query.
        test: Of the null hypothesis that the runs do not differ.
        wins: Number of queries on which `run` is better; `losses` counts those on which it is
            worse, `ties` those on which both are equal.
        differences: Of each judged query, by qid.
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
    """Measures and comparisons of runs over the same queries.

    Attributes:
        measures: In the given order; plots and worst queries use the first.
        judged: Number of queries with judgments: every mean is over these.
        unjudged: Number of queries left out because they have no judgments.
        unasked: Number of judged qids that are not among the queries.
        runs: In the given order.
        comparisons: Of each other run with the baseline, by measure.
        relevant: Number of relevant passages (grade 1 or more) of the judged queries.
        missing: Number of those that the collection lacks; None if runs were measured without it.
        without_relevant: Number of judged queries without a relevant passage; they count 0.
    """

    measures: tuple[str, ...]
    judged: int
    unjudged: int
    unasked: int
    runs: tuple[MeasuredRun, ...]
    comparisons: tuple[RunComparison, ...]
    relevant: int = 0
    missing: int | None = None
    without_relevant: int = 0


@dataclass(frozen=True, slots=True)
class JudgedPassage:
    """A passage of a ranking, or a relevant one that a ranking lacks.

    Attributes:
        grade: Its judgment; None if it has none.
        rank: Its rank in the run, counted from 1; None, as `score`, if the run lacks it.
        text: None if it is not available.
    """

    pid: str
    grade: int | None
    rank: int | None
    score: float | None
    text: str | None


@dataclass(frozen=True, slots=True)
class WorstQuery:
    """A query with one of the lowest values of a run.

    Attributes:
        value: Of the evaluation's first measure.
        top: The first passages of the ranking.
        missed: The first relevant passages (grade 1 or more) that are not among the first of the
            ranking, highest grade first.
        missed_count: The number of all such passages.
    """

    qid: str
    text: str
    value: float
    top: tuple[JudgedPassage, ...]
    missed: tuple[JudgedPassage, ...]
    missed_count: int


@dataclass(frozen=True, slots=True)
class AnnPoint:
    """HNSW with one setting, compared with exact search over the same collection.

    Attributes:
        setting: Quantization and rescoring, in words; the name of a line in the plot.
        ef: Number of candidates of the graph search.
        recall: Mean share of the exact first k that was found.
        worst: The lowest recall of a query, which is `worst_qid`.
        median_ms: Median time of a query, in milliseconds; `p95_ms` is the 95th percentile.
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
        k: Hits compared per query.
        exact_ms: Median time of an exact search, in milliseconds.
        points: In the order of measurement.
    """

    k: int
    queries: int
    exact_ms: float
    points: tuple[AnnPoint, ...]


@dataclass(frozen=True, slots=True)
class FusionTuning:
    """Fusions of "hybrid", compared by one measure over the same candidates.

    Attributes:
        means: The mean of the measure by fusion, in the order of trial.
        current: The fusion that searches have used so far.
        best: The fusion with the highest mean.
        gain: What choosing gains over `current` on queries that the choice has not seen: the mean
            difference in cross-validation.
        interval: Of that mean; None for a single query.
        chosen: `best` if the interval is above 0, else `current`.
    """

    means: Mapping[Fusion, float]
    current: Fusion
    best: Fusion
    gain: float
    interval: Interval | None
    chosen: Fusion


@dataclass(frozen=True, slots=True)
class EfTrial:
    """Searches of the graph with one `ef`, compared with exact search.

    Attributes:
        ef: Number of candidates of the graph search.
        recall: Mean share of the exact first k that was found.
        interval: Of that mean; None for a single query.
        worst: The lowest recall of a query.
    """

    ef: int
    recall: float
    interval: Interval | None
    worst: float


@dataclass(frozen=True, slots=True)
class EfTuning:
    """Choice of `ef` for the first `k` hits."""

    k: int
    trials: tuple[EfTrial, ...]
    chosen: int


@dataclass(frozen=True, slots=True)
class DepthTrial:
    """Reranking of one number of hits.

    Attributes:
        depth: Number of reranked hits.
        mean: Mean of the measure.
        difference: Mean difference from the deepest trial.
        interval: Of that difference; None for a single query.
    """

    depth: int
    mean: float
    difference: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class DepthTuning:
    """Choice of the number of hits to rerank.

    Attributes:
        queries: Number of queries, a sample of all.
        without: Mean of the measure without reranking.
        trials: By ascending depth.
        chosen: The smallest depth that is as good as the deepest.
    """

    queries: int
    without: float
    trials: tuple[DepthTrial, ...]
    chosen: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """Search options chosen by judgments.

    Attributes:
        measure: The measure that decided.
        queries: Number of judged queries.
        fusion: The choice of the fusion.
        ef: The choice of `ef`; None without an index to search, or if exact search is forbidden.
        rerank: The choice of the depth; None without a cross-encoder.
        defaults: The chosen options, to be kept by `save_search_defaults`.
    """

    measure: str
    queries: int
    fusion: FusionTuning
    ef: EfTuning | None
    rerank: DepthTuning | None
    defaults: SearchDefaults
