"""Connections that bring nothing, take nothing, or are too many, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.service.http.limits import Limits
from tests.service.http.sockets import Served, served, statuses

_HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
_PROBE = _HEAD + b"\r\n"
_LAST = _HEAD + b"Connection: close\r\n\r\n"
_SHORT = Limits(head_s=0.05)
_LONGER = Limits(head_s=0.7)  # which a whole head keeps, however busy the machine is
_POST = (
    b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
)


def _use(folder: Path, limits: Limits, use: Callable[[Served], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with served(folder, limits) as one:
            await use(one)

    asyncio.run(main())


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytes) -> None:
    """Ask on and on, and take no answers, until the connection's end."""
    while not reader.at_eof():
        writer.write(asked)
        await writer.drain()


@pytest.mark.parametrize("sent", [b"", b"G", _HEAD])
def test_a_connection_without_a_whole_head_is_closed(tmp_path: Path, sent: bytes) -> None:
    """Whether nothing came, or a part."""

    async def use(one: Served) -> None:
        assert b"" == await one.told(sent, end=False)

    _use(tmp_path, _SHORT, use)


def test_a_second_head_that_does_not_end(tmp_path: Path) -> None:
    """It has no more time than the first one, however long a connection may be idle."""

    async def use(one: Served) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(_PROBE)
        assert [200] == statuses(await reader.readuntil(b"}"))
        writer.write(_HEAD)
        assert b"" == await reader.read()
        writer.close()
        assert [200] == statuses(await one.told(_PROBE + _HEAD, end=False))

    _use(tmp_path, _LONGER, use)


def test_a_request_under_way_has_its_own_time(tmp_path: Path) -> None:
    """A body may come later than a head has to, and so may what is behind an answer."""

    async def use(one: Served) -> None:
        slow, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(_POST)
        assert [100] == statuses(await slow.readuntil(b"\r\n\r\n"))
        assert b"" == await one.told(b"", end=False)  # begun later, and closed
        writer.write(b"{}" + _LAST)
        assert [422, 200] == statuses(await slow.read())
        writer.close()

    _use(tmp_path, _LONGER, use)


def test_one_more_takes_the_place_of_the_longest_silent(tmp_path: Path) -> None:
    """Whoever holds connections without asking keeps nobody out."""

    async def use(one: Served) -> None:
        first, writer = await asyncio.open_connection("127.0.0.1", one.port)
        second, other = await asyncio.open_connection("127.0.0.1", one.port)
        assert [200] == statuses(await one.told(_LAST, end=False))
        assert b"" == await first.read()
        other.write(_LAST)
        assert [200] == statuses(await second.read())
        writer.close()
        other.close()

    _use(tmp_path, Limits(connections=2), use)


def test_one_more_than_requests_under_way_is_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """None that is being answered gives way; the log tells, and soon there is room again."""

    async def use(one: Served) -> None:
        busy, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(_POST)
        assert [100] == statuses(await busy.readuntil(b"\r\n\r\n"))
        assert b"" == await one.told(_LAST, end=False)
        writer.write(b"{}")
        assert [422] == statuses(await busy.readuntil(b"}"))
        assert [200] == statuses(await one.told(_LAST, end=False))
        writer.close()

    _use(tmp_path, Limits(connections=1), use)
    assert 1 == sum("have a running request" in message for message in caplog.messages)


def test_answers_that_nobody_takes(tmp_path: Path) -> None:
    """The connection is cut off, and what waited to be taken is given up."""

    async def use(one: Served) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, limit=1)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000
        with pytest.raises(ConnectionError):
            await _ask(reader, writer, asked)
        writer.close()

    _use(tmp_path, Limits(request_s=0.2), use)
