"""One schedule by its seed: faults, runs of each command until one succeeds, and the checks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.simulation.cluster import Cluster
from tests.simulation.ingest import Decisions, Ingest, Report
from tests.simulation.loop import Loop, Process
from tests.simulation.server import OWN_THRESHOLD, Faults, Payloads, Server, SimulatedStore
from tests.simulation.source import Case, draw_case

_MAX_RUNS = 60
_MAX_EVENTS = 200_000
_FAULTS_WITHIN_S = 25.0
_PIDS_EACH = 1000


@dataclass(frozen=True)
class Outcome:
    """The end of a schedule.

    Attributes:
        problems: What is not as it must be; empty for a schedule that passed.
        runs: Runs of the commands.
        faults: Kills and crashes.
        seconds: Simulated seconds.
        digest: A digest of the final state: equal for two runs of one seed.
    """

    problems: tuple[str, ...]
    runs: int
    faults: int
    seconds: float
    digest: str


def run_schedule(seed: int, decisions: Decisions | None = None) -> Outcome:
    """Run the schedule of a seed to its end, with the project's decisions by default."""
    return _Schedule(seed, decisions or Decisions()).run()


class _Operator:
    """Repeats a command until it succeeds.

    Args:
        loop: The loop.
        case: The source of its ingest.
        cluster: The cluster of its ingest.
        is_bulk: True if the ingest is in bulk mode.
        make: Makes a run of the command.
        on_success: Called when one has succeeded.
    """

    def __init__(
        self,
        loop: Loop,
        case: Case,
        cluster: Cluster,
        is_bulk: bool,
        make: Callable[[_Operator], Ingest],
        on_success: Callable[[], None],
    ) -> None:
        self._loop = loop
        self.case = case
        self.cluster = cluster
        self._is_bulk = is_bulk
        self._make = make
        self._on_success = on_success
        self.runs = 0
        self.ingest: Ingest | None = None
        self.process: Process | None = None
        self.report: Report | None = None

    def start(self) -> None:
        """Run the command; after too many runs no more."""
        if self.runs < _MAX_RUNS:
            self.runs += 1
            self.ingest = self._make(self)
            self.process = self.ingest.start(self._is_bulk, self._end)
            self._watch(self.process)

    def _watch(self, process: Process) -> None:
        """Find out that the driver was killed; the command is repeated."""

        def look() -> None:
            if self.process is not process:
                return
            if process.is_alive:
                self._loop.after(5, look)
            else:
                self.start()

        self._loop.after(5, look)

    def _end(self, report: Any, error: BaseException | None) -> None:
        self.process = None
        if error is not None:
            self._loop.after(self._loop.random.uniform(1, 20), self.start)
            return
        self.report = report
        self._on_success()


