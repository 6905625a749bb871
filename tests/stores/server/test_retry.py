"""Trying again: what, when, for how long, and how it ends.

The times are those of a clock that the tests hold: it goes on when the policy sleeps, and by what a
call is said to take.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.stores.server.retry import RetryPolicy

PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED")
CUTS = (
    ("UNKNOWN", "Stream removed"),
    ("INTERNAL", "Received RST_STREAM with error code 2"),
    ("UNKNOWN", "Socket closed"),
    ("INTERNAL", "recvmsg:Connection reset by peer"),
    ("CANCELLED", "GOAWAY received"),
)
FOR_GOOD = tuple(code.name for code in grpc.StatusCode if code.name not in (*PASSING, "OK"))


class Failure(grpc.RpcError):  # type: ignore[misc]  # grpc is untyped
    """A call's end in a status, as gRPC raises it."""

    def __init__(self, code: str, details: str = "") -> None:
        super().__init__(f"{code}: {details}")
        self._code = grpc.StatusCode[code]
        self._details = details

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._code

    def details(self) -> str:
        """The server's words."""
        return self._details


def asked_to_wait(seconds: int) -> ResourceExhaustedResponse:
    """What qdrant-client raises when the server asks to be left alone."""
    return ResourceExhaustedResponse("too many requests", seconds)


@dataclass
class Clock:
    """A monotonic clock that goes on when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        """The seconds that it shows."""
        return self.now


class Policy(RetryPolicy):
    """The policy on the clock of a test: it keeps its waits, and sleeps by moving the clock."""

    def __init__(self, total_s: float, clock: Clock) -> None:
        super().__init__(total_s)
        self.clock = clock
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        self.waits.append(seconds)
        self.clock.now += seconds


@dataclass
class Script:
    """A function that fails as it is told, one failure an attempt, and then answers.

    Attributes:
        failures: What its attempts raise; the last one again and again if `for_ever`.
        clock: The clock to note the attempts by.
        takes_s: How long an attempt takes on it.
        for_ever: Whether it never answers.
        attempts: When it was called.
    """

    failures: Sequence[BaseException]
    clock: Clock = field(default_factory=Clock)
    takes_s: float = 0.0
    for_ever: bool = False
    attempts: list[float] = field(default_factory=list)

    def __call__(self) -> str:
        """Fail or answer."""
        self.attempts.append(self.clock.now)
        self.clock.now += self.takes_s
        index = len(self.attempts) - 1
        if self.for_ever:
            index = min(index, len(self.failures) - 1)
        if index < len(self.failures):
            raise self.failures[index]
        return "answer"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the policy and tenacity read."""
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


# ---- what is tried again ---------------------------------------------------------------------


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_is_tried_again(clock: Clock, code: str) -> None:
    """Until it answers."""
    script = Script([Failure(code), Failure(code), Failure(code)], clock)
    assert "answer" == Policy(60, clock).call(script)
    assert 4 == len(script.attempts)


@pytest.mark.parametrize(("code", "details"), CUTS)
def test_a_cut_connection_is_tried_again(clock: Clock, code: str, details: str) -> None:
    """Whatever status gRPC calls it for a moment."""
    script = Script([Failure(code, details)], clock)
    assert "answer" == Policy(60, clock).call(script)
    assert 2 == len(script.attempts)


@pytest.mark.parametrize(
    "failure",
    [
        *(Failure(code, "because") for code in FOR_GOOD),
        ValueError("Cannot invoke RPC on closed channel!"),
        StoreError("closed"),
        KeyboardInterrupt(),
    ],
    ids=lambda failure: str(failure) or type(failure).__name__,
)
def test_what_fails_for_good_is_raised_at_once(clock: Clock, failure: BaseException) -> None:
    """The error itself, after one attempt and no wait."""
    policy, script = Policy(60, clock), Script([failure], clock)
    with pytest.raises(type(failure)) as caught:
        policy.call(script)
    assert failure is caught.value
    assert ([1000.0], []) == (script.attempts, policy.waits)


def test_a_failure_for_good_ends_what_was_passing(clock: Clock) -> None:
    """The second attempt's error is the one that counts."""
    script = Script([Failure("UNAVAILABLE"), Failure("INVALID_ARGUMENT", "so wrong")], clock)
    with pytest.raises(Failure, match="so wrong"):
        Policy(60, clock).call(script)
    assert 2 == len(script.attempts)


# ---- how long it waits -----------------------------------------------------------------------


