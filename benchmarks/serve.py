"""Searches while passages come in, an index is built, and the store is away.

The real sidecar, `msmarco-qdrant serve`, in a process of its own, with the real model. First over
Qdrant Edge, once for each number of connections: its collection holds passages that are in no
index, with vectors that cost nothing; searches run in a closed loop before, while passages are
posted at a steady rate, which makes it build the index, and after. Then over a Qdrant server on
loopback (in Python: its speed is not that of a real one) that goes away for a while under load.
At the end every passage that was answered with 202 has to be there, once.

    python benchmarks/serve.py [--seconds 6] [--away 30] [--rate 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import Report, Row, data_name, json_option, some_passages, some_queries
from sidecar_load import Poster, Searches, Span, Watch, sidecar, wait_until_ready

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.indexing import IndexingSettings
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder

MODEL = "all-MiniLM-L6-v2"
CONNECTIONS = (1, 8, 64)
BATCH = 10
PACKAGES = ("torch", "sentence-transformers", "qdrant-edge-py", "uvicorn", "fastapi")
_TIMEOUT_S = 60.0
_LOOKS_S = 0.1


class Disguised(HashingEncoder):
    """Vectors that cost nothing, under the card of a model that has not made them."""

    def __init__(self, encoder_info: EncoderInfo) -> None:
        super().__init__(encoder_info.dimension)
        self._info = encoder_info


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a sidecar.

    Attributes:
        seconds: Of the searches before and after; at least twice as many while passages come in.
        rate: Passages per second.
        passages: The passages to post.
        queries: The queries to search for.
    """

    seconds: float
    rate: float
    passages: Sequence[tuple[str, str]]
    queries: Sequence[str]


