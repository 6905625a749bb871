"""The report of an improvement as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.core.report_text import reembed_text
from msmarco_qdrant.evaluation.tables import evaluation_json, evaluation_text, format_table
from msmarco_qdrant.train.improve_records import ImproveReport, ImproveStep

_FEW_QUERIES = 100
_SHOWN = 4  # figures of a step


def improve_text(report: ImproveReport) -> str:
    """Return the steps, the measures of each model and the verdict."""
    counts = f"{report.train:,} to train on, {report.validation:,} to choose by"
    parts = [
        f"queries: {counts}, {report.test:,} to test",
        format_table([("round", "step", "seconds", "figures"), *map(_step_row, report.steps)]),
        _validation_table(report),
    ]
    for mode, evaluation in report.evaluations.items():
        parts.append(evaluation_text(evaluation))
        parts += [_successor_text(one) for one in report.successors[mode]]
    return "\n\n".join([*parts, "\n".join(verdict_lines(report))])


def verdict_lines(report: ImproveReport) -> list[str]:
    """Return the verdict, and what to do next."""
    verdict = report.verdict
    lines = [f"round {verdict.round}, chosen by the validation queries: {verdict.reason}"]
    if report.changed_rounds:
        rounds = ", ".join(map(str, report.changed_rounds))
        lines.append(
            f"passages of '{report.collection}' changed after the old model searched them, and "
            f"before round {rounds} encoded them: compare again in a new folder if they are many"
        )
    if report.switched is not None:
        return [*lines, reembed_text(report.switched)]
    if verdict.is_better:
        return [*lines, f"the new model is better; switch to it with: {report.command}"]
    lines.append(
        f"the new model is not shown to be better: '{report.collection}' keeps {report.old_model}"
    )
    lines.append(
        f"{report.test:,} test queries show differences of {verdict.detectable:.4f} or more, four "
        "times of five"
    )
    if report.test < _FEW_QUERIES:
        lines.append("judge more queries before you train again: so few show large gains only")
    return lines


def improve_json(report: ImproveReport) -> dict[str, Any]:
    """Return the report as JSON values."""
    value = to_json_value(report)
    value["evaluations"] = {mode: evaluation_json(one) for mode, one in report.evaluations.items()}
    value["successors"] = {
        mode: [evaluation_json(one) for one in of_mode]
        for mode, of_mode in report.successors.items()
    }
    return {**value, "model": report.model}


def _validation_table(report: ImproveReport) -> str:
    rows = [("model", "validation")]
    rows.append((f"before ({report.old_model})", f"{report.validation_before:.4f}"))
    rows += [
        (f"round {one.number} ({one.model})", f"{one.validation:.4f}") for one in report.rounds
    ]
    return format_table(rows)


def _successor_text(evaluation: Any) -> str:
    text = evaluation_text(evaluation)
    return text[text.index("compared with") : text.index("[ ]")].rstrip()


def _step_row(step: ImproveStep) -> tuple[str, str, str, str]:
    seconds = f"{step.seconds:,.1f}" + (" (resumed)" if step.resumed else "")
    return (str(step.round or "-"), step.name, seconds, _figures(step.figures))


def _figures(figures: Mapping[str, Any]) -> str:
    numbers = [
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4f}"
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return ", ".join(numbers[:_SHOWN])
