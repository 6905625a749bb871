"""Random faults of a server, then the same ingest again: every passage there once, none lost.

A seed decides what was stored before, how often which fault comes, when the server is restarted,
and whether the run prunes. Each call's fault follows from the seed, the call's name and its number
alone. What is asserted never depends on which of several threads comes first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import grpc  # type: ignore[import-untyped]
import pytest

from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.core.reports import IngestProgress, IngestReport
from msmarco_qdrant.errors import IngestStoppedError, MsmarcoQdrantError, StoreError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Connection
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import (
    Cut,
    Fault,
    LoopbackServer,
    LostAnswer,
    Refused,
    RestLoopbackServer,
    Slow,
)

PASSAGES = 240
QUICK_SEEDS, SLOW_SEEDS = range(2), range(2, 6)
SOAK_SCHEDULES = 300
RUNS_UNDER_FAULTS = 3
# Short, so that a fault that lasts ends a run soon; both are what a caller would set.
CONNECTION = Connection(timeout_s=0.25, retry_s=0.6, batch_points=16)
PATIENT = replace(CONNECTION, timeout_s=60.0, retry_s=120.0)
"""Where there are no faults, a machine that is busy is none either."""
CODES = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


def make_passages(seed: int, version: int) -> list[Passage]:
    """The source of a run; a later version has other texts, metas and pids here and there."""
    rng = random.Random(seed)
    passages = []
    for number in range(PASSAGES):
        words = " ".join(f"w{rng.randrange(900)}" for _ in range(8))
        changed = version > 0 and number % 7 == 0
        moved = version > 0 and number % 11 == 0
        passages.append(
            Passage(
                f"p{number}" if number % 3 else str(number),
                f"passage{number} {'new' if changed else 'old'} {words}",
                {"n": -number if moved else number},
            )
        )
    # The later version has lost some pids, few enough to be pruned, and won some.
    return (
        passages[20:] + [Passage(f"late{n}", f"late{n} word") for n in range(9)]
        if version
        else passages
    )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which call of a server gets which fault.

    Attributes:
        seed: What everything follows from.
        share: Share of the calls that get one.
    """

    seed: int
    share: float

    def __call__(self, rpc: str, number: int) -> Fault | None:
        """The fault of a call, or None."""
        rng = random.Random(f"{self.seed} {rpc} {number}")
        if rng.random() >= self.share:
            return None
        kind = rng.randrange(20)
        if kind < 8:
            return Refused(rng.choice(CODES))
        if kind < 9:
            return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=1)
        if kind < 13:
            return LostAnswer(rng.choice([None, grpc.StatusCode.UNAVAILABLE]))
        if kind < 17:
            return Cut(rng.randrange(4000))
        slow_s = CONNECTION.timeout_s * 2 if rpc == "Points.Upsert" else 0.01
        return Slow(slow_s, drop_if_cancelled=rng.random() < 0.5)


class Restarts:
    """Called with an ingest's progress: restarts the server now and then."""

    def __init__(self, server: LoopbackServer, seed: int) -> None:
        self._server = server
        self._rng = random.Random(f"restarts {seed}")

    def __call__(self, progress: IngestProgress) -> None:
        """Restart the server, if the seed wants it now."""
        if progress.stage == "passages" and self._rng.random() < 0.05:
            self._server.stop()
            self._server.start()


def ingest(
    server: LoopbackServer,
    passages: Sequence[Passage],
    *,
    prune: bool = False,
    on_progress: Callable[[IngestProgress], None] | None = None,
    connection: Connection = PATIENT,
) -> IngestReport:
    """The command of the histories."""
    return ingest_passages(
        passages,
        server.url,
        encoder=HashingEncoder(16, batch_size=40),
        window=64,
        connection=connection,
        prune=PrunePolicy() if prune else None,
        on_progress=on_progress,
    )


def stored(server: LoopbackServer) -> dict[str, tuple[str, object]]:
    """Every passage on the server, by pid; a pid that stands in two points is an error."""
    with server.inspect() as client:
        names = [entry.name for entry in client.get_collections().collections]
        records = []
        for name in names:
            found, _ = client.scroll(name, limit=10 * PASSAGES, with_payload=True)
            records += found
    payloads = [record.payload or {} for record in records]
    assert [] == [pid for pid, n in Counter(p["pid"] for p in payloads).items() if n > 1]
    return {payload["pid"]: (payload["text"], payload["meta"]) for payload in payloads}


def expected_of(passages: Sequence[Passage]) -> dict[str, tuple[str, object]]:
    """Text and meta of each passage."""
    return {passage.pid: (passage.text, passage.meta) for passage in passages}


