"""Workers on a Ray cluster: actors, the splits of a source, and what they lose."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.distributed.cluster import PoolSize, import_ray
from msmarco_qdrant.distributed.tasks import TaskBoard
from msmarco_qdrant.errors import WorkerError

_log = logging.getLogger(__name__)

_POLL_S = 1.0
_IDLE_S = 0.1
_WARN_AFTER_S = 60.0
_WARN_EVERY_S = 10.0
_LOADS = 3

_Outcome_contra = TypeVar("_Outcome_contra", contravariant=True)


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


class SplitWorker(Protocol):
    """An object in an actor; it also has the method `load` that `WorkerPool.load` calls."""

    def begin(self, job: Any) -> None:
        """Prepare for splits of a job."""

    def run_split(self, work: Any, *parts: Any) -> Iterator[Any]:
        """Process a split: yield lists of rejects, then its counts."""

    def done(self) -> int:
        """Return the rows of unfinished splits that are durable."""


class SplitSink(Protocol[_Outcome_contra]):
    """Gives the work of a run, and takes what comes back."""

    def work(self, number: int, attempt: int) -> tuple[Any, ...]:
        """Return the arguments of `SplitWorker.run_split` for a split's attempt."""

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Take some rejects of an attempt, which may still fail."""

    def finish(self, number: int, attempt: int, outcome: _Outcome_contra) -> None:
        """Take the counts of a split; called once for each."""

    def poll(self, rows: int) -> None:
        """Take the number of durable rows of unfinished splits; called each second."""


class WorkerPool(Generic[_Outcome_contra]):
    """Workers of a run; a lost one is replaced.

    Args:
        worker: What runs in each actor.
        settings: Settings of every worker, its only argument.
        size: Number and size of them.
        splits_at_once: Splits that each has at a time.
    """

    def __init__(
        self,
        worker: Callable[[Any], SplitWorker],
        settings: object,
        size: PoolSize,
        splits_at_once: int,
    ) -> None:
        self._ray = import_ray()
        self._size = size
        self._splits_at_once = splits_at_once
        options = {
            "num_cpus": size.cpus,
            "num_gpus": size.gpus,
            "max_concurrency": splits_at_once + 1,  # one answers how far the others are
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }
        remote = self._ray.remote(worker).options(**options)
        self._make: Callable[[], Any] = lambda: remote.remote(settings)
        self._workers: list[_Worker] = []
        self._first: Any = None
        self._ready_at = time.monotonic()
        self._warned_at = -math.inf

    def load(self, *arguments: Any) -> Any:
        """Load the encoder on the first worker, and return what its method `load` returns."""
        exceptions = self._ray.exceptions
        for _ in range(_LOADS):
            self._first = self._make()
            answer = self._first.load.remote(*arguments)
            try:
                self._wait_for(answer)
                return self._ray.get(answer)
            except exceptions.RayTaskError as exc:
                raise exc.cause from None
            except exceptions.RayError as exc:
                reason = exc
                continue
        raise WorkerError(f"the worker that loads the model was lost: {reason}") from reason

    def run(self, job: object, board: TaskBoard, sink: SplitSink[_Outcome_contra]) -> None:
        """Process every split of a board; workers of an earlier run of the same job go on.

        Args:
            job: The argument of `begin` of every worker.
            board: The splits.
            sink: Gives the work, and takes what comes back.

        Raises:
            MsmarcoQdrantError: If a split failed and may not be tried again.
        """
        self._ready_at = time.monotonic()
        for worker in self._workers:  # what an earlier run has left there counts for none
            worker.running.clear()
        while not board.is_complete:
            self._fill(job, board)
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

    def _fill(self, job: object, board: TaskBoard) -> None:
        """Start workers in place of lost ones, not more than there are splits."""
        if not board.may_start_workers(time.monotonic()):
            return
        wanted = min(self._size.workers, board.left)
        while len(self._workers) < wanted:
            actor, self._first = self._first or self._make(), None
            self._workers.append(_Worker(actor, actor.begin.remote(job)))

    def _start_due(self, board: TaskBoard, sink: SplitSink[_Outcome_contra]) -> None:
        for worker in self._workers:
            while worker.is_ready and len(worker.running) < self._splits_at_once:
                due = board.start(time.monotonic())
                if due is None:
                    return
                number, attempt = due
                method = worker.actor.run_split.options(num_returns="streaming")
                worker.running[method.remote(*sink.work(number, attempt))] = _Running(
                    number, attempt
                )

    def _handle_next(
        self,
        board: TaskBoard,
        sink: SplitSink[_Outcome_contra],
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
        sink: SplitSink[_Outcome_contra],
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
                self._warn("a part of the work is tried again: %s", exc.cause)
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
            self._warn("a worker has not started, so another one will: %s", error or "it was lost")
        elif worker.running:
            self._warn("a worker was lost, so another one takes its part of the work")
        for running in worker.running.values():
            board.lost(running.number, running.attempt, time.monotonic())

    def _warn(self, message: str, *values: object) -> None:
        """Warn at most each few seconds: of one outage, every worker has an error."""
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            _log.warning(message, *values)

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
