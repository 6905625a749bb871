"""`kill -9` of a re-embedding at any of its requests, under traffic, then the same command again.

The re-embedding runs in its own process and through its own proxy, so its requests are counted. A
seed determines the request at which it is killed, and whether that one is applied or lost.
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

from msmarco_qdrant.errors import StoreInUseError
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.names import LOCKS
from tests.loopback import LoopbackServer
from tests.reembed.concurrent.client_actions import ClientActions
from tests.reembed.concurrent.expected_passages import check_holds
from tests.reembed.concurrent.proxy import ClientProxy
from tests.reembed.concurrent.scenario import NAME, NEW, fill, reembed, start_traffic, unlock

ROOT = Path(__file__).resolve().parents[3]
PASSAGES = 100
SEEDS = range(2)
SOAK_SEEDS = 100
SWAP = "Collections.UpdateAliases"


def kind_of(rpc: str, message: Any) -> str:
    """Distinguish requests that share a name."""
    if rpc in ("Points.Upsert", "Points.Delete") and message.collection_name == LOCKS:
        return "Lock"
    if rpc == "Collections.Update" and message.metadata:
        return "Metadata"
    return rpc


@dataclass(frozen=True, slots=True)
class Moment:
    """The request at which a process is killed.

    Attributes:
        is_now: Called with the killer at each request; True kills the process.
        is_applied: True if the server still applies that request.
    """

    is_now: Callable[[Killer], bool]
    is_applied: bool


class Killer:
    """Observes a process's requests and kills it at a moment; later requests are dropped.

    Args:
        moment: When to kill it; None for never.
        act: Called before each request is applied.

    Attributes:
        kinds: The kinds of the requests so far.
        is_over: True if it was killed.
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
        """Number of requests from the swap on; 0 before it."""
        return len(self.kinds) - self.kinds.index(SWAP) if SWAP in self.kinds else 0

    def watch(self, process: subprocess.Popen[str]) -> None:
        """Set the process."""
        self._process = process
        self._started.set()

    def __call__(self, rpc: str, message: Any) -> bool:
        """Handle a request; returns True to apply it."""
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
def program(place: str, work: str) -> Iterator[subprocess.Popen[str]]:
    """Start the program that changes the model."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.reembed.concurrent.reembed_program", place, work],
        cwd=ROOT,
        text=True,
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
    with ClientProxy(server, killer) as proxy, program(proxy.url, work) as process:
        killer.watch(process)
        output, _ = process.communicate()
        assert killer.is_over or process.returncode == 0, output
        proxy.settle()
    return killer


# ---- at random -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual() -> Killer:
    """The requests of a run that is not killed, without traffic: the minimum."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        fill(store, PASSAGES)
        return run(server, "reembed", None)


def moment_of(rng: random.Random, usual: Killer, *, is_late: bool) -> Moment:
    """Draw a request of the whole run, or of the part from the swap on.

    Traffic adds requests and never removes any, so every first run reaches it.
    """
    is_applied = rng.random() < 0.5
    if is_late:
        late = rng.randint(1, usual.since_swap)
        return Moment(lambda seen: seen.since_swap == late, is_applied)
    wanted = rng.randint(1, len(usual.kinds))
    return Moment(lambda seen: len(seen.kinds) == wanted, is_applied)


def one_history(seed: int, usual: Killer) -> Sequence[Killer]:
    """Kill a run under traffic, perhaps the next one too, then run to the end."""
    rng = random.Random(seed)
    killers = []
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        expected = fill(store, PASSAGES)
        with start_traffic(store, expected, seed, writers=1, pause_s=0.1) as traffic:
            for number in range(rng.randint(1, 2)):
                is_late = seed % 2 == 0 if number == 0 else rng.random() < 0.4
                killers.append(run(server, "reembed", moment_of(rng, usual, is_late=is_late)))
                unlock(store)
                traffic.go_on(1)
            reembed(store)
        check_holds(store, NAME, expected.passages, NEW)
    return killers


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_kill_and_run_again(usual: Killer, seed: int) -> None:
    """One of the two seeds first kills a run between the swap and the end.

    A history takes some 13 s of processor time: three processes under traffic.
    """
    first = one_history(seed, usual)[0]
    assert first.is_over
    assert first.since_swap > 0 or seed % 2


@pytest.mark.soak
def test_soak_kills(usual: Killer) -> None:
    """A hundred histories from a random seed."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\nseeds from {first}")
    for seed in range(first, first + SOAK_SEEDS):
        one_history(seed, usual)


# ---- at each kind of write -----------------------------------------------------------------


WRITES = [
    ("Points.Upsert", False),
    (SWAP, True),
    ("Points.Upsert", True),
    ("Points.Delete", True),
    ("Metadata", True),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "is_late", "is_applied"),
    [(*write, is_applied) for write in WRITES for is_applied in (True, False)],
)
def test_killed_at_each_kind_of_write(kind: str, *, is_late: bool, is_applied: bool) -> None:
    """With passages written just before the swap, one of which is deleted while it is copied."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        expected = fill(store, PASSAGES)
        others = ClientActions(store, expected)
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
        check_holds(store, NAME, expected.passages, NEW)


# ---- two processes -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_refuses_a_second_process() -> None:
    """While one is at its swap, another is refused; both end with one result."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        expected = fill(store, PASSAGES)
        messages: list[str] = []

        def second(seen: Killer) -> None:
            if seen.kinds[-1] == SWAP:
                with pytest.raises(StoreInUseError) as refused:
                    reembed(store)
                messages.append(str(refused.value))

        with (
            ClientProxy(server, Killer(None, second)) as proxy,
            program(proxy.url, "reembed") as process,
        ):
            output, _ = process.communicate()
        assert 0 == process.returncode, output
        (message,) = messages
        assert f"'{NAME}' is being migrated or restored by process {process.pid} on " in message
        assert store.migration_locks.holder(NAME) is None
        assert SWAP not in run(server, "reembed", None).kinds
        check_holds(store, NAME, expected.passages, NEW)