def waits_of(clock: Clock, draw: Callable[[float, float], float]) -> list[float]:
    """The waits of nine failures in a row, with the random numbers that `draw` gives."""
    policy = Policy(3600, clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "uniform", draw)
        policy.call(Script([Failure("UNAVAILABLE")] * 9, clock))
    return policy.waits


def test_waits_double_up_to_ten_seconds(clock: Clock) -> None:
    """The longest that can be drawn; the shortest is no wait, so that callers spread."""
    longest = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert longest == pytest.approx(waits_of(clock, max))
    assert [0.0] * 9 == waits_of(clock, min)


def test_the_server_is_left_alone_for_as_long_as_it_asks(clock: Clock) -> None:
    """The next attempt is not before, and not much later."""
    script = Script([asked_to_wait(7), asked_to_wait(2)], clock)
    policy = Policy(60, clock)
    assert "answer" == policy.call(script)
    first, second, third = script.attempts
    assert 7 <= second - first <= 7 + 0.1
    assert 2 <= third - second <= 2 + 0.2


@pytest.mark.parametrize("asked", [60, 61, 3600])
def test_a_wish_beyond_the_deadline_ends_it_at_once(clock: Clock, asked: int) -> None:
    """Waiting could not help; and other callers are not made to wait for it."""
    policy = Policy(60, clock)
    with pytest.raises(ResourceExhaustedResponse, match="too many requests"):
        policy.call(Script([asked_to_wait(asked)], clock))
    assert "answer" == policy.call(Script([], clock))
    assert [] == policy.waits


# ---- the deadline ----------------------------------------------------------------------------


def test_nothing_is_tried_after_the_deadline(clock: Clock) -> None:
    """Every attempt began before it, and the last error is the one that is raised."""
    failures = [Failure("UNAVAILABLE", f"number {number}") for number in range(1000)]
    script, policy = Script(failures, clock, takes_s=0.5), Policy(60, clock)
    with pytest.raises(Failure) as caught:
        policy.call(script)
    assert failures[len(script.attempts) - 1] is caught.value
    assert len(script.attempts) > 5
    assert max(script.attempts) - min(script.attempts) < 60


def test_without_patience_nothing_is_tried_again(clock: Clock) -> None:
    """One attempt, no wait."""
    policy, script = Policy(0, clock), Script([Failure("UNAVAILABLE")], clock)
    with pytest.raises(Failure):
        policy.call(script)
    assert (1, []) == (len(script.attempts), policy.waits)


def test_a_call_may_have_a_deadline_of_its_own(clock: Clock) -> None:
    """Shorter or longer than the policy's."""
    hurried, patient = Script([asked_to_wait(7)], clock), Script([asked_to_wait(7)], clock)
    with pytest.raises(ResourceExhaustedResponse):
        Policy(3600, clock).call(hurried, total_s=5)
    assert "answer" == Policy(5, clock).call(patient, total_s=3600)
    assert (1, 2) == (len(hurried.attempts), len(patient.attempts))


# ---- what callers share ----------------------------------------------------------------------


def test_a_new_call_waits_for_as_long_as_another_was_asked_to(clock: Clock) -> None:
    """Its first attempt is made when the server wants to be asked again."""
    policy, late = Policy(60, clock), Script([], clock)
    with pytest.raises(KeyboardInterrupt):  # the one that was asked does not wait itself
        policy.call(Script([asked_to_wait(7), KeyboardInterrupt()], clock))
    clock.now = 1003.0
    assert "answer" == policy.call(late)
    assert [1007.0] == late.attempts


def test_the_quiet_time_of_others_ends_with_the_own_deadline(clock: Clock) -> None:
    """However often they are asked to wait longer, a call is made once more at its end."""

    class Endless(Policy):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            self._paused_until = self.clock.now + 30

    policy, script = Endless(60, clock), Script([asked_to_wait(7)], clock)
    assert "answer" == policy.call(script)
    assert [1000.0, 1060.0] == script.attempts


class Watched(RetryPolicy):
    """The policy as it is; a test is told of each sleep before it begins."""

    def __init__(self, total_s: float) -> None:
        super().__init__(total_s)
        self.sleeps: queue.Queue[float] = queue.Queue()

    def sleep(self, seconds: float) -> None:
        """Tell, and sleep."""
        self.sleeps.put(seconds)
        super().sleep(seconds)


