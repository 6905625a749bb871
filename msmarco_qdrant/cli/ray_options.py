"""Options of commands that can run on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import click

from msmarco_qdrant.cli.options import refuse_unused

_F = TypeVar("_F", bound=Callable[..., Any])

RAY = ("ray_workers", "ray_cpus", "ray_gpus")


def ray_options(what: str, cpus: str = "4") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --ray and what goes with it; the command gets `ray`, arguments of a function, or None.

    Args:
        what: What the workers do, such as "Encode and write".
        cpus: The default of the processors of each, for the help.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(**given: Any) -> Any:
            address = given.pop("ray")
            chosen = {name: given.pop(name) for name in RAY}
            refuse_unused("--ray ADDRESS", used=address is not None, options=RAY)
            ray = None if address is None else _arguments(address, chosen)
            return command(ray=ray, **given)

        for option in reversed(_options(what, cpus)):
            run = option(run)
        return run

    return add


def _options(what: str, cpus: str) -> list[Callable[[_F], _F]]:
    return [
        click.option(
            "--ray",
            metavar="ADDRESS",
            help=f"{what} on the machines of a Ray cluster: HOST:PORT, 'auto' for the running "
            "cluster of this machine, or 'local' to start one in it.",
        ),
        click.option(
            "--ray-workers",
            type=click.IntRange(min=1),
            metavar="N",
            help=f"With --ray: number of processes that {what.lower()}.  [default: one per GPU, or "
            "one per 4 processors]",
        ),
        click.option(
            "--ray-cpus",
            type=click.FloatRange(min=0, min_open=True),
            metavar="N",
            help=f"With --ray: processors of each of them.  [default: {cpus}, or all of a smaller "
            "node]",
        ),
        click.option(
            "--ray-gpus",
            type=click.FloatRange(min=0),
            metavar="N",
            help="With --ray: GPUs of each of them, 0 for none.  [default: 1, if there are any]",
        ),
    ]


def _arguments(address: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("ray_cpus", "ray_gpus"):
        if (chosen[name] or 0) > 1 and chosen[name] % 1:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} must be whole above 1, got {chosen[name]:g}")
    return {
        "address": address,
        "workers": chosen["ray_workers"],
        "cpus_per_worker": chosen["ray_cpus"],
        "gpus_per_worker": chosen["ray_gpus"],
    }


def refuse_with_ray(
    ray: Mapping[str, Any] | None, options: Mapping[str, bool], work: str = "an ingest"
) -> None:
    """Refuse options that need one process.

    Args:
        ray: The choice of a cluster, None without.
        options: True for each that was given.
        work: What the command does.
    """
    for option, is_given in options.items():
        if ray is not None and is_given:
            raise click.UsageError(f"{option} needs {work} by one process: omit {option}, or --ray")
