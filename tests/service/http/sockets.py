"""The app behind a real server and a real socket, and raw bytes to it."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.server import HttpServer, listen
from tests.service.real_parts import Real, real_parts

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


@dataclass(frozen=True, slots=True)
class Served:
    """An app on a port of this machine."""

    real: Real
    port: int

    async def told(self, request: bytes, *, end: bool = True) -> bytes:
        """What comes back for some bytes until the server closes the connection.

        Args:
            request: The bytes.
            end: Whether to close this side after them, so that the server does, too.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            if end:
                writer.write_eof()
            return await reader.read()
        except ConnectionError:  # the server had enough
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def served(folder: Path, limits: Limits | None = None) -> AsyncIterator[Served]:
    """Serve the app over real parts as the sidecar does."""
    async with real_parts(folder, limits=limits) as real:
        listening = listen("127.0.0.1", 0)
        server = HttpServer(real.app, grace_s=1, limits=real.parts.limits)
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield Served(real, _port(listening))
        finally:
            server.stop()
            await serving


def statuses(answer: bytes) -> list[int]:
    """The statuses of the responses in some bytes."""
    return [int(status) for status in _STATUS.findall(answer)]


def _port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
