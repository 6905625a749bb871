"""A Qdrant server that keeps nothing: it decodes each write, counts its points, and acknowledges.

Just enough of Qdrant's gRPC services for a client to open one collection and write to it, so that
a benchmark measures the client and not an engine. It says its port on the first line, ends when
its standard input ends, and then says what it took, as JSON.

    python benchmarks/acknowledging_server.py COLLECTION
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

VERSION = "1.20.0"
_THREADS = 8


@dataclass(slots=True)
class Taken:
    """What a server took.

    Attributes:
        requests: Writes.
        points: Points in them.
        first: sha256 of the points of the first write, to compare what clients send.
    """

    requests: int = 0
    points: int = 0
    first: str = ""


@contextmanager
def running_server(collection: str) -> Iterator[tuple[int, Taken]]:
    """A server in a process of its own: its port, and what it took, filled in at the end."""
    process = subprocess.Popen(
        [sys.executable, __file__, collection],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    taken = Taken()
    try:
        port = int(process.stdout.readline()) if process.stdout else 0
        yield port, taken
    finally:
        told, _ = process.communicate(timeout=30)
        for name, value in json.loads(told).items():
            setattr(taken, name, value)


def serve(collection: str) -> None:
    """Serve until standard input ends."""
    import grpc as grpcio  # type: ignore[import-untyped]
    from qdrant_client import grpc

    taken = Taken()
    pool = ThreadPoolExecutor(_THREADS)
    server = grpcio.server(pool, options=[("grpc.max_receive_message_length", -1)])
    services: tuple[tuple[Callable[..., None], object], ...] = (
        (grpc.add_QdrantServicer_to_server, _root_service()),
        (grpc.add_CollectionsServicer_to_server, _collections_service(collection)),
        (grpc.add_PointsServicer_to_server, _points_service(taken)),
    )
    for register, service in services:
        register(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None).wait()
    pool.shutdown()
    print(json.dumps(asdict(taken)))


def _root_service() -> Any:
    from qdrant_client import grpc

    class Root(grpc.QdrantServicer):
        def HealthCheck(self, *_: Any) -> grpc.HealthCheckReply:  # noqa: N802
            return grpc.HealthCheckReply(title="acknowledging", version=VERSION)

    return Root()


def _collections_service(collection: str) -> Any:
    from qdrant_client import grpc

    class Collections(grpc.CollectionsServicer):
        def List(self, *_: Any) -> grpc.ListCollectionsResponse:  # noqa: N802
            told = grpc.CollectionDescription(name=collection)
            return grpc.ListCollectionsResponse(collections=[told])

        def ListAliases(self, *_: Any) -> grpc.ListAliasesResponse:  # noqa: N802
            return grpc.ListAliasesResponse()

    return Collections()


def _points_service(taken: Taken) -> Any:
    from qdrant_client import grpc

    lock = threading.Lock()

    class Points(grpc.PointsServicer):
        def Upsert(self, request: grpc.UpsertPoints, _: Any) -> Any:  # noqa: N802
            with lock:
                if not taken.first:
                    taken.first = _digest(request)
                taken.requests += 1
                taken.points += len(request.points)
            done = grpc.UpdateResult(operation_id=1, status=grpc.UpdateStatus.Completed)
            return grpc.PointsOperationResponse(result=done)

    return Points()


def _digest(request: Any) -> str:
    digest = hashlib.sha256()
    for point in request.points:
        digest.update(point.SerializeToString(deterministic=True))
    return digest.hexdigest()


if __name__ == "__main__":
    serve(sys.argv[1])
