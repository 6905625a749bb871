"""Qdrant Edge at a million passages: ingest, index build, disk, memory, and searches by `ef`.

Passages of 30 words: 20 of one of 2,000 topics, 10 common ones. `HashingEncoder` makes their
vectors, so that passages of a topic are near each other. A query has 8 words of a passage. `int8`
keeps the float32 vectors in memory, `int8+disk` reads them on demand (the package's default). Each
step runs in a process of its own: memory of a step is that process's. RssAnon cannot be taken away
by the system, RssFile is files in its page cache. Every query is asked with each `ef`, then all of
them again. The store is kept in WORK, so that an interrupted run goes on with its next step.
`--piece N` builds the index after every N passages instead of once: Edge puts all passages that
came since the last build into one graph.

    python benchmarks/million.py --work DIR [--passages 1000000] [--dimensions 384 768]
        [--storages int8 int8+disk] [--ef 64 128 256] [--queries 500] [--piece N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import numpy as np
from harness import Report, Row, json_option, run_apart
from memory import status

from msmarco_qdrant import Passage, SearchClient, StorageSettings, ingest_passages, open_store
from msmarco_qdrant.testing import HashingEncoder

STORAGES = {"int8": StorageSettings(on_disk=False), "int8+disk": StorageSettings(on_disk=True)}
TOPICS, TOPIC_WORDS, COMMON_WORDS = 2000, 60, 400
NAME = "million"
_RECALL_QUERIES = 100
_PASSES = ("first", "again")  # a process's first searches also read the files that it maps
MIB = 2**20


def words_of(number: int) -> tuple[list[str], np.random.Generator]:
    """Return the words of a passage and the state to draw more from."""
    draw = np.random.default_rng(number)
    topic = draw.integers(TOPICS)
    own = draw.integers(TOPIC_WORDS, size=20)
    common = draw.integers(COMMON_WORDS, size=10)
    return [*(f"t{topic}w{word}" for word in own), *(f"common{word}" for word in common)], draw


def passages(start: int, stop: int) -> Iterator[Passage]:
    """Yield the passages of a range."""
    for number in range(start, stop):
        yield Passage(str(number), " ".join(words_of(number)[0]))


def queries(count: int, of: int) -> list[str]:
    """Return queries of 8 words of a passage each."""
    found = []
    for number in range(count):
        words, draw = words_of(number * 7919 % of)
        found.append(" ".join(draw.choice(words, 8, replace=False)))
    return found


def fill(folder: str, dimension: int, storage: str, count: int, piece: int) -> dict[str, float]:
    """Ingest without the index of the last piece, from the start: a part would distort the rate."""
    shutil.rmtree(folder, ignore_errors=True)
    encoder, seconds, stored = HashingEncoder(dimension), 0.0, 0
    step = piece or count
    for start in range(0, count, step):
        report = ingest_passages(
            passages(start, min(start + step, count)),
            folder,
            collection=NAME,
            encoder=encoder,
            storage=STORAGES[storage],
            optimize=start + step < count,
        )
        seconds += report.seconds
        stored += report.written + report.unchanged
    if stored != count:
        raise SystemExit(f"{stored} of {count} passages are stored")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # those that built the pieces
    return {
        "fill_s": seconds,
        "fill_disk": disk(folder),
        "pieces_cpu_s": used.ru_utime + used.ru_stime,
        **memory("fill"),
    }


@contextmanager
def child_peak() -> Iterator[list[int]]:
    """Yield the peaks of memory of the child processes, in bytes, read every half second.

    The system's count for ended children begins with the peak of their parent.
    """
    peaks, over = [0], threading.Event()

    def read() -> None:
        while not over.wait(0.5):
            for place in Path("/proc").glob("[0-9]*/status"):
                with suppress(OSError, IndexError):  # it has ended
                    text = place.read_text()
                    if f"PPid:\t{os.getpid()}\n" in text:
                        peaks.append(int(text.split("VmHWM:")[1].split()[0]) * 1024)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield peaks
    finally:
        over.set()
        reader.join()


def index(folder: str, dimension: int, storage: str, count: int) -> dict[str, float]:  # noqa: ARG001
    """Build the index."""
    with open_store(folder) as store:
        collection, started = store.collection(NAME), time.perf_counter()
        with child_peak() as peak:
            collection.optimize()
        seconds, info = time.perf_counter() - started, collection.info()
        own = memory("index")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "index_s": seconds,
        "index_cpu_s": used.ru_utime + used.ru_stime,
        "index_peak": float(max(peak)),
        "segments": info.segments,
        "disk": disk(folder),
        **own,
    }


def search(
    folder: str, dimension: int, storage: str, count: int, efs: Sequence[int], number: int
) -> dict[str, float]:
    """Search with each `ef`, and without the graph for the recall."""
    del storage
    found: dict[str, float] = {}
    asked, started = queries(number, count), time.perf_counter()
    with SearchClient.open(folder, collection=NAME, encoder=HashingEncoder(dimension)) as client:
        client.search(asked[0])
        found["open_s"] = time.perf_counter() - started
        exact = [
            {hit.pid for hit in client.search(query, exact=True)}
            for query in asked[:_RECALL_QUERIES]
        ]
        for times, ef in product(_PASSES, efs):
            took, same = [], 0
            for position, query in enumerate(asked):
                begun = time.perf_counter()
                hits = client.search(query, limit=10, ef=ef)
                took.append((time.perf_counter() - begun) * 1000)
                if position < len(exact):
                    same += len(exact[position] & {hit.pid for hit in hits})
            p50, p95 = np.percentile(took, (50, 95))
            found |= {f"{times}_p50_{ef}": p50, f"{times}_p95_{ef}": p95}
            found[f"recall_{ef}"] = same / 10 / len(exact)
        return {**found, **memory("search")}


def memory(step: str) -> dict[str, float]:
    """Return the memory of this process in bytes, by its kind."""
    names = {"peak": "VmHWM", "anon": "RssAnon", "file": "RssFile"}
    return {f"{step}_{name}": status(line) * MIB for name, line in names.items()}


def disk(folder: str) -> int:
    """Return the bytes that files take on disk."""
    return sum(file.stat().st_blocks for file in Path(folder).rglob("*") if file.is_file()) * 512


def measure(
    work: Path, dimension: int, storage: str, options: argparse.Namespace
) -> dict[str, float]:
    """Run the steps of one store that have no result in WORK yet."""
    folder = work / f"{options.passages}-{dimension}-{storage}-{options.piece}"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, float] = {}
    for step in ("fill", "index", "search"):
        result = folder / f"{step}.json"
        if not result.exists() or step == "search":
            words = [str(folder / "store"), str(dimension), storage, str(options.passages)]
            if step == "fill":
                words.append(str(options.piece))
            if step == "search":
                words += [str(options.queries), *map(str, options.ef)]
            result.write_text(json.dumps(run_apart(__file__, f"--step={step}", *words)))
        found |= json.loads(result.read_text())
    return found


def run_step(step: str, place: Sequence[str]) -> dict[str, float]:
    """Run one step in this process."""
    folder, dimension, storage, count = place[0], int(place[1]), place[2], int(place[3])
    if step == "fill":
        return fill(folder, dimension, storage, count, int(place[4]))
    if step == "index":
        return index(folder, dimension, storage, count)
    return search(folder, dimension, storage, count, [*map(int, place[5:])], int(place[4]))


def store_row(name: Sequence[object], found: dict[str, float], count: int) -> Row:
    """Return the row of a store: ingest, index, disk and memory."""
    gb = 1e9
    cells = (
        *name,
        f"{count / found['fill_s']:,.0f}",
        f"{found['fill_peak'] / gb:.2f}",
        f"{found['index_s'] / 60:.1f}",
        f"{(found['pieces_cpu_s'] + found['index_cpu_s']) / 60:.1f}",
        f"{found['index_peak'] / gb:.2f}",
        f"{found['segments']:.0f}",
        f"{found['disk'] / gb:.2f}",
        f"{found['search_anon'] / gb:.2f}",
        f"{found['search_file'] / gb:.2f}",
        f"{found['open_s']:.2f}",
    )
    return Row(cells, found)


def main() -> None:
    """Print two tables: the stores, and their searches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 768])
    parser.add_argument("--storages", nargs="+", choices=STORAGES, default=[*STORAGES])
    parser.add_argument("--ef", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--piece", type=int, default=0, metavar="N")
    parser.add_argument("--step", choices=("fill", "index", "search"), help=argparse.SUPPRESS)
    parser.add_argument("place", nargs="*", help=argparse.SUPPRESS)
    json_option(parser)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(run_step(options.step, options.place)))
        return
    if options.work is None:
        parser.error("--work DIR is required: the stores of a million passages take 20 GB")
    report, stores, searches = Report(options.json), [], []
    for dimension in options.dimensions:
        for storage in options.storages:
            name = (f"{options.passages:,}", dimension, storage)
            found = measure(options.work, dimension, storage, options)
            stores.append(store_row(name, found, options.passages))
            for ef in options.ef:
                kinds = product(_PASSES, ("p50", "p95"))
                shown = (f"{found[f'{times}_{kind}_{ef}']:.2f}" for times, kind in kinds)
                recall = f"{found[f'recall_{ef}']:.3f}"
                searches.append(Row((*name, ef, *shown, recall)))
    of = ("passages", "dimension", "storage")
    sizes = ("ingest, peak GB", "index, min", "processor min", "index, peak GB", "segments")
    rest = ("disk, GB", "search: anon GB", "file GB", "first answer, s")
    report.table((*of, "passages/s", *sizes, *rest), stores)
    times = ("first p50, ms", "first p95, ms", "again p50, ms", "again p95, ms")
    report.table((*of, "ef", *times, "recall@10"), searches)


if __name__ == "__main__":
    main()
