"""Writers of a steady load: batches by HTTP, deletes, and files in the inbox.

Some pids are written and deleted again and again, which shows what is done in a wrong order. Others
are written once, and perhaps deleted once: nothing that comes later hides that one was lost.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from msmarco_qdrant.core.records import Passage
from tests.kill.oracle import Changes, Oracle

CONTESTED = 30  # pids of a writer
MOST_CONTESTED, MOST_NEW = 44, 5  # passages of a batch
PATIENCE_S = 120.0  # far beyond any answer: nothing but the end of the process ends a connection
BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError)
_FORMS = ("tsv", "jsonl", "jsonl.gz", "ops.jsonl")
_REFUSED = (429, 503)


class ShuttingDownError(Exception):
    """The sidecar takes nothing any more."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a writer asks for.

    Attributes:
        method: Of HTTP.
        path: With its query.
        changes: What becomes of which pid.
        body: Its body.
        headers: Its headers.
    """

    method: str
    path: str
    changes: Changes
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Life:
    """What the writers may do while a process lives, and what they were answered.

    Args:
        most: Batches and files that they may send in.
        on_answer: Called at each answer.

    Attributes:
        batches: The ids that were answered.
        files: How many came into the inbox.
        unanswered: Requests that have no answer.
    """

    def __init__(self, most: int, on_answer: Callable[[], object] = lambda: None) -> None:
        self._left = most
        self._on_answer = on_answer
        self._lock = threading.Lock()
        self.batches: list[str] = []
        self.files = self.unanswered = 0

    def goes_on(self) -> bool:
        """Whether one more may be sent in; if so, it is counted."""
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def answered(self, batch: str) -> None:
        """A batch was accepted."""
        self._on_answer()
        with self._lock:
            self.batches.append(batch)

    def dropped(self) -> None:
        """A file has its name in the inbox."""
        with self._lock:
            self.files += 1

    def broken(self) -> None:
        """A connection broke before the answer."""
        with self._lock:
            self.unanswered += 1


class Writer:
    """Writes, changes and deletes passages that are nobody else's.

    Args:
        number: Of the writer.
        rng: What decides.
        inbox: Where its files go.

    Attributes:
        oracle: What it knows.
    """

    def __init__(self, number: int, rng: random.Random, inbox: Path) -> None:
        self._number = number
        self._rng = rng
        self._inbox = inbox
        self._serial = 0
        self._contested = [_pid(number, one) for one in range(CONTESTED)]
        self._once: list[str] = []
        self._pids = CONTESTED
        self._waiting: dict[Path, Changes] = {}
        self._unanswered: Request | None = None
        self.oracle = Oracle()

    def work(self, url: str, life: Life) -> None:
        """Send things in until it is enough, or nobody answers any more."""
        again, self._unanswered = self._unanswered, None
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
            try:
                if again is not None and self._rng.random() < 0.5:
                    self._send(again, client, life)
                while life.goes_on():
                    self._one(client, life)
            except (*BROKEN, ShuttingDownError):
                return

    def _one(self, client: httpx.Client, life: Life) -> None:
        self._waiting = {path: one for path, one in self._waiting.items() if path.exists()}
        kind = self._rng.random()
        if kind < 0.15:
            self._drop(life)
        elif kind < 0.4:
            self._send(self._delete(), client, life)
        else:
            self._send(self._post(), client, life)

    def _free(self, pids: Sequence[str]) -> Sequence[str]:
        """Those that are in no file that waits, which may come in at any time."""
        return [pid for pid in pids if not any(pid in one for one in self._waiting.values())]

    # ---- by HTTP ---------------------------------------------------------------------------

    def _post(self) -> Request:
        passages = self._passages(self._free(self._contested))
        rows = [_row(one) for one in passages]
        body, headers = json.dumps(rows).encode(), {"Content-Type": "application/json"}
        if self._rng.random() < 0.5:
            body, headers = _lines(rows), {"Content-Type": "application/x-ndjson"}
        if self._rng.random() < 0.3:
            body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
        changes = {one.pid: one for one in passages}
        return Request("POST", self._waits("/passages"), changes, body, headers)

    def _delete(self) -> Request:
        once = self._rng.random() < 0.5
        free = self._free(self._once if once else self._contested)
        pid = self._rng.choice(free or [f"nobody {self._number}"])
        if once and free:
            self._once.remove(pid)
        return Request("DELETE", self._waits(f"/passages/{quote(pid, safe='')}"), {pid: None})

    def _waits(self, path: str) -> str:
        return f"{path}?wait=true" if self._rng.random() < 0.1 else path

    def _send(self, request: Request, client: httpx.Client, life: Life) -> None:
        """Ask for it, and note what the answer says."""
        self.oracle.asked(request.changes)
        try:
            answer = client.request(
                request.method, request.path, content=request.body, headers=request.headers
            )
        except BROKEN:
            self._unanswered = request
            life.broken()
            raise
        if answer.status_code in _REFUSED:
            self.oracle.refused(request.changes)
            raise ShuttingDownError
        told = answer.json()
        assert answer.status_code in (200, 202), told
        self.oracle.accepted(request.changes)
        life.answered(told["batch"])

    # ---- by the inbox ----------------------------------------------------------------------

    def _drop(self, life: Life) -> None:
        """Put a file there; it counts as accepted when it has its name."""
        form = self._rng.choice(_FORMS)
        passages = self._passages(self._contested)
        changes: dict[str, Passage | None] = {}
        if form == "tsv":
            passages = [Passage(one.pid, one.text) for one in passages]
            content = "".join(f"{one.pid}\t{one.text}\n" for one in passages).encode()
        elif form == "ops.jsonl":
            changes = dict.fromkeys(self._rng.sample(self._contested, 5))
            rows = [{"op": "write", **_row(one)} for one in passages]
            content = _lines([*({"op": "delete", "pid": pid} for pid in changes), *rows])
        else:
            content = _lines([{"pid": p.pid, "text": p.text, **p.meta} for p in passages])
        changes |= {one.pid: one for one in passages}
        path = self._inbox / f"{self._number}-{self._serial:09}.{form}"
        self._waiting[path] = changes
        _put(path, gzip.compress(content) if form.endswith(".gz") else content)
        self.oracle.asked(changes)
        self.oracle.accepted(changes)
        life.dropped()

    # ---- passages --------------------------------------------------------------------------

    def _passages(self, pids: Sequence[str]) -> list[Passage]:
        """Some of these, now and then one of them twice, and some that are new."""
        chosen = self._rng.choices(pids, k=self._rng.randint(0, MOST_CONTESTED)) if pids else []
        new = [self._new_pid() for _ in range(self._rng.randint(1, MOST_NEW))]
        self._once += new
        chosen += new
        self._rng.shuffle(chosen)
        return [self._passage(pid) for pid in chosen]

    def _new_pid(self) -> str:
        self._pids += 1
        return _pid(self._number, self._pids)

    def _passage(self, pid: str) -> Passage:
        """What it is already, the same text with another meta, or most often a text of its own."""
        self._serial += 1
        kind, now = self._rng.random(), self.oracle.last(pid)
        if now is not None and kind < 0.15:
            return now
        meta = {"version": self._serial}
        if now is not None and kind < 0.3:
            return Passage(pid, now.text, meta)
        words = " ".join(f"w{self._rng.randrange(10**6)}" for _ in range(6))
        return Passage(pid, f"writer{self._number} version{self._serial} {words}", meta)


def _pid(writer: int, number: int) -> str:
    """Pids of every kind: numbers, and texts that are no names of files or parts of URLs."""
    forms = ("{0}{1:05}", "p{0}-{1}", "../{0}/{1}", "\u00fc {0}?{1}")
    return forms[number % len(forms)].format(writer + 1, number)


def _row(passage: Passage) -> dict[str, Any]:
    return {"pid": passage.pid, "text": passage.text, "meta": passage.meta}


def _lines(rows: Sequence[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _put(path: Path, content: bytes) -> None:
    """Write a file as the inbox wants it: under a name that is passed over, then renamed."""
    unfinished = path.with_name(f"{path.name}.tmp")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
