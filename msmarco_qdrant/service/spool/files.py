"""Whole, durable files of batches: written from rows, or taken from a directory of a user."""

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
from msmarco_qdrant.runtime.atomic_file import sync_directory, sync_file
from msmarco_qdrant.service.interfaces import BatchId

_CHUNK_BYTES = 1 << 20

CLAIMED = ".taken"
"""End of the name of a file while it is copied: `.<id>.<form>.taken`."""

_CLAIMED = re.compile(rf"\.([0-9a-f]{{32}})\..+{re.escape(CLAIMED)}")

Row: TypeAlias = Mapping[str, Any]
"""`{"op": "write", "pid", "text", "meta"?}` or `{"op": "delete", "pid"}`."""


def write_rows(path: Path, rows: Iterable[Row], reserve: Callable[[int], None]) -> None:
    """Write rows as JSON lines to a new file, durably; reserve each line's bytes before.

    Raises:
        SpoolError: If the disk fails.
        UsageError: For a row that is not JSON.
    """
    with _durable_file(path) as file:
        for row in rows:
            line = _line(row)
            reserve(len(line))
            file.write(line)


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file to a new one, durably.

    Raises:
        SpoolError: If the disk fails.
        SourceError: If the source cannot be read.
    """
    with _durable_file(target) as file:
        for chunk in _chunks(source):
            file.write(chunk)


def claimed_id(name: str) -> BatchId | None:
    """Return the batch id in the name of a claimed file, None for any other name."""
    match = _CLAIMED.fullmatch(name)
    return match[1] if match else None


def claim(path: Path, id_: BatchId, form: str) -> Path:
    """Rename a file durably to a name with its batch's id, before it is copied.

    This proves that it can be removed afterwards. A file that cannot would be ingested again and
    again, and revert later writes.

    Returns:
        Its new path.

    Raises:
        SourceError: If it cannot be renamed; it stays as it is.
    """
    target = path.with_name(f".{id_}.{form}{CLAIMED}")
    try:
        path.rename(target)
        sync_directory(path.parent)
    except OSError as exc:
        raise SourceError(f"cannot remove {path}, so it is not ingested: {exc.strerror}") from exc
    return target


def identify(path: Path) -> tuple[BatchId, int]:
    """Return an id of a file, the same after a crash, and its size; sync its content.

    Another file of the same name has another id. A renamed file has another id too, unless it was
    renamed by `claim`.

    Raises:
        SourceError: If it cannot be read, or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{path} is not a regular file")
            sync_file(descriptor)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc
    key = (path.name, status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)
    id_ = claimed_id(path.name) or hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
    return id_, status.st_size


def remove_original(path: Path, id_: BatchId) -> None:
    """Remove an accepted file durably; another file of that name stays.

    Raises:
        SourceError: If it cannot be removed.
    """
    try:
        if path.exists() and identify(path)[0] == id_:
            path.unlink()
        sync_directory(path.parent)
    except OSError as exc:
        raise SourceError(f"{path} is accepted, but cannot be removed: {exc.strerror}") from exc


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc


@contextmanager
def _durable_file(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("xb") as file:
            yield file
            file.flush()
            sync_file(file.fileno())
    except OSError as exc:
        raise SpoolError(
            f"cannot write to {path.parent}: {exc.strerror or exc}; nothing was accepted"
        ) from exc


def _line(row: Row) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False)
        try:
            return text.encode() + b"\n"
        except UnicodeEncodeError:  # a lone surrogate, which the batch's report will name
            return json.dumps(row).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as exc:
        raise UsageError(f"an operation must be JSON: {exc}") from exc
