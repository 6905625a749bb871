"""An ingest on Ray beside the same ingest by one process: rate, processor time, peak memory.

Synthetic passages go into the acknowledging server: by the costless encoder, so that reading, BM25
and writing are measured, or as ready vectors, which ray-qdrant writes, too (dense vectors and texts
only; skipped where it is not installed). The cluster is one of this machine with one worker. Its
start and the worker's are left out, the pass over the pids is not. Processor time is that of the
driver, the workers and Ray's own processes, which a loaded machine does not change as much as a
rate; ray-qdrant's has the start of its processes in it. Peak memory is resident without shared
pages. Each run has its own processes and server; in turn, medians over the rounds.

A second table has the writer alone, `Collection.upsert`, beside benchmarks/write.py, where no other
stage of an ingest takes the processor or the interpreter's lock: points per second of its calls,
and the processor time of the threads that make and send the requests.

    python benchmarks/ray_ingest.py [--passages 100000] [--rounds 3] [--memory 100000 2000000]
        [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import write
from acknowledging_server import running_server
from harness import Report, Row, json_option, run_apart

HAS_PEER = importlib.util.find_spec("ray_qdrant") is not None
PACKAGES = ("ray", "qdrant-client", "pyarrow", *(["ray-qdrant"] if HAS_PEER else []))
DIMENSION = 384
PROCESS, RAY = "ingest_passages", "ingest_dataset, one worker"
READY, RAY_READY = "ingest_passages, ready vectors", "ingest_dataset, ready vectors"
PEER = "ray-qdrant, ready vectors"
WRITE = "benchmarks/write.py"
_WORDS = ["the", "city", "of", "london", "has", "a", "river", "and", "many", "old", "bridges"]
_SAMPLE_S = 0.1


def write_passages(path: Path, count: int) -> None:
    """Passages of about 55 words, as long as those of MS MARCO."""
    text = " ".join(_WORDS * 5)
    with path.open("w") as file:
        for number in range(count):
            file.write(f"{number}\t{number} {text}\n")


class Watch:
    """Processor time and peak memory of this process and those below it."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._processor: dict[int, float] = {}
        self.driver = self.worker = 0.0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def times(self) -> tuple[float, float]:
        """The wall time, and the processor time so far."""
        self._look()
        with self._lock:
            return time.perf_counter(), sum(self._processor.values())

    def end(self, *spans: tuple[tuple[float, float], tuple[float, float]]) -> dict[str, float]:
        """Return what was seen in spans of `times`, in seconds, and the peaks in MiB."""
        self._ended.set()
        self._thread.join()
        wall, processor = (sum(last[at] - first[at] for first, last in spans) for at in (0, 1))
        peaks = {"driver": self.driver, "worker": self.worker}
        return {"seconds": wall, "processor": processor, **peaks}

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self._look()

    def _look(self) -> None:
        for process in [self._own, *self._own.children(recursive=True)]:
            try:
                times, memory = process.cpu_times(), process.memory_info()
                is_worker = any(part.startswith("ray::") for part in process.cmdline())
            except psutil.Error:  # it has ended
                continue
            with self._lock:
                self._processor[process.pid] = times.user + times.system
            size = (memory.rss - memory.shared) / 2**20
            if process.pid == self._own.pid:
                self.driver = max(self.driver, size)
            elif is_worker:
                self.worker = max(self.worker, size)


