"""Moments at which a sidecar is ended: the n-th time that something of a kind is seen."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

AT_REST = "at rest"

# How often each kind is drawn, and up to which count. "start" is anything in the spool or the store
# from the start on, "output" the line that it listens, "answered" an answer to a writer, "applying"
# some milliseconds after a batch was taken, "request" one to the Qdrant server; the others are
# events in the directory of that name.
KINDS: Mapping[str, tuple[int, int]] = {
    "start": (4, 12),
    "output": (2, 1),
    "answered": (6, 20),
    "tmp": (3, 60),
    "incoming": (3, 35),
    "working": (3, 30),
    "applying": (5, 15),
    "done": (4, 60),
    "inbox": (2, 8),
}
OF_EDGE: Mapping[str, tuple[int, int]] = {**KINDS, "store": (6, 600)}
OF_SERVER: Mapping[str, tuple[int, int]] = {**KINDS, "request": (8, 80)}
_APPLYING_S = 0.03


@dataclass(frozen=True, slots=True)
class Moment:
    """When a process is ended.

    Attributes:
        kind: What must be seen.
        count: How often, since the process was started.
        after_s: And so long after that.
        is_applied: Whether a server still does what it was asked for just then.
    """

    kind: str
    count: int
    after_s: float = 0.0
    is_applied: bool = True


def drawn(
    rng: random.Random, kinds: Mapping[str, tuple[int, int]], kind: str | None = None
) -> Moment:
    """A moment of a kind, or of any of the kinds."""
    if kind is None:
        (kind,) = rng.choices([*kinds], [weight for weight, _ in kinds.values()])
    after_s = rng.uniform(0, _APPLYING_S) if kind == "applying" else 0.0
    return Moment(kind, rng.randint(1, kinds[kind][1]), after_s, rng.random() < 0.5)


class Ender:
    """Sees what a process does, and sends it a signal at a moment.

    Args:
        moment: When.
        number: Which signal. Any but SIGKILL is for a process that listens: nothing counts before.

    Attributes:
        ended_at: The kind of moment at which it was sent; "" before.
    """

    def __init__(self, moment: Moment, number: signal.Signals) -> None:
        self._moment = moment
        self._signal = number
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self._process: subprocess.Popen[str] | None = None
        self._started = threading.Event()
        self.ended_at = ""

    @property
    def is_dead(self) -> bool:
        """Whether the process was killed."""
        return bool(self.ended_at) and self._signal == signal.SIGKILL

    def watch(self, process: subprocess.Popen[str]) -> None:
        """Say which process it is."""
        self._process = process
        self._started.set()

    def saw(self, *kinds: str) -> None:
        """Something has happened; if it is the moment, the signal is sent before this returns."""
        moment = self._moment
        with self._lock:
            if self._signal != signal.SIGKILL and "output" not in {*kinds, *self._seen}:
                return
            self._seen.update(kinds)
            if moment.kind in kinds and self._seen[moment.kind] == moment.count:
                time.sleep(moment.after_s)
                self._send(moment.kind)

    def end(self) -> None:
        """Send it now, if the moment has not come."""
        with self._lock:
            self._send(AT_REST)

    def asked(self, _rpc: str, _message: object) -> bool:
        """A request has reached the server; whether it is applied."""
        if self.is_dead:
            return False
        was_over = bool(self.ended_at)
        self.saw("request")
        return was_over or not self.is_dead or self._moment.is_applied

    def _send(self, kind: str) -> None:
        self._started.wait()
        assert self._process is not None
        if self.ended_at or self._process.poll() is not None:
            return
        self.ended_at = kind
        self._process.send_signal(self._signal)
        if self._signal == signal.SIGKILL:
            self._process.wait()
