"""Files that appear under their name when they are complete, or not at all."""

from __future__ import annotations

import errno
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from msmarco_qdrant.errors import OutputError


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file that is written beside `path`, and takes its place when the block ends well.

    An `OSError` of anything else in the block comes through as it is.

    Raises:
        OutputError: If the file cannot be written.
    """
    with _unwritable(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
    # A name of its own: two that write the same file must not write into one another.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    raw = _File(temporary, path)
    try:
        with io.BufferedWriter(raw) as file:
            yield file
            with _unwritable(path):
                file.flush()
                os.fsync(file.fileno())
        with _unwritable(path):
            temporary.replace(path)
            sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write_text(path: Path) -> Iterator[TextIO]:
    """The same for text in UTF-8."""
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, "utf-8")
        yield text
        text.detach()


class _File(io.FileIO):
    """A new file whose errors name the file that it will become."""

    def __init__(self, temporary: Path, becomes: Path) -> None:
        self._becomes = becomes
        with _unwritable(becomes):
            super().__init__(temporary, "x")

    def write(self, data: Any, /) -> int:
        with _unwritable(self._becomes):
            return super().write(data)


@contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {exc.strerror}; name another file") from exc


def sync_directory(path: Path) -> None:
    """Make the new name survive a power cut."""
    if os.name == "nt":  # Windows opens no directory, and has no call for it
        return
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
