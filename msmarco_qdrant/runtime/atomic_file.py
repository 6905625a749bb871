"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from msmarco_qdrant.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    _HAS_LOCKS = False
    _FULL_SYNC = None
else:
    _HAS_LOCKS = True
    _FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)  # macOS


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path`, which replaces `path` if the block succeeds.

    Temporary files of this path are removed first if the process that wrote them has ended. An
    `OSError` of other work in the block is not changed.

    Raises:
        OutputError: If the file cannot be written.
    """
    with _map_write_error(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
    _remove_leftovers(path)
    temporary, raw = _create(path)
    try:
        with io.BufferedWriter(raw) as file:
            yield file
            with _map_write_error(path):
                file.flush()
                sync_file(file.fileno())
        with _map_write_error(path):
            temporary.replace(path)
            sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write_text(path: Path) -> Iterator[TextIO]:
    """Do the same as `atomic_write`, for UTF-8 text."""
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, "utf-8")
        yield text
        text.detach()


def _create(path: Path) -> tuple[Path, _File]:
    """Create a temporary file, locked until it is closed."""
    while True:
        # The name is random, as two processes may write the same file.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        raw = _File(temporary, path)
        _try_lock(raw.fileno())
        if os.fstat(raw.fileno()).st_nlink or os.name == "nt":
            return temporary, raw
        raw.close()  # another process removed it before it was locked


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of killed processes; those of live ones are locked."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    try:
        leftovers = [found for found in path.parent.iterdir() if name.fullmatch(found.name)]
    except OSError:  # creating the file has the better message
        return
    for leftover in leftovers:
        with suppress(OSError), leftover.open("r+b") as file:
            if _try_lock(file.fileno()):
                leftover.unlink()


def _try_lock(fd: int) -> bool:
    """Lock an open file; False if another process has it locked, or files cannot be locked."""
    if not _HAS_LOCKS:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class _File(io.FileIO):
    """A temporary file whose errors name the final path."""

    def __init__(self, temporary: Path, final: Path) -> None:
        self._final = final
        with _map_write_error(final):
            super().__init__(temporary, "x")

    def write(self, data: Any, /) -> int:
        with _map_write_error(self._final):
            return super().write(data)


@contextmanager
def _map_write_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {exc.strerror}; name another file") from exc


def sync_file(fd: int) -> None:
    """Flush an open file to the disk; on macOS, `fsync` alone leaves it in the disk's cache.

    Raises:
        OSError: If it cannot be flushed.
    """
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(fd, _FULL_SYNC)
        except OSError:  # the file system does not support it
            pass
        else:
            return
    os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Flush a directory to disk, so that a new name in it survives a power failure."""
    if os.name == "nt":  # Windows cannot open a directory
        return
    directory = os.open(path, os.O_RDONLY)
    try:
        sync_file(directory)
    finally:
        os.close(directory)
