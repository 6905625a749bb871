"""An ingest on a Ray cluster of three nodes, with random kills of workers, nodes and the driver.

It ends as an ingest by one process without kills: the same points, the same rejects. That one
writes to a directory, since the server of the tests takes a minute for 100,000 points.

    python -m tests.distributed.kills [--passages 200000] [--kills 20] [--seeds 0 1 2 3 4 5 6 7 8 9]

The nodes are processes of this machine, the server is the loopback server of the tests. Some of
the passages are repeated, rejected, or stored before. A kill is `kill -9`, or a node's end without
notice; a driver that is killed is started again with the same arguments.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.sources.rejects import reject_to_json
from msmarco_qdrant.stores import Connection, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.distributed.ray_environment import ray_environment
from tests.loopback import LoopbackServer
from tests.loopback.faults import Held

NODES = 3
COLLECTION = "msmarco"
_WORKER = "ray::IngestWorker"
_WRITE = "Points.Upsert"
_SPLITS = 24
_POLL_S = 0.2
_PAGE = 1000
_STARTS = 5


def write_source(path: Path, passages: int, rng: random.Random) -> None:
    """Lines of which a tenth repeats a pid, is rejected, or is empty."""
    with path.open("w") as file:
        for number in range(passages):
            kind = rng.random()
            if kind < 0.03:
                file.write("no tab\n")
            elif kind < 0.08:
                file.write(f"{rng.randrange(passages)}\tagain {number}\n")
            elif kind < 0.09:
                file.write("\n")
            elif kind < 0.1:
                file.write(f"{number}\t...\n")  # no word, no vector
            else:
                file.write(f"{number}\tpassage number {number} of topic {number % 1000}\n")


def require_same_points(expected: Path, url: str) -> None:
    """Compare the payloads of all points, without what differs between two runs."""
    fields = ("pid", "text", "meta", "text_digest", "meta_digest")
    with closing(open_store(expected)) as store, closing(open_store(url)) as server:
        found = server.collection(COLLECTION)
        points = store.collection(COLLECTION).scan(fields)
        count = 0
        while page := dict(islice(points, _PAGE)):
            count += len(page)
            assert page == found.retrieve([*page], fields)
        assert count == found.info().points


def ingest_here(source: Path, store: Path | str) -> list[dict[str, Any]]:
    """Ingest by this process; return the rejects."""
    rejects: list[dict[str, Any]] = []
    ingest_passages(
        source,
        store,
        encoder=HashingEncoder(),
        optimize=False,
        on_reject=lambda reject: rejects.append(reject_to_json(reject)),
    )
    return rejects


@contextmanager
def timed(phase: str) -> Iterator[None]:
    """Print the time of a phase."""
    started = time.perf_counter()
    yield
    print(f"{phase}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def drive(address: str, source: Path, url: str, rejects: Path, batch_points: int) -> None:
    """The driver: it ingests, and writes the rejects at the end."""
    from msmarco_qdrant.distributed import ingest_dataset

    logging.basicConfig(level=logging.WARNING)
    found: list[dict[str, Any]] = []
    report = ingest_dataset(
        source,
        url,
        address=address,
        workers=NODES,
        cpus_per_worker=1,
        split_bytes=source.stat().st_size // _SPLITS,
        make_encoder=HashingEncoder,
        window=1024,
        connection=Connection(batch_points=batch_points),
        on_reject=lambda reject: found.append(reject_to_json(reject)),
    )
    rejects.write_text(json.dumps(found))
    print(repr(report), flush=True)


class KillCluster:
    """A Ray cluster of three nodes, of which workers and nodes are killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        head = {**self._node, "include_dashboard": False}
        self._cluster = started(lambda: Cluster(initialize_head=True, head_node_args=head))
        self._nodes = [self._add_node() for _ in range(NODES - 1)]

    @property
    def address(self) -> str:
        """The address for drivers."""
        address: str = self._cluster.address
        return address

    def kill_worker(self, rng: random.Random) -> bool:
        """Kill a worker; False if there is none."""
        ours = psutil.Process().children(recursive=True)  # of the nodes, which we started
        workers = [process for process in ours if _is_worker(process)]
        if workers:
            rng.choice(workers).kill()
        return bool(workers)

    def kill_node(self, rng: random.Random) -> None:
        """End a node but the head without notice, and start another."""
        lost = self._nodes.pop(rng.randrange(len(self._nodes)))
        self._cluster.remove_node(lost, allow_graceful=False)
        self._nodes.append(self._add_node())

    def close(self) -> None:
        """End the cluster."""
        self._cluster.shutdown()

    def _add_node(self) -> Any:
        return started(lambda: self._cluster.add_node(**self._node))


@contextmanager
def kill_cluster() -> Iterator[KillCluster]:
    """A cluster for the time of the block."""
    with ray_environment(), closing(KillCluster()) as cluster:
        yield cluster


