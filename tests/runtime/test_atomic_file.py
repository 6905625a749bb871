"""Files that appear under their name when they are complete."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.runtime import atomic_file
from msmarco_qdrant.runtime.atomic_file import atomic_write, atomic_write_text, sync_file
from msmarco_qdrant.stores.edge import optimize_child


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    """The older file exists until then; no other file remains."""
    path = tmp_path / "answers"
    path.write_bytes(b"older")
    with atomic_write(path) as file:
        file.write(b"new" * 100_000)
        assert b"older" == path.read_bytes()
    assert b"new" * 100_000 == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    """On every system."""
    path = tmp_path / "answers"
    with atomic_write_text(path) as file:
        file.write("Mäuse\n\U0001f600\r\n")
    assert "Mäuse\n\U0001f600\r\n".encode() == path.read_bytes()


_KILLED = """
import os, signal, sys
from pathlib import Path
from msmarco_qdrant.runtime import atomic_file
from msmarco_qdrant.runtime.atomic_file import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_r18_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """By the next write of the same path; names of other paths stay."""
    path = tmp_path / "answers [1].jsonl"
    others = [".answers [1].jsonl.tmp", ".other.0123abcd.tmp", ".answers 1.jsonl.0123abcd.tmp"]
    for name in others:
        (tmp_path / name).touch()
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
        assert 1 == len([*tmp_path.iterdir()]) - len(others)

    with atomic_write(path) as file:
        file.write(b"new")
    assert {path.name, *others} == {found.name for found in tmp_path.iterdir()}


def test_r18_files_of_live_writers_stay(tmp_path: Path) -> None:
    """Several may write the same path; the last to end wins."""
    path = tmp_path / "answers"
    with atomic_write(path) as first:
        first.write(b"first")
        with atomic_write(path) as second:
            second.write(b"second")
        assert b"second" == path.read_bytes()
    assert b"first" == path.read_bytes()
    assert [path] == [*tmp_path.iterdir()]


def test_r18_file_that_was_removed_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may see it in the moment between."""
    path, lock = tmp_path / "answers", atomic_file._try_lock
    removed: list[Path] = []

    def remove_first(fd: int) -> bool:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        return lock(fd)

    monkeypatch.setattr(atomic_file, "_try_lock", remove_first)
    with atomic_write(path) as file:
        file.write(b"new")

    assert [path] == [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "error", [ValueError("bad"), OSError(errno.EIO, "a broken store"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("opened", [atomic_write, atomic_write_text])
def test_error_of_the_block_changes_no_file(
    tmp_path: Path, opened: object, error: BaseException
) -> None:
    """It is raised unchanged, also an `OSError`."""
    path = tmp_path / "answers"
    path.write_bytes(b"older")

    def write_half() -> None:
        with opened(path) as file:  # type: ignore[operator]
            file.write("half" if opened is atomic_write_text else b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        write_half()
    assert error is caught.value
    assert b"older" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/answers", "No such file or directory"),
        ("file/answers", "Not a directory"),
        ("directory", "it is a directory"),
        ("a" * 300, "File name too long"),
    ],
)
def test_path_that_cannot_be_written_is_reported_at_once(
    tmp_path: Path, name: str, reason: str
) -> None:
    """With the final path, before the block begins."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    with (
        pytest.raises(OutputError, match=f"cannot write .*{name}: {reason}"),
        atomic_write(tmp_path / name),
    ):
        pytest.fail("it was opened")
    assert {"file", "directory"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("is_supported", [True, False])
def test_r11_a_mac_syncs_files_through_the_cache_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_supported: bool
) -> None:
    """By `F_FULLFSYNC`; by `fsync` on a file system without it. Files and their directories."""
    calls: list[str] = []

    def control(fd: int, command: int) -> None:
        assert (51, True) == (command, fd > 0)
        calls.append("full")
        if not is_supported:
            raise OSError(errno.ENOTTY, "not supported")

    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(atomic_file, "_FULL_SYNC", 51)
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync"))  # noqa: ARG005
    with atomic_write(tmp_path / "answers") as file:
        file.write(b"new")
    assert (["full"] if is_supported else ["full", "fsync"]) * 2 == calls


def test_r11_other_systems_sync_by_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the program of index builds, which imports nothing."""
    monkeypatch.setattr(atomic_file, "_FULL_SYNC", None)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with (tmp_path / "a").open("wb") as file:
        sync_file(file.fileno())
        optimize_child.sync_file(file.fileno())
        assert [file.fileno()] * 2 == synced