class Stages:
    """The stages of a run with their times; each ends when the next begins."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, float]] = []

    def begin(self, stage: str) -> None:
        """From now on."""
        self._begun.append((stage, time.perf_counter()))

    def spans(self) -> Iterator[tuple[str, Span]]:
        """Every stage."""
        ends = [*(begin for _, begin in self._begun[1:]), time.perf_counter()]
        for (stage, begin), end in zip(self._begun, ends, strict=True):
            yield stage, Span(begin, end)


# ---- while an index is built ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Level:
    """The results of one number of connections."""

    connections: int
    stages: Sequence[tuple[str, Span]]
    searches: Sequence[Span]
    health: Sequence[Span]
    builds: Sequence[Span]
    poster: Poster


def at_level(connections: int, load: Load, there: int, encoder_info: EncoderInfo) -> Level:
    """Search before, while passages come in, and after."""
    stages = Stages()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = str(folder / "store")
        fill(store, there, encoder_info)
        with sidecar(store, folder, MODEL) as url:
            wait_until_ready(url)
            searches, watch = Searches(url, connections, load.queries), Watch(url)
            poster = Poster(url, load.passages, load.rate, BATCH)
            with watch.running(), searches.running():
                stages.begin("before")
                time.sleep(load.seconds)
                stages.begin("passages come in")
                with poster.running():
                    time.sleep(2 * load.seconds)
                    if there >= IndexingSettings().latest:
                        wait_for(lambda: bool(watch.builds))
                stages.begin("after")
                time.sleep(load.seconds)
                shown = list(stages.spans())
        check(store, poster.accepted, there)
    return Level(connections, shown, searches.spans, watch.health, watch.builds, poster)


def fill(store: str, count: int, encoder_info: EncoderInfo) -> None:
    """Make a collection that holds passages, and no index."""
    with closing(open_store(store, create=True)) as opened:
        texts = [text for _, text in some_passages(count)]
        passages = (
            Passage(f"there-{number}", f"{texts[number % len(texts)]} ({number})")
            for number in range(count)
        )
        ingest_passages(passages, opened, encoder=Disguised(encoder_info), optimize=False)


def wait_for(condition: Callable[[], bool]) -> None:
    """Until something is so, or for a minute."""
    until = time.perf_counter() + _TIMEOUT_S
    while not condition() and time.perf_counter() < until:
        time.sleep(_LOOKS_S)


def check(store: str, accepted: Sequence[str], there: int) -> None:
    """Every passage that was accepted is in a store, once; or the benchmark ends here."""
    with closing(open_store(store)) as opened:
        rows = opened.collection("msmarco").scan(["pid"])
        found = Counter(payload["pid"] for _, payload in rows)
    missing = [pid for pid in accepted if found[pid] != 1]
    if missing or len(found) != there + len(set(accepted)):
        sys.exit(f"{len(missing)} of {len(accepted)} accepted passages are not there once")


def show_levels(report: Report, levels: Sequence[Level], there: int) -> None:
    """Searches by stage, and how the passages fared."""
    print(f"Edge, {there:,} passages without an index at first, {data_name()}, {MODEL}\n")
    report.table(
        (
            "connections",
            "searches while",
            "searches/s",
            "p50 ms",
            "p95",
            "p99",
            "slowest",
            "errors",
        ),
        [row for level in levels for row in search_rows(level)],
    )
    report.table(
        (
            "connections",
            "passages/s, all applied",
            "refused",
            "searchable after, median s",
            "slowest s",
            "builds",
            "longest build s",
            "/healthz, slowest ms",
        ),
        [fate_row(level) for level in levels],
    )


def search_rows(level: Level) -> Iterator[Row]:
    """A row of each stage, and one of what met a build."""
    for stage, during in level.stages:
        met = [span for span in level.searches if during.begin <= span.begin < during.end]
        yield search_row((level.connections, stage), met, during.seconds)
    met = [span for span in level.searches if any(span.meets(build) for build in level.builds)]
    if met:
        built = sum(build.seconds for build in level.builds)
        yield search_row((level.connections, "the index is built"), met, built)


def search_row(head: tuple[object, ...], spans: Sequence[Span], seconds: float) -> Row:
    """Return a row with the times of searches and the failed ones."""
    taken = [span.seconds for span in spans if span.outcome == "200"]
    shown = [*np.percentile(taken, (50, 95, 99)), max(taken)] if taken else []
    cells = [f"{1000 * one:,.0f}" for one in shown] or ["-"] * 4
    rate = f"{len(taken) / seconds:,.1f}"
    return Row((*head, rate, *cells, errors_of(spans)), [*map(tuple, spans)])


def errors_of(spans: Sequence[Span]) -> str:
    """Return the counts of failures, by kind."""
    counted = Counter(span.outcome for span in spans if span.outcome != "200")
    return ", ".join(f"{number:,} x {kind}" for kind, number in counted.most_common()) or "none"


def fate_row(level: Level) -> Row:
    """Return a row about the posted passages and `/healthz`."""
    poster = level.poster
    posting = next(span for stage, span in level.stages if stage == "passages come in")
    waits = [batch.seconds for batch in poster.batches]
    builds = [build.seconds for build in level.builds]
    cells = (
        level.connections,
        f"{len(poster.accepted) / posting.seconds:,.0f}",
        len(poster.refused),
        f"{np.median(waits):.2f}",
        f"{max(waits):.2f}",
        len(builds),
        f"{max(builds, default=0):.1f}",
        f"{1000 * max(look.seconds for look in level.health):,.0f}",
    )
    return Row(cells, {"batches": waits, "builds": builds})


# ---- while the store is away ---------------------------------------------------------------


@contextmanager
def leaving_server() -> Iterator[tuple[str, Callable[[str], None]]]:
    """Start a server on loopback; yield its URL and a function that stops or starts it."""
    program = Path(__file__).with_name("leaving_server.py")
    process = subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    commands, answers = process.stdin, process.stdout
    if commands is None or answers is None:
        raise RuntimeError("no pipes to the server")

    def send(command: str) -> None:
        commands.write(f"{command}\n")
        commands.flush()
        answers.readline()

    with process:
        try:
            yield answers.readline().strip(), send
        finally:
            commands.close()


def while_away(load: Load, away_s: float, report: Report, connections: int = 8) -> None:
    """Stop the store under load, and collect the answers."""
    stages = Stages()
    with tempfile.TemporaryDirectory() as name, leaving_server() as (store, send):
        with sidecar(store, Path(name), MODEL) as url:
            wait_until_ready(url)
            searches, watch = Searches(url, connections, load.queries), Watch(url)
            poster = Poster(url, load.passages, load.rate, BATCH)
            with watch.running(), searches.running():
                with poster.running():
                    stages.begin("there")
                    time.sleep(load.seconds)
                    send("stop")
                    stages.begin("away")
                    before = len(poster.accepted)
                    time.sleep(away_s)
                    while_stopped = len(poster.accepted) - before
                    stages.begin("back")
                    send("start")
                    time.sleep(load.seconds)
                shown = list(stages.spans())
        check(store, poster.accepted, 0)
    print(f"A Qdrant server on loopback goes away for {away_s:g} s, {connections} connections\n")
    show_away(report, dict(shown), searches.spans, watch)
    last = max(batch.end for batch in poster.batches) - dict(shown)["back"].begin
    lost = len(poster.refused)
    print(
        f"{len(poster.accepted):,} passages accepted, {while_stopped:,} of them while it was away; "
        f"{lost} posts refused; all searchable, the last {last:.1f} s after its return\n"
    )


def show_away(
    report: Report, stages: dict[str, Span], searches: Sequence[Span], watch: Watch
) -> None:
    """Show the answers to searches, `/readyz` and `/healthz` in each stage."""
    rows = []
    for stage, during in stages.items():
        found, ready, health = (
            [span for span in spans if during.begin <= span.end < during.end]
            for spans in (searches, watch.ready, watch.health)
        )
        refused = [span.seconds for span in found if span.outcome != "200"]
        changed = next(
            (look for look in ready if (look.outcome == "200") != (stage == "away")), None
        )
        cells = (
            stage,
            sum(span.outcome == "200" for span in found),
            errors_of(found),
            f"{1000 * np.median(refused):,.0f} / {1000 * max(refused):,.0f}" if refused else "-",
            f"{changed.end - during.begin:.1f}" if changed else "never",
            f"{1000 * max((look.seconds for look in health), default=0):,.0f}",
        )
        rows.append(Row(cells, [*map(tuple, found)]))
    report.table(
        (
            "the store is",
            "answered",
            "errors",
            "until an error, median / slowest ms",
            "/readyz reports it after s",
            "/healthz, slowest ms",
        ),
        rows,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=6, metavar="N", help="of each stage; see above"
    )
    parser.add_argument(
        "--away", type=float, default=30, metavar="N", help="seconds that the store is away"
    )
    parser.add_argument("--rate", type=float, default=20, metavar="N", help="passages per second")
    parser.add_argument(
        "--there", type=int, default=10_000, metavar="N", help="passages without an index at first"
    )
    parser.add_argument(
        "--connections", type=int, nargs="+", default=CONNECTIONS, metavar="N", help="of searches"
    )
    json_option(parser)
    given = parser.parse_args()
    report = Report(given.json, PACKAGES)
    load = Load(given.seconds, given.rate, some_passages(10_000), some_queries())
    encoder_info = load_encoder(MODEL).info
    levels = [at_level(number, load, given.there, encoder_info) for number in given.connections]
    show_levels(report, levels, given.there)
    while_away(load, given.away, report)


if __name__ == "__main__":
    main()
