"""`kill -9` of a change of model at any of its requests, under traffic, and the same again.

The migrator is a process of its own and has its own door to the server, so its requests can be
counted: a seed says at which of them it is killed, and whether that one is applied or lost.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.names import LOCKS
from tests.loopback import LoopbackServer
from tests.reembed.concurrent.acts import Acts
from tests.reembed.concurrent.doors import Door
from tests.reembed.concurrent.ledger import check_holds
from tests.reembed.concurrent.running import NAME, NEW, filled, reembed, traffic_at, unlock

ROOT = Path(__file__).resolve().parents[3]
PASSAGES = 100
SEEDS = range(10)
SOAK_SEEDS = 100
SWAP = "Collections.UpdateAliases"


def kind_of(rpc: str, message: Any) -> str:
    """What a request is, where its name does not say it."""
    if rpc in ("Points.Upsert", "Points.Delete") and message.collection_name == LOCKS:
        return "Lock"
    if rpc == "Collections.Update" and message.metadata:
        return "Metadata"
    return rpc


@dataclass(frozen=True, slots=True)
class Moment:
    """When a process is killed: at the first request at which this is so.

    Attributes:
        is_now: Called with what was seen so far, that request included.
        is_applied: Whether the server still does what the request asks for.
    """

    is_now: Callable[[Killer], bool]
    is_applied: bool


class Killer:
    """Sees a process's requests, and kills it at a moment; then nothing is applied any more.

    Args:
        moment: When; None for never.
        act: Called before each request is applied: what others do just then.

    Attributes:
        kinds: Of the requests so far.
        is_over: Whether it was killed.
    """

    def __init__(
        self, moment: Moment | None, act: Callable[[Killer], object] = lambda _seen: None
    ) -> None:
        self._moment = moment
        self._act = act
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._started = threading.Event()
        self.kinds: list[str] = []
        self.is_over = False

    @property
    def since_swap(self) -> int:
        """Requests since the swap, which is the first of them; 0 before it."""
        return len(self.kinds) - self.kinds.index(SWAP) if SWAP in self.kinds else 0

    def watch(self, process: subprocess.Popen[str]) -> None:
        """Say which process it is."""
        self._process = process
        self._started.set()

    def __call__(self, rpc: str, message: Any) -> bool:
        """A request has arrived; whether it is applied."""
        with self._lock:
            if self.is_over:
                return False
            self.kinds.append(kind_of(rpc, message))
            self._act(self)
            if self._moment is None or not self._moment.is_now(self):
                return True
            self._started.wait()
            assert self._process is not None
            self.is_over = True  # before whoever waits for the process finds that it has ended
            self._process.kill()
            self._process.wait()
            return self._moment.is_applied


@contextmanager
def program(place: str, *works: str) -> Iterator[subprocess.Popen[str]]:
    """The program that changes the model, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.reembed.concurrent.reembed_program", place, *works],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(
    server: LoopbackServer,
    work: str,
    moment: Moment | None,
    act: Callable[[Killer], object] = lambda _seen: None,
) -> Killer:
    """Run the program to its end, or until it is killed."""
    killer = Killer(moment, act)
    with Door(server, killer) as door, program(door.url, work) as process:
        killer.watch(process)
        told, _ = process.communicate()
        assert killer.is_over or process.returncode == 0, told
        door.settle()
    return killer


# ---- at random -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual() -> Killer:
    """What a run asks for that nobody kills, without traffic: the fewest requests."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        filled(store, PASSAGES)
        return run(server, "reembed", None)


def moment_of(rng: random.Random, usual: Killer, *, is_late: bool) -> Moment:
    """Anywhere in a run, or anywhere between its swap and its end; applied, or lost.

    Every first run comes there: traffic makes its requests more, never fewer.
    """
    is_applied = rng.random() < 0.5
    if is_late:
        late = rng.randint(1, usual.since_swap)
        return Moment(lambda seen: seen.since_swap == late, is_applied)
    wanted = rng.randint(1, len(usual.kinds))
    return Moment(lambda seen: len(seen.kinds) == wanted, is_applied)


def one_history(seed: int, usual: Killer) -> Sequence[Killer]:
    """A kill under traffic, perhaps one of the next run, then the same again; both runs."""
    rng = random.Random(seed)
    killers = []
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ledger = filled(store, PASSAGES)
        with traffic_at(store, ledger, seed, writers=1, pause_s=0.1) as traffic:
            for number in range(rng.randint(1, 2)):
                is_late = seed % 2 == 0 if number == 0 else rng.random() < 0.4
                killers.append(run(server, "reembed", moment_of(rng, usual, is_late=is_late)))
                unlock(store)
                traffic.go_on(1)
            reembed(store)
        check_holds(store, NAME, ledger.expected, NEW)
    return killers


@pytest.mark.parametrize("seed", SEEDS)
def test_kill_and_run_again(usual: Killer, seed: int) -> None:
    """Half of the histories begin with a kill between the swap and the end."""
    first = one_history(seed, usual)[0]
    assert first.is_over
    assert first.since_swap > 0 or seed % 2


@pytest.mark.soak
def test_soak_kills(usual: Killer) -> None:
    """A hundred histories from a random seed on."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\nseeds from {first}")
    told = [one_history(first + index, usual) for index in range(SOAK_SEEDS)]
    kills = [killer for killers in told for killer in killers if killer.is_over]
    late = sum(killer.since_swap > 0 for killer in kills)
    print(f"{len(kills)} kills, {late} of them after the swap, in {SOAK_SEEDS} histories")


# ---- at each kind of write -----------------------------------------------------------------


@pytest.mark.parametrize("is_applied", [True, False], ids=["applied", "lost"])
@pytest.mark.parametrize(
    ("kind", "is_late"),
    [
        ("Points.Upsert", False),
        (SWAP, True),
        ("Points.Upsert", True),
        ("Points.Delete", True),
        ("Metadata", True),
    ],
)
def test_killed_at_each_kind_of_write(kind: str, *, is_late: bool, is_applied: bool) -> None:
    """With passages that came just before the swap, one of which goes while it is copied."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ledger = filled(store, PASSAGES)
        others = Acts(store, ledger)
        moment = Moment(
            lambda seen: seen.kinds[-1] == kind and (seen.since_swap > 0) == is_late, is_applied
        )

        def act(seen: Killer) -> None:
            if seen.since_swap == 1:
                others.first()
            elif seen.kinds[-1] == "Points.Upsert" and seen.since_swap:
                others.delete("fresh0")  # which is about to be copied

        assert run(server, "reembed", moment, act).is_over
        others.second(0)
        unlock(store)
        reembed(store)
        check_holds(store, NAME, ledger.expected, NEW)
