"""`reembed`, `mine` and `judge` on Ray beside one process: rate, and peak memory.

The same work, in one run: passages of a server change their encoder, candidates are searched for
queries, and those candidates are scored. Encoder and judge are costless, so that what Ray adds
shows. The server is the tests' own, in Python, in a process of its own: most of the time is its,
the same for both. The cluster is one of this machine with one worker, and its time begins when the
worker is ready. Peak memory is resident without shared pages. In turn, medians over the rounds.

    python benchmarks/ray_steps.py [--passages 5000] [--queries 1000] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from harness import Report, Row, json_option, run_in_turn, some_passages, some_queries
from ray_ingest import Watch, cluster

from msmarco_qdrant import SearchClient, open_store
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.distributed import judge_on_ray, mine_on_ray, reembed_on_ray
from msmarco_qdrant.distributed.tasks import TaskBoard
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from msmarco_qdrant.train import judge_negatives, mine_negatives

PACKAGES = ("ray", "qdrant-client", "pyarrow")
NAME = "msmarco"
DEPTH = 100
DEV = 50
make_old = partial(HashingEncoder, 384)
make_new = partial(HashingEncoder, 384, salt="new")
ON_RAY: dict[str, Any] = {"workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
STEPS = ("reembed", "mine", "judge")
CANDIDATES = [f"{step}{way}" for step in STEPS for way in ("", " --ray")]


class Inputs:
    """A filled server, and the queries.

    Args:
        url: The server.
        folder: For files.
        passages: Number of passages.
        queries: Number of queries.
    """

    def __init__(self, url: str, folder: Path, passages: int, queries: int) -> None:
        self.url = url
        self.folder = folder
        found = some_passages(passages)
        self.passages = len(found)
        ingest_passages(found, url, collection=NAME, encoder=make_old(), optimize=False)
        texts = some_queries()[:queries]
        self.queries = [Query(str(number), text) for number, text in enumerate(texts)]
        # Which passages answer does not matter to the speed: the first ones stand for them.
        pids = [pid for pid, _ in found] * len(texts)
        self.positives = {one.qid: [pid] for one, pid in zip(self.queries, pids, strict=False)}
        dev = self.queries[:DEV]
        self.dev: dict[str, Any] = {
            "dev_queries": dev,
            "dev_qrels": {one.qid: {self.positives[one.qid][0]: 1} for one in dev},
            "allow_weak": True,
        }

    @contextmanager
    def client(self) -> Iterator[SearchClient]:
        """A client of this process."""
        with SearchClient.open(self.url, collection=NAME, encoder=make_old()) as client:
            yield client

    def mine(self, name: str) -> None:
        """Mine by this process."""
        with self.client() as client:
            out = self.folder / name
            mine_negatives(client, self.queries, self.positives, out, depth=DEPTH, processes=1)


def by_process(step: str, given: Inputs) -> None:
    """Do a step in this process."""
    if step == "mine":
        given.mine("out")
    elif step == "judge":
        mined, out = given.folder / "mined", given.folder / "out"
        with given.client() as client:
            judge_negatives(WordOverlapReranker(), client, given.queries, mined, out, **given.dev)
    else:
        with closing(open_store(given.url)) as store:
            reembed_collection(store, NAME, encoder=make_new(), load_old=load_old, allow_worse=True)


def on_ray(step: str, given: Inputs) -> None:
    """Do a step by a worker."""
    if step == "mine":
        mine_on_ray(
            given.url,
            given.queries,
            given.positives,
            given.folder / "out",
            make_encoder=make_old,
            depth=DEPTH,
            **ON_RAY,
        )
    elif step == "judge":
        mined, out = given.folder / "mined", given.folder / "out"
        options = {"make_encoder": make_old, **given.dev, **ON_RAY}
        judge_on_ray(WordOverlapReranker, given.url, given.queries, mined, out, **options)
    else:
        options = {"load_old": load_old, "allow_worse": True, **ON_RAY}
        reembed_on_ray(given.url, NAME, make_encoder=make_new, **options)


def load_old(_info: object) -> HashingEncoder:
    """Load the encoder before the change."""
    return make_old()


def run(candidate: str, given: Inputs) -> dict[str, float]:
    """Do a step, and return its time, its number of items and the peaks of memory."""
    step, _, way = candidate.partition(" ")
    if step == "judge":
        given.mine("mined")
    items = given.passages if step == "reembed" else len(given.queries)
    if not way:
        watch = Watch()
        started = watch.times()
        by_process(step, given)
        return {"items": items, **watch.end((started, watch.times()))}
    ready: list[tuple[float, float]] = []
    worker_ready: Callable[[TaskBoard], None] = TaskBoard.worker_ready

    def noted(self: TaskBoard) -> None:
        ready.append(watch.times())
        worker_ready(self)

    TaskBoard.worker_ready = noted  # type: ignore[method-assign]
    with cluster():
        watch = Watch()
        on_ray(step, given)
        return {"items": items, **watch.end((ready[0], watch.times()))}


@contextmanager
def server() -> Iterator[str]:
    """A server in a process of its own, by its URL."""
    program = Path(__file__).with_name("leaving_server.py")
    process = subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.communicate(timeout=30)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--candidate", choices=CANDIDATES, help="run one, here, and print JSON")
    json_option(parser)
    options = parser.parse_args()
    if options.candidate:
        with server() as url, tempfile.TemporaryDirectory() as folder:
            given = Inputs(url, Path(folder), options.passages, options.queries)
            print(json.dumps(run(options.candidate, given)))
        return
    sizes = (f"--passages={options.passages}", f"--queries={options.queries}")
    found = run_in_turn(__file__, CANDIDATES, options.rounds, *sizes)
    rates = {
        name: statistics.median(one["items"] / one["seconds"] for one in runs)
        for name, runs in found.items()
    }
    Report(options.json, PACKAGES).table(
        ("step", "passages or queries/s", "of one process", "driver, MiB", "worker, MiB"),
        [Row(cells(name, runs, rates), {"rounds": runs}) for name, runs in found.items()],
    )


def cells(name: str, runs: list[dict[str, Any]], rates: dict[str, float]) -> tuple[str, ...]:
    """A row: medians, and the largest peaks."""
    share = rates[name] / rates[name.partition(" ")[0]]
    driver, worker = (max(one[place] for one in runs) for place in ("driver", "worker"))
    shown = f"{worker:.0f}" if worker else "-"
    return (name, f"{rates[name]:,.0f}", f"{share:.0%}", f"{driver:.0f}", shown)


if __name__ == "__main__":
    main()
