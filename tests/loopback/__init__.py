"""A loopback Qdrant server for tests: real gRPC, real statuses, real cut connections.

It serves on 127.0.0.1 with `qdrant_client`'s own servicers over local mode, refuses what a real
server refuses with the status and message of a real server (`statuses`), and does what goes wrong
in production when a test asks for it (`faults`).
"""

from qdrant_client.embed import schema_parser

from tests.loopback.cluster import LoopbackCluster
from tests.loopback.faults import Cut, Fault, LostAnswer, Refused, Slow
from tests.loopback.gate import RequestLog
from tests.loopback.server import LoopbackServer, RestLoopbackServer
from tests.loopback.statuses import Mistake

__all__ = [
    "Cut",
    "Fault",
    "LoopbackCluster",
    "LoopbackServer",
    "LostAnswer",
    "Mistake",
    "Refused",
    "RequestLog",
    "RestLoopbackServer",
    "Slow",
]

# Each client copies the schema of all models, which takes longer than many a test; none changes it.
schema_parser.deepcopy = lambda schema, *_: schema  # type: ignore[attr-defined]
