"""Hostile bytes on a real socket: what no client would send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.service.http.sockets import Served, served, statuses
from tests.service.real_parts import traces

_PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_ROW = b'[{"pid": "smuggled", "text": "a"}]'
_POST = b"POST /passages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_NO_REQUESTS = (
    b"\0" * 1_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 500,
    b"GET\r\n\r\n",
    b"GET /healthz\r\n\r\n",
    b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n\r\n",
    b"GET /he althz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: elsewhere\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n folded: 1\r\n: 2\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: b\0c\r\n\r\n",
    b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n",
    _POST + b"Content-Length: -1\r\n\r\n" + _ROW,
    _POST + b"Content-Length: 1e3\r\n\r\n" + _ROW,
    _POST + b"Content-Length: 34\r\nContent-Length: 35\r\n\r\n" + _ROW,
    _POST + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n" + _ROW,
    _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + _ROW,
    _POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n" + _ROW,
    _POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 400 + b"\r\n" + _ROW,
    _POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + _ROW,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /search HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: elsewhere:80\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://elsewhere/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\n\r\n",
)


def _use(folder: Path, use: Callable[[Served], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with served(folder) as one:
            await use(one)
            assert [200] == statuses(await one.told(_PROBE))

    asyncio.run(main())
    left = traces(folder)
    assert ["spool"] == sorted({path.partition("/")[0] for path in left})
    assert [] == [path for path in left if path.endswith((".jsonl", ".json"))]


def test_bytes_that_are_no_request(tmp_path: Path) -> None:
    """No 5xx, nothing echoed, nothing accepted, and the server goes on."""

    async def use(one: Served) -> None:
        for request in _NO_REQUESTS:
            answer = await one.told(request)
            assert [] == [(request[:80], told) for told in statuses(answer) if told >= 500]
            assert b"sesame" not in answer
            assert [200] == statuses(await one.told(_PROBE))

    _use(tmp_path, use)


def test_a_length_and_chunks_do_not_smuggle(tmp_path: Path) -> None:
    """With both, either it is refused or what follows belongs to the body, and to no request."""
    inner = b"DELETE /passages/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    both = b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    dim = b"Content-Length: %d\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" % (5 + len(inner))

    async def use(one: Served) -> None:
        for head in (both, dim):
            assert 202 not in statuses(await one.told(_POST + head + inner))

    _use(tmp_path, use)


def test_requests_one_behind_the_other(tmp_path: Path) -> None:
    """Each of a pipeline has its answer, in order, the wrong ones too."""
    wrong = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    async def use(one: Served) -> None:
        answer = await one.told((_PROBE + wrong) * 20 + last, end=False)
        assert [200, 404] * 20 + [200] == statuses(answer)

    _use(tmp_path, use)


def test_a_body_is_cut_short(tmp_path: Path) -> None:
    """Less than was announced, or chunks without an end: nothing of it is accepted."""

    async def use(one: Served) -> None:
        for head in (
            b"Content-Length: 1000\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n22\r\n",
        ):
            assert not {200, 202} & {*statuses(await one.told(_POST + head + _ROW))}

    _use(tmp_path, use)


def test_a_probe_by_head_has_no_body(tmp_path: Path) -> None:
    """On the wire there is only the head, with the headers that every answer has."""

    async def use(one: Served) -> None:
        for path in (b"/healthz", b"/readyz", b"/metrics", b"/"):
            request = b"HEAD " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            head, _, body = (await one.told(request, end=False)).partition(b"\r\n\r\n")
            assert ([200], b"") == (statuses(head), body)
            assert b"x-content-type-options: nosniff" in head.lower()

    _use(tmp_path, use)
