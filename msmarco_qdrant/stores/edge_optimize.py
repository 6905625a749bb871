"""Build a shard's indexes: a program of its own, started by `EdgeCollection.optimize`.

`EdgeShard.optimize()` holds Python's lock until it is done, for minutes on a large collection: no
thread of its process runs, and no signal is handled. In a process of its own it can be waited for
and killed. It must not outlive its parent, or the next one would find the shard in use; as no
Python code runs meanwhile, the kernel is asked to end it: the parent holds the other end of
standard input, and when that closes, SIGIO is sent, whose default is to end the process.

Imports nothing of the package, so that it starts fast and needs no import path.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys


def end_with_parent() -> None:
    """Let the end of standard input end this process, whatever it is doing."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([0], [], [], 0)[0]:  # it had ended before anyone was told
        sys.exit("the parent process is gone")


def main(shard: str) -> None:
    """Load the shard at a path, build what its settings ask for, and write it out."""
    end_with_parent()
    from qdrant_edge import EdgeShard

    loaded = EdgeShard.load(shard)
    loaded.optimize()
    loaded.flush()
    loaded.close()


if __name__ == "__main__":
    main(sys.argv[1])
