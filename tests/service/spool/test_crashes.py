"""A spool that dies between any two of its operations, and is opened again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from msmarco_qdrant.service.interfaces import BatchReport, Phase
from msmarco_qdrant.service.spool.directory import parse_name
from msmarco_qdrant.service.spool.files import Row
from msmarco_qdrant.service.spool.inbox import Inbox
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.spool.spool import Spool
from tests.service.spool.helpers import TwoFileSystems, delete, lease_next, names_in, state_of

_OPERATIONS = (
    "move_in",
    "discard",
    "sync",
    "move",
    "remove",
    "write_reports",
    "remove_report",
    "remove_ended",
    "readmit",
    "reserve_sequence",
)
_MEMORY = Path("/dev/shm")  # noqa: S108  # where syncing costs nothing


class Killed(BaseException):
    """Nothing of ours catches it."""


class DyingDirectory(TwoFileSystems):
    """Dies at one of its operations, as `kill -9` would have it: all that follow fail, too.

    Args:
        path: The directory.
        at: The number of the operation, counted from 1; one of several parts is several.
        after: Whether it dies after that one, not before.

    Attributes:
        operations: How many there were.
    """

    def __init__(self, path: Path, at: int, *, after: bool = False) -> None:
        self._at, self._after = at, after
        self._is_dead = False
        self.operations = 0
        for name in _OPERATIONS:
            setattr(self, name, self._mortal(getattr(self, name)))
        super().__init__(path)

    def _mortal(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any) -> Any:
            self.operations += 1
            number = self.operations
            if self._is_dead or (number == self._at and not self._after):
                self._die()
            try:
                return operation(*args)
            finally:
                if number == self._at:
                    self._die()

        return act

    def _die(self) -> None:
        """What was being written is there in part."""
        self._is_dead = True
        for place in ("tmp/half", ".sequence.0.tmp", "done/.half.json.0.tmp"):
            (self.path / place).write_text("{")
        raise Killed


@dataclass
class Ledger:
    """What the callers of a spool were told before it died."""

    accepted: set[str] = field(default_factory=set)
    ending: tuple[str, str] = ("", "")
    ended: dict[str, str] = field(default_factory=dict)
    sequences: list[int] = field(default_factory=list)


class History:
    """Batches `a` to `e` through a spool: two by HTTP, a near file and a far one, and a late one.

    Args:
        spool: The spool.
        inbox: Where the files are.
    """

    def __init__(self, spool: Spool, inbox: Path) -> None:
        self._spool = spool
        self._inbox = inbox
        self.ledger = Ledger()

    def __call__(self) -> None:
        """Accept, take, finish, fail and give back."""
        self._accept("a")
        self._accept("b")
        Inbox(self._inbox, self._spool).sweep()
        self._finish(self._take(), rejected=1)
        self._fail(self._take())
        self._spool.requeue(self._take())
        self._finish(self._take())
        self._accept("e")
        self._take()

    def _accept(self, label: str) -> None:
        self._spool.accept(_rows(label))
        self.ledger.accepted.add(label)

    def _take(self) -> Batch:
        batch = lease_next(self._spool)
        self.ledger.sequences.append(batch.name.sequence)
        return batch

    def _finish(self, batch: Batch, rejected: int = 0) -> None:
        self.ledger.ending = (_label(batch), batch.id)
        self._spool.ack(batch, BatchReport(rejected=rejected))
        self.ledger.ended.update([self.ledger.ending])

    def _fail(self, batch: Batch) -> None:
        self.ledger.ending = (_label(batch), batch.id)
        self._spool.fail(batch, "bad", BatchReport())
        self.ledger.ended.update([self.ledger.ending])


def _rows(label: str) -> list[Row]:
    return [delete(label)]


def _label(batch: Batch) -> str:
    """Which one it is: the only thing in quotes that is one letter."""
    text = batch.path.read_text()
    return next(label for label in "abcde" if f'"{label}"' in text or text.startswith(label))


@pytest.fixture
def place() -> Iterator[Callable[[], Path]]:
    """Makes empty directories, in memory if that can be: no power is cut here."""
    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as root:
        numbers = iter(range(10_000))

        def make() -> Path:
            made = Path(root) / str(next(numbers))
            made.mkdir()
            return made

        yield make


def _history(root: Path, at: int, *, after: bool) -> tuple[Ledger, int]:
    """A history that dies at an operation; what was told until then, and the operations."""
    inbox = root / "inbox"
    inbox.mkdir()
    (inbox / "c near.tsv").write_text("c\ttext\n")
    (inbox / "far d.tsv").write_text("d\ttext\n")
    files = DyingDirectory(root / "spool", at, after=after)
    with Spool(files) as spool:
        history = History(spool, inbox)
        try:
            history()
        except Killed:
            pass
        else:
            assert at > files.operations
    return history.ledger, files.operations


def _check(root: Path, ledger: Ledger) -> None:
    """Open again: nothing that was told is lost, nothing comes twice, all in its order."""
    spool_path = root / "spool"
    with Spool.open(spool_path) as spool:
        assert [] == names_in(spool_path / "tmp")
        assert [] == [*spool_path.glob("**/.*.tmp")]
        Inbox(root / "inbox", spool).sweep()
        assert [] == names_in(root / "inbox")
        late = spool.accept(_rows("e"))
        has_ended = _has_ended(spool, ledger)
        batches = [taken_and_finished(spool) for _ in range(spool.depth)]
        labels = [label for label, _ in batches][:-1]
        assert sorted(set(labels)) == labels
        assert {*ledger.accepted, "c", "d"} - has_ended.keys() <= set(labels)
        assert not set(labels) & has_ended.keys()
        sequences = [batch.name.sequence for _, batch in batches]
        assert (late, sorted(sequences)) == (batches[-1][1].id, sequences)
        assert max(ledger.sequences, default=0) <= sequences[-1]
        assert {label: "failed" if label == "b" else "done" for label in has_ended} == has_ended
        assert (0, 0) == (spool.depth, spool.bytes)
        kept = [place for place in (spool_path / "done").iterdir() if place.suffix != ".json"]
        assert [place.read_text() for place in kept] == (
            ['{"op": "delete", "pid": "a"}\n'] if "a" in has_ended else []
        )


def _has_ended(spool: Spool, ledger: Ledger) -> dict[str, Phase]:
    """How batches ended before: all that were said to, and perhaps the one that was about to."""
    label, id_ = ledger.ending
    state = spool.state(id_)
    is_redone = state is not None and not state.ended_at
    found = {label: state_of(spool, one).state for label, one in ledger.ended.items()}
    return found if is_redone or state is None else {**found, label: state.state}


def taken_and_finished(spool: Spool) -> tuple[str, Batch]:
    """The next batch, and which one it is."""
    batch = lease_next(spool)
    label = _label(batch)
    spool.ack(batch, BatchReport())
    return label, batch


@pytest.mark.parametrize("after", [False, True])
def test_death_at_each_operation(place: Callable[[], Path], after: bool) -> None:
    """What was accepted is there once and in order, what had ended has, and no scrap is left."""
    at, operations = 0, 1
    while at <= operations:
        at += 1
        root = place()
        ledger, operations = _history(root, at, after=after)
        _check(root, ledger)
    assert {"a", "b", "e"} == ledger.accepted
    assert at > 40


def _left_by_crashes(root: Path) -> list[str]:
    """A spool with everything in it that a crash may leave; the ids of what is to be done."""
    with Spool.open(root) as spool:
        ids = [spool.accept(_rows(label)) for label in "abcde"]
        for number in range(3):
            batch = lease_next(spool)
            if number == 0:
                spool.fail(batch, "put back by hand later", BatchReport())
                (root / "failed" / str(batch.name)).rename(root / "incoming" / str(batch.name))
            elif number == 1:
                file = batch.path.read_bytes()
                spool.ack(batch, BatchReport())
                batch.path.write_bytes(file)
            else:
                spool.fail(batch, "bad", BatchReport())
                (root / "failed" / str(batch.name)).rename(batch.path)
        lease_next(spool)
    (root / "tmp" / "scrap").write_text("{")
    (root / "done" / ".scrap.json.0.tmp").write_text("{")
    return ids


@pytest.mark.parametrize("after", [False, True])
def test_death_while_a_crash_is_mended(place: Callable[[], Path], after: bool) -> None:
    """At each operation; the next start mends the rest."""
    at, died = 0, True
    while died:
        at += 1
        root = place()
        ids = _left_by_crashes(root)
        try:
            DyingDirectory(root, at, after=after).close()
        except Killed:
            died = True
        else:
            died = False
        with Spool.open(root) as spool:
            assert ["queued", "done", "failed", "queued", "queued"] == [
                state.state for id_ in ids if (state := spool.state(id_))
            ]
            assert [ids[0], ids[3], ids[4]] == [taken_and_finished(spool)[1].id for _ in range(3)]
        assert ([], []) == (names_in(root / "tmp"), names_in(root / "working"))
        names = [parse_name(name) for name in names_in(root / "failed")]
        assert [ids[2]] == [name.id for name in names if name]
    assert at > 6
