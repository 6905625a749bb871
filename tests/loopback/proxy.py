"""A TCP proxy in front of the gRPC server, so that a cut is a real cut.

It forwards bytes and knows nothing of gRPC. Every connection has two threads that block in `recv`;
shutting the sockets down wakes both, so nothing here waits for time to pass.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

_LOOPBACK = "127.0.0.1"
_CHUNK = 1 << 16


class _Link:
    """One client's connection and the proxy's own connection to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.server_sees_port: int = server.getsockname()[1]
        self._lock = threading.Lock()
        self._budget: int | None = None
        self.threads = (
            threading.Thread(target=self._pump_up, name="loopback-up", daemon=True),
            threading.Thread(target=self._pump_down, name="loopback-down", daemon=True),
        )

    def start(self) -> None:
        """Start forwarding both ways."""
        for thread in self.threads:
            thread.start()

    def cut(self) -> None:
        """End both connections now; the threads wake and end."""
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):  # it was gone already
                one.shutdown(socket.SHUT_RDWR)

    def cut_after(self, count: int) -> None:
        """Let `count` more bytes of the client's pass, then cut."""
        with self._lock:
            self._budget = count
        if count <= 0:
            self.cut()

    def close(self) -> None:
        """Cut, wait for both threads, and free the sockets."""
        self.cut()
        for thread in self.threads:
            thread.join()
        self.client.close()
        self.server.close()

    @property
    def over(self) -> bool:
        """Whether both threads have ended."""
        return not any(thread.is_alive() for thread in self.threads)

    def _pump_up(self) -> None:
        """Client to server, within the budget."""
        with contextlib.suppress(OSError):
            while chunk := self.client.recv(_CHUNK):
                allowed, last = self._allowed(chunk)
                self.server.sendall(allowed)
                if last:
                    break
        self.cut()

    def _pump_down(self) -> None:
        """Server to client."""
        with contextlib.suppress(OSError):
            while chunk := self.server.recv(_CHUNK):
                self.client.sendall(chunk)
        self.cut()

    def _allowed(self, chunk: bytes) -> tuple[bytes, bool]:
        """The part of the chunk that may pass, and whether it is the last."""
        with self._lock:
            if self._budget is None:
                return chunk, False
            allowed = chunk[: self._budget]
            self._budget -= len(allowed)
            return allowed, self._budget <= 0


class CuttingProxy:
    """Forwards 127.0.0.1:`port` to a server's port, and cuts when told to.

    `start` takes a free port the first time and the same one again after `stop`.
    """

    def __init__(self) -> None:
        self.port = 0
        self._target = 0
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._listener: socket.socket | None = None
        self._accepting: threading.Thread | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None

    def start(self, target_port: int) -> None:
        """Listen, and forward to 127.0.0.1:`target_port`."""
        self._target = target_port
        self._listener = socket.create_server((_LOOPBACK, self.port))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._wake = socket.socketpair()
        self._accepting = threading.Thread(
            target=self._accept_all,
            args=(self._listener, self._wake[0]),
            name="loopback-accept",
            daemon=True,
        )
        self._accepting.start()

    def stop(self) -> None:
        """End every thread and free every socket; the port is kept for the next `start`."""
        if self._listener is None or self._accepting is None or self._wake is None:
            return
        self._wake[1].close()  # the accepting thread sees the end of its stream and ends
        self._accepting.join()
        self._listener.close()
        self._wake[0].close()
        self._listener = self._accepting = self._wake = None
        self.cut()
        for link in self._take_links():
            link.close()

    def cut(self, server_sees_port: int | None = None) -> None:
        """Cut every connection now, or the one that the server sees from that port."""
        for link in self._find(server_sees_port):
            link.cut()

    def cut_after(self, count: int, server_sees_port: int | None = None) -> None:
        """Cut once `count` more bytes came from the client, on each connection or on that one."""
        for link in self._find(server_sees_port):
            link.cut_after(count)

    def _find(self, server_sees_port: int | None) -> list[_Link]:
        with self._lock:
            return [
                link
                for link in self._links
                if not link.over and server_sees_port in {None, link.server_sees_port}
            ]

    def _take_links(self) -> list[_Link]:
        with self._lock:
            links, self._links = self._links, []
        return links

    def _accept_all(self, listener: socket.socket, wake: socket.socket) -> None:
        """Accept until `wake` ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if wake in ready:
                    return
                self._accept_one(listener)

    def _accept_one(self, listener: socket.socket) -> None:
        """Take one client and connect it to the server; a client that is gone again is dropped."""
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionError):  # it had gone before it was taken
            return
        client.setblocking(True)
        try:
            server = socket.create_connection((_LOOPBACK, self._target))
        except OSError:  # the server is not there: the client sees its connection end
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server)
        with self._lock:  # whoever has seen a byte of it forwarded must be able to find it
            link.start()
            ended = [one for one in self._links if one.over]
            self._links = [one for one in self._links if one not in ended] + [link]
        for one in ended:
            one.close()
