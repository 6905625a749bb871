"""Adapter of Matplotlib: the plots of an evaluation as SVG elements of a page.

Text stays text, in the color of the page, so a plot is readable on light and dark pages and for a
screen reader. The same values give the same bytes.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.errors import MissingExtraError
from msmarco_qdrant.evaluation.records import (
    AnnPoint,
    AnnSweep,
    Evaluation,
    MeasuredRun,
    RunComparison,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each has a contrast of 3:1 or more against white and against #1b1b1b (WCAG 2.1, 1.4.11).
_COLORS = ("#3d7fc1", "#c4701c", "#2f9367", "#a561ba", "#b8586b", "#7a8288")
_MARKERS = ("o", "s", "^", "D", "v", "P")  # so that lines differ without colors too
_COLUMNS = 3  # panels in a row
_TEXT = "#010203"  # placeholder for `currentColor`, which Matplotlib does not accept
_GRID = "#808080"
_STYLE: dict[Any, Any] = {  # Matplotlib's type is a Literal of all names
    "svg.fonttype": "none",
    "text.parse_math": False,  # a run may be called "$a$"
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "figure.facecolor": "none",
    "font.size": 10,
    "grid.color": _GRID,
    "grid.alpha": 0.35,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "savefig.transparent": True,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
_REFERENCE = re.compile(r'(\bid="|href="#|url\(#)')


def plot_measures(evaluation: Evaluation) -> str:
    """Plot the mean of each measure by run with 95 % confidence intervals, a panel per measure."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, _COLUMNS, sharey=True, squeeze=False).flat
        for panel, measure in zip_longest(panels, evaluation.measures):
            if measure is None:
                panel.set_visible(False)
            else:
                _draw_measure(panel, evaluation.runs, measure)

    rows = -(-len(evaluation.measures) // _COLUMNS)
    height = rows * (1.0 + 0.38 * len(evaluation.runs))
    label = "Measures by run with 95 % confidence intervals: see the table for the figures"
    return _svg("measures", label, (3.1 * _COLUMNS, height), draw)


def _draw_measure(panel: Axes, runs: Sequence[MeasuredRun], measure: str) -> None:
    values = [run.values[measure] for run in runs]
    places = range(len(runs))
    panel.barh(places, [value.mean for value in values], height=0.62, color=_COLORS[0])
    for place, value in zip(places, values, strict=True):
        if value.interval is not None:
            panel.plot(value.interval, (place, place), color=_TEXT, linewidth=1.6)
    panel.set_yticks(places, [run.name for run in runs])
    panel.set_ylim(len(runs) - 0.5, -0.5)
    panel.set_xlim(0, max(1.0, *(max((value.mean, *(value.interval or ()))) for value in values)))
    panel.set_title(measure)
    panel.grid(axis="x")
    panel.set_axisbelow(True)


def plot_differences(comparison: RunComparison) -> str:
    """Plot the difference of two runs on each query, largest gain first."""
    values = sorted(comparison.differences.values(), reverse=True)

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        for sign, color in ((1, _COLORS[0]), (-1, _COLORS[1])):
            heights = [max(value * sign, 0.0) * sign for value in values]
            panel.stairs(heights, fill=True, color=color, linewidth=0)
        panel.axhline(0, color=_TEXT, linewidth=0.8)
        panel.axhline(comparison.mean_difference, color=_TEXT, linewidth=1.2, linestyle="--")
        panel.set_xlim(0, len(values))
        panel.set_xlabel(f"{len(values):,} queries, sorted; dashed: the mean")
        panel.set_ylabel(f"difference in {comparison.measure}")
        panel.grid(axis="y")

    name = f"differences {comparison.run} {comparison.baseline} {comparison.measure}"
    label = (
        f"{comparison.measure} of {comparison.run} minus {comparison.baseline}, by query: "
        f"{comparison.wins} better, {comparison.ties} equal, {comparison.losses} worse"
    )
    return _svg(name, label, (6.4, 2.8), draw)


def plot_sweep(sweep: AnnSweep) -> str:
    """Plot recall against the median time of a query: a line per setting, a point per `ef`."""
    settings = list(dict.fromkeys(point.setting for point in sweep.points))

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        lines = []
        for index, setting in enumerate(settings):
            points = [point for point in sweep.points if point.setting == setting]
            lines.append(_draw_setting(panel, points, index))
        panel.set_xlim(left=0)
        panel.set_xlabel("milliseconds per query (median)")
        panel.set_ylabel(f"recall@{sweep.k}")
        panel.grid()
        panel.legend(lines, settings, title="points: ef", loc="lower right")

    label = (
        f"Recall@{sweep.k} of approximate search against milliseconds per query, by ef: see the "
        "table for the figures"
    )
    return _svg("sweep", label, (6.4, 3.8), draw)


def _draw_setting(panel: Axes, points: Sequence[AnnPoint], index: int) -> Any:
    ordered = sorted(points, key=lambda point: point.ef)
    (line,) = panel.plot(
        [point.median_ms for point in ordered],
        [point.recall for point in ordered],
        color=_COLORS[index % len(_COLORS)],
        marker=_MARKERS[index % len(_MARKERS)],
    )
    for point in ordered:
        place = (point.median_ms, point.recall)
        panel.annotate(f"{point.ef}", place, (4, -12), textcoords="offset points", fontsize=8)
    return line


def _svg(name: str, label: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """Draw on a figure of `size` inches and return its `<svg>` element."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError as exc:
        raise MissingExtraError("plotting", "eval") from exc
    file = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser draws the text with its own fonts; Matplotlib's only measure it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    return _inline(file.getvalue(), name, label)


def _inline(document: str, name: str, label: str) -> str:
    """Return the element with ids that are unique on the page, and a label for screen readers."""
    element = document[document.index("<svg ") :].replace(_TEXT, "currentColor")
    prefix = re.sub(r"[^0-9A-Za-z]", lambda found: f"_{ord(found[0]):x}_", name)
    element = _REFERENCE.sub(rf"\g<1>{prefix}-", element)
    return element.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)
