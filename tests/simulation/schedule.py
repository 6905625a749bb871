"""One schedule by its seed: faults, runs of the command until one succeeds, and the checks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.simulation.cluster import Cluster
from tests.simulation.ingest import Decisions, Ingest, Report
from tests.simulation.loop import Loop, Process
from tests.simulation.server import OWN_THRESHOLD, Faults, Server, SimulatedStore
from tests.simulation.source import Case, draw_case

_MAX_RUNS = 60
_MAX_EVENTS = 200_000
_FAULTS_WITHIN_S = 25.0


@dataclass(frozen=True)
class Outcome:
    """The end of a schedule.

    Attributes:
        problems: What is not as it must be; empty for a schedule that passed.
        runs: Runs of the command.
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


@dataclass
class _State:
    runs: int = 0
    faults: int = 0
    report: Report | None = None
    process: Process | None = None
    problems: list[str] = field(default_factory=list)


class _Schedule:
    def __init__(self, seed: int, decisions: Decisions) -> None:
        self._loop = loop = Loop(seed)
        draw = loop.random
        self._decisions = decisions
        self._case = draw_case(draw)
        rough = draw.random() < 0.7
        self._faults = Faults(
            lost=draw.uniform(0, 0.1) if rough else 0,
            repeated=draw.uniform(0, 0.1) if rough else 0,
            late=draw.uniform(0, 0.05) if rough else 0,
            killed=0.08 if rough else 0,
        )
        self._server = Server(loop, draw.randrange(1, 4), self._faults)
        for id_, payload in self._case.before.items():
            self._server.shard(id_).points[id_] = payload
        self._cluster = Cluster(loop, nodes=draw.randrange(1, 4), workers=draw.randrange(1, 3))
        self._state = _State()
        for _ in range(draw.randrange(8)):
            loop.after(draw.uniform(0, _FAULTS_WITHIN_S), self._fault)

    def run(self) -> Outcome:
        self._start()
        events = 0
        while self._loop.step():
            events += 1
            if events > _MAX_EVENTS:
                self._state.problems.append("the schedule does not end")
                break
        self._check_end()
        state = self._state
        points = sorted((str(id_), repr(one)) for id_, one in self._server.points.items())
        text = repr((points, state.runs, state.faults, self._loop.now, state.problems))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Outcome(tuple(state.problems), state.runs, state.faults, self._loop.now, digest)

    def _start(self) -> None:
        """Run the command, as an operator does who repeats it after each failure."""
        state, loop = self._state, self._loop
        if state.runs >= _MAX_RUNS:
            state.problems.append(f"none of {state.runs} runs succeeded")
            return
        state.runs += 1
        faults = self._faults
        if state.runs > _MAX_RUNS // 2:  # a driver that is always killed never ends
            faults.killed = 0
        store = SimulatedStore(loop, self._server, faults)
        run = Ingest(loop, self._case, self._server, store, self._cluster, self._decisions)
        state.process = Process(loop, run.drive(), self._end)
        self._watch(state.process)

    def _watch(self, process: Process) -> None:
        """Find out that the driver was killed; the command is repeated."""

        def look() -> None:
            if self._state.process is not process:
                return
            if process.is_alive:
                self._loop.after(5, look)
            else:
                self._start()

        self._loop.after(5, look)

    def _end(self, report: Any, error: BaseException | None) -> None:
        self._state.process = None
        if error is not None:
            self._loop.after(self._loop.random.uniform(1, 20), self._start)
            return
        self._state.report = report
        self._check("after the command", report)

    def _fault(self) -> None:
        """Let something fail, unless the ingest has ended."""
        state, loop, draw = self._state, self._loop, self._loop.random
        if state.report is not None:
            return
        state.faults += 1
        node = draw.choice(self._cluster.slots).node
        shard = draw.randrange(len(self._server.shards))
        draw.choice(
            (
                self._kill_driver,
                lambda: self._cluster.kill_worker(draw.choice(self._cluster.slots)),
                partial(self._cluster.crash, node, draw.uniform(1, 20)),
                partial(self._cluster.hide, node),
                partial(self._server.crash, shard, draw.uniform(1, 40)),
            )
        )()
        if loop.chance(0.2) and state.faults < 16:
            loop.after(draw.uniform(0, 5), self._fault)

    def _kill_driver(self) -> None:
        if self._state.process is not None:
            self._state.process.kill()

    def _check_end(self) -> None:
        """Check again when no worker runs and no request is on its way."""
        report = self._state.report
        if report is None:
            self._state.problems.append("no run succeeded")
            return
        self._check("at the end", report)

    def _check(self, moment: str, report: Report) -> None:
        found = list(_problems(self._case, self._server, report))
        self._state.problems += [f"{moment}: {problem}" for problem in found]


def _problems(case: Case, server: Server, report: Report) -> Any:
    stored = {payload["pid"]: payload["text"] for payload in server.points.values()}
    for pid in sorted(case.expected.keys() | stored.keys()):
        expected, found = case.expected.get(pid), stored.get(pid)
        if expected != found:
            yield f"passage {pid} must be {expected!r}, got {found!r}"
    if (got := report.written + report.unchanged) != case.passages:
        yield f"the report must count {case.passages} passages, got {got}"
    if sorted(report.rejects) != case.rejects:
        yield f"the rejects must be {case.rejects}, got {sorted(report.rejects)}"
    if (server.threshold, server.record) != (OWN_THRESHOLD, None):
        yield f"the threshold must be {OWN_THRESHOLD}, got {server.threshold} ({server.record})"
    for id_, payload in server.points.items():
        before = case.before.get(id_)
        if payload != before and payload["seq"] <= case.last_seq:
            yield f"a newer seq than {case.last_seq} is required, got {payload['seq']}"
