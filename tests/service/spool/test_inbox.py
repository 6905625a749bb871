"""The inbox: which files become batches, in which order, and what happens to the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import pytest

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.service.interfaces import BatchId
from msmarco_qdrant.service.spool.inbox import Inbox
from msmarco_qdrant.service.spool.spool import Spool
from tests.service.spool.helpers import (
    LONG_S,
    TwoFileSystems,
    ack_all,
    ack_next,
    log_event,
    log_fields,
    names_in,
)

_ROWS = "1\ttext\n"
_FOREVER_S = 1e6


def _drop(folder: Path, *names: str, text: str = _ROWS) -> None:
    """Put files there as a writer does: whole, then renamed."""
    for name in names:
        (folder / ".new").write_text(text)
        (folder / ".new").rename(folder / name)


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """An inbox's directory."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def _texts(spool: Spool, folder: Path) -> list[str]:
    """The batches that wait, each as its text, in their order."""
    places = sorted((folder / "incoming").iterdir())
    assert spool.depth == len(places)
    return [place.read_text() for place in places]


def test_files_come_in_by_their_names(tmp_path: Path, box: Path) -> None:
    """Whenever they were put there; each is a batch of its form, capitals or not."""
    names = ["b.tsv", "a.jsonl", "C.TSV", "c.ndjson.gz", "d.ops.jsonl", "e.parquet"]
    for name in names:
        _drop(box, name, text=name)
    with Spool.open(tmp_path / "spool") as spool:
        assert 6 == Inbox(box, spool).sweep()
        assert sorted(names) == _texts(spool, tmp_path / "spool")
        assert [] == names_in(box)
        forms = [ack_next(spool).name.form for _ in names]
        assert ["tsv", "jsonl", "tsv", "ndjson.gz", "ops.jsonl", "parquet"] == forms
        assert 0 == Inbox(box, spool).sweep()


