"""A program that builds a copy of a shard's indexes, started by `EdgeCollection.optimize`.

`EdgeShard.optimize()` holds the GIL until it is done, for minutes on a large collection: no thread
of its process runs, and no signal is handled. A separate process can be waited for and killed. It
works on other segments than those that are searched. Files of vectors, payloads and graphs get a
hard link, since only a write of points changes them; other files are copied, since loading a shard
changes some of them.

It must not outlive its parent, or the next process would find the shard in use. No Python code
runs during the build, so the kernel ends it: the parent holds the other end of standard input, and
when that closes, SIGIO is sent, which ends a process by default.

Imports nothing of the package, so that it starts fast and needs no import path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import sys
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
# The file system has no hard links, or no more for this file.
_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS)


def end_with_parent() -> None:
    """Let the end of standard input end this process, also inside a call of the engine."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([0], [], [], 0)[0]:  # it ended before the handler was set
        sys.exit("the parent process has ended")


def copy_or_link(source: str, target: str) -> None:
    """Link a file of a segment, or copy it if the engine changes it."""
    if any(fnmatch(Path(source).name, pattern) for pattern in LINKED):
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
            os.fsync(fd)
        finally:
            os.close(fd)


def main(shard: str, place: str) -> None:
    """Build the indexes of a shard's settings.

    Args:
        shard: The shard, which may be searched during the build, but not written to.
        place: An empty directory on the same file system; after success its `segments` are synced
            and can replace the shard's.
    """
    end_with_parent()
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
