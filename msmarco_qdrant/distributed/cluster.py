"""Ray: connection to a cluster, tasks and workers. The only module that imports it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.distributed.files import SourceFiles
from msmarco_qdrant.distributed.keys import KeyChunk, KeyReader, Repeats
from msmarco_qdrant.distributed.splits import Split, SplitCount
from msmarco_qdrant.distributed.tasks import TaskBoard
from msmarco_qdrant.distributed.worker import (
    IngestWorker,
    OpenedCollection,
    SplitOutcome,
    WorkerSettings,
)
from msmarco_qdrant.errors import MissingExtraError, SourceError, UsageError, WorkerError
from msmarco_qdrant.sources.corpus import Reading

_log = logging.getLogger(__name__)

_CPUS_PER_WORKER = 4
_POLL_S = 1.0
_IDLE_S = 0.1
_WARN_AFTER_S = 60.0
_SPLITS_AT_ONCE_ON_GPU = 2  # the card has batches while one split begins or ends
_TASK_RETRIES = 5
_LOST_OBJECTS_RETRIES = 3


def _ray() -> Any:
    try:
        import ray
    except ImportError as exc:
        raise MissingExtraError("ingest and encode on Ray", "ray") from exc
    return ray


def check_address(address: str | None) -> None:
    """Refuse the address of a cluster that cannot be used, before anything is read.

    Raises:
        UsageError: For a Ray Client, or another text than an address.
        MissingExtraError: Without the extra `ray`.
    """
    _ray()
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


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, unless this process is connected; disconnect at the end.

    Args:
        address: "auto" for the running cluster of this machine, "local" to start one in it for
            the time of the connection, or HOST:PORT; None for Ray's own default.
    """
    ray = _ray()
    if ray.is_initialized():
        yield
        return
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
    def of_cluster(cls, workers: int | None, cpus: float | None, gpus: float | None) -> PoolSize:
        """Return the given size; by default a worker per GPU, or one per 4 processors without.

        Raises:
            UsageError: If a value is out of range, or no node has as much.
        """
        nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
        all_gpus = sum(node.get("GPU", 0) for node in nodes)
        gpus = (1 if all_gpus else 0) if gpus is None else gpus
        if cpus is None:
            largest = max((node.get("CPU", 0) for node in nodes), default=1)
            cpus = max(1, min(_CPUS_PER_WORKER, int(largest)))
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
    ray = _ray()
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


# ---- pass 1 and 2 ----------------------------------------------------------------------------


def count_and_find_repeats(
    splits: Sequence[Split],
    source: SourceFiles,
    partitions: int,
    on_repeats: Callable[[int, Any], None],
) -> list[SplitCount]:
    """Read the keys of all splits, and find the rows whose pid came before them.

    Args:
        splits: The splits.
        source: The source that they are of.
        partitions: Number of partitions of the keys.
        on_repeats: Called with the number of a split and some of its rows; a row may come twice.

    Returns:
        The counts of each split.

    Raises:
        SourceError: If a file cannot be read.
        WorkerError: If nodes were lost too often.
    """
    ray = _ray()
    for _ in range(_LOST_OBJECTS_RETRIES):
        try:
            counts, chunks = _read_all_keys(splits, source, partitions)
            for repeats in _find_all_repeats(chunks):
                for number, rows in repeats.by_split():
                    on_repeats(number, rows)
        except ray.exceptions.RayTaskError as exc:
            raise exc.cause from None
        except ray.exceptions.RayError as exc:  # of a lost node: and its arrays with it
            _log.warning("the keys are read again: a node was lost (%s)", type(exc).__name__)
            reason = exc
            continue
        return counts
    raise WorkerError(f"too many nodes were lost while the keys were read: {reason}") from reason


def _read_all_keys(
    splits: Sequence[Split],
    source: SourceFiles,
    partitions: int,
) -> tuple[list[SplitCount], list[list[Any]]]:
    """Return the counts of each split, and for each partition the references of its chunks."""
    ray = _ray()
    options = {
        "num_cpus": 0,  # the workers hold the processors
        "num_returns": "streaming",
        "max_retries": _TASK_RETRIES,
        "scheduling_strategy": "SPREAD",
    }
    task = ray.remote(_read_keys).options(**options)
    at_once = max(1, int(ray.cluster_resources().get("CPU", 1)))
    counts: list[SplitCount] = []
    chunks: list[list[Any]] = [[] for _ in range(partitions)]
    running: list[Any] = []
    todo = iter(splits)
    while True:
        while len(running) < at_once and (split := next(todo, None)) is not None:
            blocks = split_blocks(split, source)
            running.append(task.remote(split, source.reading, partitions, *blocks))
        if not running:
            return counts, chunks
        *found, last = running.pop(0)
        for number, reference in enumerate(found):
            chunks[number % partitions].append(reference)
        counts.append(ray.get(last))


