"""Checks of arguments that a distributed ingest and encode have in common."""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path

from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.errors import UsageError


def absolute_model(model: str | PathLike[str]) -> str | PathLike[str]:
    """Return the absolute path of a model's directory, as workers have another current one."""
    return Path(model).absolute() if Path(model).is_dir() else model


def check_model(model: object, make_encoder: object) -> None:
    """Refuse two ways to get an encoder, and a maker that cannot be called.

    Raises:
        UsageError: If both are given, or the second cannot be called.
    """
    if make_encoder is not None and model is not None:
        raise UsageError("pass either model or make_encoder, not both")
    if make_encoder is not None and not callable(make_encoder):
        raise UsageError(
            "make_encoder must be a function that returns an encoder, as each worker makes its "
            f"own, got {with_article(type(make_encoder).__name__)}"
        )


def check_counts(**counts: object) -> None:
    """Refuse anything but integers of 1 or more, or None.

    Raises:
        UsageError: If one is something else.
    """
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UsageError(f"{name} must be an integer of 1 or more, got {value!r}")


def check_share(name: str, value: float | None, *, least: str) -> None:
    """Refuse what Ray does not take: below 1 a share of one, above it whole ones only.

    Raises:
        UsageError: If it is neither.
    """
    if value is None:
        return
    is_right = isinstance(value, int | float) and math.isfinite(value) and value >= 0
    if not is_right or (value > 1 and value % 1) or (value == 0 and least != "0 or more"):
        raise UsageError(f"{name} must be {least}, and whole above 1, got {value!r}")
