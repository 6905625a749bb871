"""From what comes in by a door to a whole, durable file that the spool can make a batch."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from msmarco_qdrant.errors import SourceError, SpoolError, UsageError
from msmarco_qdrant.runtime.atomic_file import sync_directory
from msmarco_qdrant.service.interfaces import BatchId

_CHUNK_BYTES = 1 << 20

CLAIMED = ".taken"
"""How the name of a file ends that is being copied in: `.<id>.<form>.taken`."""

_CLAIMED = re.compile(rf"\.([0-9a-f]{{32}})\..+{re.escape(CLAIMED)}")

Row: TypeAlias = Mapping[str, Any]
"""`{"op": "write", "pid", "text", "meta"?}` or `{"op": "delete", "pid"}`."""


def write_rows(place: Path, rows: Iterable[Row], hold: Callable[[int], None]) -> None:
    """Write rows as JSON lines to a new file, durably.

    Args:
        place: Where.
        rows: What; taken one by one.
        hold: Called with the bytes of each line before it is written.

    Raises:
        SpoolError: If the disk does not take it.
        UsageError: For what is no JSON.
    """
    with _writing(place) as file:
        for row in rows:
            line = _line(row)
            hold(len(line))
            file.write(line)


def copy_in(path: Path, place: Path) -> None:
    """Copy a file to a new one, durably.

    Raises:
        SpoolError: If the disk does not take it.
        SourceError: If it cannot be read.
    """
    with _writing(place) as file:
        for chunk in _chunks(path):
            file.write(chunk)


def claimed(name: str) -> BatchId | None:
    """The id of the batch that a file becomes, or is already; None for one not `claim`ed."""
    found = _CLAIMED.fullmatch(name)
    return found[1] if found else None


def claim(path: Path, id_: BatchId, form: str) -> Path:
    """Rename a file that is to be copied in, durably, to a name that tells its batch's id.

    That proves that it can be removed afterwards. If it could not, it would come again for ever,
    and undo what was written since.

    Returns:
        Its new place.

    Raises:
        SourceError: If it cannot be renamed; it stays as it is.
    """
    target = path.with_name(f".{id_}.{form}{CLAIMED}")
    try:
        path.rename(target)
        sync_directory(path.parent)
    except OSError as exc:
        raise SourceError(
            f"{path} cannot be removed from where it is, so it is not taken in: {exc.strerror}"
        ) from exc
    return target


def identify(path: Path) -> tuple[BatchId, int]:
    """An id that the same file has after a crash too, and its size; its content is made durable.

    Another file of the same name has another id, and so has the same file once it was renamed,
    unless it was `claim`ed.

    Raises:
        SourceError: If it cannot be read, or is no plain file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{path} is no plain file")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc
    told = (path.name, status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)
    id_ = claimed(path.name) or hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()
    return id_, status.st_size


def remove(path: Path, id_: BatchId) -> None:
    """Remove a file that was taken in, durably; what has come in its place meanwhile stays.

    Raises:
        SourceError: If it cannot be removed.
    """
    try:
        if path.exists() and identify(path)[0] == id_:
            path.unlink()
        sync_directory(path.parent)
    except OSError as exc:
        raise SourceError(f"{path} is taken in, but cannot be removed: {exc.strerror}") from exc


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc


@contextmanager
def _writing(place: Path) -> Iterator[BinaryIO]:
    try:
        with place.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        raise SpoolError(
            f"cannot write into the spool, {place.parent}: {exc.strerror or exc}; nothing was "
            "accepted"
        ) from exc


def _line(row: Row) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False)
        try:
            return text.encode() + b"\n"
        except UnicodeEncodeError:  # half a character, which is told in the report
            return json.dumps(row).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as exc:
        raise UsageError(f"an operation is no JSON: {exc}") from exc