def run_under_faults(
    server: LoopbackServer, passages: Sequence[Passage], seed: int, *, prune: bool
) -> int:
    """The same ingest, until it ends well or was stopped often enough; how often it was stopped."""
    wanted = expected_of(passages)
    restarts = Restarts(server, seed)
    for stops in range(RUNS_UNDER_FAULTS):
        hasty = partial(ingest, server, passages, prune=prune, connection=CONNECTION)
        error = error_of(partial(hasty, on_progress=restarts))
        server.settle()
        there = stored(server)
        if error is None:
            assert wanted == (there if prune else {pid: there[pid] for pid in wanted})
            return stops
        if isinstance(error, IngestStoppedError):
            right = sum(there.get(pid) == passage for pid, passage in wanted.items())
            assert right >= error.report.written + error.report.unchanged
            done = f"{error.report.written:,} passages were written"
            assert done in str(error) or (not there and "nothing was written" in str(error))
        else:  # before anything was read: the store could not be opened, or the collection made
            assert server.url in str(error)
    return RUNS_UNDER_FAULTS


def error_of(work: Callable[[], object]) -> IngestStoppedError | StoreError | None:
    """What some work raises of ours, or None."""
    try:
        work()
    except (IngestStoppedError, StoreError) as exc:
        return exc
    return None


def one_history(
    seed: int, new_server: Callable[[], LoopbackServer] = LoopbackServer
) -> tuple[int, int]:
    """What one seed says; returns the faults that were given and the runs that were stopped."""
    rng = random.Random(seed)
    before, passages = make_passages(seed, 0), make_passages(seed, 1)
    prune = rng.random() < 0.5
    with new_server() as server:
        if rng.random() < 0.6:
            ingest(server, before)
        kept = stored(server)
        server.faults.use(Schedule(seed, share=rng.choice([0.05, 0.2, 0.5, 0.9])))
        stops = run_under_faults(server, passages, seed, prune=prune)
        server.faults.clear()
        server.settle()
        report = ingest(server, passages, prune=prune)
        assert len(passages) == report.written + report.unchanged
        expected = expected_of(passages) if prune else {**kept, **expected_of(passages)}
        assert expected == stored(server)
        assert_found(server, rng.sample(passages, 20))
        return len(server.faults.given), stops


def assert_found(server: LoopbackServer, chosen: Sequence[Passage]) -> None:
    """Passages are found by their own words, so their vectors are those of their texts."""
    with SearchClient.open(server.url, encoder=HashingEncoder(16)) as client:
        answers = client.search_many([passage.text for passage in chosen], limit=1)
    assert [1.0] * len(chosen) == pytest.approx([answer[0].score for answer in answers], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [QUICK_SEEDS, SLOW_SEEDS], ids=str)
def test_faults_and_run_again(seeds: range) -> None:
    """Each history ends in exactly the source; there must be faults, and stopped runs."""
    histories = [one_history(seed) for seed in seeds]
    assert sum(faults for faults, _ in histories) > 10 * len(seeds)
    assert sum(stops for _, stops in histories) > 0


@pytest.mark.slow
def test_v11_faults_over_rest_and_run_again() -> None:
    """The same histories, by the other transport."""
    histories = [one_history(seed, RestLoopbackServer) for seed in QUICK_SEEDS]
    assert sum(faults for faults, _ in histories) > 10 * len(QUICK_SEEDS)


@pytest.mark.soak
def test_soak_schedules() -> None:
    """300 histories from a random seed on."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\nseeds from {first}")
    histories = [one_history(first + index) for index in range(SOAK_SCHEDULES)]
    faults, stops = (sum(column) for column in zip(*histories, strict=True))
    print(f"{faults} faults and {stops} stopped runs in {SOAK_SCHEDULES} schedules from {first}")


@pytest.mark.slow
def test_a_fault_that_lasts_ends_in_an_error_that_says_how_far_it_got() -> None:
    """What was written before the writes failed is told, and running again finishes the work."""
    passages = make_passages(1, 0)

    def after_ten(rpc: str, number: int) -> Fault | None:
        lasting = rpc == "Points.Upsert" and number > 10
        return Refused(grpc.StatusCode.UNAVAILABLE) if lasting else None

    with LoopbackServer() as server:
        server.faults.use(after_ten)
        gives_up_soon = replace(PATIENT, retry_s=CONNECTION.retry_s)
        with pytest.raises(IngestStoppedError, match="written; the same ingest resumes") as stopped:
            ingest(server, passages, connection=gives_up_soon)
        report = stopped.value.report
        assert 0 < report.written < PASSAGES
        assert isinstance(stopped.value.__cause__, MsmarcoQdrantError)
        server.faults.clear()
        again = ingest(server, passages)
        assert report.written <= again.unchanged
        assert expected_of(passages) == stored(server)
