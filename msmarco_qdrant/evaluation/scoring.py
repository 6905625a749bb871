"""Measures and comparisons of runs over the same queries, and their worst queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.coverage import quoted_examples, relevant_pids, warn_unjudged
from msmarco_qdrant.evaluation.measures import (
    DEFAULT_MEASURES,
    check_relevance_levels,
    measure_run,
    parse_measures,
)
from msmarco_qdrant.evaluation.published import published_figures
from msmarco_qdrant.evaluation.records import (
    Evaluation,
    JudgedPassage,
    MeasuredRun,
    MeasuredValue,
    Qrels,
    Run,
    RunComparison,
    WorstQuery,
)
from msmarco_qdrant.evaluation.statistics import mean_interval, paired_test

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query


@suggest_keywords
def evaluate_runs(
    queries: Collection[Query],
    qrels: Qrels,
    runs: Sequence[Run],
    measures: str = DEFAULT_MEASURES,
    *,
    baseline: str | None = None,
) -> Evaluation:
    """Measure runs over the judged queries, and compare them with a baseline.

    Args:
        queries: The queries of the runs. Judgments of other queries are ignored.
        qrels: The judgments.
        runs: One or more, with different names.
        measures: See `parse_measures`.
        baseline: Name of the run to compare with; the first if None.

    Raises:
        UsageError: If no query has judgments, no judgment has a grade of 1 or more, or a run
            answers no judged query; for a repeated qid, no run or two of one name, or an unknown
            baseline or measure.
        MissingExtraError: Without the extra `eval`.
    """
    names = [run.name for run in runs]
    check_names(names)
    if baseline is not None and baseline not in names:
        raise UsageError(f"baseline must be one of {', '.join(names)}, got {baseline!r}")
    parsed = parse_measures(measures)
    check_qids(queries)
    judged = select_judged({query.qid for query in queries}, qrels)
    check_relevance_levels(parsed, judged)
    for run in runs:
        check_answers(run, judged)
        warn_unjudged(run, judged)
    return score_runs(queries, qrels, runs, parsed, baseline or names[0])


def score_runs(
    queries: Collection[Query],
    qrels: Qrels,
    runs: Sequence[Run],
    measures: tuple[str, ...],
    baseline: str,
) -> Evaluation:
    """Measure and compare runs whose names, measures and baseline are checked already."""
    qids = {query.qid for query in queries}
    judged = select_judged(qids, qrels)
    measured = [_measure(run, measures, judged) for run in runs]
    base = next(run for run in measured if run.name == baseline)
    return Evaluation(
        measures=measures,
        judged=len(judged),
        unjudged=len(qids) - len(judged),
        unasked=len(qrels) - len(judged),
        runs=tuple(measured),
        comparisons=tuple(
            _compare(base, run, name) for run in measured if run is not base for name in measures
        ),
        relevant=len(relevant_pids(judged)),
        without_relevant=sum(max(grades.values()) < 1 for grades in judged.values()),
    )


def select_judged(qids: Collection[str], qrels: Qrels) -> Qrels:
    """Return the judgments of these queries; one or more with a relevant passage is required."""
    if not qids:
        raise UsageError("an evaluation must have one query or more, got none")
    judged = {qid: grades for qid, grades in qrels.items() if qid in qids and grades}
    if not judged:
        raise UsageError(
            f"none of the {len(qids)} queries has judgments: the queries have qids such as "
            f"{quoted_examples(qids)}, the judgments {quoted_examples(qrels)}; pass the qrels of "
            "these queries"
        )
    if not relevant_pids(judged):
        highest = max(grade for grades in judged.values() for grade in grades.values())
        raise UsageError(
            f"judgments must have a grade of 1 or more for one of the {len(qids)} queries, got "
            f"{highest} as the highest: every measure would be 0; pass the qrels of these queries"
        )
    return judged


def check_qids(queries: Iterable[Query]) -> None:
    """Require a different qid for each query."""
    for qid, count in Counter(query.qid for query in queries).items():
        if count > 1:
            raise UsageError(f"each query needs its own qid, got {qid!r} {count} times")


def check_answers(run: Run, judged: Qrels) -> None:
    """Refuse a run for other queries, whose measures would all be 0."""
    answered = [qid for qid, ranking in run.rankings.items() if ranking]
    if answered and not any(qid in judged for qid in answered):
        raise UsageError(
            f"the run {run.name!r} answers none of the {len(judged)} judged queries: it has qids "
            f"such as {quoted_examples(answered)}, the judged queries {quoted_examples(judged)}; "
            "pass a run for these queries"
        )


def check_names(names: Sequence[str]) -> None:
    """Require one run or more, with different names."""
    if not names:
        raise UsageError("an evaluation needs one run or system or more, got none")
    if len(set(names)) < len(names):
        raise UsageError(f"each run needs its own name, got {', '.join(names)}")


def _measure(run: Run, measures: Sequence[str], judged: Qrels) -> MeasuredRun:
    values = measure_run(measures, judged, run)
    return MeasuredRun(
        name=run.name,
        values={name: _summarize(per_query) for name, per_query in values.items()},
        unanswered=sum(not run.rankings.get(qid) for qid in judged),
        published=published_figures(run.model) if run.model else (),
    )


def _summarize(per_query: Mapping[str, float]) -> MeasuredValue:
    values = list(per_query.values())
    return MeasuredValue(fmean(values), mean_interval(values), per_query)


def _compare(base: MeasuredRun, run: MeasuredRun, measure: str) -> RunComparison:
    before, after = base.values[measure].per_query, run.values[measure].per_query
    differences = {qid: after[qid] - value for qid, value in before.items()}
    values = list(differences.values())
    return RunComparison(
        baseline=base.name,
        run=run.name,
        measure=measure,
        mean_difference=fmean(values),
        interval=mean_interval(values),
        test=paired_test(values),
        wins=sum(value > 0 for value in values),
        ties=sum(value == 0 for value in values),
        losses=sum(value < 0 for value in values),
        differences=differences,
    )


@suggest_keywords
def worst_queries(
    evaluation: Evaluation,
    run: Run,
    queries: Collection[Query],
    qrels: Qrels,
    texts: Mapping[str, str],
    *,
    count: int = 10,
    depth: int = 10,
) -> tuple[WorstQuery, ...]:
    """Return the queries with the lowest values of the evaluation's first measure.

    Args:
        evaluation: The measures.
        run: One of its runs.
        queries: The queries, for their texts.
        qrels: The judgments.
        texts: The text of each pid, as far as available.
        count: Number of queries to return.
        depth: A relevant passage (grade 1 or more) below this rank is missed; at most so many
            missed passages are returned.

    Raises:
        UsageError: If the run is not in the evaluation.
    """
    measured = next((entry for entry in evaluation.runs if entry.name == run.name), None)
    if measured is None:
        raise UsageError(f"run {run.name!r} is not in the evaluation")
    values = measured.values[evaluation.measures[0]].per_query
    texts_by_qid = {query.qid: query.text for query in queries}
    worst = sorted(values, key=lambda qid: (values[qid], qid))[:count]
    return tuple(
        _worst_query(qid, texts_by_qid.get(qid, ""), values[qid], run, qrels[qid], texts, depth)
        for qid in worst
    )


def _worst_query(
    qid: str,
    query: str,
    value: float,
    run: Run,
    grades: Mapping[str, int],
    texts: Mapping[str, str],
    depth: int,
) -> WorstQuery:
    ranking = run.rankings.get(qid, ())
    places = {pid: (rank, score) for rank, (pid, score) in enumerate(ranking, 1)}

    def judged(pid: str) -> JudgedPassage:
        rank, score = places.get(pid, (None, None))
        return JudgedPassage(pid, grades.get(pid), rank, score, texts.get(pid))

    relevant = sorted((-grade, pid) for pid, grade in grades.items() if grade >= 1)
    missed = [pid for _, pid in relevant if places.get(pid, (depth + 1,))[0] > depth]
    top = tuple(judged(pid) for pid, _ in ranking[:3])
    return WorstQuery(qid, query, value, top, tuple(map(judged, missed[:depth])), len(missed))