class Writer:
    """Time of `Collection.upsert` of a server in this process, from the second call on.

    A worker of Ray is killed, so the times are in a file after each call.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        from msmarco_qdrant.stores.server.collection import ServerCollection
        from msmarco_qdrant.stores.server.point_writer import PointWriter

        self._path = path
        self._calls = self._points = 0
        self._seconds = self._processor = 0.0
        self._lock = threading.Lock()
        collection: Any = ServerCollection
        collection.upsert = self._timed(collection.upsert, is_call=True)
        writer: Any = PointWriter
        writer._send_one = self._timed(writer._send_one)  # noqa: SLF001  # in threads

    def _timed(self, function: Callable[..., None], *, is_call: bool = False) -> Any:
        def timed(collection: Any, given: Any) -> None:
            started, processor = time.perf_counter(), time.thread_time()
            function(collection, given)
            with self._lock:
                if self._calls:
                    self._processor += time.thread_time() - processor
                if self._calls and is_call:
                    self._points += len(given.ids)
                    self._seconds += time.perf_counter() - started
                self._calls += is_call
            if is_call:
                self._save()

        return timed

    def _save(self) -> None:
        found = {"points": self._points, "writing": self._seconds, "sending": self._processor}
        self._path.write_text(json.dumps(found))


def measured_encoder(path: Path) -> Any:
    """The costless encoder, made where the points are written: from now on that is timed."""
    from msmarco_qdrant.testing import HashingEncoder

    Writer(path)
    return HashingEncoder(DIMENSION)


def write_alone(points: int, folder: Path) -> dict[str, float]:
    """Write so many points as benchmarks/write.py does."""
    path = folder / "writer.json"
    Writer(path)
    made = write.make_points(points, DIMENSION, sparse=True)
    found = write.run("msmarco-qdrant", made, batch=256, sparse=True)
    return {**json.loads(path.read_text()), "whole_us": found["cpu_us_per_point"]}


@contextmanager
def cluster() -> Iterator[None]:
    """A cluster of this machine; its workers run at the priority of this process."""
    import ray

    # Ray's own is 15: other programs would come first.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # Ray's spelling
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=300 * 2**20)
    yield
    ray.shutdown()


def by_process(source: Any, url: str, **options: Any) -> dict[str, float]:
    """Ingest in this process."""
    from msmarco_qdrant.ingest.api import ingest_passages

    watch = Watch()
    started = watch.times()
    ingest_passages(source, url, optimize=False, **options)
    return watch.end((started, watch.times()))


def on_ray(source: Any, url: str, **options: Any) -> dict[str, float]:
    """Ingest by a worker; its start is left out."""
    from msmarco_qdrant.distributed import ingest_dataset
    from msmarco_qdrant.distributed.counting import CountedSource
    from msmarco_qdrant.distributed.tasks import TaskBoard

    spans: list[tuple[tuple[float, float], tuple[float, float]]] = []
    ready: list[tuple[float, float]] = []
    count, worker_ready = CountedSource.count, TaskBoard.worker_ready

    def timed(self: CountedSource, *arguments: Any) -> None:
        started = watch.times()
        count(self, *arguments)
        spans.append((started, watch.times()))

    def noted(self: TaskBoard) -> None:
        ready.append(watch.times())
        worker_ready(self)

    CountedSource.count = timed  # type: ignore[method-assign,assignment]
    TaskBoard.worker_ready = noted  # type: ignore[method-assign]
    with cluster():
        watch = Watch()
        ingest_dataset(
            source,
            url,
            workers=1,
            cpus_per_worker=1,
            optimize=False,
            **options,
        )
        return watch.end(spans[0], (ready[0], watch.times()))


def by_peer(folder: Path, url: str) -> dict[str, float]:
    """Write the same vectors and texts by ray-qdrant."""
    import ray
    from ray_qdrant import write_qdrant  # type: ignore[import-not-found]

    with cluster():
        columns = ["pid", "text", "vector"]
        files = [str(path) for path in sorted(folder.glob("*.parquet"))]
        data = ray.data.read_parquet(files).select_columns(columns).map_batches(with_id)
        watch = Watch()
        started = watch.times()
        options = {"prefer_grpc": True, "grpc_port": int(url.rpartition(":")[2])}
        write_qdrant(
            data,
            collection="peer",
            url=url.replace("grpc", "http"),
            client_kwargs={**options, "check_compatibility": False},
            concurrency=1,
        )
        return watch.end((started, watch.times()))


def with_id(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch whose pids are numbers, as ray-qdrant needs them."""
    batch["id"] = batch.pop("pid").astype("int64")
    return batch


def candidates(place: Path) -> dict[str, Callable[[str], dict[str, float]]]:
    """Each way to ingest what lies in a folder."""
    from msmarco_qdrant.sources.vector_shards import VectorShards

    path, vectors, times = place / "passages.tsv", place / "vectors", place / "writer.json"
    return {
        PROCESS: lambda url: by_process(path, url, encoder=measured_encoder(times)),
        RAY: lambda url: on_ray(path, url, make_encoder=partial(measured_encoder, times)),
        READY: lambda url: by_process(VectorShards(vectors), url),
        RAY_READY: lambda url: on_ray(VectorShards(vectors), url),
        PEER: lambda url: by_peer(vectors, url),
    }


