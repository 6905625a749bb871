"""A program that builds a copy of a shard's indexes, started by `EdgeCollection.optimize`.

`EdgeShard.optimize()` holds the GIL until it is done, for minutes on a large collection: no thread
of its process runs, and no signal is handled. A separate process can be waited for and killed. It
works on other segments than those that are searched. Files of vectors, payloads and graphs get a
hard link, since only a write of points changes them; other files are copied, since loading a shard
changes some of them.

It must not outlive its parent, or the next process would find the shard in use. No Python code
runs during the build, so a child of it waits for the end of standard input, whose other end the
parent holds, and then kills it.

Imports nothing of the package, so that it starts fast and needs no import path.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

# Files of Edge 0.9: vectors, payloads and sparse vectors, quantized vectors, graphs, sparse
# indexes. Other files are copied, so that an unknown file of a later version is safe.
LINKED = (
    "matrix.dat",
    "chunk_*.mmap",
    "page_*.dat",
    "quantized.data",
    "links*.bin",
    "inverted_index.dat",
)
_NICENESS = 10
_MAX_FILES = 65536
# The file system has no hard links, or no more for this file.
_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def end_with_parent() -> Iterator[None]:
    """Let the end of standard input kill this process, also inside a call of the engine."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ended, running = os.pipe()  # the kernel closes `running` when this process ends
    builder = os.getpid()
    watcher = os.fork()  # before the engine is imported: no other thread runs
    if watcher == 0:
        os.closerange(3, ended)  # the lock of the directory and `running` among them
        os.closerange(ended + 1, _MAX_FILES)
        _kill_after_parent(builder, ended)
    try:
        yield
    finally:
        os.close(running)
        os.waitpid(watcher, 0)


def _kill_after_parent(builder: int, ended: int) -> None:
    """Wait for the end of the builder, or of its parent; then kill the builder."""
    try:
        ready, _, _ = select.select([0, ended], [], [])
        if ended not in ready and os.getppid() == builder:
            os.kill(builder, signal.SIGKILL)
    finally:
        os._exit(0)


def sync_file(fd: int) -> None:
    """Sync a file to the disk; see `atomic_file.sync_file`, which cannot be imported here."""
    try:
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined, unused-ignore]
    except (ImportError, AttributeError, OSError):
        os.fsync(fd)


def is_linked(name: str) -> bool:
    """True for a file that only a write of points changes."""
    return any(fnmatch(name, pattern) for pattern in LINKED)


def copy_or_link(source: str, target: str) -> None:
    """Link a file of a segment, or copy it if the engine changes it."""
    if is_linked(Path(source).name):
        try:
            os.link(source, target)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
        else:
            return
    shutil.copyfile(source, target)


def sync_tree(place: Path) -> None:
    """Sync directories and their files to the disk."""
    for path in (*place.rglob("*"), place):
        fd = os.open(path, os.O_RDONLY)
        try:
            sync_file(fd)
        finally:
            os.close(fd)


def main(shard: str, place: str) -> None:
    """Build the indexes of a shard's settings.

    Args:
        shard: The shard, which may be searched during the build, but not written to.
        place: An empty directory on the same file system; after success its `segments` are synced
            and can replace the shard's.
    """
    with end_with_parent():
        os.nice(_NICENESS)  # searches come first
        from qdrant_edge import EdgeShard

        shutil.copyfile(f"{shard}/edge_config.json", f"{place}/edge_config.json")
        shutil.copytree(f"{shard}/segments", f"{place}/segments", copy_function=copy_or_link)
        loaded = EdgeShard.load(place)
        loaded.optimize()
        loaded.flush()
        loaded.close()
        sync_tree(Path(place, "segments"))


if __name__ == "__main__":
    main(*sys.argv[1:])
