"""Attacks on the app over real parts, and proofs that they left no trace."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens
from msmarco_qdrant.service.spool.directory import parse_name
from tests.service.real_parts import Real, real_parts, traces

if TYPE_CHECKING:
    from starlette.types import Message, Scope

JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}
_USUAL = {b"host": b"localhost", b"content-type": b"application/json"}
_PLACES = re.compile(r"tmp|incoming|working|done|failed|requeue|\.lock|sequence")
Answers = Sequence[tuple[object, int]]
Receive = Callable[[], Awaitable["Message"]]


def besiege(
    folder: Path,
    use: Callable[[httpx.AsyncClient, Real], Coroutine[Any, Any, None]],
    *,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
) -> None:
    """Attack the app, then check that it works and that it wrote into its spool alone."""
    for name in ("passwd", "etc/passwd", "page/index.html"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("as it was")
    before = traces(folder)

    async def main() -> None:
        async with real_parts(folder, tokens=tokens, limits=limits) as real:
            transport = httpx.ASGITransport(real.app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                await use(client, real)
                if tokens is None:
                    await _works(client)

    asyncio.run(main())
    after = traces(folder)
    spooled = {path for path in after if path.partition("/")[0] == "spool"}
    assert before == {path: after[path] for path in after if path not in spooled}
    assert [] == [path for path in spooled if not _of_spool(path)]


async def _works(client: httpx.AsyncClient) -> None:
    """What comes next is written, whatever was before it in the spool, and found."""
    last = [{"pid": "last", "text": "zyzzyva"}]
    answer = await client.post("/passages?wait=true", json=last)
    assert (200, "done") == (answer.status_code, answer.json()["state"])
    found = await client.post("/search", json={"query": "zyzzyva", "limit": 1})
    assert ["last"] == [hit["pid"] for hit in found.json()["hits"]]


def _of_spool(path: str) -> bool:
    _, _, inside = path.partition("/")
    folder, _, name = inside.partition("/")
    if not name:
        return not folder or _PLACES.fullmatch(folder) is not None
    return folder in {"done", "failed"} and parse_name(name.removesuffix(".json")) is not None


def refused(answers: Answers) -> bool:
    """Whether every answer was a 4xx; shows the others."""
    others = [(str(what)[:100], status) for what, status in answers if not 400 <= status < 500]
    assert [] == others
    return True


async def by_hand(
    real: Real,
    receive: Receive,
    *,
    method: str = "POST",
    path: bytes = b"/passages",
    headers: Mapping[bytes, bytes] | None = None,
) -> tuple[int, bytes]:
    """Ask the app without a client between, which would mend what is wrong.

    Returns:
        The status and the body.
    """
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    raw, _, query = path.partition(b"?")
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": _unquoted(raw),
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "headers": [*{**_USUAL, **(headers or {})}.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await real.app(scope, receive, send)
    body = b"".join(one.get("body", b"") for one in sent if one["type"] == "http.response.body")
    return int(sent[0]["status"]), body


def receiving(*messages: Message, then: Receive | None = None) -> Receive:
    """What hands out some messages, one by one, and goes on as `then`, by default never."""
    left = list(messages)

    async def receive() -> Message:
        if left:
            return left.pop(0)
        if then is not None:
            return await then()
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def chunk(body: bytes, *, more: bool = False) -> Message:
    """A piece of a request's body."""
    return {"type": "http.request", "body": body, "more_body": more}


def _unquoted(raw: bytes) -> str:
    """As uvicorn does it."""
    from urllib.parse import unquote

    return unquote(raw.decode("ascii"))
