"""An evaluation as plain text for a terminal, and as JSON.

Measures are shown with four decimals, between 0 and 1. What cannot be told, such as the spread of a
single query, is a dash in a table and null in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from msmarco_qdrant.evaluation.published import COLUMNS
from msmarco_qdrant.evaluation.records import (
    AnnSweep,
    Evaluation,
    Interval,
    MeasuredRun,
    Published,
    RunComparison,
)

SIGNED = "+z.4f"
"""The form of a difference: never "-0.0000"."""


def evaluation_text(evaluation: Evaluation) -> str:
    """The measures of each run with the published figures beside them, then the comparisons."""
    parts = [queries_text(evaluation), _table(_measure_rows(evaluation))]
    notes = published_notes(evaluation)
    if notes:
        parts.append("\n".join(notes))
    for baseline in dict.fromkeys(one.baseline for one in evaluation.comparisons):
        compared = [one for one in evaluation.comparisons if one.baseline == baseline]
        parts.append(f"compared with {baseline}:\n\n{_table(_comparison_rows(compared))}")
    parts.append(_explained(evaluation))
    return "\n\n".join(parts)


def _explained(evaluation: Evaluation) -> str:
    """What the figures in brackets and the p-values are."""
    told = "[ ] 95 % confidence interval of the mean (bootstrap over the queries)"
    if evaluation.comparisons:
        told += "\np   of a paired t test and of a permutation test, not corrected for their number"
    return told


def queries_text(evaluation: Evaluation) -> str:
    """Over which queries the means are, and what was left out."""
    left_out = [
        f"{count:,} {what} left out"
        for count, what in (
            (evaluation.unjudged, "without judgments"),
            (evaluation.unasked, "judged but not asked"),
        )
        if count
    ]
    unanswered = [
        f"{run.name} has no answer to {run.unanswered:,}, which count 0"
        for run in evaluation.runs
        if run.unanswered
    ]
    return "; ".join([f"judged queries: {evaluation.judged:,}", *left_out, *unanswered])


def published_columns(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Measure and protocol of each published figure that any run's model has."""
    figures = [figure for run in evaluation.runs for figure in run.published]
    known = {(figure.measure, figure.protocol) for figure in figures}
    return [column for column in COLUMNS if column in known]


def published_figure(run: MeasuredRun, column: tuple[str, str]) -> Published | None:
    """A run's published figure for one of `published_columns`."""
    found = (one for one in run.published if (one.measure, one.protocol) == column)
    return next(found, None)


def published_notes(evaluation: Evaluation) -> list[str]:
    """What the columns of published figures are."""
    columns = published_columns(evaluation)
    return [
        f"({number}) published: {measure}, {protocol}"
        for number, (measure, protocol) in enumerate(columns, 1)
    ]


def _measure_rows(evaluation: Evaluation) -> list[list[str]]:
    """Two lines a run, so that they fit a terminal: the means, and below them their intervals."""
    columns = published_columns(evaluation)
    head = ["run", *evaluation.measures]
    head += [f"{measure} ({number})" for number, (measure, _) in enumerate(columns, 1)]
    rows = [head]
    for run in evaluation.runs:
        values = [run.values[measure] for measure in evaluation.measures]
        figures = [published_figure(run, column) for column in columns]
        published = ["-" if figure is None else f"{figure.value:.4f}" for figure in figures]
        rows.append([run.name, *(f"{value.mean:.4f}" for value in values), *published])
        intervals = [interval_text(value.interval) for value in values]
        rows.append(["", *intervals, *("" for _ in columns)])
    return rows


def _comparison_rows(comparisons: Sequence[RunComparison]) -> list[list[str]]:
    head = ["run", "measure", "difference", "better/equal/worse", "p t", "p perm."]
    rows = [head]
    for one in comparisons:
        difference = f"{signed_text(one.mean_difference)} {interval_text(one.interval, SIGNED)}"
        counts = f"{one.wins}/{one.ties}/{one.losses}"
        tests = [p_text(one.test.t_test), p_text(one.test.permutation)]
        rows.append([one.run, one.measure, difference, counts, *tests])
    return rows


def interval_text(interval: Interval | None, form: str = ".4f") -> str:
    """Such as "[0.4412, 0.5690]", or a dash."""
    return "-" if interval is None else f"[{interval.low:{form}}, {interval.high:{form}}]"


def signed_text(value: float) -> str:
    """Such as "+0.1381"."""
    return f"{value:{SIGNED}}"


def p_text(value: float | None) -> str:
    """Four decimals, "<0.0001" for less, or a dash.

    A permutation test of 9,999 resamples never tells less than 0.0002: that is its "as small as
    can be told", while a t test's may be as small as it likes.
    """
    if value is None:
        return "-"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def sweep_text(sweep: AnnSweep) -> str:
    """Recall and times of each setting and `ef`; a query is named only where it lacks something."""
    head = ["setting", "ef", f"recall@{sweep.k}", "worst", "of query", "median ms", "p95 ms"]
    rows = [
        [
            point.setting,
            str(point.ef),
            f"{point.recall:.4f}",
            f"{point.worst:.4f}",
            point.worst_qid if point.worst < 1 else "-",
            f"{point.median_ms:.2f}",
            f"{point.p95_ms:.2f}",
        ]
        for point in sweep.points
    ]
    told = f"queries: {sweep.queries:,}; exact search: {sweep.exact_ms:.2f} ms a query (median)"
    return f"{told}\n\n{_table([head, *rows])}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


# ---- JSON ----------------------------------------------------------------------------------


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything that was measured, the values of each query included."""
    return {
        "queries": {
            "judged": evaluation.judged,
            "unjudged": evaluation.unjudged,
            "unasked": evaluation.unasked,
        },
        "measures": list(evaluation.measures),
        "runs": [_run_json(run) for run in evaluation.runs],
        "comparisons": [_comparison_json(one) for one in evaluation.comparisons],
    }


def _run_json(run: MeasuredRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "unanswered": run.unanswered,
        "values": {
            measure: {
                "mean": value.mean,
                "interval": _interval_json(value.interval),
                "per_query": dict(value.per_query),
            }
            for measure, value in run.values.items()
        },
        "published": [asdict(figure) for figure in run.published],
    }


def _comparison_json(one: RunComparison) -> dict[str, Any]:
    return {
        "baseline": one.baseline,
        "run": one.run,
        "measure": one.measure,
        "mean_difference": one.mean_difference,
        "interval": _interval_json(one.interval),
        "p_t_test": one.test.t_test,
        "p_permutation": one.test.permutation,
        "wins": one.wins,
        "ties": one.ties,
        "losses": one.losses,
        "differences": dict(one.differences),
    }


def _interval_json(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def sweep_json(sweep: AnnSweep) -> dict[str, Any]:
    """The sweep as it is."""
    return {**asdict(sweep), "points": [asdict(point) for point in sweep.points]}
