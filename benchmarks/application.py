"""An application that searches and writes one embedded store: 32 tasks each, in one event loop.

Each writing task upserts passages one at a time through `AsyncSearchClient`, each searching task
searches one query after the other, on Edge. The model costs nothing (`HashingEncoder`), so what is
measured is the client and the engine: searches alone, then the same number during the writes. The
run fails unless every passage is stored once, and reports the index builds, and the processor time
of this process, which depends less than the rest on what else runs on the machine.

    python benchmarks/application.py [--passages 20000] [--dimension 384] [--tasks 32] [--writes 50]
        [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from harness import Report, Row, json_option

from msmarco_qdrant import (
    AsyncSearchClient,
    Bm25Settings,
    SearchClient,
    ingest_passages,
    open_store,
)
from msmarco_qdrant.search.writer import PassageWriter
from msmarco_qdrant.stores import open_async_collection
from msmarco_qdrant.testing import HashingEncoder

COLLECTION = "msmarco"
WORDS = [f"word{number}" for number in range(2000)]


@dataclass
class Times:
    """Seconds of each call, of all of them, and processor time of this process."""

    calls: list[float] = field(default_factory=list)
    total: float = 0.0
    processor: float = 0.0

    def percentile(self, percent: float) -> float:
        """Milliseconds of a call."""
        return float(np.percentile(self.calls, percent)) * 1000


def texts(count: int, seed: int) -> list[str]:
    """Texts of twelve random words."""
    drawn = np.random.default_rng(seed).integers(0, len(WORDS), (count, 12))
    return [" ".join(WORDS[index] for index in row) for row in drawn]


async def repeat(tasks: int, calls: int, call: Callable[[int, int], Awaitable[object]]) -> Times:
    """Run a call so often in so many tasks at once."""
    times = Times()

    async def one(task: int) -> None:
        for number in range(calls):
            started = time.perf_counter()
            await call(task, number)
            times.calls.append(time.perf_counter() - started)

    started, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(task) for task in range(tasks)))
    times.total = time.perf_counter() - started
    times.processor = time.process_time() - busy
    return times


class Counted:
    """Counts the batches and the index builds of a writer."""

    def __init__(self, writer: PassageWriter) -> None:
        self.batches = 0
        self.builds: list[float] = []
        self._upsert = writer.upsert
        writer.upsert = self.upsert  # type: ignore[method-assign]
        writer.indexing.on_built = self.builds.append

    def upsert(self, rows):  # type: ignore[no-untyped-def]
        """Write a batch."""
        self.batches += 1
        return self._upsert(rows)


async def measure(
    path: Path, encoder: HashingEncoder, tasks: int, writes: int
) -> tuple[Times, Times, Times, Counted, int]:
    """Search alone, then during writes; return their times, and the number of passages."""
    blocking = SearchClient(open_store(path), COLLECTION, encoder, owns_store=True)
    counted = Counted(blocking.writer)
    opened = open_async_collection(blocking.store, COLLECTION)
    queries, new = texts(tasks, 2), texts(tasks * writes, 3)
    async with AsyncSearchClient(blocking, opened) as client:

        async def search(task: int, _number: int) -> None:
            await client.search(queries[task], limit=10)

        async def write(task: int, number: int) -> None:
            report = await client.upsert([(f"new-{task}-{number}", new[task * writes + number])])
            if (report.written, report.rejected) != (1, 0):
                raise SystemExit(f"an upsert of one new passage returned {report}")

        await repeat(tasks, 2, search)
        alone = await repeat(tasks, writes, search)
        beside, written = await asyncio.gather(
            repeat(tasks, writes, search), repeat(tasks, writes, write)
        )
        return alone, beside, written, counted, await client.count()


def main() -> None:
    """Print a table of the calls."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=20_000, help="stored before")
    parser.add_argument("--dimension", type=int, default=384, help="of the vectors")
    parser.add_argument("--tasks", type=int, default=32, help="that write, and that search")
    parser.add_argument("--writes", type=int, default=50, help="of each task")
    json_option(parser)
    options = parser.parse_args()
    report = Report(options.json, ("qdrant-edge-py",))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        rows = ((str(pid), text) for pid, text in enumerate(texts(options.passages, 1)))
        bm25 = Bm25Settings(avg_len=12)
        encoder = HashingEncoder(options.dimension)
        ingest_passages(rows, path, collection=COLLECTION, encoder=encoder, bm25=bm25)
        alone, beside, written, counted, count = asyncio.run(
            measure(path, encoder, options.tasks, options.writes)
        )
    added = options.tasks * options.writes
    if count != options.passages + added:
        raise SystemExit(f"{count:,} passages are stored, expected {options.passages + added:,}")
    shown = (("searches alone", alone), ("searches during upserts", beside), ("upserts", written))
    report.table(
        ("calls", "per second", "p50 ms", "p99 ms", "slowest ms"),
        [
            Row(
                (
                    name,
                    f"{len(times.calls) / times.total:,.0f}",
                    *(f"{times.percentile(percent):.1f}" for percent in (50, 99, 100)),
                ),
                {"seconds": times.total, "calls": len(times.calls)},
            )
            for name, times in shown
        ],
    )
    builds = ", ".join(f"{seconds:.1f} s" for seconds in counted.builds) or "none"
    both = max(beside.processor, written.processor)
    print(
        f"\n{added:,} upserts of one passage in {counted.batches:,} batches; index builds: {builds}"
        f"\nprocessor time: {1000 * alone.processor / len(alone.calls):.1f} ms per search alone; "
        f"{1000 * both / added:.1f} ms per search and upsert together"
    )


if __name__ == "__main__":
    main()
