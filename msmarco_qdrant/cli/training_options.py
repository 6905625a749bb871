"""Options of the trainings of `improve`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
_COUNT = click.IntRange(min=1)
_RATES = "learning_rates"
_SHARE = click.FloatRange(0, 1)

_OPTIONS = {
    "loss": click.option(
        "--loss",
        type=click.Choice(["contrastive", "margin-mse", "kl"]),
        help="contrastive: the positive against all other passages of the batch; margin-mse and "
        "kl: the judge's scores.  [default: contrastive]",
    ),
    "epochs": click.option(
        "--epochs",
        type=click.FloatRange(0, 1000, min_open=True),
        metavar="N",
        help="Number of epochs; 0.5 for half of one.  [default: 1]",
    ),
    "batch_size": click.option(
        "--batch-size",
        type=click.IntRange(2, 65_536),
        metavar="N",
        help="Queries of a batch.  [default: 128]",
    ),
    _RATES: click.option(
        "--learning-rate",
        _RATES,
        type=click.FloatRange(0, 1, min_open=True),
        multiple=True,
        metavar="RATE",
        help="The highest learning rate; it falls linearly to 0. Repeat it to train with each, and "
        "keep the best by the validation queries.  [default: 2e-5 and 1e-4]",
    ),
    "warmup": click.option(
        "--warmup",
        type=_SHARE,
        metavar="SHARE",
        help="Share of the steps in which the learning rate rises.  [default: 0.1]",
    ),
    "scale": click.option(
        "--scale",
        type=click.FloatRange(0, 1000, min_open=True),
        metavar="FACTOR",
        help="Factor of the similarity before the loss.  [default: 20 for cosine, 1 for dot]",
    ),
    "max_positives": click.option(
        "--max-positives",
        type=_COUNT,
        metavar="N",
        help="Positives of a query in one epoch at most.  [default: 16]",
    ),
    "negatives": click.option(
        "--number",
        "negatives",
        type=click.IntRange(0, 1000),
        metavar="N",
        help="Hard negatives of each query and positive; 0 for those of the batch alone.  "
        "[default: 4]",
    ),
    "seed": click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        metavar="N",
        help="Decides every random choice.  [default: 0]",
    ),
    "eval_steps": click.option(
        "--eval-steps",
        type=_COUNT,
        metavar="N",
        help="Steps between two measures that choose the best model.  [default: a tenth of all]",
    ),
    "checkpoint_steps": click.option(
        "--checkpoint-steps",
        type=_COUNT,
        metavar="N",
        help="Steps between two checkpoints.  [default: a tenth of all]",
    ),
}


def training_options(command: _F) -> Callable[..., Any]:
    """Add options of a training; the command gets those that are given as `training`.

    `--learning-rate` is repeatable, and given to the command as `learning_rates`.
    """

    @wraps(command)
    def run(**given: Any) -> Any:
        values = {name: given.pop(name) for name in _OPTIONS if name != _RATES}
        training = {name: value for name, value in values.items() if value is not None}
        return command(training=training, **given)

    add: Callable[..., Any] = run
    for option in reversed(_OPTIONS.values()):
        add = option(add)
    return add
