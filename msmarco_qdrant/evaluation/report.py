"""Adapter of Jinja: a report as one self-contained HTML file.

Queries and passages are untrusted: everything is escaped, and the page's Content-Security-Policy
forbids scripts and requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

from msmarco_qdrant.errors import MissingExtraError
from msmarco_qdrant.evaluation.plots import plot_differences, plot_measures, plot_sweep
from msmarco_qdrant.evaluation.records import AnnSweep, Evaluation, WorstQuery
from msmarco_qdrant.evaluation.tables import (
    SIGNED,
    interval_text,
    p_text,
    published_columns,
    published_figure,
    published_notes,
    queries_text,
    signed_text,
)

_TEMPLATE = "report.html.jinja"


def report_html(
    title: str,
    facts: Mapping[str, str],
    *,
    evaluation: Evaluation | None = None,
    worst: Mapping[str, Sequence[WorstQuery]] | None = None,
    sweep: AnnSweep | None = None,
) -> str:
    """Make the report; the same values give the same page.

    Args:
        title: The heading.
        facts: Names and values for the head of the page, in this order: collection, model,
            engine, command line, version, date.
        evaluation: Shown as tables, plots and comparisons.
        worst: The worst queries of each run, by its name.
        sweep: Shown as a table and a plot.

    Raises:
        MissingExtraError: Without the extra `eval`.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as exc:
        raise MissingExtraError("writing a report", "eval") from exc
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(interval=interval_text, p=p_text, signed=signed_text, svg=Markup)
    environment.globals.update(
        plot_measures=plot_measures,
        plot_differences=plot_differences,
        plot_sweep=plot_sweep,
        published_columns=published_columns,
        published_figure=published_figure,
        published_notes=published_notes,
        queries_text=queries_text,
        signed_form=SIGNED,
    )
    source = files("msmarco_qdrant.evaluation").joinpath(_TEMPLATE).read_text("utf-8")
    return environment.from_string(source).render(
        title=title, facts=facts, evaluation=evaluation, worst=worst or {}, sweep=sweep
    )
