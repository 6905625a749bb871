"""A loopback server in its own process, which a test stops or kills.

It prints its URL by gRPC and its URL by REST, and runs until its standard input ends.
"""

from __future__ import annotations

import sys

from tests.loopback import LoopbackServer

if __name__ == "__main__":
    with LoopbackServer() as server:
        print(server.url, server.rest_url, flush=True)
        sys.stdin.read()
