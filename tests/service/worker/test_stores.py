"""The worker over a server that fails, goes away and comes back."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest

from msmarco_qdrant.service.spool.files import Row
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.stores import Connection, Store, open_store
from tests.loopback import Cut, Fault, LoopbackServer, LostAnswer, Refused, Slow
from tests.service.spool.helpers import (
    LONG_S,
    RecordedEvents,
    delete,
    ended,
    running_worker,
    state_of,
    texts_in,
    write,
)

HURRIED = Connection(timeout_s=LONG_S, retry_s=0.05, batch_points=4)
"""Gives up soon, so that it is the worker that tries again."""
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))]
BATCHES = 5
PIDS = 12


@pytest.fixture
def store(server: LoopbackServer) -> Iterator[Store]:
    """A handle that gives up soon."""
    with closing(open_store(server.url, connection=HURRIED)) as opened:
        yield opened


def test_a_server_that_goes_away_in_the_middle_of_a_batch(
    server: LoopbackServer, store: Store, spool: Spool
) -> None:
    """Nothing overtakes; when it is back the batch is done, once, and then its delete is."""
    rows = [write(str(number), f"text {number}") for number in range(20)]
    third, calls = threading.Event(), [0]

    def hold_the_third(rpc: str, _number: int) -> Fault | None:
        calls[0] += rpc == "Points.Upsert"
        if rpc != "Points.Upsert" or calls[0] != 3:
            return None
        third.set()
        return Slow(LONG_S)

    server.faults.use(hold_the_third)
    events = RecordedEvents()
    ids = [spool.accept(rows), spool.accept([delete("3")]), spool.accept([write("4", "new")])]
    with running_worker(spool, store, events=events):
        assert third.wait(LONG_S)
        server.stop()
        assert ids[0] == events.next_failure()[0]
        assert ids[0] == events.next_failure()[0]
        assert ["working"] * 3 == [state_of(spool, id_).state for id_ in ids]
        assert [] == events.states
        server.start()
        reports = [ended(spool, id_).report for id_ in ids]
        assert [(20, 0), (0, 1), (1, 0)] == [
            (one.written + one.unchanged, one.deleted) for one in reports
        ]
        expected = {str(number): f"text {number}" for number in range(20)} | {"4": "new"}
        assert {pid: text for pid, text in expected.items() if pid != "3"} == texts_in(store)
    assert ids == [state.batch for state in events.states]


def test_an_answer_that_is_lost_counts_once(
    server: LoopbackServer, store: Store, spool: Spool
) -> None:
    """What was written by an attempt that failed is there, and is not written twice."""
    first = spool.accept([write("0", "nought")])
    with running_worker(spool, store):
        ended(spool, first)
        server.faults.inject(LostAnswer(UNAVAILABLE), "Points.Upsert", times=20)
        report = ended(spool, spool.accept([write("1", "one"), write("2", "two")])).report
        assert 2 == report.written + report.unchanged
        assert {"0": "nought", "1": "one", "2": "two"} == texts_in(store)


# ---- random histories ----------------------------------------------------------------------


class Schedule:
    """Which call gets which fault: by a seed, the call's name and its number alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._share = random.Random(seed).choice([0.02, 0.05, 0.1])

    def __call__(self, rpc: str, number: int) -> Fault | None:
        """The fault of a call, or None."""
        rng = random.Random(f"{self._seed} {rpc} {number}")
        if rng.random() >= self._share:
            return None
        codes = (UNAVAILABLE, grpc.StatusCode.ABORTED)
        faults: list[Fault] = [
            Refused(rng.choice(codes)),
            LostAnswer(rng.choice([None, UNAVAILABLE])),
            Cut(rng.randrange(2000)),
        ]
        return rng.choice(faults)


def random_rows(rng: random.Random, number: int) -> list[Row]:
    """A batch of writes and deletes."""
    rows: list[Row] = []
    for place in range(rng.randrange(1, 2 * PIDS)):
        pid = str(rng.randrange(PIDS))
        is_delete = rng.random() < 0.4
        rows.append(delete(pid) if is_delete else write(pid, f"text {number} {place}"))
    return rows


def apply(rows: list[Row], passages: dict[str, str]) -> None:
    """What a batch does to a dictionary."""
    for row in rows:
        if row["op"] == "delete":
            passages.pop(row["pid"], None)
        else:
            passages[row["pid"]] = row["text"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_random_histories(tmp_path: Path, server: LoopbackServer, store: Store, seed: int) -> None:
    """Writes, deletes, faults, stops and restarts: in the end, what an oracle says, done once."""
    rng = random.Random(seed)
    batches = [random_rows(rng, number) for number in range(BATCHES)]
    expected: dict[str, str] = {}
    server.faults.inject(Refused(UNAVAILABLE))
    server.faults.use(Schedule(seed))
    events, ids = RecordedEvents(), []
    for part in (batches[: BATCHES // 2], batches[BATCHES // 2 :]):
        with Spool.open(tmp_path) as spool, running_worker(spool, store, events=events):
            for rows in part:
                ids.append(spool.accept(rows))
                apply(rows, expected)
            ended(spool, ids[rng.randrange(len(ids))])
            if rng.random() < 0.3:
                server.stop()
                server.start()
    server.faults.clear()
    with Spool.open(tmp_path) as spool, running_worker(spool, store, events=events):
        assert {"done"} == {ended(spool, id_).state for id_ in ids}
        assert expected == texts_in(store)
    assert ids == [state.batch for state in events.states]
    assert server.faults.given
