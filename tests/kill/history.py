"""History of a sidecar that is ended under load again and again, and the checks of its result."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.foreign import ForeignPoints
from msmarco_qdrant.testing import HashingEncoder
from tests.kill.inotify import watching
from tests.kill.moments import OF_EDGE, OF_SERVER, Ender, Moment, drawn
from tests.kill.oracle import wrong
from tests.kill.writers import BROKEN, PATIENCE_S, Life, Writer
from tests.loopback import LoopbackServer
from tests.reembed.concurrent.expected_passages import check_holds
from tests.reembed.concurrent.proxy import ClientProxy

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "tests.service.serve_program")
NAME = "msmarco"
WRITERS = 3
BATCHES = 25  # of a life; those of a history must be fewer than the reports that are kept
KEPT_REPORTS = 1000
FOLDERS = ("tmp", "incoming", "working", "done", "failed")
LAST = Passage("the last", "nothing comes after this")
_QUERIES = 50
_WAITS = 10


class History:
    """One spool, one inbox and one store, and the processes that use them one after the other.

    Args:
        folder: Where they lie.
        seed: What decides.
        server: Where the store is; without it, an Edge store.
        inbox: Where the inbox is, if not in the folder.

    Attributes:
        ends: Ends of processes, by the kind of moment.
        batches: Ids of all batches that were accepted by HTTP.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        server: LoopbackServer | None = None,
        inbox: Path | None = None,
    ) -> None:
        self._rng = random.Random(seed)
        self._server = server
        self._log = folder / "log"
        self._store, self._spool = folder / "store", folder / "spool"
        self._inbox = inbox or folder / "inbox"
        for place in (self._store, self._inbox, *(self._spool / name for name in FOLDERS)):
            place.mkdir(parents=True, exist_ok=True)
        self._writers = [
            Writer(number, random.Random(f"{seed}-{number}"), self._inbox)
            for number in range(WRITERS)
        ]
        self._lasts = 0
        self.ends: Counter[str] = Counter()
        self.batches: list[str] = []
        self._files = self._unanswered = 0

    # ---- lives -----------------------------------------------------------------------------

    def live(self, number: signal.Signals, kind: str | None = None) -> None:
        """Start the sidecar, put it under load, and send it a signal at a moment of some kind."""
        moment = drawn(self._rng, OF_SERVER if self._server else OF_EDGE, kind)
        ender = Ender(moment, number)
        life = Life(BATCHES, lambda: ender.saw("answered"))
        with (
            watching(lambda place: ender.saw("start", *self._kinds(place)), *self._places()),
            self._process(ender) as process,
        ):
            self._load(process, ender, life)
            expected = -signal.SIGKILL if number == signal.SIGKILL else 0
            assert expected == process.wait(PATIENCE_S), self._told()
        self.ends[ender.ended_at] += 1
        self.batches += life.batches
        self._files += life.files
        self._unanswered += life.unanswered

    def _load(self, process: subprocess.Popen[str], ender: Ender, life: Life) -> None:
        url = _first_line(process)
        if not url:  # it was killed before
            return
        ender.saw("output")
        with ThreadPoolExecutor(WRITERS) as pool:
            for done in [pool.submit(writer.work, url, life) for writer in self._writers]:
                done.result()
        if not ender.ended_at:
            self._work_off(url)
            ender.end()

    def _work_off(self, url: str) -> None:
        """Return when all that was accepted before is done, or the process has ended."""
        row = {"pid": LAST.pid, "text": LAST.text}
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as client, suppress(*BROKEN):
            for _ in range(_WAITS):
                self._lasts += 1
                answer = client.post("/passages?wait=true", json=[row])
                if answer.status_code != httpx.codes.ACCEPTED:  # that is all it says after a while
                    return
            pytest.fail(f"the spool is not worked off: {self._told()}")

    def _kinds(self, place: Path) -> Sequence[str]:
        if place.is_relative_to(self._store):
            return ("store",)
        return ("working", "applying") if place.name == "working" else (place.name,)

    def _places(self) -> Sequence[Path]:
        return (self._store, self._spool, self._inbox)

    @contextmanager
    def _process(self, ender: Ender) -> Iterator[subprocess.Popen[str]]:
        with ExitStack() as stack:
            place = str(self._store)
            if self._server is not None:
                door = stack.enter_context(ClientProxy(self._server, ender.asked))
                stack.callback(door.settle)  # before another process comes
                place = door.url
            log = stack.enter_context(self._log.open("a"))
            process = subprocess.Popen(
                [*PROGRAM, place, str(self._spool), str(self._inbox)],
                cwd=ROOT,
                text=True,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            ender.watch(process)
            yield process

    # ---- what must come of them ------------------------------------------------------------

    def check(self) -> None:
        """Let it work off all that it has, end it in order, and look at everything."""
        nobody = Ender(Moment("never", 1), signal.SIGTERM)
        with self._process(nobody) as process:
            url = _first_line(process)
            assert url, self._told()
            self._work_off(url)
            with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
                self._check_batches(client)
                self._check_searches(client)
            process.terminate()
            assert process.wait(PATIENCE_S) == 0, self._told()
        self._check_spool()
        self._check_store()

    def _check_batches(self, client: httpx.Client) -> None:
        """Every batch that was accepted is done, and nothing in it was refused."""
        assert len(self.batches) + self._files < KEPT_REPORTS
        for batch in self.batches:
            told = client.get(f"/batches/{batch}").json()
            assert ("done", 0) == (told.get("state"), told.get("rejected")), told

    def _check_searches(self, client: httpx.Client) -> None:
        """Whatever is there for certain is found by its own text."""
        certain = [one for (one, *others) in self._allowed().values() if one and not others]
        for start in range(0, len(certain), _QUERIES):
            some = certain[start : start + _QUERIES]
            search = {"queries": [one.text for one in some], "limit": 5}
            answers = client.post("/search", json=search).json()
            for passage, answer in zip(some, answers, strict=True):
                found = {hit["pid"]: hit for hit in answer["hits"]}
                assert passage.pid in found, (passage, found)
                hit = found[passage.pid]
                assert (passage.text, passage.meta) == (hit["text"], hit["meta"])
                assert pytest.approx(1.0, abs=1e-5) == hit["score"]

    def _check_spool(self) -> None:
        """Nothing is left but the reports, one for each batch."""
        places = (self._inbox, *(self._spool / name for name in FOLDERS if name != "done"))
        assert [] == [path for place in places for path in place.iterdir()]
        known = len(self.batches) + self._files
        reports = len([*(self._spool / "done").iterdir()])
        assert known <= reports <= known + self._unanswered + self._lasts

    def _check_store(self) -> None:
        """Every passage is what it may be, once, with its vectors; and nothing else is there."""
        place = self._server.url if self._server else str(self._store)
        with closing(open_store(place)) as store:
            points = store.collection(NAME).scan(("pid", "text", "meta"))
            foreign = ForeignPoints("msmarco")
            passages = [p for id_, payload in points if (p := foreign.passage(id_, payload))]
            assert 0 == foreign.count
            found = {one.pid: one for one in passages}
            assert {} == wrong(self._allowed(), found)
            check_holds(store, NAME, found, HashingEncoder())

    def _allowed(self) -> Mapping[str, Sequence[Passage | None]]:
        allowed: dict[str, Sequence[Passage | None]] = {LAST.pid: [LAST]}
        for writer in self._writers:
            allowed |= writer.oracle.allowed
        return allowed

    def _told(self) -> str:
        return self._log.read_text()[-4000:]


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
