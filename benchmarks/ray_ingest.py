"""An ingest on Ray beside the same ingest by one process: its rate, and its peak memory.

Both ingest the same synthetic passages with the costless encoder into the acknowledging server, so
that what is measured is reading, BM25 and writing. The cluster is one of this machine, with one
worker; its start is not in the times, that of the worker is in `total`. `ingest` is from the
worker's first split to the last. In turn; medians over the rounds. The peak memory is that of the
driver and of the largest worker, in MiB of resident memory without shared pages.

    python benchmarks/ray_ingest.py [--passages 100000] [--rounds 3] [--memory 100000 2000000]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from acknowledging_server import running_server

_WORDS = ["the", "city", "of", "london", "has", "a", "river", "and", "many", "old", "bridges"]


def write_passages(path: Path, count: int) -> None:
    """Passages of about 55 words, as long as those of MS MARCO."""
    text = " ".join(_WORDS * 5)
    with path.open("w") as file:
        for number in range(count):
            file.write(f"{number}\t{number} {text}\n")


def ingest(kind: str, path: Path, url: str) -> dict[str, float]:
    """Ingest by one process, or on Ray; return seconds and peak memory."""
    from msmarco_qdrant.testing import HashingEncoder

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if kind == "process":
        from msmarco_qdrant.ingest.api import ingest_passages

        with peak_memory(("process",)) as peak:
            started = time.perf_counter()
            report = ingest_passages(path, url, encoder=HashingEncoder(), optimize=False)
            total = time.perf_counter() - started
        return {"seconds": total, "ingest": report.seconds, **peak}
    import ray

    from msmarco_qdrant.distributed import ingest_dataset

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20)
    first: list[float] = []

    def seen(progress: Any) -> None:
        if not first:
            first.append(time.perf_counter())
        del progress

    with peak_memory(("driver", "worker")) as peak:
        started = time.perf_counter()
        ingest_dataset(
            path,
            url,
            workers=1,
            cpus_per_worker=2,
            make_encoder=HashingEncoder,
            optimize=False,
            on_progress=seen,
        )
        ended = time.perf_counter()
    ray.shutdown()
    return {"seconds": ended - started, "ingest": ended - first[0], **peak}


@contextmanager
def peak_memory(names: tuple[str, ...]) -> Iterator[dict[str, float]]:
    """Watch this process and the workers of Ray below it."""
    peak, ended = dict.fromkeys(names, 0.0), threading.Event()

    def watch() -> None:
        own = psutil.Process()
        while not ended.wait(0.2):
            peak[names[0]] = max(peak[names[0]], _private(own))
            if "worker" in peak:
                workers = [p for p in own.children(recursive=True) if _is_worker(p)]
                peak["worker"] = max([peak["worker"], *map(_private, workers)])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _private(process: psutil.Process) -> float:
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(memory.rss - memory.shared) / 2**20


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any(part.startswith("ray::") for part in process.cmdline())
    except psutil.Error:
        return False


def run(kind: str, path: Path) -> dict[str, float]:
    """Run one ingest in a process of its own, against a server of its own."""
    with running_server("unused__0001") as (port, _taken):
        command = [sys.executable, __file__, "--one", kind, str(path), f"grpc://127.0.0.1:{port}"]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print rates and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=())
    parser.add_argument("--one", nargs=3, metavar=("KIND", "FILE", "URL"))
    given = parser.parse_args()
    if given.one:
        kind, path, url = given.one
        print(json.dumps(ingest(kind, Path(path), url)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "passages.tsv"
        write_passages(path, given.passages)
        kinds = ("process", "ray")
        rounds = [{kind: run(kind, path) for kind in kinds} for _ in range(given.rounds)]
        for kind in kinds if rounds else ():
            print(f"{kind}: {describe([one[kind] for one in rounds], given.passages)}")
        for count in given.memory:
            write_passages(path, count)
            found = run("ray", path)
            print(f"{count:,}: driver {found['driver']:.0f} MiB, worker {found['worker']:.0f} MiB")


def describe(rounds: list[dict[str, float]], passages: int) -> str:
    """Return the median rates of some rounds, and each round's."""
    rates = {name: [passages / one[name] for one in rounds] for name in ("seconds", "ingest")}
    return "; ".join(
        f"{'total' if name == 'seconds' else name} {statistics.median(found):,.0f} passages/s "
        f"({', '.join(f'{rate:,.0f}' for rate in found)})"
        for name, found in rates.items()
    )


if __name__ == "__main__":
    main()