def _read_keys(
    split: Split, reading: Reading, partitions: int, *blocks: Any
) -> Iterator[KeyChunk | SplitCount]:
    reader = KeyReader(split, reading, partitions, blocks)
    yield from reader.chunks()
    yield reader.count()


def split_blocks(split: Split, source: SourceFiles) -> list[Any]:
    """Return the references of a split's tables, none for files."""
    return [source.blocks[one.start] for one in split.extents if one.kind == "block"]


def _find_all_repeats(chunks: Sequence[Sequence[Any]]) -> Iterator[Repeats]:
    ray = _ray()
    options = {"num_cpus": 0, "max_retries": _TASK_RETRIES, "scheduling_strategy": "SPREAD"}
    task = ray.remote(_find_repeats).options(**options)
    at_once = max(1, int(ray.cluster_resources().get("CPU", 1)))
    running = [task.remote(*some) for some in chunks[:at_once]]
    for some in [*chunks[at_once:], *[None] * at_once]:
        if running:
            yield ray.get(running.pop(0))
        if some is not None:
            running.append(task.remote(*some))


def _find_repeats(*chunks: KeyChunk) -> Repeats:
    return Repeats.of(chunks)


# ---- workers ---------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Running:
    """An attempt at a split on a worker."""

    number: int
    attempt: int


@dataclass(slots=True, eq=False)
class _Worker:
    """An actor: starting until `ready` is answered, then with attempts by their generators."""

    actor: Any
    ready: Any
    is_ready: bool = False
    running: dict[Any, _Running] = field(default_factory=dict)
    done: int = 0
    asked: Any = None


