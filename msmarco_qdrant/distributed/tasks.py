"""Order, retries and end of the tasks of a distributed ingest: decisions without I/O.

A driver asks a `TaskBoard` which task is due, starts it on any worker, and reports what happened.
A task may be started again while an earlier attempt still runs unnoticed, for example on a node
that the driver lost: each task must be idempotent, and only its first success counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msmarco_qdrant.errors import (
    CollectionReplacedError,
    ModelMismatchError,
    ModelNotFoundError,
    StoreError,
    UsageError,
    WorkerError,
)
from msmarco_qdrant.service.retry import Retryability, retryability_of

_STALLED_RETRIES = 5
_FEWER_WORKERS = (
    "have fewer on a machine, each with more processors: --ray-cpus (cpus_per_worker=...)"
)
_CALM_S = 600.0  # longer than a failing attempt and the wait after it


@dataclass(frozen=True, slots=True)
class TaskPolicy:
    """Retries of failed tasks.

    Attributes:
        first_wait_s: Longest wait after the first failure of a task; it doubles with each.
        longest_wait_s: Longest wait of all.
        stall_s: Transient errors end the run if they come for so long without a success of any
            task. Tasks may take longer than that.
        max_uncertain: Failures of one task with errors that may pass; the last ends the run.
        max_lost: Workers that one task may lose; the last ends the run, as the task itself may
            take more memory than there is.

    Raises:
        UsageError: If a value is out of range.
    """

    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    stall_s: float = 600.0
    max_uncertain: int = 3
    max_lost: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.first_wait_s <= self.longest_wait_s or self.stall_s < 0:
            raise UsageError(
                f"required: 0 < first_wait_s <= longest_wait_s and stall_s >= 0, got {self}"
            )
        if self.max_uncertain < 1 or self.max_lost < 1:
            raise UsageError(f"max_uncertain and max_lost must be 1 or more, got {self}")


def outage_policy(retry_s: float) -> TaskPolicy:
    """Return the policy of tasks that each retry a request to a server for so many seconds."""
    return TaskPolicy(stall_s=_STALLED_RETRIES * retry_s)


def _retryability_of(error: BaseException) -> Retryability:
    """Classify an error; all tasks of a run keep its collection and its model."""
    if isinstance(error, CollectionReplacedError | ModelMismatchError | ModelNotFoundError):
        return Retryability.PERMANENT
    return retryability_of(error)


@dataclass(slots=True)
class _Task:
    attempt: int = 0
    uncertain: int = 0
    lost: int = 0
    failures: int = 0
    is_running: bool = False


class TaskBoard:
    """The unfinished tasks of one pass.

    Args:
        tasks: The tasks' numbers; lower ones start first.
        policy: Retries of failed tasks.
        random: Returns a number from 0 to 1, for waits that differ.
        now: The time of the start; every time is in seconds of one clock of the driver.
    """

    def __init__(
        self,
        tasks: Sequence[int],
        policy: TaskPolicy,
        random: Callable[[], float],
        now: float,
    ) -> None:
        self._policy = policy
        self._random = random
        self._left = {task: _Task() for task in tasks}
        self._due = [(now, task) for task in sorted(self._left)]  # a heap, as it is sorted
        self._ready: list[int] = []
        self._failing_since: float | None = None
        self._last_failure = now
        self._starts = _Task()
        self._next_start = now

    @property
    def is_complete(self) -> bool:
        """True if every task has succeeded."""
        return not self._left

    @property
    def left(self) -> int:
        """The number of tasks that have not succeeded."""
        return len(self._left)

    def start(self, now: float) -> tuple[int, int] | None:
        """Return the task to start now and the number of its attempt; None if none is due."""
        while self._due and self._due[0][0] <= now:
            heapq.heappush(self._ready, heapq.heappop(self._due)[1])
        while self._ready:
            number = heapq.heappop(self._ready)
            task = self._left.get(number)
            if task is not None and not task.is_running:  # else an earlier attempt succeeded
                task.is_running = True
                task.attempt += 1
                return number, task.attempt
        return None

    def wait_s(self, now: float) -> float | None:
        """Return the seconds until a task is due; None if only running ones are left."""
        if self._ready:
            return 0.0
        return max(0.0, self._due[0][0] - now) if self._due else None

    def finished(self, number: int) -> bool:
        """Note a success, also of an earlier attempt.

        Returns:
            True for the first one of the task: its report counts.
        """
        if self._left.pop(number, None) is None:
            return False
        self._failing_since = None
        return True

    def failed(self, number: int, attempt: int, error: BaseException, now: float) -> None:
        """Note a failure, and start the task again later; an earlier attempt's is ignored.

        Raises:
            BaseException: `error`, if no retry can help or enough were made.
        """
        task = self._running(number, attempt)
        if task is None:
            return
        kind = _retryability_of(error)
        task.uncertain += kind is Retryability.UNCERTAIN
        if (
            kind is Retryability.PERMANENT
            or task.uncertain >= self._policy.max_uncertain
            or (kind is Retryability.TRANSIENT and self._is_stalled(now))
        ):
            raise error
        self._again(number, task, now)

    def lost(self, number: int, attempt: int, now: float) -> None:
        """Note that the worker of a task died or cannot be reached, and start the task again.

        Raises:
            WorkerError: If too many workers of this task were lost.
        """
        task = self._running(number, attempt)
        if task is None:
            return
        task.lost += 1
        if task.lost >= self._policy.max_lost:
            raise WorkerError(
                f"part {number} of the work lost {task.lost} workers, as if it needs more memory "
                f"than they have: {_FEWER_WORKERS}"
            )
        self._again(number, task, now)

    def may_start_workers(self, now: float) -> bool:
        """True unless workers were lost before they were ready, just before."""
        return now >= self._next_start

    def worker_ready(self) -> None:
        """Note that a worker has started."""
        self._starts = _Task()

    def worker_failed(self, error: BaseException | None, now: float) -> None:
        """Note that a worker has not started, and wait before the next start.

        Those that end during the wait, as of one lost machine, count as one.

        Args:
            error: What it raised; None if it died or cannot be reached.
            now: The time.

        Raises:
            WorkerError: If too many were lost one after the other.
            BaseException: `error`, unless the store may answer later.
        """
        if error is not None and not (
            isinstance(error, StoreError)
            and _retryability_of(error) is Retryability.TRANSIENT
            and not self._is_stalled(now)
        ):
            raise error
        if now < self._next_start:
            return
        starts = self._starts
        starts.lost += error is None
        if starts.lost >= self._policy.max_lost:
            raise WorkerError(
                f"{starts.lost} workers in a row were lost while they loaded the model, as if it "
                f"needs more memory than they have: {_FEWER_WORKERS}"
            )
        starts.failures += 1
        self._next_start = now + self._wait_s(starts.failures)

    def _running(self, number: int, attempt: int) -> _Task | None:
        """Return a task if this is its last attempt and the task has not succeeded."""
        task = self._left.get(number)
        return task if task is not None and task.attempt == attempt and task.is_running else None

    def _again(self, number: int, task: _Task, now: float) -> None:
        task.is_running = False
        task.failures += 1
        heapq.heappush(self._due, (now + self._wait_s(task.failures), number))

    def _wait_s(self, failures: int) -> float:
        longest = self._policy.first_wait_s * 2.0 ** min(failures - 1, 30)
        return min(longest, self._policy.longest_wait_s) * (0.5 + self._random() / 2)

    def _is_stalled(self, now: float) -> bool:
        """Note a transient error; return True if they have come for too long."""
        is_calm = now - self._last_failure >= max(_CALM_S, 2 * self._policy.stall_s)
        if self._failing_since is None or is_calm:
            self._failing_since = now
        self._last_failure = now
        return now - self._failing_since >= self._policy.stall_s
