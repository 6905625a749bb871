"""A Qdrant server on loopback that stops and starts on command.

A program of its own, started by `serve.py`: it prints its URL, then reads `stop` and `start` line
by line and answers each with a line. It keeps its data. It is the server of the tests: the real
gRPC, over `qdrant-client`'s local mode, so its speed is not that of a Qdrant server.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Serve until standard input ends."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.loopback import LoopbackServer

    with LoopbackServer() as server:
        print(server.url, flush=True)
        for line in sys.stdin:
            {"stop": server.stop, "start": server.start}[line.strip()]()
            print("done", flush=True)


if __name__ == "__main__":
    main()
