"""The indexes of a shard are built in a directory beside its segments, then exchanged for them.

::

    NAME/segments/            what is loaded
    NAME/building/segments/   what a child process makes of it meanwhile; see `edge_optimize`
    NAME/replaced/            what was loaded before, until the new is

Where there is a `replaced/`, it is what counts, and nothing has been written since: `segments/` is
then missing, or was never loaded whole. So whatever happens between `exchange` and `settle`, an
error, a panic of the engine or the end of the process, `recover` puts back what was there before,
and what was built is built again. Each step is one rename, so a crash leaves no half of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from msmarco_qdrant._replacing import sync_directory
from msmarco_qdrant.errors import StoreCorruptError, StoreError
from msmarco_qdrant.stores import edge_optimize
from msmarco_qdrant.stores.edge_room import check_room, unindexed_bytes
from msmarco_qdrant.stores.faults import mapped

_SEGMENTS, _BUILDING, _REPLACED = "segments", "building", "replaced"
_TEMPORARY = "temp_segments"  # Edge's own; it never removes what a killed process left there
_ACTION = "building the index"


def build(shard: Path, lock_fd: int) -> None:
    """Build beside a shard's segments, which stay as they are; nobody may write to them meanwhile.

    Args:
        shard: Its directory; all that was written is flushed.
        lock_fd: The store directory's lock, which is held until the child process is gone, too.

    Raises:
        StoreUnavailableError: If there is no room for it, or the system is out of something else.
        StoreError: If it could not be built.
    """
    tidy(shard)
    try:
        check_room(shard, _ACTION, unindexed_bytes(shard / _SEGMENTS))
        (shard / _BUILDING).mkdir()
        with tempfile.TemporaryFile() as errors:
            if status := _run(shard, lock_fd, errors):
                raise StoreError(_why(shard, status, errors))
    except OSError as exc:
        raise mapped(exc, _ACTION, str(shard)) from exc


def _run(shard: Path, lock_fd: int, errors: IO[bytes]) -> int:
    """Run the child process to its end; its exit status."""
    process = subprocess.Popen(  # noqa: S603  # our own program, a path we made
        [sys.executable, "-P", edge_optimize.__file__, str(shard), str(shard / _BUILDING)],
        stdin=subprocess.PIPE,  # its end tells the child that we are gone
        stdout=errors,
        stderr=errors,
        pass_fds=(lock_fd,),
    )
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _why(shard: Path, status: int, errors: IO[bytes]) -> str:
    """What the child process said last."""
    errors.seek(0)
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return (
        f"{_ACTION} of {shard.name} ended with status {status}: "
        f"{lines[-1] if lines else 'killed'}; every passage is there, run optimize again"
    )


def exchange(shard: Path) -> None:
    """Put what was built in place; what was there is kept, and counts, until `settle`.

    The shard must be closed.

    Raises:
        OSError: If the directories cannot be renamed.
    """
    (shard / _SEGMENTS).rename(shard / _REPLACED)
    (shard / _BUILDING / _SEGMENTS).rename(shard / _SEGMENTS)


def settle(shard: Path) -> None:
    """Let what was put in place count, as it could be loaded; nobody may have written to it yet.

    Raises:
        OSError: If that could be undone by a power cut.
    """
    sync_directory(shard)
    (shard / _REPLACED).rename(shard / _BUILDING / _REPLACED)
    sync_directory(shard)


def recover(shard: Path) -> None:
    """Leave the segments that count in place; what a build left over goes.

    The shard must be closed.

    Raises:
        OSError: If that cannot be done; nothing is lost.
        StoreCorruptError: If there are no segments: Edge would begin an empty shard.
    """
    segments, building, replaced = shard / _SEGMENTS, shard / _BUILDING, shard / _REPLACED
    if replaced.exists():
        if segments.exists():
            building.mkdir(exist_ok=True)
            segments.rename(building / _SEGMENTS)
        replaced.rename(segments)
    if not segments.exists():
        raise StoreCorruptError(f"{segments} is missing: restore it from a backup")
    sync_directory(shard)  # before anybody writes: what counts now has to count after a power cut
    tidy(shard)


def tidy(shard: Path) -> None:
    """Remove what a build leaves; never what counts."""
    for name in (_BUILDING, _TEMPORARY):
        shutil.rmtree(shard / name, ignore_errors=True)  # what stays takes room, and is not read
