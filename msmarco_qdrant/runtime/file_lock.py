"""An exclusive lock on a file, with a note that names its holder (POSIX only)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from msmarco_qdrant.errors import UnsupportedError

try:
    import fcntl
except ImportError as exc:
    raise UnsupportedError(
        "a store in a directory (Qdrant Edge) and the spool of `serve` need POSIX file locks, "
        "which this system does not have: use a Qdrant server, or WSL on Windows"
    ) from exc

_POLL_S = 0.02
_NOTE_BYTES = 4096


class FileLockedError(OSError):
    """Another process holds the lock.

    Attributes:
        path: The file.
        note: The text that the holder wrote; empty if it wrote none.
    """

    def __init__(self, path: Path, note: bytes) -> None:
        super().__init__(f"{path} is locked by another process")
        self.path = path
        self.note = note

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the parts for pickle."""
        return type(self), (self.path, self.note), self.__dict__


class FileLock:
    """A `flock` on a file, held until `release` or until the process ends.

    Args:
        path: The file; it is created if it is missing.
        note: The text to write into it, for processes that find it locked.
        timeout_s: Seconds to wait for another holder. Two are enough for the child process of
            one that was killed.

    Attributes:
        fd: The open file, -1 after `release`. A child process that inherits it shares the lock.

    Raises:
        FileLockedError: If another process still holds the lock.
        OSError: If the file cannot be opened or written.
    """

    def __init__(self, path: Path, note: bytes, timeout_s: float = 2.0) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._acquire(path, timeout_s)
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, note, 0)
        except BaseException:
            self.abandon()
            raise

    def release(self) -> None:
        """Unlock and close the file. Releasing twice is harmless."""
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)  # a forked child may have the file open, too
            self.abandon()

    def abandon(self) -> None:
        """Close the file without unlocking it: in a forked child, the parent keeps the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _acquire(self, path: Path, timeout_s: float) -> None:
        """Poll for the lock: a blocking `flock` has no time limit."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

        tries = Retrying(
            retry=retry_if_exception_type(BlockingIOError),
            stop=stop_after_delay(timeout_s),
            wait=wait_fixed(_POLL_S),
            reraise=True,
        )
        try:
            tries(fcntl.flock, self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise FileLockedError(path, os.pread(self.fd, _NOTE_BYTES, 0)) from exc
