"""A Qdrant server that keeps nothing: it decodes each write, counts its points, and acknowledges.

Just enough of Qdrant's gRPC services for a client to open a collection, or to make one, and write
to it, so that a benchmark measures the client and not an engine. A collection that a client makes
is remembered with its settings, nothing else is. It prints its port on the first line, ends when
its standard input ends, and then prints what it received, as JSON.

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
    """Counts of a server.

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
        answer, _ = process.communicate(timeout=30)
        for name, value in json.loads(answer).items():
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

    made: dict[str, Any] = {}

    class Collections(grpc.CollectionsServicer):
        def List(self, *_: Any) -> grpc.ListCollectionsResponse:  # noqa: N802
            answer = grpc.CollectionDescription(name=collection)
            return grpc.ListCollectionsResponse(collections=[answer])

        def ListAliases(self, *_: Any) -> grpc.ListAliasesResponse:  # noqa: N802
            return grpc.ListAliasesResponse()

        def CollectionExists(self, request: Any, _: Any) -> Any:  # noqa: N802
            exists = grpc.CollectionExists(exists=request.collection_name in made)
            return grpc.CollectionExistsResponse(result=exists)

        def Create(self, request: Any, _: Any) -> Any:  # noqa: N802
            made[request.collection_name] = request
            return grpc.CollectionOperationResponse(result=True)

        def Delete(self, request: Any, _: Any) -> Any:  # noqa: N802
            return grpc.CollectionOperationResponse(
                result=made.pop(request.collection_name, None) is not None
            )

        def Get(self, request: Any, _: Any) -> Any:  # noqa: N802
            return grpc.GetCollectionInfoResponse(result=_info(made[request.collection_name]))

    return Collections()


def _info(asked: Any) -> Any:
    """Return the collection info of a server, with the settings of the request."""
    from qdrant_client import grpc

    params = grpc.CollectionParams(
        shard_number=1, on_disk_payload=True, vectors_config=asked.vectors_config
    )
    config = grpc.CollectionConfig(
        params=params,
        hnsw_config=grpc.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
        optimizer_config=grpc.OptimizersConfigDiff(
            deleted_threshold=0.2,
            vacuum_min_vector_number=1000,
            default_segment_number=0,
            flush_interval_sec=5,
        ),
        wal_config=grpc.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
    )
    return grpc.CollectionInfo(
        status=grpc.CollectionStatus.Green,
        optimizer_status=grpc.OptimizerStatus(ok=True),
        config=config,
    )


def _points_service(taken: Taken) -> Any:
    from qdrant_client import grpc

    lock = threading.Lock()

    done = grpc.PointsOperationResponse(
        result=grpc.UpdateResult(operation_id=1, status=grpc.UpdateStatus.Completed)
    )

    class Points(grpc.PointsServicer):
        def Upsert(self, request: grpc.UpsertPoints, _: Any) -> Any:  # noqa: N802
            with lock:
                if not taken.first:
                    taken.first = _digest(request)
                taken.requests += 1
                taken.points += len(request.points)
            return done

        def CreateFieldIndex(self, *_: Any) -> Any:  # noqa: N802
            return done

    return Points()


def _digest(request: Any) -> str:
    digest = hashlib.sha256()
    for point in request.points:
        digest.update(point.SerializeToString(deterministic=True))
    return digest.hexdigest()


if __name__ == "__main__":
    serve(sys.argv[1])
