"""The indexes of a shard are built in a directory beside its segments, then exchanged for them.

::

    NAME/segments/            what is loaded
    NAME/building/segments/   what a child process makes of it meanwhile; see `edge_optimize`
    NAME/replaced/            what was loaded before, until the new is

Where there is a `replaced/`, it is what counts, and nothing has been written since: `segments/` is
then missing, or was never loaded whole. So whatever happens between `swap_in` and `commit_swap`, an
error, a panic of the engine or the end of the process, `recover` puts back what was there before,
and what was built is built again. Each step is one rename, so a crash leaves no half of it.

Whether there is room on the disk for what Edge is about to write.

Edge writes through memory maps of files that take their room only when a page is first written: on
a full disk that is no error but a signal (SIGBUS), which ends the process. So it is asked before.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from msmarco_qdrant.errors import StoreCorruptError, StoreError, StoreUnavailableError
from msmarco_qdrant.runtime.atomic_file import sync_directory
from msmarco_qdrant.stores.error_mapping import map_error

_SEGMENTS, _BUILDING, _REPLACED = "segments", "building", "replaced"
_TEMPORARY = "temp_segments"  # Edge's own; it never removes what a killed process left there
_ACTION = "building the index"
_PROGRAM = Path(__file__).with_name("optimize_child.py")


def build(shard: Path, lock_fd: int) -> None:
    """Build beside a shard's segments, which stay as they are; nobody may write to them meanwhile.

    Args:
        shard: Its directory; all that was written is flushed.
        lock_fd: The store directory's lock, which is held until the child process is gone, too.

    Raises:
        StoreUnavailableError: If there is no room for it, or the system is out of something else.
        StoreError: If it could not be built.
    """
    remove_leftovers(shard)
    try:
        require_free_space(shard, _ACTION, unindexed_bytes(shard / _SEGMENTS))
        (shard / _BUILDING).mkdir()
        with tempfile.TemporaryFile() as errors:
            if status := _run(shard, lock_fd, errors):
                raise StoreError(_why(shard, status, errors))
    except OSError as exc:
        raise map_error(exc, _ACTION, str(shard)) from exc


def _run(shard: Path, lock_fd: int, errors: IO[bytes]) -> int:
    """Run the child process to its end; its exit status."""
    process = subprocess.Popen(  # noqa: S603  # our own program, a path we made
        [sys.executable, "-P", str(_PROGRAM), str(shard), str(shard / _BUILDING)],
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


def swap_in(shard: Path) -> None:
    """Put what was built in place; what was there is kept, and counts, until `commit_swap`.

    The shard must be closed.

    Raises:
        OSError: If the directories cannot be renamed.
    """
    (shard / _SEGMENTS).rename(shard / _REPLACED)
    (shard / _BUILDING / _SEGMENTS).rename(shard / _SEGMENTS)


def commit_swap(shard: Path) -> None:
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
    remove_leftovers(shard)


def remove_leftovers(shard: Path) -> None:
    """Remove what a build leaves; never what counts."""
    for name in (_BUILDING, _TEMPORARY):
        shutil.rmtree(shard / name, ignore_errors=True)  # what stays takes room, and is not read


SPARE_BYTES = 256 * 2**20
"""A write of 1,024 passages takes twice what they hold, for the log and for the segment: some
10 MiB as a rule, and 210 MiB if each has 100,000 characters of ASCII (both reckoned)."""

_GRAPHS = "links*.bin"
_BLOCK_BYTES = 512  # the unit of `st_blocks`, on whatever file system
_MIB = 2**20


def require_free_space(place: Path, action: str, size: int = 0) -> None:
    """Refuse what may not fit on the disk.

    Args:
        place: A directory on it.
        action: What is to be done ("writing points").
        size: How many bytes it takes, if more than a batch's.

    Raises:
        StoreUnavailableError: If there is less room than that and `SPARE_BYTES`.
        OSError: If the system does not tell.
    """
    needed, free = SPARE_BYTES + size, shutil.disk_usage(place).free
    if free < needed:
        raise StoreUnavailableError(
            f"{action} in {place} needs {_mib(needed)} MiB of free room on its disk, and there are "
            f"{free // _MIB}: free {_mib(needed - free)} MiB"
        )


def unindexed_bytes(segments: Path) -> int:
    """About what a build of indexes writes: the size of the segments that have no graph yet.

    Raises:
        OSError: If they cannot be read.
    """
    return sum(_taken(one) for one in segments.iterdir() if not any(one.rglob(_GRAPHS)))


def _taken(place: Path) -> int:
    """The bytes that files take on the disk, which for sparse files are fewer than their size."""
    return sum(file.lstat().st_blocks * _BLOCK_BYTES for file in place.rglob("*"))


def _mib(size: int) -> int:
    return -(-size // _MIB)
