"""The command `evaluate`: measure search quality."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from msmarco_qdrant import __version__
from msmarco_qdrant.cli.command_settings import open_search_client
from msmarco_qdrant.cli.completion import complete_collections, complete_files
from msmarco_qdrant.cli.evaluate_options import EvaluateInput, EvaluateOptions, read_input
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    FILE,
    exact_option,
    json_option,
    limit_option,
    model_option,
    ranking_options,
    settings_options,
    tenant_option,
)
from msmarco_qdrant.cli.output import echo, echo_text, print_json
from msmarco_qdrant.cli.run_options import measures_option, modes_option
from msmarco_qdrant.core.json_value import to_json_value

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.core.search_types import Hit
    from msmarco_qdrant.evaluation import AnnSweep, Run, SearchEvaluation, Tuning
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.settings import Settings


@click.command(
    cls=Command,
    examples=[
        "--queries queries.tsv --qrels qrels.txt --mode dense --mode hybrid",
        "--queries queries.tsv --ann",
        "--queries queries.tsv --qrels qrels.txt --tune --save",
    ],
)
@settings_options("store", "transport", "collection")
@click.option("--queries", type=FILE, metavar="FILE", help="Queries: qid<TAB>text or JSON lines.")
@click.option("--qrels", type=FILE, metavar="FILE", help="Judgments in TREC's or BEIR's format.")
@click.option(
    "--dataset",
    metavar="NAME",
    help="Queries and judgments of ir_datasets instead, such as msmarco-passage/dev/small.",
)
@modes_option("Search mode; repeat it to compare modes.")
@ranking_options
@measures_option("The first decides about the worst queries in a report, and --tune.")
@limit_option(
    None, "Number of hits, of each query.  [default: the largest cutoff of the measures, else 1000]"
)
@click.option(
    "--candidates",
    type=FILE,
    metavar="RUN",
    help="Rank only the passages of this TREC run, as in the reranking task of TREC DL.",
)
@click.option(
    "--compare",
    type=FILE,
    multiple=True,
    metavar="RUN",
    help="Also measure this TREC run. The first run of all (candidates, then these, then modes) is "
    "the baseline.",
)
@click.option(
    "--against",
    metavar="NAME",
    shell_complete=complete_collections,
    help="Also search this collection, with its own model and defaults.",
)
@click.option(
    "--against-store",
    metavar="PATH_OR_URL",
    shell_complete=complete_files,
    help="The store of --against, or another one with the same collection. It gets no API key.  "
    "[default: that of --store]",
)
@click.option(
    "--exclude-self",
    is_flag=True,
    help="Leave out of each answer the passage whose pid is the query's qid (ArguAna, Quora).",
)
@tenant_option
@click.option(
    "--topics",
    type=FILE,
    metavar="FILE",
    help="Topics of the queries (qid<TAB>topic): also print the first measure by topic.",
)
@click.option("--per-query", is_flag=True, help="Also print the first measure of every query.")
@exact_option
@click.option("--ann", is_flag=True, help="Compare the index with exact search, for several ef.")
@click.option(
    "--tune",
    is_flag=True,
    help="Choose the fusion, ef, and with --reranker the rerank depth, by the first measure.",
)
@click.option(
    "--save",
    is_flag=True,
    help="With --tune: keep the chosen options as the collection's defaults.",
)
@model_option("Load the collection's model from here.")
@click.option(
    "--run",
    type=FILE,
    metavar="FILE",
    help="Save the TREC run, as gzip if FILE ends in .gz. For several modes NAME.trec becomes "
    "NAME.dense.trec and so on.",
)
@click.option("--report", type=FILE, metavar="FILE", help="Write an HTML report with plots.")
@json_option
def evaluate(*, settings: Settings, **options: Any) -> None:
    """Measure the search quality of a collection.

    With judgments: the measures of each mode with confidence intervals, published figures, and
    paired tests. With --ann: recall and time of the index. With --tune: the search options that
    fit the judgments best.
    """
    given = EvaluateOptions(**options)
    given.check()
    files = read_input(given)
    bm25 = {*given.modes} == {"bm25"} and not given.ann and not given.tune
    with open_search_client(settings, given.model, given.reranker, bm25=bm25) as client:
        results = _Results()
        try:
            with _open_other(settings, given, client) as other:
                _measure(client, given, files, results, other)
        finally:  # print what was measured, even if something later fails
            _print(results, given, files)
        if given.report is not None:
            _write_report(given.report, client, files, results)
            _print_written(given.report, given)


@dataclass(slots=True)
class _Results:
    """The results up to now."""

    runs: list[Path] = field(default_factory=list)
    evaluated: SearchEvaluation | None = None
    sweep: AnnSweep | None = None
    tuning: Tuning | None = None
    saved: bool = False


@contextmanager
def _open_other(
    settings: Settings, given: EvaluateOptions, client: SearchClient
) -> Iterator[SearchClient | None]:
    """Open the other collection to search; it shares the encoder if it has the same model."""
    if given.against_name is None:
        yield None
        return
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.stores import use_store

    name = given.against or client.collection
    if given.against_store is None and name == client.collection:
        raise click.UsageError(f"--against must be another collection than {name}")
    connection = replace(settings.connection, api_key=None)  # of another server
    with use_store(given.against_store or client.store, connection) as store:
        bm25 = {*given.modes} == {"bm25"}
        info = store.metadata(name).encoder
        is_same = not bm25 and info.has_same_vectors_as(client.metadata.encoder)
        yield SearchClient.open(
            store,
            collection=name,
            encoder=client.encoder if is_same else None,
            encoder_options=None if is_same else settings.encoder_options,
            reranker=client.reranker if given.reranker is not None else None,
            bm25_only=bm25,
        )


def _measure(
    client: SearchClient,
    given: EvaluateOptions,
    files: EvaluateInput,
    results: _Results,
    other: SearchClient | None,
) -> None:
    """Search and measure; save each run when it is complete."""
    from msmarco_qdrant.evaluation import run_evaluation, save_run, sweep_ann
    from msmarco_qdrant.evaluation.ann import check_sweep
    from msmarco_qdrant.evaluation.progress import count_queries

    def save(run: Run) -> None:
        if run.name in files.outputs:
            path = files.outputs[run.name]
            save_run(path, run.rankings.items())
            results.runs.append(path)
            _print_written(path, given)

    if given.ann:
        check_sweep(client, files.queries)
    if files.plan is not None:
        results.evaluated = run_evaluation(
            client,
            files.plan,
            on_answer=_check_pids if files.outputs else None,
            on_run=save,
            progress=True,
            against=None if other is None else {str(given.against_name): other},
        )
    if given.tune:
        _tune(client, given, files, results)
    if given.ann:
        count = count_queries(len(files.queries))
        echo(f"comparing the index with exact search: {count}", err=True)
        results.sweep = sweep_ann(
            client,
            files.queries,
            on_setting=lambda name, ef: echo(f"searching with {name}, ef {ef}: {count}", err=True),
        )


def _tune(
    client: SearchClient, given: EvaluateOptions, files: EvaluateInput, results: _Results
) -> None:
    """Choose search options, and keep them if asked to."""
    from msmarco_qdrant.collection.metadata import save_search_defaults
    from msmarco_qdrant.evaluation import tune_search

    results.tuning = tune_search(
        client,
        files.queries,
        files.qrels,
        measure=given.first_measure,
        rerank=given.reranker is not None,
        exclude_self=given.exclude_self,
        tenant=given.tenant,
        progress=True,
    )
    if given.save:
        save_search_defaults(client.store, results.tuning.defaults, collection=client.collection)
        results.saved = True


def _check_pids(_: Query, hits: Sequence[Hit]) -> None:
    """Refuse pids that a run cannot contain, with the first answer that has one."""
    from msmarco_qdrant.evaluation.runs import check_id

    for hit in hits:
        check_id(hit.pid)


def _write_report(
    path: Path, client: SearchClient, files: EvaluateInput, results: _Results
) -> None:
    from msmarco_qdrant.evaluation import find_worst_queries, report_html
    from msmarco_qdrant.runtime.atomic_file import atomic_write_text

    evaluation = worst = None
    if results.evaluated is not None and files.plan is not None:
        evaluation = results.evaluated.evaluation
        worst = find_worst_queries(
            client, results.evaluated, files.queries, files.plan.qrels, tenant=files.plan.tenant
        )
    title = f"Evaluation of {client.collection}"
    page = report_html(
        title, _facts(client), evaluation=evaluation, worst=worst, sweep=results.sweep
    )
    with atomic_write_text(path) as file:
        file.write(page)


def _facts(client: SearchClient) -> dict[str, str]:
    """Return the facts for the head of a report, without secrets, as valid Unicode."""
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
    """Yield the words of the command, with the store's printable address."""
    yield from context.command_path.split()
    for option in context.command.params:
        name = option.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            given = store if name == "store" else context.params[name]
            for value in given if isinstance(given, tuple) else (given,):
                yield option.opts[0]
                if value is not True:
                    yield str(value)


