"""The spool and its disk: what a 202 stands for, and a disk that fails or is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.interfaces import BatchReport
from msmarco_qdrant.service.spool.directory import Folder, SpoolDirectory
from msmarco_qdrant.service.spool.spool import Spool
from tests.service.spool.helpers import (
    LONG_S,
    FailingDirectory,
    ack_all,
    ack_next,
    delete,
    lease_next,
    names_in,
    state_of,
)


class PowerCuts(SpoolDirectory):
    """Knows what a power cut would leave; one sync can be held.

    Args:
        path: The directory.
        held: The number of the sync of `incoming` that waits for `let`, counted from 1.
        after: Whether it waits after it has looked at what it makes durable, not before.

    Attributes:
        durable: The ids of the batches that were made durable.
        reached: Set when that sync has begun.
        let: Lets it go on.
    """

    def __init__(self, path: Path, held: int, *, after: bool) -> None:
        self._held, self._after = held, after
        self._syncs = 0
        self.durable: set[str] = set()
        self.reached, self.let = threading.Event(), threading.Event()
        super().__init__(path)

    def sync(self, folder: Folder) -> None:
        """Make durable what is there when it begins, and no more."""
        self._syncs += 1
        is_held = self._syncs == self._held
        if is_held and not self._after:
            self._wait()
        there = {name.id for name in self.batches("incoming")}
        if is_held and self._after:
            self._wait()
        super().sync(folder)
        self.durable |= there

    def _wait(self) -> None:
        self.reached.set()
        assert self.let.wait(LONG_S)


@pytest.mark.parametrize("after", [False, True])
def test_what_was_accepted_is_durable_in_any_order(tmp_path: Path, after: bool) -> None:
    """A batch whose sync takes long is not told of before its end; a later one is, if it is."""
    files = PowerCuts(tmp_path, held=1, after=after)
    with Spool(files) as spool, ThreadPoolExecutor() as threads:
        slow = threads.submit(spool.accept, [delete("1")])
        assert files.reached.wait(LONG_S)
        second = spool.accept([delete("2")])
        assert second in files.durable
        assert (2, False) == (spool.depth, slow.done())
        assert sum(path.stat().st_size for path in (tmp_path / "incoming").iterdir()) == spool.bytes
        files.let.set()
        first = slow.result(LONG_S)
        assert {first, second} == files.durable
        assert [first, second] == ack_all(spool)


def test_a_batch_may_be_done_before_its_sender_is_told(tmp_path: Path) -> None:
    """Nothing is lost by that: it is only told later."""
    files = PowerCuts(tmp_path, held=1, after=False)
    with Spool(files) as spool, ThreadPoolExecutor() as threads:
        slow = threads.submit(spool.accept, [delete("1")])
        assert files.reached.wait(LONG_S)
        done = ack_next(spool)
        files.let.set()
        assert done.id == slow.result(LONG_S)
        assert ("done", 0) == (state_of(spool, done.id).state, spool.bytes)


def test_a_directory_that_cannot_be_synced(tmp_path: Path) -> None:
    """The sender has an error, and the batch is in the queue once; sent again it is there twice."""
    files = FailingDirectory(tmp_path)
    with Spool(files) as spool:
        files.fails = ["sync incoming"]
        with pytest.raises(SpoolError, match="No space"):
            spool.accept([delete("1")])
        size = spool.bytes
        assert (1, []) == (spool.depth, names_in(tmp_path / "tmp"))
        again = spool.accept([delete("1")])
        assert 2 * size == spool.bytes
        batch = ack_next(spool)
        assert (again, 0, 0) == (ack_next(spool).id, spool.depth, spool.bytes)
        assert "done" == state_of(spool, batch.id).state


@pytest.mark.parametrize("operation", ["reserve_sequence", "move_in"])
def test_what_cannot_be_accepted_leaves_nothing(tmp_path: Path, operation: str) -> None:
    """No file, no room held, no place in the queue; the next one is accepted."""
    files = FailingDirectory(tmp_path)
    with Spool(files) as spool:
        files.fails = [operation]
        with pytest.raises(SpoolError):
            spool.accept([delete("1")])
        assert (0, 0, []) == (spool.depth, spool.bytes, names_in(tmp_path / "tmp"))
        assert [spool.accept([delete("1")])] == ack_all(spool)


@pytest.mark.parametrize("folder", ["working", "incoming"])
def test_what_cannot_be_taken_stays_first(tmp_path: Path, folder: str) -> None:
    """Nothing overtakes it, whichever part of the move fails."""
    files = FailingDirectory(tmp_path)
    with Spool(files) as spool:
        ids = [spool.accept([delete("1")]) for _ in range(2)]
        files.fails = [f"sync {folder}"]
        with pytest.raises(SpoolError):
            spool.lease()
        assert ("queued", 2) == (state_of(spool, ids[0]).state, spool.depth)
        assert ids == ack_all(spool)


@pytest.mark.parametrize("operation", ["write_reports", "remove", "sync working", "remove_ended"])
def test_an_end_that_cannot_be_written_down_is_repeated(tmp_path: Path, operation: str) -> None:
    """Who waits is told once, when it is; nothing counts twice."""
    files = FailingDirectory(tmp_path)
    with Spool(files, keep_done=1) as spool:
        spool.accept([delete("0")])
        ack_next(spool)
        outcome = spool.outcome(spool.accept([delete("1")]))
        batch = lease_next(spool)
        files.fails = [operation]
        with pytest.raises(SpoolError):
            spool.ack(batch, BatchReport(deleted=1))
        assert outcome is not None
        assert (False, 1) == (outcome.done(), spool.depth)
        spool.ack(batch, BatchReport(deleted=1))
        assert 1 == outcome.result(LONG_S).report.deleted
        assert "done" == state_of(spool, batch.id).state
        assert (0, 0, []) == (spool.depth, spool.bytes, names_in(tmp_path / "working"))


@pytest.mark.parametrize("operation", ["reserve_sequence", "move_in"])
def test_a_disk_that_stalls_while_a_batch_comes_in(tmp_path: Path, operation: str) -> None:
    """Whoever asks for what is in memory has an answer; whoever waits for a batch may leave."""
    with Spool.open(tmp_path) as spool:
        first = spool.accept([delete("1")])
    files, reached, let = FailingDirectory(tmp_path), threading.Event(), threading.Event()

    def stall() -> None:
        reached.set()
        assert let.wait(LONG_S)

    with Spool(files) as spool, ThreadPoolExecutor() as threads:
        outcome = spool.outcome(first)
        files.hooks[operation] = stall
        slow = threads.submit(spool.accept, [delete("2")])
        assert reached.wait(LONG_S)
        asked = threads.submit(lambda: (spool.oldest_age_s >= 0, spool.depth, spool.state(first)))
        left = threads.submit(outcome.cancel) if outcome else slow
        try:
            assert (True, 1, state_of(spool, first)) == asked.result(LONG_S)
            assert left.result(LONG_S)
        finally:
            let.set()
        assert [first, slow.result(LONG_S)] == ack_all(spool)


_FULL = """
import json, resource, sys
from pathlib import Path
from msmarco_qdrant.errors import SpoolError
from msmarco_qdrant.service.interfaces import BatchReport
from msmarco_qdrant.service.spool.spool import Spool
from tests.service.spool.helpers import TwoFileSystems, delete

