"""A sidecar in a process of its own, and the load on it: searches, passages, looks at its health.

Searches run in a closed loop in this process's event loop; passages are posted, and health is
looked at, each in a thread. All times are of `time.perf_counter`.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import httpx
from harness import in_background

_TIMEOUT_S = 600.0
_LOOKS_S = 0.1
_AFTER_AN_ERROR_S = 0.05
_OPTIMIZED = re.compile(r"^msmarco_qdrant_optimize_seconds_(count|sum) (\S+)$", re.MULTILINE)


class Span(NamedTuple):
    """Something that took time, and how it ended."""

    begin: float
    end: float
    outcome: str = "200"

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.end - self.begin

    def meets(self, other: Span) -> bool:
        """True if both overlap."""
        return self.begin < other.end and other.begin < self.end


@contextmanager
def sidecar(store: str, folder: Path, model: str) -> Iterator[str]:
    """Run a sidecar and yield its URL; at the end stop it and require exit status 0."""
    options = ("--store", store, "--model", model, "--spool", str(folder / "spool"), "--port", "0")
    log = folder / "sidecar.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "msmarco_qdrant", "serve", *options], stderr=written
        )
    try:
        yield _url(process, log)
        process.terminate()
        if process.wait(_TIMEOUT_S):
            raise RuntimeError(f"the sidecar ended with {process.returncode}: {_last(log)}")
    finally:
        process.kill()
        process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return its URL from the first log line that has one."""
    while process.poll() is None:
        for line in log.read_text("utf-8").splitlines():
            values = json.loads(line) if line.startswith("{") else {}
            if "url" in values:
                return str(values["url"])
        time.sleep(_LOOKS_S)
    raise RuntimeError(f"the sidecar ended with {process.returncode}: {_last(log)}")


def _last(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])


def wait_until_ready(url: str) -> None:
    """Wait until `/readyz` answers 200."""
    with httpx.Client(base_url=url, timeout=_TIMEOUT_S) as client:
        while not client.get("/readyz").is_success:
            time.sleep(_LOOKS_S)


# ---- searches ------------------------------------------------------------------------------


class Searches:
    """Searches over so many connections, one after the other on each, while `running`.

    Attributes:
        spans: Of each; the outcome is the status, with the kind of an error.
    """

    def __init__(self, url: str, connections: int, queries: Sequence[str]) -> None:
        self.spans: list[Span] = []
        self._url = url
        self._connections = connections
        self._queries = cycle(queries)
        self._done = threading.Event()

    def running(self) -> AbstractContextManager[None]:
        """Search while the block runs."""
        return in_background(self._done, lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        """A client for each connection: a pool that many wait for takes seconds of its own."""
        tls = ssl.create_default_context()  # once: it takes long, and is not needed on loopback
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=self._url, timeout=_TIMEOUT_S, verify=tls)
                )
                for _ in range(self._connections)
            ]
            await asyncio.gather(*map(self._search, clients))

    async def _search(self, client: httpx.AsyncClient) -> None:
        while not self._done.is_set():
            begin = time.perf_counter()
            outcome = await _searched(client, next(self._queries))
            self.spans.append(Span(begin, time.perf_counter(), outcome))
            if outcome != "200":
                await asyncio.sleep(_AFTER_AN_ERROR_S)


async def _searched(client: httpx.AsyncClient, query: str) -> str:
    try:
        answer = await client.post("/search", json={"query": query, "limit": 10})
    except httpx.HTTPError as exc:
        return type(exc).__name__
    if answer.is_success:
        return "200"
    return f"{answer.status_code} {answer.json()['type'].rpartition(':')[2]}"


# ---- passages ------------------------------------------------------------------------------


