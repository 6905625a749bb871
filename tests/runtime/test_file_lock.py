"""The file lock: one holder, a note for the others, and what a fork or a kill leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msmarco_qdrant.runtime.file_lock import FileLock, FileLockedError


def test_the_second_holder_reads_the_note_of_the_first(tmp_path: Path) -> None:
    """A lock belongs to an open file, so a second one conflicts within a process, too."""
    path = tmp_path / ".lock"
    first = FileLock(path, b"a longer note")
    with pytest.raises(FileLockedError) as caught:
        FileLock(path, b"second", timeout_s=0)
    assert b"a longer note" == caught.value.note
    first.release()
    first.release()
    FileLock(path, b"second").release()
    assert b"second" == path.read_bytes()


def test_a_waiter_gets_the_lock_of_a_process_that_was_killed(tmp_path: Path) -> None:
    """The kernel unlocks; the waiter polls until then."""
    path = tmp_path / ".lock"
    program = (
        "import sys, pathlib, msmarco_qdrant.runtime.file_lock as f;"
        "f.FileLock(pathlib.Path(sys.argv[1]), b'child'); print('held', flush=True); input()"
    )
    child = subprocess.Popen(  # our own program
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert b"held\n" == child.stdout.readline()
    with pytest.raises(FileLockedError) as caught:
        FileLock(path, b"", timeout_s=0)
    assert b"child" == caught.value.note
    child.kill()
    FileLock(path, b"", timeout_s=60).release()
    child.communicate()


def test_release_unlocks_what_a_copy_of_the_descriptor_keeps_open(tmp_path: Path) -> None:
    """A forked child has such a copy; `abandon` in the child leaves the lock to its parent."""
    path = tmp_path / ".lock"
    lock = FileLock(path, b"")
    copy = os.dup(lock.fd)
    lock.abandon()
    with pytest.raises(FileLockedError):
        FileLock(path, b"", timeout_s=0)
    os.close(copy)
    lock = FileLock(path, b"")
    copy = os.dup(lock.fd)
    lock.release()
    FileLock(path, b"", timeout_s=0).release()
    os.close(copy)
