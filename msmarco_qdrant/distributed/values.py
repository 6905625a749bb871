"""Arguments that the functions on Ray have in common, each checked once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from msmarco_qdrant.core.arguments import check_counts
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.distributed.cluster import PoolSize, check_address, connected
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.stores import DEFAULT_CONNECTION
from msmarco_qdrant.stores.connection import hide_secret, is_url, parse_address

SPLITS_AT_ONCE_ON_GPU = 2
"""Splits of a worker with a GPU: the card has batches while one of them begins or ends."""


def check_server_url(
    url: object, work: str, why: str = "several processes cannot write to a directory"
) -> None:
    """Refuse anything but the URL of a server.

    Args:
        url: What was given.
        work: What is done, such as "an ingest".
        why: The reason.

    Raises:
        UsageError: If it is something else.
    """
    if not isinstance(url, str) or not is_url(url):
        raise UsageError(
            f"{work} on Ray needs the URL of a server, as {why}, got {hide_secret(str(url))!r}: "
            "pass http://HOST, or run it without Ray"
        )
    parse_address(url, DEFAULT_CONNECTION)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The cluster to work on, and the workers to start there.

    Attributes:
        address: The cluster; see `connected`.
        workers: Number of workers; None for one per GPU, or as many as fit.
        cpus_per_worker: Processors of each; None for the default.
        gpus_per_worker: GPUs of each; None for one, if there are any.

    Raises:
        UsageError: If a value is out of range.
        MissingExtraError: Without the extra `ray`.
    """

    address: str | None
    workers: int | None
    cpus_per_worker: float | None
    gpus_per_worker: float | None

    def __post_init__(self) -> None:
        check_counts(workers=self.workers)
        check_share("cpus_per_worker", self.cpus_per_worker, least="more than 0")
        check_share("gpus_per_worker", self.gpus_per_worker, least="0 or more")
        check_address(self.address)

    @contextmanager
    def connected(self, *, feeds_gpus: bool = False) -> Iterator[PoolSize]:
        """Connect to the cluster, and yield the number and size of the workers.

        Args:
            feeds_gpus: See `PoolSize.of_cluster`.

        Raises:
            WorkerError: If no cluster answers.
            UsageError: If no node has as much as a worker needs.
        """
        with connected(self.address):
            yield PoolSize.of_cluster(
                self.workers, self.cpus_per_worker, self.gpus_per_worker, feeds_gpus=feeds_gpus
            )


def for_workers(models: ModelChoice) -> ModelChoice:
    """Return a choice with absolute paths of directories."""
    model = None if models.model is None else absolute_model(models.model)
    return replace(models, model=model, default_model=str(absolute_model(models.default_model)))


def absolute_model(model: str | PathLike[str]) -> str | PathLike[str]:
    """Return the absolute path of a model's directory, as workers have another current one."""
    return Path(model).absolute() if Path(model).is_dir() else model


def check_model(models: ModelChoice, make_encoder: object, *, loads_others: bool = False) -> None:
    """Refuse two ways to get an encoder, and a maker that cannot be called.

    Args:
        models: The choice of a model.
        make_encoder: The other way; None without.
        loads_others: True if the options of the choice are also those of other models.

    Raises:
        UsageError: If both are given, or the second cannot be called.
    """
    models.require_instead_of(make_encoder, "make_encoder", loads_others=loads_others)
    if make_encoder is not None and not callable(make_encoder):
        raise UsageError(
            "make_encoder must be a function that returns an encoder, as each worker makes its "
            f"own, got {with_article(type(make_encoder).__name__)}"
        )


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
