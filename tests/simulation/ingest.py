"""The distributed ingest of a schedule: a driver and its workers, over simulated I/O.

Real are: the partitions and first occurrences of pids, the order and retries of tasks, the
comparison with the collection, ids, digests and `seq`, and the bulk mode. Simulated are: time,
processes, network, server, files and the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msmarco_qdrant.collection.bulk import LOOK_S, RENEW_S, BulkMode
from msmarco_qdrant.core.pid_set import pid_key
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.distributed.dedup import KEY_TYPE, find_repeats, partitions_of
from msmarco_qdrant.distributed.tasks import TaskBoard, TaskPolicy
from msmarco_qdrant.errors import StoreUnavailableError
from msmarco_qdrant.ingest.diff import SkipUnchanged
from msmarco_qdrant.ingest.windows import Window
from msmarco_qdrant.stores.payload import SeqClock, payload_of, point_id
from tests.simulation.cluster import Attempt, Cluster, Inbox
from tests.simulation.loop import Killed, Loop, Operation, Process, Steps
from tests.simulation.server import Server, SimulatedStore, Snapshot
from tests.simulation.source import Case

_POLICY = TaskPolicy(first_wait_s=0.5, longest_wait_s=8, stall_s=90, max_uncertain=4)
_RETRY_S = 25.0
_NAME = "passages__0001"


@dataclass(frozen=True)
class Decisions:
    """The project's decisions; a planted bug replaces one."""

    board: type[TaskBoard] = TaskBoard
    find_repeats: Callable[..., Any] = find_repeats
    bulk: type[BulkMode] = BulkMode


@dataclass
class Report:
    """The counts of an ingest."""

    written: int = 0
    unchanged: int = 0
    rejects: list[tuple[int, int]] = field(default_factory=list)


