"""How often what fails is tried again, by what it fails with."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest

from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    CollectionReplacedError,
    EncodingError,
    ModelMismatchError,
    ModelNotFoundError,
    PidCollisionError,
    SchemaError,
    SourceError,
    SpoolError,
    StoreAccessError,
    StoreCorruptError,
    StoreInUseError,
    StoreUnavailableError,
    UsageError,
    WorkerError,
)
from msmarco_qdrant.service.retry import (
    BatchRetrier,
    Retryability,
    StoppingError,
    retryability_of,
)
from tests.service.spool.helpers import log_fields

TRANSIENT = [
    StoreUnavailableError,
    StoreInUseError,
    StoreAccessError,
    CollectionReplacedError,
    ModelNotFoundError,
    ModelMismatchError,
    SpoolError,
]
UNCERTAIN = [
    SchemaError,
    StoreCorruptError,
    CollectionNotFoundError,
    EncodingError,
    WorkerError,
    ZeroDivisionError,
    MemoryError,
    OSError,
    BaseException,
]
PERMANENT = [PidCollisionError, SourceError, UsageError, StoppingError]


CALL_S = 25.0


class Calls:
    """A function that fails so often, and tells of each failure; a retrier to call it with.

    Attributes:
        now: The time: each call takes 25 s.
    """

    def __init__(self, *errors: BaseException) -> None:
        self.stopping = threading.Event()
        self.told: list[tuple[int, BaseException]] = []
        self.made = 0
        self.now = 0.0
        self.retry = BatchRetrier(0.0, 0.0, 5, self.stopping, self._tell, clock=lambda: self.now)
        self._errors = [*errors]

    def __call__(self) -> str:
        """Fail, or answer."""
        self.made += 1
        self.now += CALL_S
        if self._errors:
            raise self._errors.pop(0)
        return "answer"

    def _tell(self, attempt: int, error: BaseException) -> None:
        self.told.append((attempt, error))


@pytest.mark.parametrize("error", TRANSIENT)
def test_what_passes_is_tried_until_it_has(error: Callable[[str], BaseException]) -> None:
    """However often; each failure is reported."""
    errors = [error(f"no {number}") for number in range(20)]
    calls = Calls(*errors)
    assert "answer" == calls.retry(calls)
    assert (21, [*enumerate(errors, 1)]) == (calls.made, calls.told)


@pytest.mark.parametrize("error", UNCERTAIN)
def test_what_may_pass_or_not_is_tried_so_often(error: Callable[[str], BaseException]) -> None:
    """What passes for sure does not count, before or between."""
    errors = [error(str(number)) for number in range(5)]
    away = StoreUnavailableError("away")
    calls = Calls(*[away] * 7, *errors[:2], away, *errors[2:])
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # it is looked at
        calls.retry(calls)
    assert caught.value is errors[-1]
    assert 13 == calls.made
    calls = Calls(*[away] * 7, *errors[:2], away, *errors[2:4], away)
    assert "answer" == calls.retry(calls)


@pytest.mark.parametrize("error", PERMANENT)
def test_what_is_bad_for_good_is_tried_once(error: Callable[[str], BaseException]) -> None:
    """It is raised as it is, and not told."""
    calls = Calls(found := error("bad"))
    with pytest.raises(type(found), match="bad"):
        calls.retry(calls)
    assert (1, []) == (calls.made, calls.told)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (OSError(errno.EMFILE, "Too many open files"), Retryability.UNCERTAIN),
        (OSError("not a gzipped file"), Retryability.PERMANENT),
        (ValueError("no Parquet"), Retryability.PERMANENT),
        (None, Retryability.PERMANENT),
    ],
)
def test_a_source_that_cannot_be_read(cause: Exception | None, kind: Retryability) -> None:
    """It is bad for good if its content is, not if the system had no room for it."""
    error = SourceError("cannot be read")
    error.__cause__ = cause
    assert kind is retryability_of(error)


def test_failures_are_logged_at_first_and_then_each_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the fields that are given, and when the next attempt follows; each call anew."""
    away = StoreUnavailableError("away")
    calls = Calls(*[away] * 10)
    calls.retry(calls, {"batch": "b"})
    expected = [{"batch": "b", "attempt": number, "again_in_s": 0.0} for number in (1, 4, 7, 10)]
    assert expected == log_fields(caplog)
    assert "attempt 4 failed, retrying in 0.0 s: away" == caplog.records[1].getMessage()
    caplog.clear()
    calls.retry(Calls(away))
    assert [{"attempt": 1, "again_in_s": 0.0}] == log_fields(caplog)


def test_nothing_is_tried_again_when_it_is_time_to_stop() -> None:
    """Nor told: there is no other attempt."""
    calls = Calls(StoreUnavailableError("away"))
    calls.stopping.set()
    with pytest.raises(StoppingError):
        calls.retry(calls)
    assert (1, []) == (calls.made, calls.told)
    with pytest.raises(UsageError):
        calls.retry(Calls(UsageError("bad")))


def test_a_wait_ends_when_it_is_time_to_stop() -> None:
    """However long it would be; there is no last attempt, which could take as long."""
    told, stopping, made = threading.Event(), threading.Event(), []

    def fail() -> None:
        made.append(1)
        raise StoreUnavailableError("away")

    retry = BatchRetrier(1e6, 1e6, 5, stopping, lambda _attempt, _error: told.set())

    def stop() -> None:
        assert told.wait(60)
        stopping.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(StoppingError):
        retry(fail)
    stopper.join()
    assert [1] == made
