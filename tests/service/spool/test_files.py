"""Files of others that a spool takes in: near ones are renamed, far ones are copied and removed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.service.spool.directory import BatchName, Folder
from msmarco_qdrant.service.spool.spool import Spool
from tests.service.spool.helpers import TwoFileSystems, ack_all, lease_next, names_in, state_of

_NAMES = ["near.tsv", "far.tsv"]
_ROWS = "1\ttext\n"


class Meddled(TwoFileSystems):
    """A spool where somebody else acts at one moment of a file's way in.

    Attributes:
        before: What happens before it is renamed, or found to be far.
        after: What happens when it is a batch, before that is durable.
        durable: What happens when it is, before the original of a copy is removed.
    """

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    durable: Callable[[], object] | None = None

    def move_in(self, place: Path, name: BatchName) -> None:
        """With what happens before and after."""
        if self.before is not None:
            self.before()
        super().move_in(place, name)
        if self.after is not None:
            self.after()

    def sync(self, folder: Folder) -> None:
        """With what happens then."""
        super().sync(folder)
        if self.durable is not None and folder == "incoming":
            self.durable()


class CrashError(BaseException):
    """Nothing of ours catches it."""


def _crash() -> None:
    raise CrashError


def test_a_file_of_another_file_system(tmp_path: Path) -> None:
    """It is copied and removed, and is the same batch in every byte."""
    memory = Path("/dev/shm")  # noqa: S108
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{memory} is no file system of its own here")
    with Spool.open(tmp_path) as spool, TemporaryDirectory(dir=memory) as far:
        (Path(far) / "a.tsv").write_text(_ROWS * 500_000)
        spool.accept_file(Path(far) / "a.tsv")
        assert ([], []) == (names_in(Path(far)), names_in(tmp_path / "tmp"))
        assert 500_000 * len(_ROWS) == spool.bytes
        assert _ROWS * 500_000 == lease_next(spool).path.read_text()


@pytest.mark.parametrize("is_done", [False, True])
def test_a_copy_whose_original_is_still_there(tmp_path: Path, is_done: bool) -> None:
    """It was accepted before a crash, and is recognized: while it waits, and when it is done."""
    far = tmp_path / "far.tsv"
    far.write_text(_ROWS)
    files = Meddled(tmp_path / "spool")
    files.durable = _crash
    with Spool(files) as spool, pytest.raises(CrashError):
        spool.accept_file(far)
    (left,) = tmp_path.glob(".*.taken")
    assert not far.exists()
    with Spool.open(tmp_path / "spool") as spool:
        assert (1, len(_ROWS)) == (spool.depth, spool.bytes)
        ids = ack_all(spool) if is_done else []
        id_ = spool.accept_file(left)
        assert (not is_done, left.exists()) == (bool(spool.depth), False)
        assert [id_] == [*ids, *ack_all(spool)]


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("moment", ["after", "durable"])
def test_a_file_that_comes_under_the_same_name_meanwhile(
    tmp_path: Path, name: str, moment: str
) -> None:
    """It is not taken for the one that is in, whenever it comes: it stays, and is the next."""
    path = tmp_path / name
    path.write_text(_ROWS)
    files = Meddled(tmp_path / "spool")
    with Spool(files) as spool:
        setattr(files, moment, lambda: _replace(path, "2\tnext\n"))
        first = spool.accept_file(path)
        setattr(files, moment, None)
        assert "2\tnext\n" == path.read_text()
        second = spool.accept_file(path)
        texts = [place.read_text() for place in sorted((tmp_path / "spool/incoming").iterdir())]
        assert [_ROWS, "2\tnext\n"] == texts
        assert ([first, second], False) == (ack_all(spool), path.exists())


def _replace(path: Path, text: str) -> None:
    """Put another file in the place of one, as a writer does."""
    new = path.with_name(".new")
    new.write_text(text)
    new.rename(path)


@pytest.mark.parametrize("name", _NAMES)
def test_a_file_that_vanishes_on_its_way(tmp_path: Path, name: str) -> None:
    """It is the file's fault, not the spool's; nothing of it is left, no room is held."""
    path = tmp_path / name
    path.write_text(_ROWS)
    files = Meddled(tmp_path / "spool")
    with Spool(files) as spool:
        files.before = path.unlink
        with pytest.raises(SourceError, match=f"{name}.*No such file"):
            spool.accept_file(path)
        files.before = None
        assert (0, 0, []) == (spool.depth, spool.bytes, names_in(tmp_path / "spool" / "tmp"))
        path.write_text(_ROWS)
        assert "queued" == state_of(spool, spool.accept_file(path)).state


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_may_not_be_moved(tmp_path: Path, number: int) -> None:
    """As in a directory where each may move his own alone: it stays, and others may come."""
    path = tmp_path / "near.tsv"
    path.write_text(_ROWS)

    class Refusing(TwoFileSystems):
        def move_in(self, place: Path, name: BatchName) -> None:  # noqa: ARG002
            raise OSError(number, os.strerror(number), str(place))

    with Spool(Refusing(tmp_path / "spool")) as spool:
        with pytest.raises(SourceError, match=r"cannot move .*near.tsv into the spool"):
            spool.accept_file(path)
        assert (True, 0, 0) == (path.exists(), spool.depth, spool.bytes)


_NOBODY = 65534


@contextmanager
def _unprivileged() -> Iterator[None]:
    """As a user who may not do everything."""
    user = os.geteuid()
    os.seteuid(user or _NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_that_cannot_be_removed() -> None:
    """It is not taken in, so that it is not applied again and again; others may come."""
    with TemporaryDirectory() as folder:
        root, inbox = Path(folder), Path(folder) / "inbox"
        root.chmod(0o777)
        inbox.mkdir()
        (inbox / "far.tsv").write_text(_ROWS)
        inbox.chmod(0o555 if os.geteuid() else 0o1777)  # each may remove his own alone
        with _unprivileged(), Spool(TwoFileSystems(root / "spool")) as spool:
            with pytest.raises(
                SourceError, match=r"cannot remove .*far.tsv, so it is not ingested"
            ):
                spool.accept_file(inbox / "far.tsv")
            assert (0, 0, []) == (spool.depth, spool.bytes, names_in(root / "spool" / "tmp"))
            assert ["far.tsv"] == names_in(inbox)
        inbox.chmod(0o755)