def _print(results: _Results, given: EvaluateOptions, files: EvaluateInput) -> None:
    if results.evaluated is None and results.sweep is None and results.tuning is None:
        return
    if given.as_json:
        print_json(_results_json(results, given.report, files))
        return
    from msmarco_qdrant.evaluation import (
        break_down,
        evaluation_text,
        queries_table,
        sweep_text,
        topics_text,
        tuning_text,
    )

    if results.evaluated is not None:
        evaluation = results.evaluated.evaluation
        echo_text(evaluation_text(evaluation))
        if files.topics is not None:
            echo_text("\n" + topics_text(evaluation, break_down(evaluation, files.topics)))
        if given.per_query:
            echo_text("\n" + queries_table(evaluation, files.queries))
    if results.tuning is not None:
        echo_text(tuning_text(results.tuning))
        if results.saved:
            echo("saved: clients search with these options, those that are open within a minute")
    if results.sweep is not None:
        echo_text(("\n" if results.evaluated else "") + sweep_text(results.sweep))


def _print_written(path: Path, given: EvaluateOptions) -> None:
    if not given.as_json:
        echo(f"written: {click.format_filename(path)}", err=True)


def _results_json(results: _Results, report: Path | None, files: EvaluateInput) -> dict[str, Any]:
    from msmarco_qdrant.evaluation import break_down, evaluation_json, sweep_json, tuning_json

    topics = None
    if results.evaluated is not None and files.topics is not None:
        topics = to_json_value(break_down(results.evaluated.evaluation, files.topics))
    evaluated, sweep, tuning = results.evaluated, results.sweep, results.tuning
    return {
        "evaluation": evaluation_json(evaluated.evaluation) if evaluated else None,
        "ann": sweep_json(sweep) if sweep else None,
        "topics": topics,
        "tuning": {**tuning_json(tuning), "saved": results.saved} if tuning else None,
        "runs": [click.format_filename(path) for path in results.runs],
        "report": click.format_filename(report) if report else None,
    }
