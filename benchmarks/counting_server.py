"""A Qdrant server on loopback that counts the points which it is sent.

A program of its own, started by `frameworks.py`: it prints its URL, then answers each line with the
requests and the written points since the last one, as JSON. It is the server of the tests: the real
gRPC, over `qdrant-client`'s local mode, so its speed is not that of a Qdrant server.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Serve until standard input ends."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.loopback import LoopbackServer

    with LoopbackServer() as server:
        print(server.url, flush=True)
        for _ in sys.stdin:
            log = server.requests
            points = sum(len(message.points) for message in log.of("Points.Upsert"))
            print(json.dumps({"requests": log.count(), "points": points}), flush=True)
            log.clear()


if __name__ == "__main__":
    main()
