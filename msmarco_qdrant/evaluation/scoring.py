"""Runs judged: measured over the same queries, compared, and looked at where they are poor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.measures import DEFAULT_MEASURES, measure_run, parse_measures
from msmarco_qdrant.evaluation.published import published_figures
from msmarco_qdrant.evaluation.records import (
    AnsweredPassage,
    Evaluation,
    MeasuredRun,
    MeasuredValue,
    MissedPassage,
    PoorQuery,
    Qrels,
    Run,
    RunComparison,
)
from msmarco_qdrant.evaluation.statistics import mean_interval, paired_test

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query


def evaluate_runs(
    queries: Collection[Query],
    qrels: Qrels,
    runs: Sequence[Run],
    measures: str = DEFAULT_MEASURES,
    *,
    baseline: str | None = None,
) -> Evaluation:
    """Measure runs over the queries that have judgments, and compare them with one of them.

    Args:
        queries: What was asked. Judgments of other queries are left aside.
        qrels: The judgments.
        runs: One or more, of different names.
        measures: See `parse_measures`.
        baseline: Name of the run that the others are compared with; the first if None.

    Raises:
        UsageError: If no query has judgments, for no run or two of one name, or for a baseline
            or measure that is not known.
        MissingExtraError: Without the extra `eval`.
    """
    names = parse_measures(measures)
    compared_with = _checked_baseline([run.name for run in runs], baseline)
    asked = {query.qid for query in queries}
    judged = judged_part(asked, qrels)
    measured = [_measured(run, names, judged) for run in runs]
    base = next(run for run in measured if run.name == compared_with)
    return Evaluation(
        measures=names,
        judged=len(judged),
        unjudged=len(asked) - len(judged),
        unasked=len(qrels) - len(judged),
        runs=tuple(measured),
        comparisons=tuple(
            _compared(base, run, name) for run in measured if run is not base for name in names
        ),
    )


def judged_part(asked: Collection[str], qrels: Qrels) -> Qrels:
    """The judgments of these queries.

    Args:
        asked: Their qids.
        qrels: Judgments of these and others.

    Raises:
        UsageError: If there are none.
    """
    judged = {qid: grades for qid, grades in qrels.items() if qid in asked}
    if not judged:
        raise UsageError(
            f"none of the {len(asked)} queries has judgments (qids such as {_some(asked)}, "
            f"judged are {_some(qrels)}): are these the judgments of these queries?"
        )
    return judged


def check_names(names: Sequence[str]) -> None:
    """Refuse to evaluate no run, or several of one name.

    Raises:
        UsageError: As it says.
    """
    if not names:
        raise UsageError("no run was given: there is nothing to evaluate")
    if len(set(names)) < len(names):
        raise UsageError(f"two runs have one name: {', '.join(names)}; give each its own")


def _checked_baseline(names: Sequence[str], baseline: str | None) -> str:
    check_names(names)
    if baseline is not None and baseline not in names:
        raise UsageError(f"the baseline {baseline!r} is not among the runs: {', '.join(names)}")
    return names[0] if baseline is None else baseline


def _some(qids: Collection[str]) -> str:
    return ", ".join(repr(qid) for qid in sorted(qids)[:3]) or "none"


def _measured(run: Run, measures: Sequence[str], judged: Qrels) -> MeasuredRun:
    values = measure_run(measures, judged, run)
    return MeasuredRun(
        name=run.name,
        values={name: _value(per_query) for name, per_query in values.items()},
        unanswered=sum(not run.rankings.get(qid) for qid in judged),
        published=published_figures(run.model) if run.model else (),
    )


def _value(per_query: Mapping[str, float]) -> MeasuredValue:
    values = list(per_query.values())
    return MeasuredValue(fmean(values), mean_interval(values), per_query)


def _compared(base: MeasuredRun, run: MeasuredRun, measure: str) -> RunComparison:
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


# ---- queries looked at one by one ----------------------------------------------------------


def worst_queries(
    evaluation: Evaluation,
    run: Run,
    queries: Collection[Query],
    qrels: Qrels,
    texts: Mapping[str, str],
    *,
    count: int = 10,
    depth: int = 10,
) -> tuple[PoorQuery, ...]:
    """The queries that a run has the lowest values for, by the evaluation's first measure.

    Args:
        evaluation: What was measured.
        run: One of its runs.
        queries: For their queries.
        qrels: The judgments.
        texts: Of each pid, its text; what is not in it is shown without text.
        count: Queries wanted.
        depth: A relevant passage (grade 1 or more) below this rank counts as missed, and so many
            of those missed are told.

    Raises:
        UsageError: If the run is not in the evaluation.
    """
    measured = next((one for one in evaluation.runs if one.name == run.name), None)
    if measured is None:
        raise UsageError(f"run {run.name!r} was not evaluated")
    values = measured.values[evaluation.measures[0]].per_query
    texts_by_qid = {query.qid: query.text for query in queries}
    worst = sorted(values, key=lambda qid: (values[qid], qid))[:count]
    return tuple(
        _poor_query(qid, texts_by_qid.get(qid, ""), values[qid], run, qrels[qid], texts, depth)
        for qid in worst
    )


def _poor_query(
    qid: str,
    query: str,
    value: float,
    run: Run,
    grades: Mapping[str, int],
    texts: Mapping[str, str],
    depth: int,
) -> PoorQuery:
    ranking = run.rankings.get(qid, ())
    top = tuple(
        AnsweredPassage(rank, pid, score, grades.get(pid), texts.get(pid))
        for rank, (pid, score) in enumerate(ranking[:3], 1)
    )
    ranks = {pid: rank for rank, (pid, _) in enumerate(ranking, 1)}
    missed = [
        MissedPassage(pid, grade, ranks.get(pid), texts.get(pid))
        for pid, grade in sorted(grades.items(), key=lambda item: (-item[1], item[0]))
        if grade >= 1 and ranks.get(pid, depth + 1) > depth
    ]
    return PoorQuery(qid, query, value, top, tuple(missed[:depth]), len(missed))
