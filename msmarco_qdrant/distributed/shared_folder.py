"""A folder that several machines write to: each can check that it sees the same one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.sources.file_path import FilePath


@contextmanager
def marked(folder: FilePath) -> Iterator[FilePath]:
    """Keep an empty file in a folder, and yield its path.

    The next encode into the folder removes it after a crash, as any unfinished file.

    Raises:
        OutputError: If it cannot be written.
    """
    marker = folder / f".{secrets.token_hex(8)}.parquet.marker.tmp"
    try:
        marker.write_bytes(b"")
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {exc.strerror}") from exc
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)


def require_marker(marker: FilePath, machine: str) -> None:
    """Refuse a folder that is another one than where the marker was made.

    Args:
        marker: The path that `marked` yielded.
        machine: Name of this machine, for the message.

    Raises:
        OutputError: If it is not there: shards would be written where nobody looks for them.
    """
    if not marker.exists():
        raise OutputError(
            f"{marker.parent} on {machine} is not the folder of the machine that began the encode: "
            "pass one that every machine can write"
        )