root = Path(sys.argv[1])

def refused(act):
    try:
        act()
    except SpoolError as exc:
        return str(exc)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

with Spool(TwoFileSystems(root / "spool")) as spool:
    spool.accept([delete("1")])
    limit(100)
    told = [refused(lambda: spool.accept([delete("2")] * 1000))]
    told.append(refused(lambda: spool.accept_file(root / "far.tsv")))
    batch = spool.lease()
    told.append(refused(lambda: spool.ack(batch, BatchReport())))
    left = [spool.depth, len([*(root / "spool" / "tmp").iterdir()])]
    limit(resource.RLIM_INFINITY)
    spool.ack(batch, BatchReport())
    (claimed,) = root.glob(".*.taken")
    spool.accept_file(claimed)
    left += [spool.depth, spool.bytes]
print(json.dumps([told, left]))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """Each door and each end says so, and leaves nothing; with room again, they go on."""
    (tmp_path / "far.tsv").write_text("1\ttext\n" * 100)
    root = Path(__file__).parent.parent.parent.parent
    ran = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        check=True,
        text=True,
    )
    told, left = json.loads(ran.stdout)
    assert ["cannot write"] * 3 == [message[:12] for message in told]
    assert "File too large; nothing was accepted" in told[0]
    assert "free disk space" in told[2]
    assert [1, 0, 1, 700] == left


def test_a_spool_that_cannot_be(tmp_path: Path) -> None:
    """The message names the place, and says what is needed."""
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"file.*needs a writable directory"):
        Spool.open(tmp_path / "file")
