"""An evaluation as plain text for a terminal, and as JSON.

Measures have four decimals, between 0 and 1. An undefined value, such as the confidence interval of
a single query, is a dash in tables and null in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msmarco_qdrant.core.escape import escape_controls
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.evaluation.published import COLUMNS
from msmarco_qdrant.evaluation.records import (
    AnnSweep,
    DepthTuning,
    EfTuning,
    Evaluation,
    Interval,
    MeasuredRun,
    Published,
    RunComparison,
    Tuning,
)

SIGNED = "+z.4f"
"""Format of a difference: never "-0.0000"."""


def evaluation_text(evaluation: Evaluation) -> str:
    """Return a table of measures and published figures, then the comparisons."""
    parts = [queries_text(evaluation), format_table(_measure_rows(evaluation))]
    notes = published_notes(evaluation)
    if notes:
        parts.append("\n".join(notes))
    for baseline in dict.fromkeys(one.baseline for one in evaluation.comparisons):
        compared = [one for one in evaluation.comparisons if one.baseline == baseline]
        table = format_table(_comparison_rows(compared))
        parts.append(f"compared with {escape_controls(baseline)}:\n\n{table}")
    legend = "[ ] 95 % confidence interval of the mean (bootstrap over the queries)"
    if evaluation.comparisons:
        legend += "\np   of a paired t test and a permutation test, not corrected for their number"
    return "\n\n".join([*parts, legend])


def queries_text(evaluation: Evaluation) -> str:
    """Return the number of judged queries, and of those left out or not answered."""
    parts = [f"judged queries: {evaluation.judged:,}"]
    if evaluation.unjudged:
        parts.append(f"{evaluation.unjudged:,} without judgments left out")
    if evaluation.unasked:
        parts.append(f"{evaluation.unasked:,} with judgments not among the queries")
    if evaluation.without_relevant:
        parts.append(f"{evaluation.without_relevant:,} without a relevant passage, which count 0")
    if evaluation.missing:
        parts.append(
            f"{evaluation.missing:,} of {evaluation.relevant:,} relevant passages are not in the "
            "collection"
        )
    parts += [
        f"{escape_controls(run.name)} has no answer for {run.unanswered:,}, which count 0"
        for run in evaluation.runs
        if run.unanswered
    ]
    return "; ".join(parts)


def published_columns(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return measure and protocol of each published figure that the model of a run has."""
    figures = [figure for run in evaluation.runs for figure in run.published]
    available = {(figure.measure, figure.protocol) for figure in figures}
    return [column for column in COLUMNS if column in available]


def published_figure(run: MeasuredRun, column: tuple[str, str]) -> Published | None:
    """Return a run's published figure for one of `published_columns`."""
    found = (one for one in run.published if (one.measure, one.protocol) == column)
    return next(found, None)


def published_notes(evaluation: Evaluation) -> list[str]:
    """Explain the columns of published figures."""
    columns = published_columns(evaluation)
    return [
        f"({number}) published: {measure}, {protocol}"
        for number, (measure, protocol) in enumerate(columns, 1)
    ]


def _measure_rows(evaluation: Evaluation) -> list[list[str]]:
    """Return two lines per run, to fit a terminal: the means, then their intervals."""
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
    """Format such as "[0.4412, 0.5690]", or a dash."""
    return "-" if interval is None else f"[{interval.low:{form}}, {interval.high:{form}}]"


def signed_text(value: float) -> str:
    """Format such as "+0.1381"."""
    return f"{value:{SIGNED}}"


def p_text(value: float | None) -> str:
    """Format a p-value with four decimals, "<0.0001", or a dash.

    A permutation test of 9,999 resamples is 0.0002 or more; a t test has no lower bound.
    """
    if value is None:
        return "-"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def sweep_text(sweep: AnnSweep) -> str:
    """Return a table of recall and times by setting and `ef`; the worst query if it lacks hits."""
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
    facts = f"queries: {sweep.queries:,}; exact search: {sweep.exact_ms:.2f} ms per query (median)"
    return f"{facts}\n\n{format_table([head, *rows])}"


def tuning_text(tuning: Tuning) -> str:
    """Return the trials of each option and the chosen ones."""
    fusion, measure = tuning.fusion, tuning.measure
    rows = [["fusion", measure, ""]]
    marks = {fusion.best: "best", fusion.current: "current"}
    marks |= {fusion.best: "best, current"} if fusion.best == fusion.current else {}
    for one, mean in fusion.means.items():
        rows.append([f"{one.method} {one.weight:g}", f"{mean:.4f}", marks.get(one, "")])
    gain = f"{signed_text(fusion.gain)} {interval_text(fusion.interval, SIGNED)}"
    kept = "the current fusion stays" if fusion.chosen == fusion.current else "chosen"
    parts = [
        f"judged queries: {tuning.queries:,}",
        format_table(rows),
        f"gain of the best over the current fusion, cross-validated: {gain}: {kept}",
    ]
    if tuning.ef is not None:
        parts.append(_ef_text(tuning.ef))
    if tuning.rerank is not None:
        parts.append(_depth_text(tuning.rerank, measure))
    parts += [
        "[ ] 95 % confidence interval of the mean (bootstrap over the queries)",
        f"chosen: {tuning.defaults.describe()}",
    ]
    return "\n\n".join(parts)


def _ef_text(tuning: EfTuning) -> str:
    rows = [["ef", f"recall@{tuning.k}", "", "worst", ""]]
    for one in tuning.trials:
        mark = "chosen" if one.ef == tuning.chosen else ""
        interval = interval_text(one.interval)
        rows.append([str(one.ef), f"{one.recall:.4f}", interval, f"{one.worst:.4f}", mark])
    return format_table(rows)


def _depth_text(tuning: DepthTuning, measure: str) -> str:
    rows = [["reranked", measure, "difference from the deepest", ""]]
    rows.append(["none", f"{tuning.without:.4f}", "", ""])
    for one in tuning.trials:
        difference = f"{signed_text(one.difference)} {interval_text(one.interval, SIGNED)}"
        mark = "chosen" if one.depth == tuning.chosen else ""
        rows.append([str(one.depth), f"{one.mean:.4f}", difference, mark])
    return f"{format_table(rows)}\n({tuning.queries:,} of the queries)"


def tuning_json(tuning: Tuning) -> dict[str, Any]:
    """Return the tuning with all trials."""
    fusion = tuning.fusion
    means = [{"fusion": to_json_value(one), "mean": mean} for one, mean in fusion.means.items()]
    parts = {name: getattr(tuning, name) for name in ("measure", "queries", "ef", "rerank")}
    chosen = {name: getattr(fusion, name) for name in ("current", "best", "chosen", "gain")}
    return {
        **to_json_value(parts),
        "fusion": {"means": means, **to_json_value({**chosen, "interval": fusion.interval})},
        "defaults": to_json_value(tuning.defaults),
    }


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Align the columns of a table, two spaces apart; control characters are escaped."""
    rows = [[escape_controls(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the whole evaluation, including the values of each query."""
    value = to_json_value(evaluation)
    for comparison in value["comparisons"]:
        comparison["p_t_test"], comparison["p_permutation"] = comparison.pop("test")
    counts = ("judged", "unjudged", "unasked", "without_relevant")
    queries = {name: value.pop(name) for name in counts}
    relevant = {"judged": value.pop("relevant"), "missing": value.pop("missing")}
    return {"queries": queries, "relevant_passages": relevant, **value}


def sweep_json(sweep: AnnSweep) -> dict[str, Any]:
    """Return the sweep with all points."""
    return dict(to_json_value(sweep))
