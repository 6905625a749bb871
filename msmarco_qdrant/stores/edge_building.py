"""The indexes of a shard are built in a directory beside its segments, then exchanged for them.

::

    NAME/segments/            what is loaded
    NAME/building/segments/   what a child process makes of it meanwhile; see `edge_optimize`
    NAME/replaced/            what was loaded before, until the new is

A crash leaves either `segments/` as it was, or the new one, or for a moment none: then what was
replaced is still whole. `recover` sees to all of them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from msmarco_qdrant._replacing import sync_directory
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.stores import edge_optimize

_SEGMENTS, _BUILDING, _REPLACED = "segments", "building", "replaced"
_TEMPORARY = "temp_segments"  # Edge's own; it never removes what a killed process left there


def build(shard: Path, lock_fd: int) -> None:
    """Build beside a shard's segments, which stay as they are; nobody may write to them meanwhile.

    Args:
        shard: Its directory; all that was written is flushed.
        lock_fd: The store directory's lock, which is held until the child process is gone, too.

    Raises:
        StoreError: If it could not be built.
    """
    place = shard / _BUILDING
    tidy(shard)
    try:
        place.mkdir()
    except OSError as exc:
        raise StoreError(f"building the index of {shard.name} failed: {exc}") from exc
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603  # our own program, a path we made
            [sys.executable, "-P", edge_optimize.__file__, str(shard), str(place)],
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            stdout=errors,
            stderr=errors,
            pass_fds=(lock_fd,),
        )
        try:
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if status:
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise StoreError(
                f"building the index of {shard.name} ended with status {status}: "
                f"{lines[-1] if lines else 'killed'}; every passage is there, run optimize again"
            )


def exchange(shard: Path) -> None:
    """Put what was built in place; what was there is kept until `tidy`.

    The shard must be closed.

    Raises:
        OSError: If the directories cannot be renamed; what was there is there.
    """
    (shard / _SEGMENTS).rename(shard / _REPLACED)
    try:
        (shard / _BUILDING / _SEGMENTS).rename(shard / _SEGMENTS)
    except BaseException:
        (shard / _REPLACED).rename(shard / _SEGMENTS)
        raise


def take_back(shard: Path) -> None:
    """Undo an exchange, as what was built cannot be loaded."""
    (shard / _SEGMENTS).rename(shard / _BUILDING / _SEGMENTS)
    (shard / _REPLACED).rename(shard / _SEGMENTS)


def recover(shard: Path) -> None:
    """Leave a shard's segments as they were before a build that did not end, or after it.

    Raises:
        OSError: If what was replaced cannot be renamed; it stays.
    """
    if not (shard / _SEGMENTS).exists() and (shard / _REPLACED).exists():
        (shard / _REPLACED).rename(shard / _SEGMENTS)
    tidy(shard)


def tidy(shard: Path) -> None:
    """Remove what a build leaves, once what is in place would survive a power cut."""
    if not (shard / _SEGMENTS).exists():
        return  # what was replaced is all that there is
    if (shard / _REPLACED).exists():
        sync_directory(shard)
    for name in (_BUILDING, _REPLACED, _TEMPORARY):
        shutil.rmtree(shard / name, ignore_errors=True)  # what stays takes room, and is not read
