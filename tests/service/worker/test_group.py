"""Batches that wait are applied together, each with the effect and report that it has alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError, SpoolError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.service.interfaces import BatchReport
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.worker.worker import WorkerSettings
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder
from tests.service.spool.helpers import (
    LONG_S,
    FailingDirectory,
    delete,
    ended,
    names_in,
    running_worker,
    texts_in,
    write,
)

ALONE = WorkerSettings(first_wait_s=0.001, max_wait_s=0.01, shared_passages=0)
TOGETHER = WorkerSettings(first_wait_s=0.001, max_wait_s=0.01)


class Counting(HashingEncoder):
    """Keeps the sizes of its calls; fails for a text of more than 20 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Encode, or fail."""
        self.calls.append(len(passages))
        if passages.lengths.max() > 20:
            raise EncodingError("too long")
        yield from super().encode_passages(passages)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A collection with one passage."""
    with closing(open_store(tmp_path / "store", create=True)) as opened:
        fill(opened)
        yield opened


def fill(store: Store) -> None:
    """Create the collection: batches are applied together only once it exists."""
    ingest_passages([Passage("0", "zero")], store, encoder=HashingEncoder(), optimize=False)


def counts(report: BatchReport) -> dict[str, Any]:
    """A report without its time."""
    names = ("written", "unchanged", "rejected", "deleted", "superseded", "rejects")
    return {name: getattr(report, name) for name in names}


def test_waiting_batches_share_one_write(spool: Spool, store: Store) -> None:
    """Twenty batches of ten, each with its report; a batch of an earlier pid is the next write."""
    ids = [
        spool.accept([write(f"{batch}-{row}", f"text {batch} {row}") for row in range(10)])
        for batch in range(20)
    ]
    again = spool.accept([write("3-3", "new"), delete("0")])
    encoder = Counting()
    with running_worker(spool, store, encoder):
        assert [(10, 0)] * 20 == [
            (report.written, report.superseded) for report in (ended(spool, i).report for i in ids)
        ]
        assert (1, 1) == (ended(spool, again).report.written, ended(spool, again).report.deleted)
    assert [200, 1] == encoder.calls
    assert 200 == len(texts_in(store))
    assert "new" == texts_in(store)["3-3"]


@pytest.mark.parametrize("seed", range(3))
def test_reports_and_passages_are_those_of_batches_alone(seed: int, tmp_path: Path) -> None:
    """Random writes, repeats, deletes and rejects."""
    rng = random.Random(seed)
    batches = [[_row(rng) for _ in range(rng.randint(0, 6))] for _ in range(60)]
    found = [_apply(tmp_path / name, batches, how) for name, how in HOWS]
    assert found[0] == found[1]


HOWS = (("alone", ALONE), ("together", TOGETHER))


def _row(rng: random.Random) -> Any:
    pid = str(rng.randint(0, 60))
    kind = rng.random()
    if kind < 0.2:
        return delete(pid)
    return {"op": "what"} if kind < 0.25 else write(pid, f"text {rng.randint(0, 3)}")


def _apply(
    place: Path, batches: Sequence[list[Any]], settings: WorkerSettings
) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, str]]:
    """Apply batches that wait already; return their states and the passages."""
    with (
        Spool.open(place / "spool") as spool,
        closing(open_store(place / "store", create=True)) as store,
    ):
        fill(store)
        ids = [spool.accept(rows) for rows in batches]
        with running_worker(spool, store, settings=settings):
            states = [ended(spool, id_) for id_ in ids]
        return [(state.state, counts(state.report)) for state in states], texts_in(store)


def test_a_batch_that_fails_does_not_fail_the_others(spool: Spool, store: Store) -> None:
    """Each of its group is then alone, in its order."""
    texts = ["one", "two", "too long " * 20, "four"]
    ids = [spool.accept([write(str(number), text)]) for number, text in enumerate(texts, 1)]
    with running_worker(spool, store, Counting()):
        states = [ended(spool, id_).state for id_ in ids]
    assert ["done", "done", "failed", "done"] == states
    assert {"0": "zero", "1": "one", "2": "two", "4": "four"} == texts_in(store)


