"""The command `improve`: the whole loop of training, measured before anything is switched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from msmarco_qdrant.cli.completion import complete_rerankers
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    ENCODER,
    FILE,
    json_option,
    model_option,
    open_search_client,
    settings_options,
)
from msmarco_qdrant.cli.output import echo_text, print_json
from msmarco_qdrant.cli.signals import advise_resume, exit_on_sigterm
from msmarco_qdrant.cli.training_options import RATE, training_options
from msmarco_qdrant.core.search_types import SearchMode

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.evaluation import Qrels
    from msmarco_qdrant.settings import Settings

_TEST = ("test_queries", "test_qrels")
_SHARE = click.FloatRange(0, 0.5, min_open=True)


@click.command(
    cls=Command,
    examples=[
        "--queries queries.tsv --qrels qrels.txt --out improved",
        "--queries queries.tsv --qrels qrels.txt --out improved --apply",
        "--queries queries.tsv --qrels qrels.txt --out improved --judge ms-marco-electra-base",
    ],
)
@settings_options("store", "transport", "collection", *ENCODER)
@model_option("Load the collection's model from here.")
@click.option(
    "--queries",
    type=FILE,
    required=True,
    metavar="FILE",
    help="Queries: qid<TAB>text or JSON lines.",
)
@click.option(
    "--qrels",
    type=FILE,
    required=True,
    metavar="FILE",
    help="Judgments in TREC's or BEIR's format; passages of grade 1 or more are positives.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder for all files: a new one, or that of the same command, to resume it.",
)
@click.option(
    "--test-queries",
    type=FILE,
    metavar="FILE",
    help="Test queries of your own; no other query is held out then.",
)
@click.option("--test-qrels", type=FILE, metavar="FILE", help="Judgments of --test-queries.")
@click.option(
    "--test-share",
    type=_SHARE,
    default=0.2,
    show_default=True,
    metavar="SHARE",
    help="Share of the queries that decide at the end, without --test-queries.",
)
@click.option(
    "--validation-share",
    type=_SHARE,
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="Share of the queries that choose the judge, the checkpoint and the round.",
)
@click.option(
    "--mode",
    "modes",
    type=click.Choice(get_args(SearchMode)),
    multiple=True,
    default=["dense", "hybrid"],
    show_default=True,
    help="Mode to compare; repeat it. The first must become better, the others not worse.",
)
@click.option(
    "--measures",
    metavar="NAMES",
    default="nDCG@10 RR@10 R@100",
    show_default=True,
    help="Names as in ir_measures. The first decides.",
)
@click.option(
    "--mine-mode",
    "mine_modes",
    type=click.Choice(get_args(SearchMode)),
    multiple=True,
    default=["dense"],
    show_default=True,
    help="Mode to find candidates for negatives with; repeat it.",
)
@click.option(
    "--depth",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Candidates of each query and mode.",
)
@click.option(
    "--judge",
    metavar="NAME_OR_DIR",
    shell_complete=complete_rerankers,
    help="A cross-encoder, or a stronger bi-encoder, that scores the candidates.",
)
@click.option(
    "--allow-weak-judge",
    is_flag=True,
    help="Use a judge that does not rank better than the collection's model.",
)
@click.option(
    "--strategy",
    metavar="RULES",
    help="How negatives are chosen, as in `choose`.  [default: ranks:1-60; margin:3 with --judge]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 10),
    default=1,
    show_default=True,
    metavar="N",
    help="Rounds; each mines with the model of the one before.",
)
@training_options()
@click.option(
    "--learning-rate",
    "learning_rates",
    type=RATE,
    multiple=True,
    metavar="RATE",
    help="The highest learning rate; it falls linearly to 0. Repeat it to train with each, and "
    "keep the best by the validation queries.  [default: 2e-5 and 1e-4]",
)
@click.option(
    "--apply", is_flag=True, help="Switch the collection to the new model if it is better."
)
@json_option
def improve(
    *,
    settings: Settings,
    model: str | None,
    queries: Path,
    qrels: Path,
    judge: str | None,
    learning_rates: tuple[float, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Train a collection's model on your own queries, and measure it against the old one.

    It mines hard negatives, trains, and compares both models on held-out queries, in dense and
    hybrid searches. The collection is only read, unless --apply finds the new model better. Run
    the same command again to resume.
    """
    from msmarco_qdrant.train import improve_collection, load_judge
    from msmarco_qdrant.train.improve_tables import improve_json, improve_text

    asked, judged = _read(queries, qrels)
    test_queries, test_qrels = _read_test(**{name: options.pop(name) for name in _TEST})
    with (
        exit_on_sigterm(),
        advise_resume("Finished steps are kept"),
        open_search_client(settings, model) as client,
    ):
        report = improve_collection(
            client,
            asked,
            judged,
            model=model,
            judge=None if judge is None else load_judge(judge, settings.encoder_options),
            test_queries=test_queries,
            test_qrels=test_qrels,
            learning_rates=learning_rates or None,
            encoder_options=settings.encoder_options,
            progress=True,
            **options,
        )
    if as_json:
        print_json(improve_json(report))
    else:
        echo_text(improve_text(report))


def _read(queries: Path, qrels: Path) -> tuple[list[Query], Qrels]:
    from msmarco_qdrant.evaluation import read_qrels
    from msmarco_qdrant.sources.corpus import read_queries

    return list(read_queries(queries)), read_qrels(qrels)


def _read_test(
    test_queries: Path | None, test_qrels: Path | None
) -> tuple[list[Query], Qrels] | tuple[None, None]:
    if test_queries is None and test_qrels is None:
        return None, None
    if test_queries is None or test_qrels is None:
        raise click.UsageError("pass --test-queries with --test-qrels, or neither")
    return _read(test_queries, test_qrels)
