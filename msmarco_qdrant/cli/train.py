"""The command `train`: a bi-encoder or a cross-encoder, on the passages of a collection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from msmarco_qdrant.cli.completion import complete_files
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    FILE,
    json_option,
    model_option,
    open_search_client,
    refuse_unused,
    settings_options,
    tenant_option,
)
from msmarco_qdrant.cli.output import print_result
from msmarco_qdrant.cli.signals import advise_resume, exit_on_sigterm
from msmarco_qdrant.train.settings import Loss, TrainingPrecision, TrainSettings

if TYPE_CHECKING:
    from msmarco_qdrant.settings import Settings

_PATH = click.Path(path_type=Path)
_DEFAULTS = TrainSettings()
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
@click.option(
    "--queries",
    type=FILE,
    required=True,
    metavar="FILE",
    help="Training queries: qid<TAB>text or JSON lines.",
)
@click.option(
    "--negatives",
    "mined",
    type=_PATH,
    metavar="FILE_OR_DIR",
    shell_complete=complete_files,
    help="Positives and negatives: the folder of `choose` or `mine`, or a file of its form.",
)
@click.option(
    "--qrels",
    type=FILE,
    metavar="FILE",
    help="Without negatives: judgments in TREC's or BEIR's format, or pairs qid<TAB>pid.",
)
@click.option(
    "--min-grade",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    metavar="N",
    help="With --qrels: the least grade of a positive.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder for the model: a new one, or that of the same command, to resume it.",
)
@model_option("Train this model.  [default: that of the collection]")
@click.option(
    "--cross-encoder",
    "is_cross",
    is_flag=True,
    help="Train a cross-encoder: each positive against its own negatives. A bi-encoder gets a head "
    "for scores.",
)
@click.option(
    "--loss",
    type=click.Choice(get_args(Loss)),
    default=_DEFAULTS.loss,
    show_default=True,
    help="contrastive: the positive against all other passages of the batch; margin-mse and kl: "
    "the scores of a judge.",
)
@click.option(
    "--scores",
    type=_PATH,
    metavar="FILE_OR_DIR",
    shell_complete=complete_files,
    help="With margin-mse and kl: scores of positives and negatives, as `judge` writes them.",
)
@click.option(
    "--number",
    type=click.IntRange(0, 1000),
    default=_DEFAULTS.negatives,
    show_default=True,
    metavar="N",
    help="Negatives of each query and positive, drawn at random.",
)
@click.option(
    "--max-positives",
    type=click.IntRange(min=1),
    default=_DEFAULTS.max_positives,
    show_default=True,
    metavar="N",
    help="Positives of a query in one epoch, drawn at random if it has more.",
)
@click.option(
    "--epochs",
    type=float,
    default=_DEFAULTS.epochs,
    show_default=True,
    metavar="NUMBER",
    help="Number of epochs; 0.5 for half of one.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(2, 65_536),
    metavar="N",
    help="Queries of a batch.  [default: 128; with --cross-encoder 16]",
)
@click.option(
    "--learning-rate",
    type=float,
    default=_DEFAULTS.learning_rate,
    show_default=True,
    metavar="RATE",
    help="The highest learning rate; it falls linearly to 0.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(0, 1),
    default=_DEFAULTS.warmup,
    show_default=True,
    metavar="SHARE",
    help="Share of the steps in which the learning rate rises.",
)
@click.option(
    "--scale",
    type=float,
    metavar="FACTOR",
    help="Factor of the similarity before the loss.  [default: 20 for cosine, 1 for dot]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=_DEFAULTS.seed,
    show_default=True,
    metavar="N",
    help="Seed of every random choice.",
)
@click.option(
    "--dev-queries",
    type=FILE,
    metavar="FILE",
    help="Measure nDCG@10 on these queries during the training, and keep the best model.",
)
@click.option(
    "--dev-qrels",
    type=FILE,
    metavar="FILE",
    help="Their judgments. Do not report figures on these queries: they chose the model.",
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
    "--eval-steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps between two measures.  [default: a tenth of all]",
)
@click.option(
    "--checkpoint-steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps between two checkpoints.  [default: a tenth of all]",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(TrainingPrecision)),
    help="Precision of the training.  [default: the fastest of the device]",
)
@tenant_option
@json_option
def train(*, settings: Settings, number: int, **options: Any) -> None:
    """Train a bi-encoder or a cross-encoder on the passages of a collection.

    The model keeps its prompts, its similarity and its maximum length. Run the same command again
    to resume from the last checkpoint.
    """
    from msmarco_qdrant.sources.corpus import read_queries

    given = _Given(**{name: options.pop(name) for name in _Given.__slots__})
    given.check()
    if given.is_cross and not number:
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
            negatives=number,
            **_dev(given),
            **options,
            device=settings.device,
            progress=True,
        )
    print_result(report.to_json(), *str(report).splitlines(), as_json=given.as_json)


def _trainer(given: _Given, options: dict[str, Any]) -> Any:
    """Return the function that trains, and remove the options of the other kind of model."""
    from msmarco_qdrant.train import train_bi_encoder, train_cross_encoder

    for name in _OF_BI_ENCODERS if given.is_cross else ("dev_depth",):
        del options[name]
    if options["batch_size"] is None:
        del options["batch_size"]
    return train_cross_encoder if given.is_cross else train_bi_encoder


def _examples(given: _Given) -> Any:
    from msmarco_qdrant.train import read_positives

    if given.mined is not None:
        return given.mined
    return read_positives(str(given.qrels), min_grade=given.min_grade)


def _dev(given: _Given) -> dict[str, Any]:
    from msmarco_qdrant.evaluation import read_qrels
    from msmarco_qdrant.sources.corpus import read_queries

    if given.dev_queries is None:
        return {}
    return {
        "dev_queries": list(read_queries(given.dev_queries)),
        "dev_qrels": read_qrels(str(given.dev_qrels)),
    }
