"""Faults that a test asks for: which call gets which one is decided here, and nowhere else.

A fault is a frozen value; the server reads it and acts. The plan only hands them out, in a fixed
order, so the same calls in the same order get the same faults.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import grpc  # type: ignore[import-untyped]

from tests.loopback.names import rpc_matches, rpc_name


@dataclass(frozen=True, slots=True)
class Refused:
    """The server answers `code` and applies nothing.

    `message` defaults to what the real server says with that code; `retry_after_s` is sent as the
    `retry-after` trailing metadata, in whole seconds, as the real rate limiter does.
    """

    code: grpc.StatusCode
    message: str | None = None
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """The server waits before it applies the call, without holding the lock.

    A cancelled call (or one past its deadline) ends the wait at once, and is applied unless
    `drop_if_cancelled`: a real server has the write in its hands by then. `stop()` ends the wait
    too, and then nothing is applied.
    """

    seconds: float
    drop_if_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """The server waits until `released` is set before it applies the call, without the lock.

    Set it before the server stops.
    """

    released: threading.Event


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """The server applies the call, and the client never hears of it.

    By default the client's connection is cut, with whatever other calls were on it; with a `code`
    the connection lives and the call ends in that status. The first call after a cut may find the
    connection that is just ending, and be UNAVAILABLE too: that is gRPC's, and so in production.
    """

    code: grpc.StatusCode | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The TCP connection is cut inside the request; nothing is applied. The call is not recorded.

    `after_bytes` more bytes of the request's body may pass once its headers were read. A request
    that is over sooner (or had arrived already) is cut when it is complete, and not applied either.
    """

    after_bytes: int = 0


Fault = Refused | Slow | Held | LostAnswer | Cut
Schedule = Callable[[str, int], Fault | None]


@dataclass(frozen=True, slots=True)
class GivenFault:
    """A fault that a call has had: the call's name, its number (from 1, per name), the fault."""

    rpc: str
    number: int
    fault: Fault


@dataclass(slots=True)
class _Queued:
    """A fault that waits for its call; `left` is None when it never runs out."""

    fault: Fault
    rpc: str | None
    left: int | None


class FaultPlan:
    """Hands out faults to calls. Thread-safe; the first queued fault that fits a call wins.

    Queued faults come before the schedule. A call without a key, or with a wrong one, is refused
    before the plan is asked, and is not counted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[_Queued] = deque()
        self._schedule: Schedule | None = None
        self._calls: Counter[str] = Counter()
        self._given: list[GivenFault] = []

    def inject(self, fault: Fault, rpc: str | None = None, times: int | None = 1) -> None:
        """Queue `fault` for the next `times` calls of `rpc`.

        Args:
            fault: what happens to the call.
            rpc: `Upsert`, or `Points.Upsert`; None is any call. `Get` and `Delete` exist in two
                services and need the long form.
            times: how many calls; None is every call until `clear`.

        Raises:
            ValueError: there is no such call, or the short name is that of two.
        """
        wanted = None if rpc is None else rpc_name(rpc)
        with self._lock:
            self._queue.append(_Queued(fault, wanted, times))

    def use(self, schedule: Schedule | None) -> None:
        """Ask `schedule(rpc, number)` about every call that no queued fault fits.

        `rpc` is the long name (`Points.Upsert`), `number` counts the calls of that name from 1:
        a schedule seeded with both gives each call the same fault whatever the threads do.
        """
        with self._lock:
            self._schedule = schedule

    def clear(self) -> None:
        """Forget queued faults and the schedule; counts and what was given stay."""
        with self._lock:
            self._queue.clear()
            self._schedule = None

    @property
    def given(self) -> tuple[GivenFault, ...]:
        """What was given so far, in order."""
        with self._lock:
            return tuple(self._given)

    @property
    def pending(self) -> int:
        """How many queued entries still wait for a call."""
        with self._lock:
            return len(self._queue)

    def count(self, kind: type[Fault] | None = None, rpc: str | None = None) -> int:
        """How many faults were given, of a kind and to a call if those are named."""
        wanted = None if rpc is None else rpc_name(rpc)
        return sum(
            (kind is None or isinstance(one.fault, kind)) and rpc_matches(wanted, one.rpc)
            for one in self.given
        )

    def take(self, rpc: str) -> Fault | None:
        """The fault of the call that starts now, or None. Called once a call, by the server."""
        with self._lock:
            self._calls[rpc] += 1
            number = self._calls[rpc]
            fault = self._take_queued(rpc)
            if fault is None and self._schedule is not None:
                fault = self._schedule(rpc, number)
            if fault is not None:
                self._given.append(GivenFault(rpc, number, fault))
            return fault

    def _take_queued(self, rpc: str) -> Fault | None:
        """The first queued fault that fits, with its count taken down. The lock is held."""
        for entry in self._queue:
            if not rpc_matches(entry.rpc, rpc):
                continue
            if entry.left is not None:
                entry.left -= 1
                if entry.left <= 0:
                    self._queue.remove(entry)
            return entry.fault
        return None