class Caller(threading.Thread):
    """Calls by a policy in a thread of its own, and keeps how it ended."""

    def __init__(self, policy: RetryPolicy, script: Script) -> None:
        super().__init__(daemon=True)
        self.policy = policy
        self.script = script
        self.outcome: object = None

    def run(self) -> None:
        """Call, and keep the answer or the error."""
        try:
            self.outcome = self.policy.call(self.script)
        except Exception as exc:  # noqa: BLE001  # looked at by the test
            self.outcome = exc

    def ended(self) -> object:
        """How it ended, which it has to."""
        self.join(60)
        assert not self.is_alive()
        return self.outcome


def test_threads_share_the_quiet_time() -> None:
    """One is asked to wait; another has not asked at all while that lasts."""
    policy = Watched(7200)
    asked, other = Caller(policy, Script([asked_to_wait(3600)])), Caller(policy, Script([]))
    asked.start()
    assert policy.sleeps.get(timeout=60) >= 3600
    other.start()
    assert 0 < policy.sleeps.get(timeout=60) <= 3600
    assert [] == other.script.attempts
    policy.stop()
    assert ["answer", "answer"] == [asked.ended(), other.ended()]


# ---- the end ---------------------------------------------------------------------------------


def test_stop_ends_a_wait() -> None:
    """What waited is tried once more; that it fails again is what is raised."""
    policy = Watched(7200)
    failures: list[Exception] = [asked_to_wait(3600), Failure("UNAVAILABLE", "the last")]
    caller = Caller(policy, Script(failures, for_ever=True))
    caller.start()
    assert policy.sleeps.get(timeout=60) >= 3600
    policy.stop()
    assert failures[-1] is caller.ended()
    assert 2 == len(caller.script.attempts)


def test_c13_interrupt_ends_a_wait() -> None:
    """Control-C while the main thread waits for the next attempt, or is about to."""
    retries, failed = RetryPolicy(600.0), threading.Event()

    def interrupt() -> None:
        assert failed.wait(60)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def fail() -> None:
        failed.set()
        raise ResourceExhaustedResponse("later", 300)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        retries.call(fail)
    thread.join()


def test_after_stop_nothing_waits(clock: Clock) -> None:
    """Neither for another attempt nor for the server's wish."""
    policy = Policy(7200, clock)
    policy._paused_until = clock.now + 3600
    policy.stop()
    script = Script([asked_to_wait(7)], clock)
    with pytest.raises(ResourceExhaustedResponse):
        policy.call(script)
    assert ([1000.0], []) == (script.attempts, policy.waits)


def test_each_failure_that_passes_is_logged(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """With its number and the server's words; as a warning when it lasts, but not each time."""
    failures: list[Exception] = [
        Failure("UNAVAILABLE", "no route"),
        asked_to_wait(7),
        Failure("ABORTED"),
    ]
    with caplog.at_level(logging.INFO, "msmarco_qdrant"):
        Policy(60, clock).call(Script(failures, clock))
    told = [record.getMessage().partition("; ") for record in caplog.records]
    assert [
        "attempt 1 failed (UNAVAILABLE: no route)",
        "attempt 2 failed (RESOURCE_EXHAUSTED: too many requests)",
        "attempt 3 failed (ABORTED: ABORTED)",
    ] == [first for first, _, _ in told]
    assert {"retrying for up to"} == {rest.rpartition(" to ")[0] + " to" for _, _, rest in told}
    assert ["INFO", "INFO", "WARNING"] == [record.levelname for record in caplog.records]


# ---- coroutines ------------------------------------------------------------------------------


def test_coroutines_are_tried_again() -> None:
    """By the same rules: what passes again, what does not at once."""
    failures = iter([Failure("UNAVAILABLE"), Failure("INVALID_ARGUMENT", "so wrong")])
    attempts = itertools.count(1)
    made: list[int] = []

    async def ask() -> None:
        made.append(next(attempts))
        raise next(failures)

    with pytest.raises(Failure, match="so wrong"):
        asyncio.run(RetryPolicy(3600).call_async(ask))
    assert [1, 2] == made


def test_a_cancelled_coroutine_waits_no_longer() -> None:
    """Neither for its own next attempt nor for the quiet time of another."""

    async def use() -> list[object]:
        policy, failed = RetryPolicy(7200), asyncio.Event()

        async def ask() -> None:
            failed.set()
            raise asked_to_wait(3600)

        async def answer() -> str:
            return "answer"

        tasks: list[asyncio.Task[object]] = [asyncio.create_task(policy.call_async(ask))]
        await failed.wait()
        tasks.append(asyncio.create_task(policy.call_async(answer)))
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    assert [asyncio.CancelledError] * 2 == [type(one) for one in asyncio.run(use())]