def test_a_deletion_that_fails_leaves_earlier_batches_done(spool: Spool, store: Store) -> None:
    """What the group wrote counts for the batch that is applied again."""
    payload = {"pid": "of another", "text": "precious", "seq": 1}
    store.collection("msmarco").replace_payloads([point_id("0")], [payload])
    rows = [[write("1", "one")], [write("2", "two"), delete("0")], [write("3", "three")]]
    ids = [spool.accept(batch) for batch in rows]
    with running_worker(spool, store):
        states = [ended(spool, id_) for id_ in ids]
    assert ["done", "failed", "done"] == [state.state for state in states]
    assert [1, 1, 1] == [state.report.written for state in states]


@pytest.mark.parametrize("operation", ["write_reports", "remove", "sync working"])
def test_a_disk_that_fails_ends_no_batch_twice(
    operation: str, tmp_path: Path, store: Store
) -> None:
    """The reports are written again; each batch ends once."""
    files = FailingDirectory(tmp_path / "failing")
    with Spool(files) as spool:
        ids = [spool.accept([write(str(number), "text")]) for number in range(5)]
        files.fails = [operation]
        with running_worker(spool, store):
            assert ["done"] * 5 == [ended(spool, id_).state for id_ in ids]
        assert [] == names_in(tmp_path / "failing" / "working")
        assert 0 == spool.depth == spool.bytes


def test_batches_in_hand_are_leased_first_after_a_kill(tmp_path: Path, store: Store) -> None:
    """In their order, before those that were not leased."""
    with Spool.open(tmp_path / "killed") as spool:
        ids = [spool.accept([write("1", f"text {number}")]) for number in range(4)]
        assert spool.lease() is not None
        assert 2 == len(spool.lease_waiting(2, 1 << 20))
    with Spool.open(tmp_path / "killed") as again:
        assert ids == [again.state(id_).batch for id_ in ids if again.state(id_)]  # type: ignore[union-attr]
        with running_worker(again, store):
            assert ["done"] * 4 == [ended(again, id_).state for id_ in ids]
    assert "text 3" == texts_in(store)["1"]


def test_a_stop_requeues_a_group_in_its_order(spool: Spool, store: Store) -> None:
    """None is lost, and none is applied by half: a later worker applies all."""
    ids = [spool.accept([write("1", f"text {number}")]) for number in range(3)]
    ids += [spool.accept([write(str(number), "text")]) for number in range(2, 6)]
    reached = threading.Event()

    class Stopping(HashingEncoder):
        def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
            reached.set()
            worker.interrupt()
            yield from super().encode_passages(passages)

    with running_worker(spool, store, Stopping()) as worker:
        assert reached.wait(LONG_S)
        worker.stop(LONG_S)
    assert ids == [state.batch for state in reversed(spool.recent(10))]


def test_leases_are_bounded(spool: Spool) -> None:
    """By their number and by the bytes of their files."""
    size = 0
    for number in range(6):
        spool.accept([write(str(number), "text")])
        size = size or spool.bytes
    assert 2 == len(spool.lease_waiting(2, 10 * size))
    assert 3 == len(spool.lease_waiting(9, 3 * size))
    assert [] == [*spool.lease_waiting(9, size - 1)]
    spool.stop_leasing()
    assert [] == [*spool.lease_waiting(9, 10 * size)]


def test_files_that_cannot_be_moved_stay_in_their_order(tmp_path: Path) -> None:
    """A failed lease leaves the queue as it was."""
    files = FailingDirectory(tmp_path / "failing")
    with Spool(files) as spool:
        ids = [spool.accept([write(str(number), "text")]) for number in range(3)]
        files.fails = ["sync working"]
        with pytest.raises(SpoolError):
            spool.lease_waiting(9, 1 << 20)
        assert ids == [batch.id for batch in spool.lease_waiting(9, 1 << 20)]