class Kills:
    """A driver on a cluster, and what is killed.

    Args:
        cluster: The cluster.
        source: The source.
        passages: Number of its lines.
        server: The server.
        folder: For the rejects of the driver.
        rng: Decides what is killed, and when.
    """

    def __init__(
        self,
        cluster: KillCluster,
        source: Path,
        passages: int,
        server: LoopbackServer,
        folder: Path,
        rng: random.Random,
    ) -> None:
        self._cluster, self._source, self._server = cluster, source, server
        # Half of the passages are written at least, so that each kill has its write.
        self._batch_points = min(256, passages // 48)
        self._writes_before_kills = passages // self._batch_points // 2
        self._rejects = folder / "rejects.json"
        self._rng = rng
        self.done: Counter[str] = Counter()

    def run(self, kills: int) -> list[dict[str, Any]]:
        """Ingest, with so many kills after random writes; return the rejects."""
        begun = self._server.requests.count(_WRITE)
        driver = self._start()
        for writes in sorted(self._rng.sample(range(1, self._writes_before_kills), kills)):
            with self._held_write(begun + writes, driver):
                while not (killed := self._kill(driver)):
                    time.sleep(_POLL_S)  # no worker is there
            if killed == "driver":
                driver = self._start()
        assert 0 == driver.wait()
        found: list[dict[str, Any]] = json.loads(self._rejects.read_text())
        return found

    @contextmanager
    def _held_write(self, number: int, driver: subprocess.Popen[bytes]) -> Iterator[None]:
        """Hold the write of a number, so that the ingest does not end during the block."""
        released = threading.Event()

        def hold(rpc: str, call: int) -> Held | None:
            return Held(released) if rpc == _WRITE and call >= number else None

        self._server.faults.use(hold)
        try:
            while True:
                assert driver.poll() is None, "the driver ended before its last kill"
                with suppress(TimeoutError):
                    self._server.requests.wait_for(_WRITE, number, timeout_s=_POLL_S)
                    break
            yield
        finally:
            self._server.faults.use(None)
            released.set()

    def _start(self) -> subprocess.Popen[bytes]:
        place = [str(self._source), self._server.url, str(self._rejects), str(self._batch_points)]
        command = [sys.executable, "-m", __spec__.name, "--drive", self._cluster.address, *place]
        return subprocess.Popen(command)

    def _kill(self, driver: subprocess.Popen[bytes]) -> str | None:
        """Kill something, and return what; None if a worker is to be killed and none is there."""
        kind = self._rng.choice(["worker", "worker", "node", "driver"])
        if kind == "worker" and not self._cluster.kill_worker(self._rng):
            return None
        self.done[kind] += 1
        if kind == "node":
            self._cluster.kill_node(self._rng)
        elif kind == "driver":
            driver.kill()
            driver.wait()
        return kind


def started(start: Callable[[], Any]) -> Any:
    """Start a part of a cluster, again if a busy machine takes more than Ray's 30 seconds."""
    for _ in range(_STARTS - 1):
        with suppress(Exception):  # Ray has no other class for it
            return start()
    return start()


def _is_worker(process: psutil.Process) -> bool:
    """True for a worker, also while it ingests: Ray puts the method into its name."""
    with suppress(psutil.Error):  # it has ended
        return any(part.startswith(_WORKER) for part in process.cmdline())
    return False


def compare(cluster: KillCluster, passages: int, kills: int, seed: int) -> Counter[str]:
    """Ingest with kills, and raise unless it ends as without; return the kills."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, LoopbackServer() as server:
        source, expected = Path(name) / "passages.tsv", Path(name) / "expected"
        write_source(source, passages, rng)
        before = Path(name) / "before.tsv"  # these are unchanged, or their text changes
        write_source(before, passages // 5, rng)
        with timed("passages that are stored before"):
            for store in (expected, server.url):
                ingest_here(before, store)
        with timed("ingest by one process"):
            rejects = ingest_here(source, expected)
        run = Kills(cluster, source, passages, server, Path(name), rng)
        with timed("ingest with kills"):
            found = run.run(kills)
        assert sorted(map(json.dumps, rejects)) == sorted(map(json.dumps, found))
        with timed("comparison"):
            require_same_points(expected, server.url)
    return run.done


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the seeds, or the driver."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(10))
    names = ("ADDRESS", "SOURCE", "URL", "REJECTS", "BATCH")
    parser.add_argument("--drive", nargs=5, metavar=names)
    given = parser.parse_args(arguments)
    if given.drive:
        address, source, url, rejects, batch_points = given.drive
        drive(address, Path(source), url, Path(rejects), int(batch_points))
        return
    with kill_cluster() as cluster:
        for seed in given.seeds:
            begun = time.perf_counter()
            done = compare(cluster, given.passages, given.kills, seed)
            seconds = time.perf_counter() - begun
            print(
                f"seed {seed}: same points and rejects after {dict(done)}, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