class Ingest:
    """One run of the command; its files are its own.

    Args:
        loop: The loop.
        case: The source.
        server: The server.
        store: The same for the driver's calls.
        cluster: The workers.
        decisions: The decisions under test.
    """

    def __init__(
        self,
        loop: Loop,
        case: Case,
        server: Server,
        store: SimulatedStore,
        cluster: Cluster,
        decisions: Decisions,
    ) -> None:
        self._loop, self._case, self._server = loop, case, server
        self._cluster, self._decisions = cluster, decisions
        self._bulk = decisions.bulk(store, _NAME, lambda: loop.now)  # type: ignore[arg-type]
        self._process: Process | None = None
        self._partitions = loop.random.randrange(1, 5)
        self._keys: dict[int, list[list[tuple[bytes, int, int]]]] = {}
        self._repeats: dict[int, list[tuple[int, int]]] = {}
        self._arrived: list[int] = []

    @property
    def is_in_bulk(self) -> bool:
        """True while the driver lives and has begun a bulk mode that it has not ended."""
        return self._process is not None and self._process.is_alive and self._bulk.is_held

    def start(self, is_bulk: bool, on_end: Callable[[Any, BaseException | None], None]) -> Process:
        """Start the driver; returns its process."""
        self._process = Process(self._loop, self._drive(is_bulk), on_end)
        return self._process

    def _drive(self, is_bulk: bool) -> Steps:
        """Run the three passes in bulk mode or not; returns the report."""
        self._cluster.connect()
        if is_bulk:
            self._bulk.begin()
            Process(self._loop, self._renew(), lambda _value, _error: None)
        try:
            report = yield from self._ingest()
        except Exception:
            self._bulk.leave()
            raise
        while not self._bulk.try_end():
            yield self._loop.sleep(LOOK_S)
        yield self._loop.sleep(0.05)
        return report

    def _renew(self) -> Steps:
        """Renew the bulk mode in a thread of the driver, which may be killed in it."""
        while True:
            yield self._loop.sleep(RENEW_S)
            if not self.is_in_bulk:
                return
            try:
                self._bulk.renew()
            except Killed:
                if self._process is not None:
                    self._process.kill()
                raise

    def _ingest(self) -> Steps:
        points = self._server.points
        last_seq = max((payload["seq"] for payload in points.values()), default=0)
        was_empty = not points
        yield self._loop.sleep(0.05)
        splits = range(len(self._case.splits))
        yield from self._run(splits, self._read_keys)
        yield from self._run(range(self._partitions), self._write_repeats)
        report = Report()
        found = yield from self._run(
            splits, lambda task, attempt: self._write(task, last_seq, was_empty and attempt == 1)
        )
        for part in found.values():
            report.written += part.written
            report.unchanged += part.unchanged
            report.rejects += part.rejects
        return report

    def _run(self, tasks: Sequence[int], steps: Callable[[int, int], Steps]) -> Steps:
        """Run the tasks of a pass on the cluster; returns their results by task.

        A late result of an earlier pass must not count for a task of the same number, so each pass
        has an inbox of its own, as Ray has references of their own.
        """
        loop, cluster, inbox = self._loop, self._cluster, Inbox(self._loop)
        cluster.notify(inbox)
        board = self._decisions.board(tasks, _POLICY, loop.random.random, loop.now)
        results: dict[int, Any] = {}
        while not board.is_complete:
            while (slot := cluster.free_slot()) and (found := board.start(loop.now)):
                cluster.launch(slot, Attempt(*found, inbox), steps(*found))
            message = yield inbox.take(board.wait_s(loop.now) if slot else None)
            if message is None:
                continue
            kind, task, attempt, content = message
            if kind == "done":
                if board.finished(task):
                    results[task] = content
            elif kind == "failed":
                board.failed(task, attempt, content, loop.now)
            else:
                board.lost(task, attempt, loop.now)
        return results

    def _read_keys(self, split: int, attempt: int) -> Steps:  # noqa: ARG002  # any attempt
        """Pass 1: write the keys of a split by partition; each file appears when it is complete."""
        yield self._loop.sleep(self._duration(0.2))
        rows = [
            (pid_key(passage.pid), split, row)
            for row, passage in enumerate(self._case.splits[split])
            if passage is not None
        ]
        keys = np.array([key for key, _, _ in rows], dtype=KEY_TYPE)
        files: list[list[tuple[bytes, int, int]]] = [[] for _ in range(self._partitions)]
        for entry, partition in zip(rows, partitions_of(keys, self._partitions), strict=True):
            files[partition].append(entry)
        yield self._loop.sleep(self._duration(0.1))
        self._keys[split] = files
        self._arrived.append(split)

    def _write_repeats(self, partition: int, attempt: int) -> Steps:  # noqa: ARG002
        """Pass 2: find the repeats of a partition, in files of any order."""
        yield self._loop.sleep(self._duration(0.1))
        entries = [
            entry
            for split in dict.fromkeys(self._arrived)
            for entry in self._keys[split][partition]
        ]
        splits, rows = self._decisions.find_repeats(
            np.array([key for key, _, _ in entries], dtype=KEY_TYPE),
            np.array([split for _, split, _ in entries], dtype=np.uint32),
            np.array([row for _, _, row in entries], dtype=np.uint64),
        )
        yield self._loop.sleep(self._duration(0.1))
        self._repeats[partition] = list(zip(splits.tolist(), rows.tolist(), strict=True))

    def _write(self, split: int, last_seq: int, is_first: bool) -> Steps:
        """Pass 3: compare, encode and write the passages of a split."""
        skew = self._loop.random.uniform(-3600, 3600)
        clock = SeqClock(last_seq, lambda: int((self._loop.now + skew) * 1e9))
        repeats = {row for part in self._repeats.values() for of, row in part if of == split}
        report, rows = Report(), list(enumerate(self._case.splits[split]))
        for start in range(0, len(rows), 4):
            passages = []
            for row, passage in rows[start : start + 4]:
                if passage is None or row in repeats:
                    report.rejects.append((split, row))
                else:
                    passages.append(passage)
            yield from self._write_window(passages, clock, report, is_first)
        return report

    def _write_window(
        self, passages: list[Passage], clock: SeqClock, report: Report, is_first: bool
    ) -> Steps:
        stored: dict[Any, dict[str, Any]] = {}
        ids = [point_id(passage.pid) for passage in passages]
        if ids and not is_first:
            stored = yield from self._request(lambda: self._server.retrieve(ids))
        compare = SkipUnchanged(Snapshot(stored), was_empty=is_first, replicated=False)  # type: ignore[arg-type]
        diff = compare(Window(passages=passages))
        report.unchanged += diff.unchanged
        if not diff.encode:
            return
        yield self._loop.sleep(self._duration(0.5))
        if self._loop.chance(0.01):
            raise OSError("an error that passes")
        for part in _pairs(diff.encode):
            points = {point_id(one.pid): payload_of(one, clock.next()) for one in part}
            yield from self._request(lambda points=points: self._server.upsert(points))  # type: ignore[misc]
        report.written += len(diff.encode)

    def _request(self, send: Callable[[], Operation]) -> Steps:
        """Send a request until it is answered, for a bounded time."""
        ends, wait_s = self._loop.now + _RETRY_S, 0.1
        while True:
            try:
                return (yield send())
            except StoreUnavailableError:
                if self._loop.now + wait_s > ends:
                    raise
            yield self._loop.sleep(wait_s * self._loop.random.random())
            wait_s = min(2 * wait_s, 10)

    def _duration(self, seconds: float) -> float:
        """Draw how long some work takes; a straggler takes twenty times as long."""
        times = 20 if self._loop.chance(0.03) else 1
        return times * seconds * self._loop.random.uniform(0.5, 1.5)


def _pairs(passages: Sequence[Passage]) -> Iterable[Sequence[Passage]]:
    return (passages[start : start + 2] for start in range(0, len(passages), 2))
