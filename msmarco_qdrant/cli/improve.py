"""The command `improve`: the whole loop of training, measured before anything is switched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.cli.command_settings import open_search_client
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.judged_files import (
    check_source,
    click_options,
    file_option,
    out_option,
    read_judged_or_pairs,
    read_optional,
)
from msmarco_qdrant.cli.options import (
    ENCODER,
    json_option,
    model_option,
    settings_options,
    tenant_option,
)
from msmarco_qdrant.cli.output import echo_text, print_json
from msmarco_qdrant.cli.run_options import depth_option, judge_option, measures_option, modes_option
from msmarco_qdrant.cli.signals import advise_resume, exit_on_sigterm
from msmarco_qdrant.cli.training_options import RATE, training_options

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.evaluation import Qrels
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.train import Positives

_SHARE = click.FloatRange(0, 0.5, min_open=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """The options that are files of queries and their judgments."""

    queries: Path | None
    qrels: Path | None
    clicks: Path | None
    min_count: int
    test_queries: Path | None
    test_qrels: Path | None

    def read(self) -> tuple[list[Query], Qrels | Positives]:
        """Read the queries with their judgments, pairs or clicks."""
        from msmarco_qdrant.train import read_clicks

        if self.clicks is not None:
            return read_clicks(self.clicks, min_count=self.min_count)
        return read_judged_or_pairs(Path(str(self.queries)), Path(str(self.qrels)))

    def read_test(self) -> tuple[list[Query], Qrels] | tuple[None, None]:
        """Read the test queries, if there are some."""
        both = "pass --test-queries with --test-qrels, or neither"
        return read_optional(self.test_queries, self.test_qrels, both)


@click.command(
    cls=Command,
    examples=[
        "--queries queries.tsv --qrels qrels.txt --out improved",
        "--queries queries.tsv --qrels qrels.txt --out improved --apply",
        "--queries queries.tsv --qrels qrels.txt --out improved --judge ms-marco-electra-base",
        "--clicks clicks.tsv --min-count 3 --out improved",
    ],
)
@settings_options("store", "transport", "collection", *ENCODER)
@model_option("Load the collection's model from here.")
@file_option("--queries", "Queries: qid<TAB>text or JSON lines.")
@file_option(
    "--qrels",
    "Judgments in TREC's or BEIR's format, where grade 1 or more is a positive, or pairs "
    "qid<TAB>pid.",
)
@click_options
@out_option("all files")
@tenant_option
@file_option("--test-queries", "Test queries of your own; no other query is held out then.")
@file_option("--test-qrels", "Judgments of --test-queries, or pairs.")
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
@modes_option(
    "Mode to compare; repeat it. The first must become better, the others not worse.",
    default=("dense", "hybrid"),
)
@measures_option("The first decides.")
@modes_option("Mode to find candidates for negatives with; repeat it.", name="--mine-mode")
@depth_option("Candidates of each query and mode.")
@judge_option("A cross-encoder, or a stronger bi-encoder, that scores the candidates.")
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

    files = _Files(**{name: options.pop(name) for name in _Files.__slots__})
    check_source(files.queries, files.qrels, files.clicks)
    if options["apply"] and options["tenant"] is not None:
        raise click.UsageError(
            "pass either --apply or --tenant: --apply switches the model of all tenants"
        )
    queries, qrels = files.read()
    test_queries, test_qrels = files.read_test()
    with (
        exit_on_sigterm(),
        advise_resume("Finished steps are kept"),
        open_search_client(settings, model) as client,
    ):
        report = improve_collection(
            client,
            queries,
            qrels,
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
