"""Two ingests in bulk mode, in every order of their calls of the server, also if one is killed.

While they work at the same time, each is a thread that stops before each call until it is its turn:
one runs at a time, and no clock is involved. An order is a list of choices; the next one differs in
its last choice that has another option.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from msmarco_qdrant.collection.bulk import EXPIRES_S, BulkMode, end_bulk
from msmarco_qdrant.core.collection_types import SettingsChange
from msmarco_qdrant.core.metadata_types import BulkHolder
from msmarco_qdrant.stores.base import Capabilities

OWN = 777


class Killed(BaseException):
    """The ingest ends here, without a handler of it running."""


@dataclass
class Server:
    """The threshold of a collection, its records, and the ingests that live."""

    threshold: int = OWN
    holders: dict[str, BulkHolder] = field(default_factory=dict)
    alive: list[Ingest] = field(default_factory=list)


class Ingest:
    """An ingest, and the store through which it calls the server.

    Args:
        server: The server.
        kill_at: The number of the call before which it is killed; None for none.
    """

    dsn = "a server"
    capabilities = Capabilities("Server", ann=True, multi_process=True)

    def __init__(self, server: Server, kill_at: int | None = None) -> None:
        self._server = server
        self._calls_left = kill_at
        self._turn, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._takes_turns = False
        self._tokens: set[str] = set()
        self._now = 0.0
        self._mode = BulkMode(self, "c", lambda: self._now)  # type: ignore[arg-type]
        self.is_working = False
        server.alive.append(self)

    def begin(self) -> None:
        """Begin the bulk mode."""
        self._mode.begin()

    def end(self) -> None:
        """End it."""
        end_bulk(self._mode, self._sleep)

    def start(self, work: Sequence[str]) -> None:
        """Work in a thread, up to the first call."""
        self._takes_turns = self.is_working = True
        threading.Thread(target=self._work, args=(work,), daemon=True).start()
        self._stopped.acquire()

    def go(self) -> None:
        """Go on, up to the next call or to the end of the work."""
        self._turn.release()
        self._stopped.acquire()

    def _work(self, work: Sequence[str]) -> None:
        try:
            for step in work:
                getattr(self, step)()
        except Killed:
            self._server.alive.remove(self)
        self._takes_turns = self.is_working = False
        self._stopped.release()

    def _wait_for_turn(self) -> None:
        if not self._takes_turns:
            return
        if self._calls_left is not None:
            self._calls_left -= 1
            if self._calls_left < 0:
                raise Killed
        self._stopped.release()
        self._turn.acquire()

    def _sleep(self, _seconds: float) -> None:
        """Wait for so long that a killed ingest is found out, and others renew their records."""
        self._wait_for_turn()
        self._now += EXPIRES_S
        renewed = {token for one in self._server.alive for token in one._tokens}
        for token, one in self._server.holders.items():
            if token in renewed and not one.is_done:
                self._server.holders[token] = replace(one, renewals=one.renewals + 1)

    def admin_collection(self, _name: str) -> Ingest:
        """Return the settings."""
        return self

    def optimizers(self) -> SettingsChange:
        """Return the threshold."""
        self._wait_for_turn()
        return SettingsChange(indexing_threshold_kb=self._server.threshold)

    def alter(self, change: SettingsChange) -> None:
        """Change the threshold."""
        self._wait_for_turn()
        self._server.threshold = change.indexing_threshold_kb or 0

    def bulk_holders(self, _name: str) -> dict[str, BulkHolder]:
        """Return the records."""
        self._wait_for_turn()
        return {**self._server.holders}

    def record_bulk_holders(self, _name: str, holders: Mapping[str, BulkHolder | None]) -> None:
        """Change the records."""
        self._wait_for_turn()
        for token, one in holders.items():
            if one is None:
                self._server.holders.pop(token, None)
            else:
                self._server.holders[token] = one
                self._tokens.add(token)


@dataclass(frozen=True)
class Scenario:
    """What two ingests do: before, at the same time, and afterwards one after the other."""

    before: tuple[Sequence[str], Sequence[str]]
    during: tuple[Sequence[str], Sequence[str]]
    after: tuple[Sequence[str], Sequence[str]]


SCENARIOS = {
    "both-begin": Scenario(((), ()), (("begin",), ("begin",)), (("end",), ("end",))),
    "both-end": Scenario((("begin",), ("begin",)), (("end",), ("end",)), ((), ())),
    "one-ends-as-one-begins": Scenario((("begin",), ()), (("end",), ("begin",)), ((), ("end",))),
    "one-begins-as-one-ends": Scenario(((), ("begin",)), (("begin",), ("end",)), (("end",), ())),
    "one-ends-during-the-other": Scenario((("begin",), ()), (("end",), ("begin", "end")), ((), ())),
}


def run(scenario: Scenario, kill_at: int | None, choices: Sequence[int]) -> list[tuple[int, int]]:
    """Run two ingests, then a killed one again; return each choice and its options."""
    server = Server()
    ingests = [Ingest(server, kill_at), Ingest(server)]
    _one_after_the_other(ingests, scenario.before)
    for ingest, work in zip(ingests, scenario.during, strict=True):
        ingest.start(work)
    made: list[tuple[int, int]] = []
    while working := [one for one in ingests if one.is_working]:
        chosen = choices[len(made)] if len(made) < len(choices) else 0
        made.append((chosen, len(working)))
        working[chosen].go()
    was_killed = ingests[0] not in server.alive
    after = [() if was_killed else scenario.after[0], scenario.after[1]]
    _one_after_the_other(ingests, after)
    if was_killed:
        again = Ingest(server)
        again.begin()
        again.end()
    assert (OWN, {}) == (server.threshold, server.holders), made
    return made


def _one_after_the_other(ingests: Sequence[Ingest], works: Sequence[Sequence[str]]) -> None:
    for ingest, work in zip(ingests, works, strict=True):
        for step in work:
            getattr(ingest, step)()


def orders(run_one: Callable[[list[int]], list[tuple[int, int]]]) -> Iterator[int]:
    """Run every order; yield the number of its calls."""
    choices: list[int] = []
    while True:
        made = run_one(choices)
        yield len(made)
        while made and made[-1][0] + 1 == made[-1][1]:
            made.pop()
        if not made:
            return
        choices = [*(chosen for chosen, _ in made[:-1]), made[-1][0] + 1]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_threshold_is_restored_in_every_order(name: str) -> None:
    """Nothing is left behind by two ingests."""
    lengths = [*orders(lambda choices: run(SCENARIOS[name], None, choices))]
    assert len(lengths) >= 70
    assert min(lengths) >= 7


@pytest.mark.parametrize("kill_at", range(5))
@pytest.mark.parametrize("name", [*SCENARIOS][:4])
def test_a_killed_ingest_and_the_next_one_leave_nothing_behind(name: str, kill_at: int) -> None:
    """Wherever it is killed."""
    assert [*orders(lambda choices: run(SCENARIOS[name], kill_at, choices))]
