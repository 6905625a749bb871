"""Settings of a training, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypeAlias, get_args

from msmarco_qdrant.errors import UsageError

Loss: TypeAlias = Literal["contrastive", "margin-mse", "kl"]
"""The losses of bi-encoders: cross-entropy over the batch, or distance from a judge's scores."""

TrainingPrecision: TypeAlias = Literal["float32", "bfloat16"]

_MOST_STEPS = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Settings of a training.

    Attributes:
        loss: "contrastive", "margin-mse" or "kl".
        epochs: Number of epochs; 0.5 for half of one.
        batch_size: Queries of a batch.
        learning_rate: The highest; it falls linearly to 0.
        warmup: Share of the steps in which the learning rate rises.
        scale: Factor of the similarity before the loss; None for 20 (cosine) or 1 (dot).
        max_positives: Positives of a query in one epoch.
        negatives: Negatives of a query and positive.
        seed: Decides every random choice.
        eval_steps: Steps between two measures on the dev queries; None for a tenth of all.
        checkpoint_steps: Steps between two checkpoints; None for a tenth of all.
        precision: "float32" or "bfloat16"; None for the fastest of the device.

    Raises:
        UsageError: For an invalid value.
    """

    loss: Loss = "contrastive"
    epochs: float = 1.0
    batch_size: int = 128
    learning_rate: float = 2e-5
    warmup: float = 0.1
    scale: float | None = None
    max_positives: int = 16
    negatives: int = 4
    seed: int = 0
    eval_steps: int | None = None
    checkpoint_steps: int | None = None
    precision: TrainingPrecision | None = None

    def __post_init__(self) -> None:
        _require_choice("loss", self.loss, get_args(Loss))
        _require_number("epochs", self.epochs, above=0, most=1000)
        _require_integer("batch_size", self.batch_size, 2, 65_536)
        _require_number("learning_rate", self.learning_rate, above=0, most=1)
        _require_number("warmup", self.warmup, least=0, most=1)
        _require_integer("max_positives", self.max_positives, 1, 1_000_000)
        _require_integer("negatives", self.negatives, 0, 1000)
        _require_integer("seed", self.seed, 0, 2**32 - 1)
        if self.scale is not None:
            _require_number("scale", self.scale, above=0, most=1000)
        for name in ("eval_steps", "checkpoint_steps"):
            if (steps := getattr(self, name)) is not None:
                _require_integer(name, steps, 1, _MOST_STEPS)
        if self.precision is not None:
            _require_choice("precision", self.precision, get_args(TrainingPrecision))


def _require_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} must be {', '.join(allowed)}, got {value!r}")


def _require_integer(name: str, value: object, least: int, most: int) -> None:
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or not least <= int(value) <= most:  # type: ignore[call-overload]
        raise UsageError(f"{name} must be an integer of {least:,} to {most:,}, got {value!r}")


def _require_number(
    name: str, value: object, *, least: float = 0, above: float | None = None, most: float
) -> None:
    allowed = f"above {above:g}" if above is not None else f"{least:g} or more"
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    number = float(value) if is_number else math.nan  # type: ignore[arg-type]
    lowest = number > above if above is not None else number >= least
    if not (lowest and number <= most):
        raise UsageError(f"{name} must be a number {allowed}, at most {most:g}, got {value!r}")
