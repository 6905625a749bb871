"""Another endpoint to a loopback server's data, for the requests of one client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.loopback import LoopbackServer, Mistake

OnRequest = Callable[[str, Any], bool]


class ClientProxy(LoopbackServer):
    """A server of its own on the data of another, which must outlive it.

    Args:
        server: The server that has the data.
        on_request: Called with each call's long name and message before it is applied; returns
            False to drop it.
    """

    def __init__(
        self, server: LoopbackServer, on_request: OnRequest = lambda _rpc, _message: True
    ) -> None:
        super().__init__()
        self._engine = server._engine
        self._lock = server._lock
        self._on_request = on_request

    def start(self) -> None:
        """Serve; see `LoopbackServer`."""
        super().start()
        assert self._running is not None
        gate = self._running.gate
        apply = gate._apply

        def filtered(call: Callable[[Any, Any], Any], rpc: str, message: Any) -> Any:
            if not self._on_request(rpc, message):
                raise Mistake.CANCELLED.refusal()
            return apply(call, rpc, message)

        gate._apply = filtered  # type: ignore[method-assign]
