"""The command that measures how good answers are."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from msmarco_qdrant import __version__
from msmarco_qdrant.cli.evaluate_options import EvaluateOptions, EvaluationPlan, planned
from msmarco_qdrant.cli.options import (
    collection_option,
    json_option,
    opened,
    ranking_options,
    settings_with,
    store_option,
)
from msmarco_qdrant.cli.output import print_json
from msmarco_qdrant.core.search_types import SearchMode

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.core.search_types import Hit
    from msmarco_qdrant.evaluation import AnnSweep, Evaluated, Run, System
    from msmarco_qdrant.search.client import SearchClient

_FILE = click.Path(dir_okay=False, path_type=Path)
_LINE_EVERY_S = 10.0


@click.command()
@store_option
@collection_option
@click.option("--queries", type=_FILE, metavar="FILE", help="qid<TAB>text, or JSON lines.")
@click.option("--qrels", type=_FILE, metavar="FILE", help="Judgments in TREC's or BEIR's form.")
@click.option(
    "--dataset",
    metavar="NAME",
    help="Queries and judgments of ir_datasets instead, such as msmarco-passage/dev/small.",
)
@click.option(
    "--mode",
    "modes",
    type=click.Choice(get_args(SearchMode)),
    multiple=True,
    default=["dense"],
    show_default=True,
    help="What to measure; give it several times to compare.",
)
@ranking_options
@click.option(
    "--measures",
    metavar="NAMES",
    default="nDCG@10 RR@10 R@100",
    show_default=True,
    help="As ir_measures names them; by the first, a report shows the worst queries.",
)
@click.option(
    "--depth",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Hits a query.  [default: as deep as the measures look, else 1000]",
)
@click.option(
    "--candidates",
    type=_FILE,
    metavar="RUN",
    help="Rank only the passages of this TREC run, as the reranking task of TREC DL does.",
)
@click.option(
    "--compare",
    type=_FILE,
    multiple=True,
    metavar="RUN",
    help="Measure this TREC run, too. The first run of all (candidates, then these, then modes) is "
    "what the others are compared with.",
)
@click.option("--exact", is_flag=True, help="Compare with every passage, without the index.")
@click.option("--ann", is_flag=True, help="Compare the index with exact search, for several ef.")
@click.option("--model", metavar="NAME_OR_DIR", help="Where to load the collection's model from.")
@click.option(
    "--run",
    type=_FILE,
    metavar="FILE",
    help="Keep the TREC run, packed if FILE ends in .gz; of several modes NAME.trec becomes "
    "NAME.dense.trec and so on.",
)
@click.option("--report", type=_FILE, metavar="FILE", help="Write an HTML report with plots.")
@json_option
def evaluate(**options: Any) -> None:
    """Measure how good the answers of a collection are.

    With judgments: measures of each mode with confidence intervals, published figures beside
    them, and paired tests. With --ann: recall and time of the index.
    """
    given = EvaluateOptions(**options)
    given.check()
    plan = planned(given)
    settings = settings_with(store=given.store, collection=given.collection)
    from msmarco_qdrant.search.client import SearchClient

    with opened(settings) as place:
        client = SearchClient.open(
            place,
            collection=settings.collection,
            model=given.model,
            encoder_options=settings.encoder_options,
            reranker=given.rerank,
            bm25_only={*given.modes} == {"bm25"} and given.model is None and not given.ann,
        )
        found = _Found()
        try:
            _measure(client, given, plan, found)
        finally:  # what was measured is told, whatever comes after it
            _print(found, given)
        if given.report is not None:
            _write_report(given.report, client, plan, found)
            _tell_written(given.report, given)


@dataclass(slots=True)
class _Found:
    """What came of it until now."""

    runs: list[Path] = field(default_factory=list)
    evaluated: Evaluated | None = None
    sweep: AnnSweep | None = None


# ---- asking and writing ----------------------------------------------------------------------


def _measure(
    client: SearchClient, given: EvaluateOptions, plan: EvaluationPlan, found: _Found
) -> None:
    """Ask and measure; each run is written as soon as it is complete."""
    from msmarco_qdrant.evaluation import evaluate_search, save_run, sweep_ann
    from msmarco_qdrant.evaluation.ann import check_sweep

    def keep(run: Run) -> None:
        if run.name in plan.files:
            save_run(plan.files[run.name], run.rankings.items())
            found.runs.append(plan.files[run.name])
            _tell_written(plan.files[run.name], given)

    if given.ann:
        check_sweep(client, plan.queries)
    if given.judged:
        found.evaluated = evaluate_search(
            client,
            plan.queries,
            plan.qrels,
            plan.systems,
            measures=given.measures,
            depth=given.depth,
            candidates=plan.candidates,
            others=plan.others,
            unjudged=bool(plan.files),
            on_query=Progress(),
            on_answer=_check_pids if plan.files else None,
            on_run=keep,
        )
    if given.ann:
        asked = _queries(len(plan.queries))
        click.echo(f"comparing the index with exact search: {asked}", err=True)
        found.sweep = sweep_ann(
            client,
            plan.queries,
            on_setting=lambda name, ef: click.echo(f"asking {name}, ef {ef}: {asked}", err=True),
        )


def _check_pids(_: Query, hits: Sequence[Hit]) -> None:
    """Refuse what a run cannot hold as soon as it comes."""
    from msmarco_qdrant.evaluation.runs import check_id

    for hit in hits:
        check_id(hit.pid)


class Progress:
    """Tells on standard error which system is asked, and now and then how far it is.

    Args:
        line_every_s: A line at most so often, in seconds, but for the first of each system.
    """

    def __init__(self, line_every_s: float = _LINE_EVERY_S) -> None:
        self._line_every_s = line_every_s
        self._next_line = 0.0

    def __call__(self, system: System, asked: int, count: int) -> None:
        """See `evaluate_search`."""
        now = time.monotonic()
        if asked == 0:
            click.echo(f"asking {system.name}: {_queries(count)}", err=True)
        elif now >= self._next_line:
            click.echo(f"asking {system.name}: {asked:,} of {_queries(count)}", err=True)
        else:
            return
        self._next_line = now + self._line_every_s


def _queries(count: int) -> str:
    return f"{count:,} {'query' if count == 1 else 'queries'}"


def _write_report(path: Path, client: SearchClient, plan: EvaluationPlan, found: _Found) -> None:
    from msmarco_qdrant.evaluation import poorest_queries, report_html
    from msmarco_qdrant.runtime.atomic_file import replacing_text

    evaluation = poor = None
    if found.evaluated is not None:
        evaluation = found.evaluated.evaluation
        poor = poorest_queries(client, found.evaluated, plan.queries, plan.qrels)
    title = f"Evaluation of {client.collection}"
    html = report_html(title, _facts(client), evaluation=evaluation, poor=poor, sweep=found.sweep)
    with replacing_text(path) as file:
        file.write(html)


def _facts(client: SearchClient) -> dict[str, str]:
    """What the head of a report tells, without secrets; a path may be no UTF-8."""
    facts = {
        "collection": f"{client.collection} in {client.store.dsn}",
        "model": client.metadata.encoder.model,
        "engine": client.store.capabilities.engine,
        "command": shlex.join(_command_line(click.get_current_context(), client.store.dsn)),
        "version": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return {name: click.format_filename(fact) for name, fact in facts.items()}


def _command_line(context: click.Context, store: str) -> Iterator[str]:
    """The words of the command; the store's as it may be shown."""
    yield from context.command_path.split()
    for option in context.command.params:
        name = option.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = store if name == "store" else context.params[name]
            for one in value if isinstance(value, tuple) else (value,):
                yield option.opts[0]
                if one is not True:
                    yield str(one)


# ---- telling ---------------------------------------------------------------------------------


def _print(found: _Found, given: EvaluateOptions) -> None:
    if found.evaluated is None and found.sweep is None:
        return
    if given.as_json:
        print_json(_json(found, given.report))
        return
    from msmarco_qdrant.evaluation import evaluation_text, sweep_text

    if found.evaluated is not None:
        click.echo(evaluation_text(found.evaluated.evaluation))
    if found.sweep is not None:
        click.echo(("\n" if found.evaluated else "") + sweep_text(found.sweep))


def _tell_written(path: Path, given: EvaluateOptions) -> None:
    if not given.as_json:
        click.echo(f"written: {click.format_filename(path)}", err=True)


def _json(found: _Found, report: Path | None) -> dict[str, Any]:
    from msmarco_qdrant.evaluation import evaluation_json, sweep_json

    return {
        "evaluation": evaluation_json(found.evaluated.evaluation) if found.evaluated else None,
        "ann": sweep_json(found.sweep) if found.sweep else None,
        "runs": [click.format_filename(path) for path in found.runs],
        "report": click.format_filename(report) if report else None,
    }
