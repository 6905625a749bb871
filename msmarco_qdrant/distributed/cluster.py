"""Ray: connection to a cluster, its size, and its datasets. The only module that imports it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from msmarco_qdrant.distributed.files import SourceFiles
from msmarco_qdrant.errors import MissingExtraError, SourceError, UsageError, WorkerError
from msmarco_qdrant.sources.corpus import Reading

_ANSWER_S = 5.0
_CPUS_PER_WORKER = 4
_CPUS_PER_FED_GPU = 2


def import_ray() -> Any:
    """Import Ray, or raise `MissingExtraError`."""
    try:
        import ray
    except ImportError as exc:
        raise MissingExtraError("work on Ray", "ray") from exc
    return ray


def check_address(address: str | None) -> None:
    """Refuse the address of a cluster that cannot be used, before anything is read.

    Raises:
        UsageError: For a Ray Client, or another text than an address.
        MissingExtraError: Without the extra `ray`.
    """
    import_ray()
    if address is None or address in ("auto", "local"):
        return
    if address.startswith("ray://"):
        raise UsageError(
            f"the Ray address must be that of the cluster itself, got {address}: run this command "
            "on a node of the cluster, or submit it with `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"the Ray address must be auto, local or HOST:PORT, got {address!r}")


def require_answer(address: str | None) -> None:
    """Refuse a HOST:PORT where nothing listens: Ray would try for minutes.

    Raises:
        WorkerError: If no connection is made within five seconds.
    """
    if address is None or address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as exc:
        raise WorkerError(
            f"no Ray cluster answers at {address}: {exc}; pass the address that `ray start --head` "
            "printed on its first node"
        ) from exc


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, unless this process is connected; disconnect at the end.

    Args:
        address: "auto" for the running cluster of this machine, "local" to start one in it for
            the time of the connection, or HOST:PORT; None for Ray's own default.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    require_answer(address)
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if is_main else None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent on our behalf
    try:
        ray.init(address=address, logging_level=logging.WARNING, include_dashboard=None)
    except ConnectionError as exc:
        raise WorkerError(
            f"no Ray cluster answers at {address or 'the default address'}: {exc}"
        ) from exc
    try:
        if is_main:
            signal.signal(signal.SIGTERM, handler)  # Ray replaces it
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Size of a pool of workers.

    Attributes:
        workers: Number of workers.
        cpus: Processors of each.
        gpus: GPUs of each.
    """

    workers: int
    cpus: float
    gpus: float

    @classmethod
    def of_cluster(
        cls,
        workers: int | None,
        cpus: float | None,
        gpus: float | None,
        *,
        feeds_gpus: bool = False,
    ) -> PoolSize:
        """Return the given size; by default a worker per GPU, or one per 4 processors without.

        Args:
            workers: Number of workers.
            cpus: Processors of each.
            gpus: GPUs of each.
            feeds_gpus: True if other processes do most of the work on processors for GPUs.

        Raises:
            UsageError: If a value is out of range, or no node has as much.
        """
        nodes = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
        all_gpus = sum(node.get("GPU", 0) for node in nodes)
        gpus = (1 if all_gpus else 0) if gpus is None else gpus
        if cpus is None:
            largest = max((node.get("CPU", 0) for node in nodes), default=1)
            wanted = _CPUS_PER_FED_GPU if gpus and feeds_gpus else _CPUS_PER_WORKER
            cpus = max(1, min(wanted, int(largest)))
        fitting = sum(_workers_on(node, cpus, gpus) for node in nodes)
        if not fitting:
            raise UsageError(
                f"no node of the cluster has {cpus:g} processors and {gpus:g} GPUs, which each "
                "worker needs: pass fewer"
            )
        return cls(workers or fitting, cpus, gpus)


def _workers_on(node: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpus = int(node.get("CPU", 0) // cpus)
    return min(by_cpus, int(node.get("GPU", 0) // gpus)) if gpus else by_cpus


def is_dataset(source: object) -> bool:
    """True for a dataset of Ray Data; Ray is not imported for it."""
    return type(source).__module__.startswith("ray.data") and hasattr(source, "materialize")


def open_dataset(source: Any, reading: Reading) -> SourceFiles:
    """Run a dataset's plan, and return its blocks, in their order, as a source.

    Raises:
        SourceError: If the plan fails.
    """
    ray = import_ray()
    context = source.context
    before = context.execution_options.preserve_order
    context.execution_options.preserve_order = True  # the first occurrence of a pid wins
    try:
        found = source.materialize()
        return SourceFiles.of_blocks(found.to_arrow_refs(), found.size_bytes() or 0, reading)
    except ray.exceptions.RayError as exc:
        raise SourceError(f"the dataset of Ray cannot be computed: {exc}") from exc
    finally:
        context.execution_options.preserve_order = before


def start_in_order(
    function: Callable[..., Any], calls: Iterable[Sequence[Any]], **options: Any
) -> Iterator[Any]:
    """Run a function in tasks, on as many processors as the cluster has.

    They take no processor away from the workers.

    Args:
        function: The function.
        calls: The arguments of each call; read as tasks end.
        options: Options of the tasks.

    Yields:
        The reference of each result, in order.
    """
    ray = import_ray()
    task = ray.remote(function).options(num_cpus=0, scheduling_strategy="SPREAD", **options)
    at_once = max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: deque[Any] = deque()
    for arguments in calls:
        if len(running) == at_once:
            yield running.popleft()
        running.append(task.remote(*arguments))
    yield from running
