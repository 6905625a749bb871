"""From what comes in by a door to a whole, durable file that the spool can make a batch."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from msmarco_qdrant._replacing import sync_directory
from msmarco_qdrant.errors import SourceError, SpoolError, UsageError
from msmarco_qdrant.service.outcomes import BatchId

_CHUNK_BYTES = 1 << 20

Operation: TypeAlias = Mapping[str, Any]
"""`{"op": "write", "pid", "text", "meta"?}` or `{"op": "delete", "pid"}`."""


def write_operations(
    place: Path, operations: Iterable[Operation], hold: Callable[[int], None]
) -> None:
    """Write operations as JSON lines to a new file, durably.

    Args:
        place: Where.
        operations: What; taken one by one.
        hold: Called with the bytes of each line before it is written.

    Raises:
        SpoolError: If the disk does not take it.
        UsageError: For what is no JSON.
    """
    with _writing(place) as file:
        for operation in operations:
            line = _line(operation)
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


def identify(path: Path) -> tuple[BatchId, int]:
    """An id that the same file has after a crash too, and its size; its content is made durable.

    Another file of the same name has another id, and so has the same file once it was renamed.

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
    return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest(), status.st_size


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


def _line(operation: Operation) -> bytes:
    try:
        text = json.dumps(operation, ensure_ascii=False)
        try:
            return text.encode() + b"\n"
        except UnicodeEncodeError:  # half a character, which is told in the report
            return json.dumps(operation).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as exc:
        raise UsageError(f"an operation is no JSON: {exc}") from exc
