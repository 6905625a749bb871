"""Options of a training, the same for `train` and `improve`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar, get_args

import click

from msmarco_qdrant.train.settings import Loss, TrainSettings

_F = TypeVar("_F", bound=Callable[..., Any])
_COUNT = click.IntRange(min=1)
_DEFAULTS = TrainSettings()
RATE = click.FloatRange(0, 1, min_open=True)
"""The type of a learning rate, of which `train` takes one and `improve` several."""


class _Option(NamedTuple):
    """An option that sets a field of `TrainSettings`.

    Attributes:
        field: The field; the option has its name, unless `name` is given.
        type: Type of the value.
        metavar: The value in the help; None for the choices of the type.
        help: Its help, without the default.
        default: The default in words; None for the value of the field.
        name: The option's own name.
    """

    field: str
    type: click.ParamType[Any]
    metavar: str | None
    help: str
    default: str | None = None
    name: str | None = None


_OPTIONS = (
    _Option(
        "loss",
        click.Choice(get_args(Loss)),
        None,
        "contrastive: the positive against all other passages of the batch; margin-mse and kl: the "
        "scores of a judge.",
    ),
    _Option(
        "negatives",
        click.IntRange(0, 1000),
        "N",
        "Hard negatives of each query and positive, drawn at random; 0 for those of the batch "
        "alone.",
        name="number",
    ),
    _Option(
        "max_positives",
        _COUNT,
        "N",
        "Positives of a query in one epoch, drawn at random if it has more.",
    ),
    _Option(
        "epochs",
        click.FloatRange(0, 1000, min_open=True),
        "NUMBER",
        "Number of epochs; 0.5 for half of one.",
    ),
    _Option("batch_size", click.IntRange(2, 65_536), "N", "Queries of a batch."),
    _Option(
        "warmup",
        click.FloatRange(0, 1),
        "SHARE",
        "Share of the steps in which the learning rate rises.",
    ),
    _Option(
        "scale",
        click.FloatRange(0, 1000, min_open=True),
        "FACTOR",
        "Factor of the similarity before the loss.",
        default="20 for cosine, 1 for dot",
    ),
    _Option("seed", click.IntRange(0, 2**32 - 1), "N", "Seed of every random choice."),
    _Option(
        "eval_steps",
        _COUNT,
        "N",
        "Steps between two measures on the queries that choose the best model.",
        default="a tenth of all",
    ),
    _Option(
        "checkpoint_steps",
        _COUNT,
        "N",
        "Steps between two checkpoints.",
        default="a tenth of all",
    ),
)


def training_options(batch_sizes: str | None = None) -> Callable[[_F], Callable[..., Any]]:
    """Add the options of a training; the command gets those that are given as `training`.

    Args:
        batch_sizes: The default of `--batch-size`, in words.
    """
    defaults = {"batch_size": batch_sizes}

    def add(command: _F) -> Callable[..., Any]:
        @wraps(command)
        def run(**given: Any) -> Any:
            values = {option.field: given.pop(option.field) for option in _OPTIONS}
            training = {name: value for name, value in values.items() if value is not None}
            return command(training=training, **given)

        added: Callable[..., Any] = run
        for option in reversed(_OPTIONS):
            added = _decorator(option, defaults.get(option.field))(added)
        return added

    return add


def _decorator(option: _Option, default: str | None) -> Callable[..., Any]:
    """Return what adds an option to a command; a default in words replaces that of the table."""
    value = getattr(_DEFAULTS, option.field)
    shown = default or option.default or (f"{value:g}" if isinstance(value, float) else value)
    return click.option(
        f"--{(option.name or option.field).replace('_', '-')}",
        option.field,
        type=option.type,
        metavar=option.metavar,
        help=f"{option.help}  [default: {shown}]",
    )