def test_what_is_not_whole_or_not_ours_stays(
    tmp_path: Path, box: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is being written silently, anything else with a word in the log, once."""
    _drop(box, ".a.tsv", "a.tsv.tmp", "a.tsv.part", "a.txt", "tsv", "b.tsv.zip")
    _drop(tmp_path, "elsewhere.tsv")
    (box / "link.tsv").symlink_to(tmp_path / "elsewhere.tsv")
    (box / "nowhere.tsv").symlink_to(tmp_path / "nowhere.tsv")
    (box / "folder.tsv").mkdir()
    os.mkfifo(box / "pipe.tsv")
    there = names_in(box)
    with Spool.open(tmp_path / "spool") as spool:
        inbox = Inbox(box, spool)
        assert (0, 0, 0) == (inbox.sweep(), inbox.sweep(), spool.depth)
    assert there == names_in(box)
    told = sorted(record.getMessage().split()[0] for record in caplog.records)
    expected = ["a.txt", "tsv", "b.tsv.zip", "link.tsv", "nowhere.tsv", "folder.tsv", "pipe.tsv"]
    assert sorted(expected) == told


def test_a_full_spool(tmp_path: Path, box: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files wait in their order, which is told once; they come in as batches are done."""
    _drop(box, "a.tsv", "b.tsv", "c.tsv")
    with Spool.open(tmp_path / "spool", max_batches=2) as spool:
        inbox = Inbox(box, spool)
        assert (2, 0, 0) == (inbox.sweep(), inbox.sweep(), inbox.sweep())
        assert ["c.tsv"] == names_in(box)
        assert ["the inbox waits: the spool holds 2 batches"] == [
            record.getMessage()[:42] for record in caplog.records if record.levelname == "WARNING"
        ]
        ack_next(spool)
        assert (1, []) == (inbox.sweep(), names_in(box))


def test_a_name_may_be_used_again(tmp_path: Path, box: Path) -> None:
    """At once, with the same content: it is another batch, from near and from far."""
    with Spool(TwoFileSystems(tmp_path / "spool")) as spool:
        inbox = Inbox(box, spool)
        for _ in range(3):
            _drop(box, "a.tsv", "far.tsv")
            assert 2 == inbox.sweep()
        assert 6 == len(set(ack_all(spool)))


def test_an_inbox_that_has_gone(
    tmp_path: Path, box: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once; when it is there again, it goes on."""
    with Spool.open(tmp_path / "spool") as spool:
        inbox = Inbox(box, spool)
        box.rmdir()
        assert (0, 0) == (inbox.sweep(), inbox.sweep())
        assert 1 == len(caplog.records)
        box.mkdir()
        _drop(box, "a.tsv")
        assert 1 == inbox.sweep()


def test_a_place_that_cannot_be_an_inbox(tmp_path: Path) -> None:
    """The error names it; folders that are not there are made."""
    (tmp_path / "file").touch()
    with Spool.open(tmp_path / "spool") as spool:
        for place in ("file", "file/inbox"):
            with pytest.raises(SourceError, match=f"inbox .*{place}"):
                Inbox(tmp_path / place, spool)
        Inbox(tmp_path / "deep" / "inbox", spool)
    assert (tmp_path / "deep" / "inbox").is_dir()


class Odd(Spool):
    """A spool that raises what it is told to for some files.

    Attributes:
        errors: What, by their names.
        seen: The names of those it took.
        woken: Called with the name of each that it is to take.
        has_taken: Released after each file.
    """

    errors: dict[str, Exception]
    seen: list[str]
    woken: Callable[[str], object]
    has_taken: threading.Semaphore

    def accept_file(self, path: str | PathLike[str]) -> BatchId:
        """Take it, or raise."""
        name = Path(path).name
        self.woken(name)
        if name in self.errors:
            raise self.errors[name]
        self.seen.append(name)
        batch = super().accept_file(path)
        self.has_taken.release()
        return batch


def _odd(folder: Path, **errors: Exception) -> Odd:
    spool = Odd(TwoFileSystems(folder))
    spool.errors = {f"{name}.tsv": error for name, error in errors.items()}
    spool.seen, spool.woken, spool.has_taken = [], str, threading.Semaphore(0)
    return spool


def test_a_file_that_cannot_be_read(
    tmp_path: Path, box: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others come in all the same; it is told once, and tried again."""
    _drop(box, "a.tsv", "b.tsv", "c.tsv")
    with _odd(tmp_path / "spool", b=SourceError("cannot read b.tsv: Permission denied")) as spool:
        inbox = Inbox(box, spool)
        assert (2, 0) == (inbox.sweep(), inbox.sweep())
        told = [record for record in caplog.records if record.levelname == "WARNING"]
        assert ["cannot read b.tsv" in record.getMessage() for record in told] == [True]
        spool.errors.clear()
        assert (1, []) == (inbox.sweep(), names_in(box))


@pytest.mark.parametrize(
    ("interval_s", "names"), [(_FOREVER_S, ["a.tsv"]), (1e-3, ["a.tsv", "b.tsv"])]
)
def test_its_thread_sweeps(tmp_path: Path, box: Path, interval_s: float, names: list[str]) -> None:
    """At once and then periodically, until it is stopped, which may also precede its start."""
    with _odd(tmp_path / "spool") as spool:
        Inbox(box, spool).stop()
        inbox = Inbox(box, spool, interval_s=interval_s)
        for number, name in enumerate(names):
            _drop(box, name)
            if number == 0:
                inbox.start()
            assert spool.has_taken.acquire(timeout=LONG_S)
        inbox.stop()
        _drop(box, "z.tsv")
        assert (0, ["z.tsv"], len(names)) == (inbox.sweep(), names_in(box), spool.depth)


def test_stop_waits_for_the_file_in_hand_alone(tmp_path: Path, box: Path) -> None:
    """Those after it stay for the next start."""
    _drop(box, "a.tsv", "b.tsv")
    with _odd(tmp_path / "spool") as spool:
        inbox = Inbox(box, spool, interval_s=_FOREVER_S)
        stopping: list[threading.Thread] = []

        def stop(_name: str) -> None:
            stopping.append(threading.Thread(target=inbox.stop))
            stopping[0].start()
            assert inbox._sweeper._stopping.wait(LONG_S)

        spool.woken = stop
        inbox.start()
        inbox._sweeper._thread.join(LONG_S)
        stopping[0].join(LONG_S)
        assert (["a.tsv"], ["b.tsv"]) == (spool.seen, names_in(box))


def test_a_fault_of_ours_does_not_end_it(
    tmp_path: Path, box: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told with its trace, and the next look goes on."""
    _drop(box, "a.tsv")
    with _odd(tmp_path / "spool", a=ZeroDivisionError("a bug")) as spool:
        inbox = Inbox(box, spool, interval_s=0.001)
        with log_event("msmarco_qdrant.service.spool.sweeper") as told:
            inbox.start()
            assert told.wait(LONG_S)
        spool.errors = {}
        assert spool.has_taken.acquire(timeout=LONG_S)
        inbox.stop()
        assert ["a.tsv"] == spool.seen
    assert "failed unexpectedly" in caplog.text
    assert "ZeroDivisionError: a bug" in caplog.text


def test_what_was_on_its_way_comes_in_first(
    tmp_path: Path, box: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a far file, whatever its name is and that of others; it is told of once until then."""
    _drop(box, "far.tsv", text=(rows := "7\tseven\n"))
    (tmp_path / "spool").mkdir()
    with Spool(TwoFileSystems(tmp_path / "spool")) as spool:
        inbox = Inbox(box, spool)
        (tmp_path / "spool" / "tmp").rmdir()
        assert (0, 0) == (inbox.sweep(), inbox.sweep())
        assert 1 == len(caplog.records)
        (tmp_path / "spool" / "tmp").mkdir()
        _drop(box, "!.tsv", "a.tsv")
        assert 3 == inbox.sweep()
        assert [rows, _ROWS, _ROWS] == _texts(spool, tmp_path / "spool")
        assert [] == names_in(box)


def test_what_comes_in_is_told(tmp_path: Path, box: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its batch and its name, as fields of their own."""
    caplog.set_level("INFO", "msmarco_qdrant.service.spool.inbox")
    _drop(box, "a.tsv")
    with Spool.open(tmp_path / "spool") as spool:
        Inbox(box, spool).sweep()
        (batch,) = ack_all(spool)
    expected = {"batch": batch, "state": "accepted", "file": "a.tsv"}
    assert [expected] == log_fields(caplog)