class _Schedule:
    def __init__(self, seed: int, decisions: Decisions) -> None:
        self._loop = loop = Loop(seed)
        draw = loop.random
        self._decisions = decisions
        rough = draw.random() < 0.7
        self._faults = Faults(
            lost=draw.uniform(0, 0.1) if rough else 0,
            repeated=draw.uniform(0, 0.1) if rough else 0,
            late=draw.uniform(0, 0.05) if rough else 0,
            killed=0.08 if rough else 0,
        )
        self._server = Server(loop, draw.randrange(1, 4), self._faults)
        commands = 2 if draw.random() < 0.3 else 1
        self._operators = [self._operator(number) for number in range(commands)]
        self._before: Payloads = {}
        for operator in self._operators:
            self._before |= operator.case.before
        for id_, payload in self._before.items():
            self._server.shard(id_).points[id_] = payload
        self._count = 0
        self._problems: list[str] = []
        for _ in range(draw.randrange(8)):
            loop.after(draw.uniform(0, _FAULTS_WITHIN_S), self._fault)

    def run(self) -> Outcome:
        first, *others = self._operators
        first.start()
        for other in others:
            self._loop.after(self._loop.random.uniform(0, _FAULTS_WITHIN_S), other.start)
        events = 0
        while self._loop.step():
            events += 1
            if events > _MAX_EVENTS:
                self._problems.append("the schedule does not end")
                break
        # no worker runs, and no request is on its way
        self._check("at the end")
        runs = sum(operator.runs for operator in self._operators)
        problems, now = tuple(self._problems), self._loop.now
        points = sorted((str(id_), repr(one)) for id_, one in self._server.points.items())
        text = repr((points, runs, self._count, now, problems))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Outcome(problems, runs, self._count, now, digest)

    def _operator(self, number: int) -> _Operator:
        loop, draw = self._loop, self._loop.random
        case = draw_case(draw, number * _PIDS_EACH)
        cluster = Cluster(loop, nodes=draw.randrange(1, 4), workers=draw.randrange(1, 3))
        return _Operator(loop, case, cluster, draw.random() < 0.8, self._ingest, self._succeeded)

    def _ingest(self, operator: _Operator) -> Ingest:
        faults = self._faults
        if operator.runs > _MAX_RUNS // 2:  # a driver that is always killed never ends
            faults.killed = 0
        store = SimulatedStore(self._loop, self._server, faults, self._restored)
        case, cluster = operator.case, operator.cluster
        return Ingest(self._loop, case, self._server, store, cluster, self._decisions)

    def _restored(self) -> None:
        """Check that no ingest runs in bulk mode when the threshold is restored."""
        ingests = [operator.ingest for operator in self._operators]
        if any(ingest is not None and ingest.is_in_bulk for ingest in ingests):
            self._problems.append("the threshold was restored under an ingest in bulk mode")

    def _fault(self) -> None:
        """Let something fail, unless the ingest has ended."""
        loop, draw = self._loop, self._loop.random
        operator = draw.choice(self._operators)
        if operator.report is not None:
            return
        self._count += 1
        cluster = operator.cluster
        node = draw.choice(cluster.slots).node
        shard = draw.randrange(len(self._server.shards))
        draw.choice(
            (
                partial(_kill_driver, operator),
                lambda: cluster.kill_worker(draw.choice(cluster.slots)),
                partial(cluster.crash, node, draw.uniform(1, 20)),
                partial(cluster.hide, node),
                partial(self._server.crash, shard, draw.uniform(1, 40)),
            )
        )()
        if loop.chance(0.2) and self._count < 16:
            loop.after(draw.uniform(0, 5), self._fault)

    def _succeeded(self) -> None:
        if all(operator.report is not None for operator in self._operators):
            self._check("after the command")

    def _check(self, moment: str) -> None:
        found = [*self._found()]
        self._problems += [f"{moment}: {problem}" for problem in found]

    def _found(self) -> Iterator[str]:
        server = self._server
        expected: dict[str, str] = {}
        for operator in self._operators:
            if operator.report is None:
                yield f"none of {operator.runs} runs succeeded"
                return
            yield from _report_problems(operator.case, operator.report)
            expected |= operator.case.expected
        yield from _point_problems(expected, self._before, server)
        if (server.threshold, server.holders) != (OWN_THRESHOLD, {}):
            holders = sorted(one.order for one in server.holders.values())
            yield f"the threshold must be {OWN_THRESHOLD}, got {server.threshold} ({holders})"


def _kill_driver(operator: _Operator) -> None:
    if operator.process is not None:
        operator.process.kill()


def _report_problems(case: Case, report: Report) -> Iterator[str]:
    if (got := report.written + report.unchanged) != case.passages:
        yield f"the report must count {case.passages} passages, got {got}"
    if sorted(report.rejects) != case.rejects:
        yield f"the rejects must be {case.rejects}, got {sorted(report.rejects)}"


def _point_problems(expected: dict[str, str], before: Payloads, server: Server) -> Iterator[str]:
    stored = {payload["pid"]: payload["text"] for payload in server.points.values()}
    for pid in sorted(expected.keys() | stored.keys()):
        wanted, found = expected.get(pid), stored.get(pid)
        if wanted != found:
            yield f"passage {pid} must be {wanted!r}, got {found!r}"
    last_seq = max((payload["seq"] for payload in before.values()), default=0)
    for id_, payload in server.points.items():
        if payload != before.get(id_) and payload["seq"] <= last_seq:
            yield f"a newer seq than {last_seq} is required, got {payload['seq']}"
