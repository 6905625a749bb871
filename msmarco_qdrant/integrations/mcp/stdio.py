"""The server over standard input and output, which a client starts as its child process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from mcp.server import MCPServer
from mcp.server.stdio import stdio_server

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.runtime.daemon_executor import call_in_daemon_thread

if TYPE_CHECKING:
    import anyio

_CHUNK_BYTES: Final = 2**16
MAX_LINE_BYTES: Final = 2**24
"""Most bytes of a message."""


async def serve_stdio(server: MCPServer[Any]) -> None:
    """Serve until the client closes standard input.

    In the meantime what else is printed goes to standard error, and standard input is empty for
    the process and its children. May be cancelled, other than the SDK's own: its thread waits for
    the next line.

    Raises:
        UsageError: For a message that is too long.
    """
    low_level = server._lowlevel_server  # noqa: SLF001  # as `run_stdio_async`, with other input
    with _claimed_input() as descriptor:
        lines = _Lines(descriptor)
        file = cast("anyio.AsyncFile[str]", lines)
        async with stdio_server(stdin=file) as (incoming, outgoing):
            await low_level.run(incoming, outgoing, low_level.create_initialization_options())
    if lines.is_too_long:
        raise UsageError(f"a message must have at most {MAX_LINE_BYTES:,} bytes")


@contextmanager
def _claimed_input() -> Iterator[int]:
    """Return a descriptor of standard input, which is empty for all others."""
    descriptor, empty = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    yield descriptor  # not closed: a thread may still read from it


class _Lines:
    """The lines of a descriptor, each read in a daemon thread, which keeps no process alive.

    Attributes:
        is_too_long: True if a line has too many bytes, which ends them: an error raised here
            would reach the caller within groups of exceptions.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.is_too_long = False

    async def __aiter__(self) -> AsyncIterator[str]:
        parts: list[bytes] = []
        while chunk := await self._read():
            first, *others = chunk.split(b"\n")
            parts.append(first)
            for part in others:
                yield b"".join(parts).decode(errors="replace")
                parts = [part]
            if sum(map(len, parts)) > MAX_LINE_BYTES:
                self.is_too_long = True
                return
        if last := b"".join(parts):
            yield last.decode(errors="replace")

    async def _read(self) -> bytes:
        reading = call_in_daemon_thread(
            lambda: os.read(self._descriptor, _CHUNK_BYTES), "msmarco-qdrant-stdin"
        )
        return await asyncio.wrap_future(reading)