class SplitSink(Protocol):
    """Gives the work of a distributed ingest, and takes what comes back."""

    def work(self, number: int, attempt: int) -> tuple[Any, ...]:
        """Return the arguments of `IngestWorker.ingest` for a split's attempt."""

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Take some rejects of an attempt, which may still fail."""

    def finish(self, number: int, attempt: int, outcome: SplitOutcome) -> None:
        """Take the counts of a split; called once for each."""

    def poll(self, rows: int) -> None:
        """Take the number of durable rows of unfinished splits; called each second."""


class WorkerPool:
    """Workers of a distributed ingest; a lost one is replaced.

    Args:
        settings: Settings of every worker.
        size: Number and size of them.
        has_vectors: True if the passages come with their vectors.

    Attributes:
        has_vectors: The same.
    """

    def __init__(self, settings: WorkerSettings, size: PoolSize, *, has_vectors: bool) -> None:
        self.has_vectors = has_vectors
        self._ray = _ray()
        self._size = size
        splits_at_once = _SPLITS_AT_ONCE_ON_GPU if size.gpus else 1
        self._splits_at_once = splits_at_once
        options = {
            "num_cpus": size.cpus,
            "num_gpus": size.gpus,
            "max_concurrency": splits_at_once + 1,  # one answers how far the others are
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }
        remote = self._ray.remote(IngestWorker).options(**options)
        self._make: Callable[[], Any] = lambda: remote.remote(settings)
        self._workers: list[_Worker] = []
        self._first: Any = None
        self._ready_at = time.monotonic()

    def load(self, stored: EncoderInfo | None) -> EncoderInfo:
        """Load the encoder on the first worker, and return its properties."""
        exceptions = self._ray.exceptions
        for _ in range(_LOST_OBJECTS_RETRIES):
            self._first = self._make()
            answer = self._first.load.remote(stored)
            try:
                self._wait_for(answer)
                info: EncoderInfo = self._ray.get(answer)
            except exceptions.RayTaskError as exc:
                raise exc.cause from None
            except exceptions.RayError as exc:
                reason = exc
                continue
            return info
        raise WorkerError(f"the worker that loads the model was lost: {reason}") from reason

    def run(
        self,
        collection: OpenedCollection,
        board: TaskBoard,
        sink: SplitSink,
    ) -> None:
        """Ingest every split of a board.

        Args:
            collection: The collection.
            board: The splits.
            sink: Gives the work, and takes what comes back.

        Raises:
            MsmarcoQdrantError: If a split failed and may not be tried again.
        """
        self._ready_at = time.monotonic()
        while not board.is_complete:
            self._fill(collection, board)
            self._start_due(board, sink)
            self._handle_next(board, sink)
            sink.poll(self._poll())

    def close(self) -> None:
        """End all workers at once; what they have flushed stays."""
        actors = [worker.actor for worker in self._workers]
        for actor in [*actors, *([self._first] if self._first is not None else [])]:
            self._ray.kill(actor)
        self._workers, self._first = [], None

    def _wait_for(self, answer: Any) -> None:
        """Wait for an answer, and warn if the cluster has no place for the worker."""
        ready, _ = self._ray.wait([answer], timeout=_WARN_AFTER_S)
        if not ready:
            self._warn_of_place()

    def _warn_of_place(self) -> None:
        _log.warning(
            "waiting for a node with %g free processors and %g GPUs that loads the model",
            *(self._size.cpus, self._size.gpus),
        )

    def _fill(self, collection: OpenedCollection, board: TaskBoard) -> None:
        """Start workers in place of lost ones, not more than there are splits."""
        if not board.may_start_workers(time.monotonic()):
            return
        wanted = min(self._size.workers, board.left)
        while len(self._workers) < wanted:
            actor, self._first = self._first or self._make(), None
            self._workers.append(_Worker(actor, actor.begin.remote(collection)))

    def _start_due(self, board: TaskBoard, sink: SplitSink) -> None:
        for worker in self._workers:
            while worker.is_ready and len(worker.running) < self._splits_at_once:
                due = board.start(time.monotonic())
                if due is None:
                    return
                number, attempt = due
                method = worker.actor.ingest.options(num_returns="streaming")
                worker.running[method.remote(*sink.work(number, attempt))] = _Running(
                    number, attempt
                )

    def _handle_next(
        self,
        board: TaskBoard,
        sink: SplitSink,
    ) -> None:
        """Wait for one event, for a second at most."""
        waiting = {
            reference: worker
            for worker in self._workers
            for reference in (worker.running if worker.is_ready else [worker.ready])
        }
        if not waiting:  # until the next start of a split or a worker
            time.sleep(_IDLE_S)
            return
        self._warn_if_none_is_ready()
        ready, _ = self._ray.wait([*waiting], timeout=_POLL_S, fetch_local=True)
        for reference in ready:
            self._handle(waiting[reference], reference, board, sink)

    def _warn_if_none_is_ready(self) -> None:
        """Warn each minute in which no worker works, as if the cluster has no place for one."""
        now = time.monotonic()
        if any(worker.is_ready for worker in self._workers):
            self._ready_at = now
        elif now - self._ready_at >= _WARN_AFTER_S:
            self._ready_at = now
            self._warn_of_place()

    def _handle(
        self,
        worker: _Worker,
        reference: Any,
        board: TaskBoard,
        sink: SplitSink,
    ) -> None:
        running = worker.running.get(reference)
        try:
            if running is None:
                self._ray.get(reference)
                worker.is_ready = True
                board.worker_ready()
                return
            item = self._ray.get(next(reference))
        except StopIteration:
            worker.running.pop(reference)
        except self._ray.exceptions.RayTaskError as exc:
            worker.running.pop(reference, None)
            if running is None:
                self._lose(worker, board, exc.cause)
            else:
                board.failed(running.number, running.attempt, exc.cause, time.monotonic())
        except self._ray.exceptions.RayError:
            self._lose(worker, board)
        else:
            if isinstance(item, list):
                sink.add_rejects(running.number, running.attempt, item)
            elif board.finished(running.number):
                sink.finish(running.number, running.attempt, item)

    def _lose(self, worker: _Worker, board: TaskBoard, error: BaseException | None = None) -> None:
        """Give up a worker that died or cannot be reached; other workers get its splits."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._ray.kill(worker.actor)
        if not worker.is_ready:
            board.worker_failed(error, time.monotonic())
        for running in worker.running.values():
            board.lost(running.number, running.attempt, time.monotonic())

    def _poll(self) -> int:
        """Return the durable rows of unfinished splits, as far as workers have answered."""
        for worker in self._workers:
            if worker.asked is None:
                worker.asked = worker.actor.done.remote() if worker.is_ready else None
                continue
            ready, _ = self._ray.wait([worker.asked], timeout=0)
            if not ready:
                continue
            try:
                worker.done = self._ray.get(worker.asked)
            except self._ray.exceptions.RayError:
                worker.done = 0  # it is lost, which its splits show
            worker.asked = None
        return sum(worker.done for worker in self._workers)
