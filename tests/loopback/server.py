"""A Qdrant server on 127.0.0.1 for tests: gRPC and REST over local mode, faults on request."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import grpc as grpcio  # type: ignore[import-untyped]
from qdrant_client import QdrantClient, grpc

from tests.loopback.access import Rights
from tests.loopback.collections_service import CollectionsService
from tests.loopback.engine import Engine, Health
from tests.loopback.faults import FaultPlan
from tests.loopback.gate import Gate, Keys, RequestLog
from tests.loopback.names import rpc_names
from tests.loopback.points_service import PointsService
from tests.loopback.proxy import CuttingProxy
from tests.loopback.rest_routes import ROUTES
from tests.loopback.rest_side import RestSide
from tests.loopback.snapshots_service import SnapshotsService

_TITLE = "qdrant - vector search engine"
_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)
# a call that a Slow fault holds keeps its thread; threads are made only when they are needed
_THREADS = 64


class _HealthService(grpc.QdrantServicer):
    """Says which server this is."""

    def __init__(self, version: str) -> None:
        self._version = version

    def HealthCheck(  # noqa: N802  # the protobuf's name
        self,
        request: grpc.HealthCheckRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> grpc.HealthCheckReply:
        """Answer title, version and commit."""
        return grpc.HealthCheckReply(title=_TITLE, version=self._version, commit=_COMMIT)


class _Running(NamedTuple):
    """What one start has made."""

    gate: Gate
    grpc: tuple[Any, ThreadPoolExecutor] | None
    rest: RestSide


class LoopbackServer:
    """A Qdrant server that clients reach at 127.0.0.1; a context manager.

    `stop` then `start` keeps the data, the ports, the faults and the record of requests. Both are
    for one thread at a time; everything else is for any.

    Args:
        api_key: what clients must send in `api-key` (or as a bearer token); None asks for none.
        version: what a health check answers.
        read_only_api_key: a second key, for reads only.
        tokens: further keys with their rights, such as `{"collection": "r"}`; see `access`.
        tls: private key and certificate chain, PEM, for secure ports.
        prefix: a path before every path of REST, as behind an HTTP gateway: `/qdrant`.
        serve_grpc: False for a server that clients reach by REST alone.
        adjacent: True to serve gRPC at the REST port plus one, as a Qdrant server does.

    Attributes:
        faults: what goes wrong, and when, by either port.
        requests: the calls that reached the server, by either port.
        proxy: the TCP proxy that clients of gRPC connect to, to cut or refuse them by hand.
        rest_proxy: that of REST.
        snapshots: the snapshots that were made and not deleted.
    """

    def __init__(
        self,
        api_key: str | None = None,
        version: str = "1.20.0",
        *,
        read_only_api_key: str | None = None,
        tokens: Mapping[str, Rights] = MappingProxyType({}),
        tls: tuple[bytes, bytes] | None = None,
        prefix: str = "",
        serve_grpc: bool = True,
        adjacent: bool = False,
    ) -> None:
        self.faults = FaultPlan()
        self.requests = RequestLog()
        self.proxy = CuttingProxy()
        self.rest_proxy = CuttingProxy()
        self._keys = Keys(api_key, read_only_api_key, tokens)
        self._version = version
        self._tls = tls
        self._prefix = prefix
        self._serve_grpc = serve_grpc
        self._is_choosing = adjacent
        self._lock = threading.Lock()
        self._engine = Engine()
        self._engine.version = version
        self.snapshots = SnapshotsService(lambda: self._engine)
        self._running: _Running | None = None

    def __enter__(self) -> LoopbackServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The gRPC port that clients connect to; 0 before the first start, and without gRPC."""
        return self.proxy.port

    @property
    def url(self) -> str:
        """`grpc://127.0.0.1:PORT`, or `grpcs://` with TLS."""
        return f"grpc{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def rest_url(self) -> str:
        """`http://127.0.0.1:PORT` and the prefix, or `https://` with TLS."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.rest_proxy.port}{self._prefix}"

    def start(self) -> None:
        """Serve; nothing happens if it does already.

        Raises:
            OSError: the port of the last start is in use.
        """
        while self._is_choosing:
            self.rest_proxy.port, self.proxy.port = _adjacent_ports()
            with suppress(OSError):  # another process took one of them first
                self._start()
                self._is_choosing = False
        self._start()

    def _start(self) -> None:
        if self._running is not None:
            return
        gate = Gate(self._keys, self.faults, self.requests, self.proxy, self._lock)
        services = self._services()
        rest = RestSide(
            gate,
            _calls({**services, "Snapshots": self.snapshots}),
            ROUTES,
            self.rest_proxy,
            prefix=self._prefix,
            tls=self._tls,
        )
        serving = self._serve(gate, services) if self._serve_grpc else None
        self._running = _Running(gate, None if serving is None else serving[:2], rest)
        try:
            rest.start()
            if serving is not None:
                self.proxy.start(serving[2])
        except OSError:  # somebody has taken the port since the last stop
            self.stop()
            raise

    def _services(self) -> Mapping[str, Any]:
        """The services by name."""
        return {
            "Qdrant": _HealthService(self._version),
            "Collections": CollectionsService(self._engine),
            "Points": self._points_service(),
        }

    def _points_service(self) -> PointsService:
        return PointsService(self._engine)

    def _serve(
        self, gate: Gate, services: Mapping[str, Any]
    ) -> tuple[Any, ThreadPoolExecutor, int]:
        """Start the gRPC server, at a port behind the proxy."""
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="loopback")
        server = grpcio.server(pool, interceptors=(gate,), options=_OPTIONS)
        for name, service in services.items():
            register: Callable[[object, Any], None] = getattr(grpc, f"add_{name}Servicer_to_server")
            register(service, server)
        port = self._listen(server)
        server.start()
        return server, pool, port

    def _listen(self, server: Any) -> int:
        """Bind the gRPC server's own port, behind the proxy."""
        if self._tls is None:
            return int(server.add_insecure_port("127.0.0.1:0"))
        credentials = grpcio.ssl_server_credentials([self._tls])
        return int(server.add_secure_port("127.0.0.1:0", credentials))

    def stop(self) -> None:
        """End every connection and call; what waits is not applied. The data stays."""
        if self._running is None:
            return
        gate, serving, rest = self._running
        self._running = None
        gate.stop()
        self.proxy.stop()
        rest.stop()
        if serving is not None:
            server, pool = serving
            server.stop(None).wait()
            pool.shutdown(wait=True)

    def settle(self, timeout_s: float = 60.0) -> None:
        """Wait until no call is being handled, so that what a client gave up is applied or not.

        Raises:
            TimeoutError: a call is still being handled.
        """
        if self._running is not None and not self._running.gate.settle(timeout_s):
            raise TimeoutError(f"a call was still being handled after {timeout_s} s")

    def set_status(
        self,
        collection: str,
        status: str,
        *,
        calls: int | None = None,
        optimizer_error: str = "",
        indexed_vectors_count: int | None = None,
    ) -> None:
        """Let Get collection answer `status` (green, yellow, red or grey).

        Args:
            collection: by alias or physical name.
            status: what the next answers say. Grey ends with the next write, and with an update of
                settings, even an empty one: both start the optimizers.
            calls: for how many answers, after those set before; None is until the next
                `set_status`, which also forgets what was set.
            optimizer_error: a text makes the optimizer status an error.
            indexed_vectors_count: what to say of it, instead of what the sizes give.

        Raises:
            ValueError: there is no such status.
            RefusalError: there is no such collection.
        """
        health = Health(status.capitalize(), optimizer_error, indexed_vectors_count)
        if health.status not in {"Green", "Yellow", "Red", "Grey"}:
            raise ValueError(f"{status!r} is no status: say green, yellow, red or grey")
        with self._lock:
            self._engine.shelf(collection).set_health(health, calls)

    @contextmanager
    def inspect(self) -> Iterator[QdrantClient]:
        """Look at what is stored, by physical name and without a call: no fault touches this.

        The server's lock is held meanwhile: a call to the server inside would wait for ever.
        """
        with self._lock:
            yield self._engine.client


class RestLoopbackServer(LoopbackServer):
    """The server behind an HTTP gateway: REST alone, under a path."""

    def __init__(self) -> None:
        super().__init__(prefix="/qdrant", serve_grpc=False)

    @property
    def url(self) -> str:
        """The URL of REST; its path implies the transport."""
        return self.rest_url


def _calls(services: Mapping[str, Any]) -> Mapping[str, Callable[[Any, Any], Any]]:
    """The function of each call by its long name; those that are not served refuse."""
    return {
        rpc: getattr(services[rpc.partition(".")[0]], rpc.partition(".")[2]) for rpc in rpc_names()
    }


def _adjacent_ports() -> tuple[int, int]:
    """Two free ports in a row."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except (OSError, OverflowError):
                continue
            return port, port + 1
