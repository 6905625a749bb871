"""The command `train`: a bi-encoder or a cross-encoder, on the passages of a collection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from msmarco_qdrant.cli.command_settings import open_search_client
from msmarco_qdrant.cli.completion import complete_files
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.judged_files import (
    file_option,
    min_grade_option,
    out_option,
    read_judged,
)
from msmarco_qdrant.cli.options import (
    LocalPath,
    json_option,
    model_option,
    refuse_unused,
    settings_options,
    tenant_option,
)
from msmarco_qdrant.cli.output import print_result
from msmarco_qdrant.cli.signals import advise_resume, exit_on_sigterm
from msmarco_qdrant.cli.training_options import RATE, training_options
from msmarco_qdrant.train.settings import TrainingPrecision, TrainSettings

if TYPE_CHECKING:
    from msmarco_qdrant.settings import Settings

_PATH = LocalPath()
_OF_BI_ENCODERS = ("loss", "scores", "scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """The options that are files, the model and the output."""

    queries: Path
    mined: Path | None
    qrels: Path | None
    min_grade: int
    dev_queries: Path | None
    dev_qrels: Path | None
    model: str | None
    out: Path
    is_cross: bool
    as_json: bool

    @property
    def searches(self) -> bool:
        """True if the training searches the collection with its model."""
        return self.is_cross and self.dev_queries is not None

    def check(self) -> None:
        """Refuse options that exclude each other or have no effect."""
        if (self.mined is None) == (self.qrels is None):
            raise click.UsageError("pass either --negatives or --qrels")
        if (self.dev_queries is None) != (self.dev_qrels is None):
            raise click.UsageError("pass --dev-queries and --dev-qrels together")
        self._check_cross()
        refuse_unused("--qrels", used=self.qrels is not None, options=["min_grade"])
        has_dev = self.dev_queries is not None
        refuse_unused("--dev-queries and --dev-qrels", used=has_dev, options=["eval_steps"])

    def _check_cross(self) -> None:
        """Refuse options of the other kind of model."""
        refuse_unused("--cross-encoder", used=self.is_cross, options=["dev_depth"])
        if not self.is_cross:
            return
        if self.mined is None:
            raise click.UsageError("--cross-encoder needs --negatives")
        context = click.get_current_context()
        for name in _OF_BI_ENCODERS:
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"pass either --{name} or --cross-encoder")


@click.command(
    cls=Command,
    examples=[
        "--queries queries.tsv --negatives chosen --out model",
        "--queries queries.tsv --qrels qrels.txt --out model",
        "--queries queries.tsv --negatives chosen --scores judged --loss margin-mse --out model",
        "--queries queries.tsv --negatives chosen --cross-encoder --out reranker",
    ],
)
@settings_options("store", "transport", "collection", "device")
@file_option("--queries", "Training queries: qid<TAB>text or JSON lines.", required=True)
@click.option(
    "--negatives",
    "mined",
    type=_PATH,
    metavar="FILE_OR_DIR",
    shell_complete=complete_files,
    help="Positives and negatives: the folder of `choose` or `mine`, or a file of its form.",
)
@file_option(
    "--qrels",
    "Without negatives: judgments in TREC's or BEIR's format, or pairs qid<TAB>pid.",
)
@min_grade_option("With --qrels")
@out_option("the model")
@model_option("Train this model.  [default: that of the collection]")
@click.option(
    "--cross-encoder",
    "is_cross",
    is_flag=True,
    help="Train a cross-encoder: each positive against its own negatives. A bi-encoder gets a head "
    "for scores.",
)
@click.option(
    "--scores",
    type=_PATH,
    metavar="FILE_OR_DIR",
    shell_complete=complete_files,
    help="With margin-mse and kl: scores of positives and negatives, as `judge` writes them.",
)
@training_options("128; with --cross-encoder 16")
@click.option(
    "--learning-rate",
    type=RATE,
    default=TrainSettings().learning_rate,
    show_default=True,
    metavar="RATE",
    help="The highest learning rate; it falls linearly to 0.",
)
@file_option(
    "--dev-queries",
    "Measure nDCG@10 on these queries during the training, and keep the best model.",
)
@file_option(
    "--dev-qrels",
    "Their judgments. Do not report figures on these queries: they chose the model.",
)
@click.option(
    "--dev-depth",
    type=click.IntRange(2, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="With --cross-encoder: hits of each dev query to rerank.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(TrainingPrecision)),
    help="Precision of the training.  [default: the fastest of the device]",
)
@tenant_option
@json_option
def train(*, settings: Settings, training: dict[str, Any], **options: Any) -> None:
    """Train a bi-encoder or a cross-encoder on the passages of a collection.

    The model keeps its prompts, its similarity and its maximum length. Run the same command again
    to resume from the last checkpoint.
    """
    from msmarco_qdrant.sources.corpus import read_queries

    given = _Given(**{name: options.pop(name) for name in _Given.__slots__})
    given.check()
    if given.is_cross and training.get("negatives") == 0:
        raise click.UsageError("--number must be 1 or more with --cross-encoder, got 0")
    queries = list(read_queries(given.queries))
    with (
        exit_on_sigterm(),
        advise_resume("The last checkpoint is kept"),
        open_search_client(settings, bm25=not given.searches) as client,
    ):
        report = _trainer(given, options)(
            given.model or client.metadata.encoder.model,
            client,
            queries,
            _examples(given),
            given.out,
            **_dev(given),
            **training,
            **options,
            device=settings.device,
            progress=True,
        )
    print_result(report.to_json(), *str(report).splitlines(), as_json=given.as_json)


def _trainer(given: _Given, options: dict[str, Any]) -> Any:
    """Return the function that trains, and remove the option of the other kind of model."""
    from msmarco_qdrant.train import train_bi_encoder, train_cross_encoder

    del options["scores" if given.is_cross else "dev_depth"]
    return train_cross_encoder if given.is_cross else train_bi_encoder


def _examples(given: _Given) -> Any:
    from msmarco_qdrant.train import read_positives

    if given.mined is not None:
        return given.mined
    return read_positives(str(given.qrels), min_grade=given.min_grade)


def _dev(given: _Given) -> dict[str, Any]:
    if given.dev_queries is None or given.dev_qrels is None:
        return {}
    queries, qrels = read_judged(given.dev_queries, given.dev_qrels)
    return {"dev_queries": queries, "dev_qrels": qrels}
