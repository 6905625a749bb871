"""Options of a training, the same for `train` and `improve`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, get_args

import click

from msmarco_qdrant.train.settings import Loss, TrainSettings

_F = TypeVar("_F", bound=Callable[..., Any])
_COUNT = click.IntRange(min=1)
_DEFAULTS = TrainSettings()
RATE = click.FloatRange(0, 1, min_open=True)
"""The type of a learning rate, of which `train` takes one and `improve` several."""


def _options(batch_sizes: str) -> dict[str, Callable[..., Any]]:
    """Return the options by the fields of `TrainSettings`."""
    return {
        "loss": click.option(
            "--loss",
            type=click.Choice(get_args(Loss)),
            help="contrastive: the positive against all other passages of the batch; margin-mse "
            f"and kl: the scores of a judge.  [default: {_DEFAULTS.loss}]",
        ),
        "negatives": click.option(
            "--number",
            "negatives",
            type=click.IntRange(0, 1000),
            metavar="N",
            help="Hard negatives of each query and positive, drawn at random; 0 for those of the "
            f"batch alone.  [default: {_DEFAULTS.negatives}]",
        ),
        "max_positives": click.option(
            "--max-positives",
            type=_COUNT,
            metavar="N",
            help="Positives of a query in one epoch, drawn at random if it has more.  "
            f"[default: {_DEFAULTS.max_positives}]",
        ),
        "epochs": click.option(
            "--epochs",
            type=click.FloatRange(0, 1000, min_open=True),
            metavar="NUMBER",
            help=f"Number of epochs; 0.5 for half of one.  [default: {_DEFAULTS.epochs:g}]",
        ),
        "batch_size": click.option(
            "--batch-size",
            type=click.IntRange(2, 65_536),
            metavar="N",
            help=f"Queries of a batch.  [default: {batch_sizes}]",
        ),
        "warmup": click.option(
            "--warmup",
            type=click.FloatRange(0, 1),
            metavar="SHARE",
            help="Share of the steps in which the learning rate rises.  "
            f"[default: {_DEFAULTS.warmup}]",
        ),
        "scale": click.option(
            "--scale",
            type=click.FloatRange(0, 1000, min_open=True),
            metavar="FACTOR",
            help="Factor of the similarity before the loss.  [default: 20 for cosine, 1 for dot]",
        ),
        "seed": click.option(
            "--seed",
            type=click.IntRange(0, 2**32 - 1),
            metavar="N",
            help=f"Seed of every random choice.  [default: {_DEFAULTS.seed}]",
        ),
        "eval_steps": click.option(
            "--eval-steps",
            type=_COUNT,
            metavar="N",
            help="Steps between two measures on the queries that choose the best model.  "
            "[default: a tenth of all]",
        ),
        "checkpoint_steps": click.option(
            "--checkpoint-steps",
            type=_COUNT,
            metavar="N",
            help="Steps between two checkpoints.  [default: a tenth of all]",
        ),
    }


def training_options(
    batch_sizes: str = str(_DEFAULTS.batch_size),
) -> Callable[[_F], Callable[..., Any]]:
    """Add the options of a training; the command gets those that are given as `training`.

    Args:
        batch_sizes: The default of `--batch-size`, in words.
    """
    options = _options(batch_sizes)

    def add(command: _F) -> Callable[..., Any]:
        @wraps(command)
        def run(**given: Any) -> Any:
            values = {name: given.pop(name) for name in options}
            training = {name: value for name, value in values.items() if value is not None}
            return command(training=training, **given)

        added: Callable[..., Any] = run
        for option in reversed(options.values()):
            added = option(added)
        return added

    return add