def run(name: str, place: Path, passages: int) -> dict[str, float]:
    """Run one in a process of its own, against a server of its own; check what was written."""
    times = place / "writer.json"
    times.unlink(missing_ok=True)
    with running_server("unused__0001") as (port, taken):
        command = [sys.executable, __file__, "--one", name, str(place), f"grpc://127.0.0.1:{port}"]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    if taken.points != passages:
        raise SystemExit(f"{taken.points} of {passages} points were written")
    with suppress(FileNotFoundError):  # ready vectors have no encoder to time it
        found |= json.loads(times.read_text())
    return found


def prepare(place: Path, count: int) -> None:
    """Write the passages and their vectors."""
    from msmarco_qdrant.encode.api import encode_corpus
    from msmarco_qdrant.testing import HashingEncoder

    write_passages(place / "passages.tsv", count)
    encoder = HashingEncoder(DIMENSION)
    encode_corpus(place / "passages.tsv", place / "vectors", encoder=encoder, workers=0)


def main() -> None:
    """Print rates and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=())
    parser.add_argument("--one", nargs=3, metavar=("NAME", "FOLDER", "URL"))
    parser.add_argument("--candidate", choices=[WRITE], help="run it, here, and print JSON")
    json_option(parser)
    given = parser.parse_args()
    if given.one:
        name, folder, url = given.one
        print(json.dumps(candidates(Path(folder))[name](url)))
        return
    if given.candidate:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(write_alone(given.passages, Path(folder))))
        return
    report = Report(given.json, PACKAGES)
    if given.rounds:
        compare(report, given.passages, given.rounds)
    rows = []
    for count in given.memory:
        with tempfile.TemporaryDirectory() as folder:
            write_passages(Path(folder) / "passages.tsv", count)
            found = run(RAY, Path(folder), count)
        memory = (f"{found['driver']:.0f}", f"{found['worker']:.0f}")
        rows.append(Row((f"{count:,}", *memory), found))
    if rows:
        report.table(("passages", "driver, MiB", "worker, MiB"), rows)


def compare(report: Report, passages: int, rounds: int) -> None:
    """Print the tables of rates and of the writer."""
    names = [PROCESS, RAY, READY, RAY_READY, *([PEER] if HAS_PEER else [])]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in [WRITE, *names]}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place, passages)
        for _ in range(rounds):
            for name, runs in found.items():
                alone = name == WRITE
                arguments = (f"--candidate={WRITE}", f"--passages={passages}")
                runs.append(
                    run_apart(__file__, *arguments) if alone else run(name, place, passages)
                )
                print(name, json.dumps(runs[-1]), file=sys.stderr, flush=True)
    report.table(
        ("ingest", "passages/s", "processor, ms per 1,000", "driver, MiB", "worker, MiB"),
        [Row(cells(name, found[name], passages), {"rounds": found[name]}) for name in names],
    )
    base = writer_rate(found[WRITE]), writer_us(found[WRITE])
    report.table(
        ("writer", "points/s", "of write.py's", "processor, µs a point", "write.py's of it"),
        [
            Row(writer_cells(name, found[name], base), {"rounds": found[name]})
            for name in (WRITE, PROCESS, RAY)
        ],
    )


def writer_rate(runs: list[dict[str, float]]) -> float:
    """Points per second of its calls."""
    return statistics.median(one["points"] / one["writing"] for one in runs)


def writer_us(runs: list[dict[str, float]]) -> float:
    """Processor time a point."""
    return statistics.median(1e6 * one["sending"] / one["points"] for one in runs)


def writer_cells(
    name: str, runs: list[dict[str, float]], base: tuple[float, float]
) -> tuple[str, ...]:
    """A row of the writer: medians, and their ratios to write.py's."""
    rate, cost = writer_rate(runs), writer_us(runs)
    return (name, f"{rate:,.0f}", f"{rate / base[0]:.0%}", f"{cost:.1f}", f"{base[1] / cost:.0%}")


def cells(name: str, runs: list[dict[str, float]], passages: int) -> tuple[str, ...]:
    """A row: medians, and the largest peaks."""
    rate = statistics.median(passages / one["seconds"] for one in runs)
    processor = statistics.median(one["processor"] for one in runs) * 1e6 / passages
    driver = max(one["driver"] for one in runs)
    worker = max(one["worker"] for one in runs)
    shown = f"{worker:.0f}" if worker else "-"
    return (name, f"{rate:,.0f}", f"{processor:.0f}", f"{driver:.0f}", shown)


if __name__ == "__main__":
    main()
