"""The command that measures how good answers are."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from msmarco_qdrant._commands.options import (
    collection_option,
    json_option,
    opened,
    ranking_options,
    refuse_without,
    settings_with,
    store_option,
)
from msmarco_qdrant._output import check_output, print_json
from msmarco_qdrant._version import __version__
from msmarco_qdrant.records import Fusion, FusionMethod, SearchMode

if TYPE_CHECKING:
    from msmarco_qdrant.evaluation import AnnSweep, Evaluated, Qrels, System
    from msmarco_qdrant.records import Query
    from msmarco_qdrant.search import SearchClient
    from msmarco_qdrant.settings import Settings

_FILE = click.Path(dir_okay=False, path_type=Path)
_OF_JUDGEMENTS = ("modes", "measures", "depth", "candidates", "compare", "run", "rerank", "exact")


@dataclass(frozen=True, slots=True)
class _Sources:
    """What is read: queries, and judgements where there are some."""

    queries: Path | None
    qrels: Path | None
    dataset: str | None

    @property
    def judged(self) -> bool:
        """Whether there are judgements."""
        return self.qrels is not None or self.dataset is not None

    def check(self, *, ann: bool) -> None:
        """Refuse what does not go together."""
        if (self.queries is None) == (self.dataset is None):
            raise click.UsageError("give --queries FILE (and --qrels FILE), or --dataset NAME")
        if self.dataset is not None and self.qrels is not None:
            raise click.UsageError("--dataset brings its own judgements: leave --qrels out")
        if not self.judged and not ann:
            raise click.UsageError("give --qrels FILE to measure answers, or --ann for the index")

    def read(self) -> tuple[list[Query], Qrels]:
        """The queries and the judgements, of which there may be none."""
        from msmarco_qdrant.corpus import read_queries
        from msmarco_qdrant.evaluation import load_qrels, load_queries, read_qrels

        if self.dataset is not None:
            return load_queries(self.dataset), load_qrels(self.dataset)
        queries = list(read_queries(self.queries)) if self.queries is not None else []
        return queries, read_qrels(self.qrels) if self.qrels is not None else {}


@click.command()
@store_option
@collection_option
@click.option("--queries", type=_FILE, metavar="FILE", help="qid<TAB>text, or JSON lines.")
@click.option("--qrels", type=_FILE, metavar="FILE", help="Judgements in TREC's or BEIR's form.")
@click.option(
    "--dataset",
    metavar="NAME",
    help="Queries and judgements of ir_datasets instead, such as msmarco-passage/dev/small.",
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
    help="As ir_measures names them; the first is plotted.",
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
    help="Measure this TREC run, too. All runs are compared with the first one of all.",
)
@click.option("--exact", is_flag=True, help="Compare with every passage, without the index.")
@click.option("--ann", is_flag=True, help="Compare the index with exact search, for several ef.")
@click.option("--model", metavar="NAME_OR_DIR", help="Where to load the collection's model from.")
@click.option(
    "--run",
    type=_FILE,
    metavar="FILE",
    help="Keep the TREC run; of several modes NAME.trec becomes NAME.dense.trec and so on.",
)
@click.option("--report", type=_FILE, metavar="FILE", help="Write an HTML report with plots.")
@json_option
def evaluate(  # noqa: PLR0913  # one for each option
    *,
    store: str | None,
    collection: str | None,
    queries: Path | None,
    qrels: Path | None,
    dataset: str | None,
    modes: tuple[SearchMode, ...],
    fusion: FusionMethod,
    dense_weight: float | None,
    rerank: str | None,
    rerank_depth: int,
    measures: str,
    depth: int | None,
    candidates: Path | None,
    compare: tuple[Path, ...],
    exact: bool,
    ann: bool,
    model: str | None,
    run: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure how good the answers of a collection are.

    With judgements: measures of each mode with confidence intervals, published figures beside
    them, and paired tests. With --ann: recall and time of the index.
    """
    sources = _Sources(queries, qrels, dataset)
    sources.check(ann=ann)
    refuse_without("judgements", given=sources.judged, options=_OF_JUDGEMENTS)
    refuse_without("a search of everything", given=candidates is None, options=["depth", "exact"])
    refuse_without("--rerank", given=rerank is not None, options=["rerank_depth"])
    hybrid = "hybrid" in modes
    refuse_without("--mode hybrid", given=hybrid, options=["fusion", "dense_weight"])
    from msmarco_qdrant.evaluation import System, evaluate_search, read_run, sweep_ann
    from msmarco_qdrant.search import SearchClient

    settings = settings_with(store=store, collection=collection)
    systems = [
        System(mode, Fusion(fusion, dense_weight), reranked, exact)
        for reranked in ((None,) if rerank is None else (None, rerank_depth))
        for mode in dict.fromkeys(modes)
    ]
    files = _run_files(run, systems)
    read = [str(one) for one in (queries, qrels, candidates, *compare) if one is not None]
    for path, option in ((report, "--report"), *((path, "--run") for path in files.values())):
        if path is not None:
            check_output(path, option, read)
    asked, judged = sources.read()
    given = read_run(candidates) if candidates is not None else None
    others = [read_run(path) for path in compare]
    with opened(settings) as place:
        client = SearchClient.open(
            place,
            collection=settings.collection,
            model=model,
            encoder_options=settings.encoder_options,
            reranker=rerank,
            bm25_only={*modes} == {"bm25"} and model is None and not ann,
        )
        evaluated = sweep = None
        if sources.judged:
            evaluated = evaluate_search(
                client,
                asked,
                judged,
                systems,
                measures=measures,
                depth=depth,
                candidates=given,
                others=others,
                on_system=_tell,
            )
            _keep_runs(evaluated, files)
        if ann:
            sweep = sweep_ann(client, asked)
        if report is not None:
            facts = _facts(client, settings)
            _write_report(report, client, (asked, judged), evaluated, sweep, facts)
    _print(evaluated, sweep, [*files.values()], report, as_json=as_json)


