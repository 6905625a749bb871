"""Index builds of a shard: new segments in another directory, then an atomic swap.

::

    NAME/segments/            the live segments
    NAME/building/segments/   the new segments, built by a child process; see `optimize_child`
    NAME/replaced/            the former live segments, until the new ones are loaded
    NAME/shared/              files for other processes; see `shared_files`

If `replaced/` exists, it has the valid segments, without later writes: `segments/` is missing or
was never loaded. So after an error, a panic or a crash between `swap_in` and `commit_swap`,
`recover` restores it. Each step is one rename.

Edge writes through memory maps of sparse files: on a full disk that is not an error but a signal
(SIGBUS), which ends the process. `require_free_space` is called before every write.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from msmarco_qdrant.errors import StoreCorruptError, StoreError, StoreUnavailableError
from msmarco_qdrant.runtime.atomic_file import sync_directory
from msmarco_qdrant.stores.edge.optimize_child import is_linked
from msmarco_qdrant.stores.error_mapping import map_error

_SEGMENTS, _BUILDING, _REPLACED = "segments", "building", "replaced"
_TEMPORARY = "temp_segments"  # Edge's own; it does not remove those of a killed process
SHARED = "shared"
LEFTOVERS = (_BUILDING, _TEMPORARY, SHARED)
"""Directories of a shard that have no valid segments."""
_ACTION = "building the index"
_TAIL_BYTES = 64 * 2**10
_PROGRAM = Path(__file__).with_name("optimize_child.py")


def build(
    shard: Path,
    lock_fd: int,
    started: Callable[[Callable[[], None]], None] = lambda _: None,
) -> None:
    """Build new segments; the live ones stay, and must not be written to.

    Args:
        shard: The shard's directory, flushed.
        lock_fd: The store directory's lock, which the child process holds, too.
        started: Called with a function that ends the child process.

    Raises:
        StoreUnavailableError: If disk space or another resource is missing.
        StoreError: If the build failed.
    """
    remove_leftovers(shard)
    try:
        require_free_space(shard, _ACTION, unindexed_bytes(shard / _SEGMENTS))
        (shard / _BUILDING).mkdir()
        with tempfile.TemporaryFile() as errors:
            if status := _run(shard, lock_fd, errors, started):
                raise StoreError(_describe_failure(shard, status, errors))
    except OSError as exc:
        raise map_error(exc, _ACTION, str(shard)) from exc


def _run(
    shard: Path,
    lock_fd: int,
    errors: IO[bytes],
    started: Callable[[Callable[[], None]], None],
) -> int:
    """Run the child process to its end; return its exit status."""
    process = subprocess.Popen(  # noqa: S603  # a fixed program
        [sys.executable, "-P", str(_PROGRAM), str(shard), str(shard / _BUILDING)],
        stdin=subprocess.PIPE,  # its end notifies the child of the end of this process
        stdout=errors,
        stderr=errors,
        pass_fds=(lock_fd,),
    )
    try:
        started(process.kill)
        return process.wait()
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _describe_failure(shard: Path, status: int, errors: IO[bytes]) -> str:
    """Return a message with the last line of the child process."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TAIL_BYTES))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return (
        f"{_ACTION} of {shard.name} ended with status {status}: "
        f"{lines[-1] if lines else 'killed'}; no passage is lost, run optimize again"
    )


def swap_in(shard: Path) -> None:
    """Move the new segments to `segments/`; the former stay valid until `commit_swap`.

    The shard must be closed.

    Raises:
        OSError: If the directories cannot be renamed.
    """
    (shard / _SEGMENTS).rename(shard / _REPLACED)
    (shard / _BUILDING / _SEGMENTS).rename(shard / _SEGMENTS)


def commit_swap(shard: Path) -> None:
    """Make the new segments valid, after they were loaded and before any write to them.

    Raises:
        OSError: If a power cut could undo it.
    """
    sync_directory(shard)
    (shard / _REPLACED).rename(shard / _BUILDING / _REPLACED)
    sync_directory(shard)


def recover(shard: Path, *, keeps_shared: bool = False) -> None:
    """Restore the valid segments, and remove the remains of a build.

    The shard must be closed.

    Args:
        shard: The shard's directory.
        keeps_shared: Keep the files for other processes, as some use them.

    Raises:
        OSError: If it failed; no passage is lost.
        StoreCorruptError: If `segments/` is missing: Edge would create an empty shard.
    """
    segments, building, replaced = shard / _SEGMENTS, shard / _BUILDING, shard / _REPLACED
    if replaced.exists():
        if segments.exists():
            building.mkdir(exist_ok=True)
            segments.rename(building / _SEGMENTS)
        replaced.rename(segments)
    if not segments.exists():
        raise StoreCorruptError(f"{segments} is missing: restore it from a backup")
    sync_directory(shard)  # before any write: a power cut must not undo it
    remove_leftovers(shard)
    if not keeps_shared:
        _remove(shard / SHARED)


def remove_leftovers(shard: Path) -> None:
    """Remove the remains of a build, never valid segments; other processes keep their files."""
    for name in (_BUILDING, _TEMPORARY):
        _remove(shard / name)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # remains only take disk space


SPARE_BYTES = 256 * 2**20
"""Free bytes for a write of 1,024 passages, which go to the log and to the segment: about 10 MiB
usually, and 210 MiB if each has 100,000 characters of ASCII (both calculated)."""

_GRAPHS = "links*.bin"
_BLOCK_BYTES = 512  # the unit of `st_blocks` on every file system
_MIB = 2**20


def require_free_space(place: Path, action: str, size: int = 0) -> None:
    """Check the free disk space for a write.

    Args:
        place: A directory on the disk.
        action: The action for messages ("writing points").
        size: The bytes beyond `SPARE_BYTES`, which a batch needs.

    Raises:
        StoreUnavailableError: If there is less free space.
        OSError: If the system does not report it.
    """
    needed, free = SPARE_BYTES + size, shutil.disk_usage(place).free
    if free < needed:
        raise StoreUnavailableError(
            f"{action} in {place} needs {_mib(needed)} MiB of free disk space, got {free // _MIB} "
            f"MiB: free {_mib(needed - free)} MiB more"
        )


def has_graph(shard: Path) -> bool:
    """Return True if any segment of a shard has a graph."""
    return any((shard / _SEGMENTS).glob(f"*/*/{_GRAPHS}"))


def unindexed_bytes(segments: Path) -> int:
    """Estimate the bytes of an index build: the size of the segments without a graph.

    Raises:
        OSError: If they cannot be read.
    """
    return sum(allocated_bytes(path) for path in segments.iterdir() if not any(path.rglob(_GRAPHS)))


def unlinked_bytes(segments: Path) -> int:
    """Return the bytes of files that a copy of segments does not link.

    Raises:
        OSError: If they cannot be read.
    """
    files = (path for path in segments.rglob("*") if not is_linked(path.name))
    return sum(path.lstat().st_blocks * _BLOCK_BYTES for path in files)


def allocated_bytes(place: Path) -> int:
    """Return the allocated bytes of files; sparse files allocate less than their size."""
    return sum(file.lstat().st_blocks * _BLOCK_BYTES for file in place.rglob("*"))


def _mib(size: int) -> int:
    return -(-size // _MIB)
