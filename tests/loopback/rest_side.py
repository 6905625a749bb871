"""The server's REST port: HTTP/1.1 over the same calls, keys, faults and record as the gRPC port.

Status codes and error bodies are those of qdrant/qdrant src/actix/helpers.rs and auth.rs.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import grpc  # type: ignore[import-untyped]
from pydantic_core import to_json

from tests.loopback.faults import Cut
from tests.loopback.gate import Gate
from tests.loopback.proxy import CuttingProxy
from tests.loopback.rest_routes import RestAnswer, RestRequest, Route
from tests.loopback.statuses import Mistake, RefusalError

_LOOPBACK = "127.0.0.1"
_LIMIT_BYTES = 32 * 2**20
"""`service.max_request_size_mb` of the server's config/config.yaml."""

_JSON = "application/json"
_STATUSES: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.DEADLINE_EXCEEDED: 408,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNIMPLEMENTED: 404,
}
"""Each other status is 500."""

_INVALID = "Validation error"


class RestSide:
    """Serves the REST port. One lives as long as one start of the server.

    Args:
        gate: what every call passes.
        calls: the function of each call, by its long name.
        routes: the endpoints.
        proxy: the TCP proxy that clients connect to.
        prefix: a path before every endpoint's, as behind a gateway: `/qdrant`.
        tls: private key and certificate chain, PEM.
    """

    def __init__(
        self,
        gate: Gate,
        calls: Mapping[str, Callable[[Any, Any], Any]],
        routes: Sequence[Route],
        proxy: CuttingProxy,
        *,
        prefix: str = "",
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.gate = gate
        self.calls = calls
        self.proxy = proxy
        self._routes = routes
        self._prefix = prefix
        self._tls = None if tls is None else _tls_context(tls)
        self._server = _Server((_LOOPBACK, 0), _Handler)
        self._server.side = self
        self._thread = threading.Thread(target=self._accept_all, name="loopback-rest", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Serve, behind the proxy."""
        self._thread.start()
        self.proxy.start(self._server.server_port)

    def stop(self) -> None:
        """End every connection; the gate has been stopped before."""
        self.proxy.stop()
        self._stopping = True
        with socket.create_connection((_LOOPBACK, self._server.server_port)):  # wakes `accept`
            self._thread.join()
        self._server.server_close()  # joins the threads of the connections

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """The route of a path, and the path's variables."""
        if not path.startswith(f"{self._prefix}/"):
            return None
        inside = path.removeprefix(self._prefix)
        for route in self._routes:
            if (variables := route.match(method, inside)) is not None:
                return route, variables
        return None

    def _accept_all(self) -> None:
        """Accept until `stop`; not `serve_forever`, which polls."""
        while True:
            connection, address = self._server.socket.accept()
            if self._stopping:
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:  # the handshake is made in the connection's own thread
                connection = self._tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            self._server.process_request(connection, address)


class _Server(ThreadingHTTPServer):
    """Its threads are joined when it is closed."""

    daemon_threads = False
    block_on_close = True
    side: RestSide

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is no news; what a handler raises is answered by it."""


class _Caller:
    """The client of one request, as the gate sees it: see `gate.Caller`."""

    def __init__(self, connection: socket.socket, proxy: CuttingProxy) -> None:
        self._connection = connection
        self._proxy = proxy
        self._port: int = connection.getpeername()[1]
        self._over: tuple[socket.socket, socket.socket] | None = None
        self._watch: threading.Thread | None = None
        self._active = True

    def cut(self) -> None:
        """Cut the client's connection."""
        self._proxy.cut(self._port)

    def cut_after(self, count: int) -> None:
        """Cut it once so many more bytes came."""
        self._proxy.cut_after(count, self._port)

    def is_active(self) -> bool:
        """Whether the client still waits."""
        return self._active

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call when the client has gone; a client over TLS is never seen to go."""
        if not isinstance(self._connection, ssl.SSLSocket):
            self._over = socket.socketpair()
            self._watch = threading.Thread(
                target=self._wait, args=(callback, self._over[0]), name="loopback-watch"
            )
            self._watch.start()
        return True

    def close(self) -> None:
        """End the watch."""
        if self._over is not None and self._watch is not None:
            self._over[1].close()
            self._watch.join()
            self._over[0].close()

    def _wait(self, callback: Callable[[], None], over: socket.socket) -> None:
        """Wait for the end of the connection, or of the request."""
        ready, _, _ = select.select([self._connection, over], [], [])
        if over in ready:
            return
        with contextlib.suppress(OSError):
            if self._connection.recv(1, socket.MSG_PEEK):
                return
        self._active = False
        callback()


class _Handler(BaseHTTPRequestHandler):
    """One connection, for as long as the client keeps it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        """Read and answer one request, of any method."""
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(65537)
        if self.raw_requestline and self.parse_request():
            self._respond()

    def _respond(self) -> None:
        side, url = self.server.side, urlsplit(self.path)
        length = int(self.headers.get("Content-Length", 0))
        if (found := side.find(self.command, url.path)) is None:
            self.rfile.read(length)
            self._send(404, b"")
            return
        route, variables = found
        caller = _Caller(self.connection, side.proxy)
        headers = {name.lower(): value for name, value in self.headers.items()}
        admission = side.gate.admit(route.rpc, headers)
        if isinstance(fault := admission.fault, Cut):
            with side.gate.counted():
                caller.cut_after(fault.after_bytes)
                self.rfile.read(length)
                caller.cut()
            return
        body = self.rfile.read(length)
        if len(body) < length:
            return
        request = RestRequest(variables, dict(parse_qsl(url.query)), body, headers)
        with contextlib.closing(caller):
            try:
                message = _decode(route, request)
                call = side.calls[route.rpc]
                answer = side.gate.pass_through(route.rpc, admission, call, message, caller)
                self._answer(route.encode(answer))
            except RefusalError as error:
                self._refuse(error)
            except Exception as error:  # noqa: BLE001  # of a conversion: the test must see it
                self._refuse(Mistake.INTERNAL.refusal(description=repr(error)))

    def _answer(self, result: Any) -> None:
        if isinstance(result, RestAnswer):
            self._send(result.status, result.body, result.content_type)
        else:
            self._send(200, to_json({"result": result, "status": "ok", "time": 0.0}), _JSON)

    def _refuse(self, error: RefusalError) -> None:
        """Send the status and the text; who has no key gets the text alone."""
        status = _STATUSES.get(error.code, 500)
        if status == 400 and error.message.startswith(_INVALID):
            status = 422
        if status == 401:
            self._send(status, error.message.encode())
            return
        body = json.dumps({"status": {"error": error.message}, "time": 0.0}).encode()
        self._send(status, body, _JSON, error.trailing)

    def _send(
        self,
        status: int,
        body: bytes,
        content_type: str = "text/plain",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            self.close_connection = self.headers.get("Connection", "").lower() == "close"

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _decode(route: Route, request: RestRequest) -> Any:
    """The message of a request whose body is not too large."""
    if route.limited and len(request.body) > _LIMIT_BYTES:
        raise Mistake.TOO_LARGE.refusal(size=len(request.body), limit=_LIMIT_BYTES)
    return route.decode(request)


def _tls_context(tls: tuple[bytes, bytes]) -> ssl.SSLContext:
    """A context with a key and its certificates, which it reads from files only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _files(tls) as (key, chain):
        context.load_cert_chain(chain, key)
    return context


@contextlib.contextmanager
def _files(contents: Sequence[bytes]) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        yield paths