def _tell(system: System) -> None:
    click.echo(f"asking: {system.name}", err=True)


def _run_files(run: Path | None, systems: Sequence[System]) -> dict[str, Path]:
    """Where the run of each system is kept, by its name."""
    if run is None:
        return {}
    if len(systems) == 1:
        return {systems[0].name: run}
    return {
        system.name: run.with_name(f"{run.stem}.{system.name.replace(' ', '-')}{run.suffix}")
        for system in systems
    }


def _keep_runs(evaluated: Evaluated, files: Mapping[str, Path]) -> None:
    from msmarco_qdrant._replacing import replacing_text
    from msmarco_qdrant.evaluation import write_run

    for run in evaluated.runs:
        if run.name in files:
            with replacing_text(files[run.name]) as file:
                write_run(run.rankings.items(), file)


def _facts(client: SearchClient, settings: Settings) -> dict[str, str]:
    """What the head of a report tells, without secrets."""
    command = shlex.join(["msmarco-qdrant", *sys.argv[1:]])
    return {
        "collection": f"{client.collection} in {client.store.dsn}",
        "model": client.metadata.encoder.model,
        "engine": client.store.capabilities.engine,
        "command": command.replace(settings.store, client.store.dsn),
        "version": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _write_report(  # what a report shows
    path: Path,
    client: SearchClient,
    asked: tuple[Sequence[Query], Qrels],
    evaluated: Evaluated | None,
    sweep: AnnSweep | None,
    facts: dict[str, str],
) -> None:
    from msmarco_qdrant._replacing import replacing_text
    from msmarco_qdrant.evaluation import poorest_queries, report_html

    html = report_html(
        f"Evaluation of {client.collection}",
        facts,
        evaluation=evaluated.evaluation if evaluated is not None else None,
        poor=poorest_queries(client, evaluated, *asked) if evaluated is not None else None,
        sweep=sweep,
    )
    with replacing_text(path) as file:
        file.write(html)


def _print(
    evaluated: Evaluated | None,
    sweep: AnnSweep | None,
    runs: Sequence[Path],
    report: Path | None,
    *,
    as_json: bool,
) -> None:
    from msmarco_qdrant.evaluation import (
        evaluation_json,
        evaluation_text,
        sweep_json,
        sweep_text,
    )

    if as_json:
        told: dict[str, Any] = {
            "evaluation": evaluation_json(evaluated.evaluation) if evaluated else None,
            "ann": sweep_json(sweep) if sweep else None,
            "runs": [str(path) for path in runs],
            "report": str(report) if report else None,
        }
        print_json(told)
        return
    if evaluated is not None:
        click.echo(evaluation_text(evaluated.evaluation))
    if sweep is not None:
        click.echo(("\n" if evaluated else "") + sweep_text(sweep))
    for path in (*runs, *([report] if report else [])):
        click.echo(f"written: {path}", err=True)
