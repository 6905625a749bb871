"""Order, retries and end of tasks."""

from __future__ import annotations

import pytest

from msmarco_qdrant.distributed.tasks import TaskBoard, TaskPolicy
from msmarco_qdrant.errors import (
    CollectionReplacedError,
    ModelNotFoundError,
    MsmarcoQdrantError,
    StoreError,
    StoreUnavailableError,
    UsageError,
    WorkerError,
)

POLICY = TaskPolicy(first_wait_s=1, longest_wait_s=4, stall_s=60, max_uncertain=3, max_lost=4)


def board(*tasks: int) -> TaskBoard:
    """A board of those tasks at time 0, whose waits are the longest possible."""
    return TaskBoard(tasks, POLICY, lambda: 1.0, 0.0)


def test_tasks_start_in_order_and_end() -> None:
    """Each task starts once; the board is complete after the last success."""
    tasks = board(2, 0, 1)
    assert [(0, 1), (1, 1), (2, 1), None] == [tasks.start(0) for _ in range(4)]
    assert tasks.wait_s(0) is None
    assert [True, False, True, True] == [tasks.finished(task) for task in (1, 1, 0, 2)]
    assert tasks.is_complete


def test_a_failed_task_waits_twice_as_long_after_each_failure() -> None:
    """Waits double up to the longest one; other tasks go on."""
    tasks, now, waits = board(7), 0.0, []
    for attempt in range(1, 5):
        assert (7, attempt) == tasks.start(now)
        tasks.failed(7, attempt, StoreUnavailableError("away"), now)
        assert tasks.start(now) is None
        wait = tasks.wait_s(now)
        assert wait is not None
        waits.append(wait)
        now += wait
    assert [1, 2, 4, 4] == waits


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (UsageError("wrong"), 1),
        (CollectionReplacedError("re-embedded during the run"), 1),
        (StoreError("odd"), 3),
        (OSError("odd"), 3),
    ],
)
def test_an_error_that_lasts_ends_the_run(error: Exception, failures: int) -> None:
    """A permanent error is raised at once, one that may pass after a few attempts."""
    tasks = board(0)
    for attempt in range(1, failures):
        tasks.start(99.0 * attempt)
        tasks.failed(0, attempt, error, 99.0 * attempt)
    tasks.start(99.0 * failures)
    with pytest.raises(type(error)):
        tasks.failed(0, failures, error, 99.0 * failures)


AWAY = StoreUnavailableError("away")


def fails_at(tasks: TaskBoard, attempt: int, now: float) -> None:
    """Start task 0 again, and fail at that time."""
    tasks.start(now)
    tasks.failed(0, attempt, AWAY, now)


def test_a_transient_error_ends_the_run_only_without_progress() -> None:
    """A success of any task starts the time again."""
    tasks = board(0, 1)
    tasks.start(0)
    tasks.start(0)
    tasks.failed(0, 1, AWAY, 10)
    fails_at(tasks, 2, 65)
    tasks.finished(1)
    fails_at(tasks, 3, 80)
    fails_at(tasks, 4, 135)
    with pytest.raises(StoreUnavailableError):
        fails_at(tasks, 5, 140)


def test_a_task_that_takes_hours_survives_a_transient_error() -> None:
    """Time counts from the first error, and an error long after the last one is a first one."""
    tasks = board(0)
    for attempt, now in enumerate([9_000, 9_055, 20_000, 20_055], start=1):
        fails_at(tasks, attempt, now)
    with pytest.raises(StoreUnavailableError):
        fails_at(tasks, 5, 20_060)


def test_workers_that_are_lost_before_they_are_ready_end_the_run() -> None:
    """Each start waits longer; those of one moment count as one, a ready worker as a success."""
    tasks, now, waits = board(0), 0.0, []
    for lost in range(3):
        if lost == 1:
            tasks.worker_ready()
        assert tasks.may_start_workers(now)
        tasks.worker_failed(None, now)
        tasks.worker_failed(None, now)
        waits.append(next(s for s in range(1, 99) if tasks.may_start_workers(now + s)))
        now += waits[-1]
    tasks.worker_failed(None, now)
    assert [1, 1, 2] == waits
    with pytest.raises(WorkerError, match="4 workers in a row were lost"):
        tasks.worker_failed(None, now + 4)


@pytest.mark.parametrize(
    ("error", "lasts_s"), [(AWAY, 60), (ModelNotFoundError("no folder"), 0), (ValueError("x"), 0)]
)
def test_a_worker_that_cannot_start_waits_for_the_store_only(
    error: Exception, lasts_s: float
) -> None:
    """A missing model ends the run at once."""
    tasks = board(0)
    for now in range(0, int(lasts_s), 5):
        tasks.worker_failed(error, now)
    with pytest.raises(type(error)):
        tasks.worker_failed(error, lasts_s)


def test_a_lost_worker_is_replaced_up_to_a_limit() -> None:
    """A task that kills each of its workers ends the run."""
    tasks = board(3)
    for attempt in range(1, 4):
        tasks.start(10.0 * attempt)
        tasks.lost(3, attempt, 10.0 * attempt)
    tasks.start(99)
    with pytest.raises(WorkerError, match=r"part 3 of the work lost 4 workers, .* --ray-cpus"):
        tasks.lost(3, 4, 99)


def test_an_earlier_attempt_changes_only_by_its_success() -> None:
    """A lost worker may still fail, or succeed, after its task was started again."""
    tasks = board(0)
    tasks.start(0)
    tasks.lost(0, 1, 0)
    assert (0, 2) == tasks.start(5)
    tasks.failed(0, 1, UsageError("of the lost worker"), 6)
    tasks.lost(0, 1, 6)
    assert tasks.wait_s(6) is None  # the second attempt still runs
    assert tasks.finished(0)
    tasks.lost(0, 2, 8)
    assert tasks.is_complete
    assert tasks.start(99) is None


def test_a_waiting_task_that_a_lost_worker_finished_is_not_started_again() -> None:
    """Its place in the queue is skipped."""
    tasks = board(0, 1)
    tasks.start(0)
    tasks.lost(0, 1, 0)
    assert tasks.finished(0)
    assert (1, 1) == tasks.start(9)
    assert tasks.start(9) is None


@pytest.mark.parametrize(
    "values",
    [
        {"first_wait_s": 0},
        {"first_wait_s": 9, "longest_wait_s": 8},
        {"stall_s": -1},
        {"max_uncertain": 0},
        {"max_lost": 0},
    ],
)
def test_a_policy_out_of_range_is_refused(values: dict[str, float]) -> None:
    """The error names the rule and the values."""
    with pytest.raises(MsmarcoQdrantError, match=r"must be 1 or more|required: 0 <"):
        TaskPolicy(**values)  # type: ignore[arg-type]
