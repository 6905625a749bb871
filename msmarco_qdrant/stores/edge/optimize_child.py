"""Build a shard's indexes beside it: a program of its own, started by `EdgeCollection.optimize`.

`EdgeShard.optimize()` holds Python's lock until it is done, for minutes on a large collection: no
thread of its process runs, and no signal is handled. In a process of its own it can be waited for
and killed. It works on other segments than those that are searched meanwhile: what holds vectors,
payloads and graphs has one more hard link, as only a write of points changes it and nobody writes
now; the rest, the bookkeeping, is copied, as loading alone changes some of it.

It must not outlive its parent, or the next one would find the shard in use; as no Python code runs
meanwhile, the kernel is asked to end it: the parent holds the other end of standard input, and when
that closes, SIGIO is sent, whose default is to end the process.

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

# Of Edge 0.9: vectors, payloads and sparse vectors, quantized vectors, graphs, sparse indexes. What
# has another name is copied, so that a file of a later version is at worst copied for nothing.
LINKED = (
    "matrix.dat",
    "chunk_*.mmap",
    "page_*.dat",
    "quantized.data",
    "links*.bin",
    "inverted_index.dat",
)
_NICENESS = 10
# Of file systems that have no hard links, or no more for this file.
_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS)


def end_with_parent() -> None:
    """Let the end of standard input end this process, whatever it is doing."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([0], [], [], 0)[0]:  # it had ended before anyone was told
        sys.exit("the parent process is gone")


def copy_or_link(source: str, target: str) -> None:
    """Give a file of a segment a second place, in which changing it does no harm."""
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
    """Bring directories and what is in them to the disk."""
    for path in (*place.rglob("*"), place):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def main(shard: str, place: str) -> None:
    """Build what a shard's settings ask for.

    Args:
        shard: The shard, which may be searched meanwhile, but not written to.
        place: An empty directory on the same file system; its `segments` are to take the place of
            the shard's when this has ended well, and are on the disk by then.
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
