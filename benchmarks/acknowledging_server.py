"""A Qdrant server that keeps nothing: it decodes each write, counts its points, and acknowledges.

Just enough of Qdrant's gRPC services for a client to open a collection, or to make one, and write
to it, so that a benchmark measures the client and not an engine; by REST, to open and write.
Collections and aliases that a client makes are remembered, of their points only the number. It
prints its ports, of gRPC and of REST, on the first line, ends when its standard input ends, and
then prints what it received, as JSON.

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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
        rest_port: Its port of REST.
    """

    requests: int = 0
    points: int = 0
    first: str = ""
    rest_port: int = 0


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
        ports = process.stdout.readline().split() if process.stdout else ()
        port, taken.rest_port = map(int, ports)
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
    rest = _RestServer(("127.0.0.1", 0), _RestHandler)
    rest.collection, rest.taken = collection, taken
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    taken.rest_port = rest.server_port
    print(port, taken.rest_port, flush=True)
    sys.stdin.read()
    rest.shutdown()
    server.stop(None).wait()
    pool.shutdown()
    print(json.dumps(asdict(taken)))


def _root_service() -> Any:
    from qdrant_client import grpc

    class Root(grpc.QdrantServicer):
        def HealthCheck(self, *_: Any) -> grpc.HealthCheckReply:  # noqa: N802
            return grpc.HealthCheckReply(title="qdrant, acknowledging", version=VERSION)

    return Root()


def _collections_service(collection: str) -> Any:
    import grpc as grpcio
    from qdrant_client import grpc

    made: dict[str, Any] = {}
    aliases: dict[str, str] = {}

    class Collections(_aliases_service(aliases)):  # type: ignore[misc]
        def List(self, *_: Any) -> grpc.ListCollectionsResponse:  # noqa: N802
            found = [grpc.CollectionDescription(name=name) for name in (collection, *made)]
            return grpc.ListCollectionsResponse(collections=found)

        def CollectionExists(self, request: Any, _: Any) -> Any:  # noqa: N802
            exists = grpc.CollectionExists(exists=request.collection_name in made)
            return grpc.CollectionExistsResponse(result=exists)

        def Create(self, request: Any, _: Any) -> Any:  # noqa: N802
            made[request.collection_name] = request
            return grpc.CollectionOperationResponse(result=True)

        def Update(self, request: Any, _: Any) -> Any:  # noqa: N802
            for name, value in request.metadata.items():
                made[request.collection_name].metadata[name].CopyFrom(value)
            return grpc.CollectionOperationResponse(result=True)

        def Delete(self, request: Any, _: Any) -> Any:  # noqa: N802
            return grpc.CollectionOperationResponse(
                result=made.pop(request.collection_name, None) is not None
            )

        def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
            name = aliases.get(request.collection_name, request.collection_name)
            if name not in {*made, collection}:
                context.abort(grpcio.StatusCode.NOT_FOUND, f"Collection `{name}` doesn't exist!")
            asked = made.get(name) or _unknown()
            return grpc.GetCollectionInfoResponse(result=_info(asked))

    return Collections()


def _aliases_service(aliases: dict[str, str]) -> Any:
    """The class of a service that keeps aliases."""
    from qdrant_client import grpc

    class Aliases(grpc.CollectionsServicer):
        def ListAliases(self, *_: Any) -> grpc.ListAliasesResponse:  # noqa: N802
            found = [
                grpc.AliasDescription(alias_name=alias, collection_name=name)
                for alias, name in aliases.items()
            ]
            return grpc.ListAliasesResponse(aliases=found)

        def UpdateAliases(self, request: Any, _: Any) -> Any:  # noqa: N802
            for action in request.actions:
                if action.HasField("create_alias"):
                    created = action.create_alias
                    aliases[created.alias_name] = created.collection_name
                elif action.HasField("delete_alias"):
                    aliases.pop(action.delete_alias.alias_name, None)
            return grpc.CollectionOperationResponse(result=True)

    return Aliases


def _unknown() -> Any:
    """The request for a collection that was there before."""
    from qdrant_client import grpc

    dense = grpc.VectorParams(size=1, distance=grpc.Distance.Dot)
    return grpc.CreateCollection(vectors_config=grpc.VectorsConfig(params=dense))


def _info(asked: Any) -> Any:
    """Return the collection info of a server, with the settings of the request."""
    from qdrant_client import grpc

    params = grpc.CollectionParams(
        shard_number=1,
        on_disk_payload=True,
        vectors_config=asked.vectors_config,
        sparse_vectors_config=asked.sparse_vectors_config,
    )
    config = grpc.CollectionConfig(
        params=params,
        metadata=asked.metadata,
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

        def Count(self, *_: Any) -> Any:  # noqa: N802
            return grpc.CountResponse(result=grpc.CountResult(count=taken.points))

        def CreateFieldIndex(self, *_: Any) -> Any:  # noqa: N802
            return done

    return Points()


class _RestServer(ThreadingHTTPServer):
    daemon_threads = True
    collection: str
    taken: Taken


class _RestHandler(BaseHTTPRequestHandler):
    """Answers what opens a collection, and decodes and acknowledges each write."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _RestServer
    _lock = threading.Lock()

    def do_GET(self) -> None:
        """Answer the version, one collection, or no aliases."""
        from qdrant_client.conversions.conversion import GrpcToRest

        if self.path == "/":
            self._send({"title": "qdrant, acknowledging", "version": VERSION})
        elif self.path == "/aliases":
            self._send({"result": {"aliases": []}, "status": "ok", "time": 0.0})
        elif self.path == f"/collections/{self.server.collection}":
            info = GrpcToRest.convert_collection_info(_info(_unknown()))
            found = info.model_dump(mode="json")
            self._send({"result": found, "status": "ok", "time": 0.0})
        else:
            found = {"collections": [{"name": self.server.collection}]}
            self._send({"result": found, "status": "ok", "time": 0.0})

    def do_PUT(self) -> None:
        """Decode points, count them, and acknowledge."""
        from pydantic_core import from_json

        body = self.rfile.read(int(self.headers["Content-Length"]))
        points, taken = from_json(body)["points"], self.server.taken
        with self._lock:
            if not taken.first:
                taken.first = _digest(_messages(points))
            taken.requests += 1
            taken.points += len(points)
        done = {"operation_id": 1, "status": "completed"}
        self._send({"result": done, "status": "ok", "time": 0.0})

    def _send(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _messages(points: list[Any]) -> Any:
    """The points of a body as a message, to compare them with gRPC's."""
    from qdrant_client import grpc, models
    from qdrant_client.conversions.conversion import RestToGrpc

    made = [
        RestToGrpc.convert_point_struct(models.PointStruct.model_validate(one)) for one in points
    ]
    return grpc.UpsertPoints(points=made)


def _digest(request: Any) -> str:
    digest = hashlib.sha256()
    for point in request.points:
        digest.update(point.SerializeToString(deterministic=True))
    return digest.hexdigest()


if __name__ == "__main__":
    serve(sys.argv[1])
