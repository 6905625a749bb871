"""The limit of bytes over the whole spool (R3): what goes first, and what is reported."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from msmarco_qdrant.errors import SpoolError, UsageError
from msmarco_qdrant.service.interfaces import Backlog, BatchReport, SpoolUse
from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.service.spool.directory import Folder, SpoolDirectory
from msmarco_qdrant.service.spool.failed import FailedBatches
from msmarco_qdrant.service.spool.spool import Spool
from tests.service.spool.helpers import FailingDirectory, lease_next, names_in, write

LIMIT = 20_000
ROWS = [write("1", "x" * 2_000)]


def size_of(place: Path) -> int:
    """Bytes of all batches and reports of a spool."""
    folders = ("tmp", "incoming", "working", "done", "failed", "requeue")
    return sum(path.stat().st_size for name in folders for path in (place / name).iterdir())


def end_next(spool: Spool, *, failed: bool, rejected: int = 1) -> str:
    """Accept a batch and end it; done ones keep their file because of a rejected row."""
    id_ = spool.accept(ROWS)
    batch = lease_next(spool)
    if failed:
        spool.fail(batch, f"the reason of {id_}", BatchReport())
    else:
        spool.ack(batch, BatchReport(rejected=rejected))
    return id_


def test_r3_the_oldest_done_goes_first_then_the_oldest_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit holds after each batch; each failed one that is removed is logged and counted."""
    caplog.set_level(logging.ERROR)
    with Spool.open(tmp_path, max_bytes=LIMIT // 2, total_bytes=LIMIT) as spool:
        failed = [end_next(spool, failed=True) for _ in range(3)]
        done = [end_next(spool, failed=False) for _ in range(6)]
        assert size_of(tmp_path) == spool.use.bytes <= LIMIT
        assert [True] * 3 == [id_ in spool._archive for id_ in failed]
        kept = [id_ for id_ in done if id_ in spool._archive]
        assert 0 < len(kept) < 6
        assert done[-len(kept) :] == kept
        assert ([], 0) == (caplog.messages, spool.use.dropped)
        failed += [end_next(spool, failed=True) for _ in range(9)]
        assert size_of(tmp_path) == spool.use.bytes <= LIMIT
        assert [] == [id_ for id_ in done if id_ in spool._archive]
        left = [batch.id for batch in FailedBatches(tmp_path).list()]
        assert failed[-len(left) :] == left
        removed = failed[: -len(left)]
        assert (len(left), len(removed)) == (spool.use.failed, spool.use.dropped)
        assert len(removed) == len(caplog.messages)
        for id_, message in zip(removed, caplog.messages, strict=True):
            assert f"failed batch {id_} is removed" in message
            assert f"the reason of {id_}" in message


def test_r3_queued_batches_count(tmp_path: Path) -> None:
    """What waits is never removed: ended batches make place for it."""
    with Spool.open(tmp_path, max_bytes=LIMIT, total_bytes=LIMIT) as spool:
        for _ in range(5):
            end_next(spool, failed=False)
        ids = [spool.accept(ROWS) for _ in range(8)]
        assert size_of(tmp_path) <= LIMIT
        assert 8 == spool.depth == len([*(tmp_path / "incoming").iterdir()])
        assert ["queued"] * 8 == [state.state for id_ in ids if (state := spool.state(id_))]


def test_r3_a_smaller_limit_holds_from_the_start(tmp_path: Path) -> None:
    """Leftovers without a report, and reports without a file, count, too."""
    with Spool.open(tmp_path) as spool:
        for number in range(6):
            end_next(spool, failed=number % 2 == 0)
    for path in (*(tmp_path / "done").glob("*.json"), *(tmp_path / "failed").glob("*.ops.jsonl")):
        path.unlink()
        break
    with Spool.open(tmp_path, max_bytes=5_000, total_bytes=5_000) as spool:
        assert size_of(tmp_path) == spool.use.bytes <= 5_000
        assert [] == names_in(tmp_path / "done")


def test_r3_the_newest_failed_batch_stays(tmp_path: Path) -> None:
    """However large it is: its passages were accepted."""
    with Spool.open(tmp_path, max_bytes=2_500, total_bytes=2_500) as spool:
        first = end_next(spool, failed=True)
        assert [first] == [batch.id for batch in FailedBatches(tmp_path).list()]
        second = end_next(spool, failed=True)
        assert [second] == [batch.id for batch in FailedBatches(tmp_path).list()]
        assert 1 == spool.use.dropped


def test_r3_reports_without_rejects_are_bounded_too(tmp_path: Path) -> None:
    """Many small reports; the default is twice the most bytes of unfinished batches."""
    with Spool.open(tmp_path, max_bytes=3_000) as spool:
        for _ in range(40):
            end_next(spool, failed=False, rejected=0)
        assert size_of(tmp_path) == spool.use.bytes <= 6_000


def test_r3_a_limit_below_that_of_unfinished_batches_is_refused(tmp_path: Path) -> None:
    """Otherwise accepted batches alone could exceed it."""
    with pytest.raises(UsageError, match=r"spool_total_bytes must be spool_bytes \(10\) or more"):
        Spool.open(tmp_path, max_bytes=10, total_bytes=9)
    Spool.open(tmp_path).close()  # it was released


def test_r3_a_batch_that_cannot_be_removed_stays_for_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Accepting and ending go on; the next start removes it."""
    files = FailingDirectory(tmp_path)
    with Spool(files, max_bytes=4_500, total_bytes=4_500) as spool:
        end_next(spool, failed=True)
        files.fails = ["remove_ended"]
        end_next(spool, failed=True)
        assert any("stay for now" in message for message in caplog.messages)
        assert 2 == len(FailedBatches(tmp_path).list())
    with Spool.open(tmp_path, max_bytes=4_500, total_bytes=4_500) as spool:
        assert 1 == len(FailedBatches(tmp_path).list())


def test_r3_metrics_show_the_disk() -> None:
    """As read from the spool."""
    metrics = Metrics(lambda: Backlog(0, 0.0), spool_use=lambda: SpoolUse(7, 2, 3))
    lines = metrics.text().decode().splitlines()
    for expected in ("bytes 7.0", "failed 2.0", "failed_dropped_total 3.0"):
        assert f"msmarco_qdrant_spool_{expected}" in lines


# ---- requeue and purge -----------------------------------------------------------------------


def test_r3_a_requeued_batch_is_queued_once_by_a_running_spool(tmp_path: Path) -> None:
    """As the newest, under its id; its old report does not count any more."""
    with Spool.open(tmp_path) as spool:
        failed = [end_next(spool, failed=True) for _ in range(2)]
        waiting = spool.accept(ROWS)
        FailedBatches(tmp_path).requeue([failed[0]])
        assert [False, True] == [batch.is_requeued for batch in FailedBatches(tmp_path).list()]
        with pytest.raises(UsageError, match="must be a failed one"):
            FailedBatches(tmp_path).requeue([failed[0]])
        assert (1, 0) == (spool.readmit(), spool.readmit())
        state = spool.state(failed[0])
        assert state is not None
        assert ("queued", 1) == (state.state, spool.use.failed)
        assert size_of(tmp_path) == spool.use.bytes
        assert [waiting, failed[0]] == [lease_and_ack(spool) for _ in range(2)]
        state = spool.state(failed[0])
        assert state is not None
        assert ("done", 0) == (state.state, spool.bytes)
    with Spool.open(tmp_path) as spool:
        assert 0 == spool.depth


def test_r3_a_requeued_batch_may_fail_again(tmp_path: Path) -> None:
    """It is one failed batch with the new reason."""
    with Spool.open(tmp_path) as spool:
        id_ = end_next(spool, failed=True)
        FailedBatches(tmp_path).requeue([id_])
        spool.readmit()
        spool.fail(lease_next(spool), "again", BatchReport())
        (batch,) = FailedBatches(tmp_path).list()
        assert batch.state is not None
        assert (id_, "again", 1) == (batch.id, batch.state.reason, spool.use.failed)


@pytest.mark.parametrize("is_old", [False, True])
def test_r3_a_requeue_while_stopped_is_done_at_the_next_start(tmp_path: Path, is_old: bool) -> None:
    """Also in a spool that an earlier version made."""
    with Spool.open(tmp_path) as spool:
        id_ = end_next(spool, failed=True)
    if is_old:
        (tmp_path / "requeue").rmdir()
    FailedBatches(tmp_path).requeue([id_])
    with Spool.open(tmp_path) as spool:
        assert ([id_], 0) == ([lease_and_ack(spool)], spool.depth)
    assert [] == FailedBatches(tmp_path).list()


class DyingDirectory(SpoolDirectory):
    """Dies before one of the parts of a readmission."""

    at = ""

    def sync(self, folder: Folder) -> None:
        """Die, or go on."""
        if folder == self.at:
            raise SpoolError("dead")
        super().sync(folder)


@pytest.mark.parametrize("at", ["failed", "incoming", "requeue"])
def test_r3_a_crash_during_a_readmission_neither_loses_nor_doubles(tmp_path: Path, at: str) -> None:
    """At each of its parts."""
    with Spool.open(tmp_path) as spool:
        id_ = end_next(spool, failed=True)
    FailedBatches(tmp_path).requeue([id_])
    files = DyingDirectory(tmp_path)
    files.at = at
    with pytest.raises(SpoolError, match="dead"):
        Spool(files)
    files.close()
    with Spool.open(tmp_path) as spool:
        assert (1, 0) == (spool.depth, spool.use.failed)
        assert id_ == lease_and_ack(spool)
    assert [] == FailedBatches(tmp_path).list()
    with Spool.open(tmp_path) as spool:
        assert 0 == spool.depth


def test_r3_a_purged_batch_is_unknown_to_a_running_spool(tmp_path: Path) -> None:
    """It is not counted as removed by the limit."""
    with Spool.open(tmp_path, max_bytes=3_000, total_bytes=3_000) as spool:
        id_ = end_next(spool, failed=True)
        FailedBatches(tmp_path).purge([id_])
        assert spool.state(id_) is None
        end_next(spool, failed=True)
        end_next(spool, failed=True)
        assert 1 == spool.use.dropped
        assert size_of(tmp_path) <= 3_000


@pytest.mark.parametrize("done", [0, 2])
def test_r3_a_purge_makes_place_in_a_running_spool(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, done: int
) -> None:
    """The limit counts what is on the disk: nothing else is removed for batches that are gone."""
    caplog.set_level(logging.ERROR)
    with Spool.open(tmp_path, max_bytes=LIMIT // 2, total_bytes=LIMIT) as spool:
        kept = [end_next(spool, failed=False) for _ in range(done)]
        failed = [end_next(spool, failed=True) for _ in range(6 - done)]
        FailedBatches(tmp_path).purge(failed[1:])
        kept += failed[:1] + [end_next(spool, failed=True) for _ in range(5 - done)]
        assert [] == [id_ for id_ in kept if id_ not in spool._archive]
        assert ([], 0) == (caplog.messages, spool.use.dropped)


def test_r3_a_sweep_forgets_purged_batches(tmp_path: Path) -> None:
    """The counts of a running spool are those of the disk, also beside a requeue."""
    with Spool.open(tmp_path) as spool:
        failed = [end_next(spool, failed=True) for _ in range(4)]
        FailedBatches(tmp_path).purge(failed[:2])
        FailedBatches(tmp_path).requeue(failed[2:3])
        spool.sweep()
        assert (1, size_of(tmp_path)) == (spool.use.failed, spool.use.bytes)
        assert [failed[2]] == [lease_and_ack(spool)]
        FailedBatches(tmp_path).purge(failed[3:])
        spool.sweep()
        assert (0, size_of(tmp_path)) == (spool.use.failed, spool.use.bytes)


def lease_and_ack(spool: Spool) -> str:
    """The id of the next batch, which is done then."""
    batch = lease_next(spool)
    spool.ack(batch, BatchReport())
    return batch.id