class Poster:
    """Posts passages at a steady rate while `running`, and looks when each batch is done.

    Args:
        url: Of the sidecar.
        passages: Pids and texts, posted over and over under new pids.
        rate: Passages per second.
        each: Passages of a batch.

    Attributes:
        accepted: The pids of what was answered with 202.
        batches: From the 202 of each batch until it was seen done.
        refused: The statuses of all other answers.
    """

    def __init__(
        self, url: str, passages: Sequence[tuple[str, str]], rate: float, each: int
    ) -> None:
        self.accepted: list[str] = []
        self.batches: list[Span] = []
        self.refused: list[str] = []
        self._url = url
        self._rows = (
            {"pid": f"{round_}-{pid}", "text": f"{text} ({round_})"}
            for round_, (pid, text) in _numbered(passages)
        )
        self._pause_s = each / rate
        self._each = each
        self._pending: deque[tuple[float, str]] = deque()
        self._done = threading.Event()

    def running(self) -> AbstractContextManager[None]:
        """Post while the block runs; at its end, wait until every batch is done, or too long."""
        return in_background(self._done, self._run)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=_TIMEOUT_S) as client:
            due = time.perf_counter()
            while not self._done.is_set():
                if time.perf_counter() >= due:
                    self._post(client)
                    due += self._pause_s
                self._look(client)
                self._done.wait(min(_LOOKS_S, max(0.0, due - time.perf_counter())))
            until = time.perf_counter() + _TIMEOUT_S
            while self._pending and time.perf_counter() < until:
                self._look(client)
                time.sleep(_LOOKS_S)

    def _post(self, client: httpx.Client) -> None:
        rows = list(islice(self._rows, self._each))
        answer = client.post("/passages", json=rows)
        if answer.status_code != 202:
            self.refused.append(str(answer.status_code))
            return
        self._pending.append((time.perf_counter(), answer.json()["batch"]))
        self.accepted += [row["pid"] for row in rows]

    def _look(self, client: httpx.Client) -> None:
        """They are done in the order in which they were accepted."""
        while self._pending:
            begin, batch = self._pending[0]
            state = client.get(f"/batches/{batch}").json()["state"]
            if state not in ("done", "failed"):
                return
            self._pending.popleft()
            self.batches.append(Span(begin, time.perf_counter(), state))


def _numbered(passages: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[str, str]]]:
    round_ = 0
    while True:
        round_ += 1
        for passage in passages:
            yield round_, passage


# ---- health --------------------------------------------------------------------------------


class Watch:
    """Looks at a sidecar ten times per second while `running`.

    Attributes:
        health: Each answer of `/healthz`.
        ready: Each answer of `/readyz`.
        builds: From about when to when an index was built, according to `/metrics`.
    """

    def __init__(self, url: str) -> None:
        self.health: list[Span] = []
        self.ready: list[Span] = []
        self.builds: list[Span] = []
        self._url = url
        self._built = (0.0, 0.0)
        self._done = threading.Event()

    def running(self) -> AbstractContextManager[None]:
        """Look while the block runs."""
        return in_background(self._done, *(partial(self._every, look) for look in self._looks()))

    def _looks(self) -> Sequence[tuple[str, list[Span]]]:
        return (("/healthz", self.health), ("/readyz", self.ready), ("/metrics", []))

    def _every(self, look: tuple[str, list[Span]]) -> None:
        path, spans = look
        with httpx.Client(base_url=self._url, timeout=_TIMEOUT_S) as client:
            while not self._done.wait(_LOOKS_S):
                begin = time.perf_counter()
                answer = client.get(path)
                spans.append(Span(begin, time.perf_counter(), str(answer.status_code)))
                if path == "/metrics":
                    self._note_builds(answer.text)

    def _note_builds(self, metrics: str) -> None:
        values = {name: float(value) for name, value in _OPTIMIZED.findall(metrics)}
        count, seconds = values.get("count", 0.0), values.get("sum", 0.0)
        if count > self._built[0]:
            now = time.perf_counter()
            self.builds.append(Span(now - _LOOKS_S - (seconds - self._built[1]), now))
            self._built = (count, seconds)
