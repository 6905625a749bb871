"""How fast are hard negatives mined, and does memory stay flat?

Mines 100 candidates for each of the 1,331 queries of MS MARCO dev over the store that `quality.py`
or `answers.py` has made, with queries encoded before; then synthetic queries with canned answers,
each number in a process of its own.

    python benchmarks/mine.py --work DIR [--rounds N] [--memory 10000 1000000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import Report, Row, data_folder, json_option, run_apart, spread
from memory import status
from numpy.typing import NDArray

from msmarco_qdrant import SearchClient, open_store
from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.core.search_types import (
    Nearest,
    PointQuery,
    ScoredPoint,
    SearchEffort,
    SearchMode,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.sources.corpus import read_queries
from msmarco_qdrant.stores import AliasedCollection, Store
from msmarco_qdrant.testing import HashingEncoder
from msmarco_qdrant.train import Positives, mine_negatives, read_positives

DEPTH = 100
SYSTEMS: tuple[tuple[SearchMode, ...], ...] = (
    ("dense",),
    ("bm25",),
    ("hybrid",),
    ("dense", "bm25"),
)
_BATCH = 32
_PASSAGES = 200  # of the store for synthetic queries


def main() -> None:
    """Print the rates, then the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="the folder with the store")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--synthetic", type=int, help="mine so many queries, and print as JSON")
    json_option(parser)
    options = parser.parse_args()
    if options.synthetic is not None:
        print(json.dumps(mine_synthetic(options.synthetic)))
        return
    if options.work is None:
        sys.exit("--work is required: the folder of quality.py or answers.py")
    report = Report(options.json)
    measure_rates(report, options.work / "store", options.rounds)
    rows = []
    for count in options.memory:
        found = run_apart(__file__, f"--synthetic={count}")
        rows.append(
            Row(
                (
                    f"{count:,}",
                    f"{found['mib']:,.0f}",
                    f"{found['file_mib']:,.0f}",
                    f"{found['s']:,.0f}",
                ),
                found,
            )
        )
    report.table(("synthetic queries", "peak MiB", "file, MiB", "s"), rows)


# ---- rates ---------------------------------------------------------------------------------


class EncodedQueries:
    """An encoder of queries whose vectors are known."""

    def __init__(self, encoder: Any, queries: Sequence[Query]) -> None:
        texts = [query.text for query in queries]
        self.info = encoder.info
        self.tokenizer = encoder.tokenizer
        self.encode_passages = encoder.encode_passages
        self.warm_up = encoder.warm_up
        self._vectors = dict(zip(texts, encoder.encode_queries(texts), strict=True))

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Return the known vectors."""
        return np.array([self._vectors[query] for query in queries])


def measure_rates(report: Report, path: Path, rounds: int) -> None:
    """Mine with each system, round after round, and ask the engine the same."""
    data = data_folder()
    queries = list(read_queries(data / "queries.dev.tsv"))
    positives = read_positives(data / "qrels.dev.txt")
    with open_store(path) as store:
        with SearchClient.open(store, model="all-MiniLM-L6-v2") as client:
            encoder: Any = EncodedQueries(client.encoder, queries)
        client = SearchClient(store, "msmarco", encoder)
        times: dict[str, list[tuple[float, float]]] = {}
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for modes in SYSTEMS:
                for processes, words in ((None, ""), (1, ", one process")):
                    seconds = _mine(client, queries, positives, modes, processes)
                    times.setdefault(" and ".join(modes) + words, []).append(seconds)
            times.setdefault("Qdrant Edge alone, dense", []).append(_ask(store, encoder, queries))
        passages = store.collection("msmarco").info().points
    rows = [
        Row(
            (
                name,
                spread([len(queries) / wall for wall, _ in of], 0),
                spread([1000 * processor / len(queries) for _, processor in of], 2),
                f"{2 * len(queries) / statistics.median(processor for _, processor in of):,.0f}",
            ),
            of,
        )
        for name, of in times.items()
    ]
    print(f"{len(queries):,} queries, {DEPTH} candidates each, {passages:,} passages\n")
    head = ("systems", "queries/s", "processor ms per query", "queries/s of two whole cores")
    report.table(head, rows)


def _mine(
    client: SearchClient,
    queries: Sequence[Query],
    positives: Positives,
    modes: Sequence[SearchMode],
    processes: int | None,
) -> tuple[float, float]:
    """Return the wall time and the processor time of all processes, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out, wall, processor = Path(folder) / "out", time.perf_counter(), _processor_time()
        mine_negatives(
            client, queries, positives, out, modes=modes, depth=DEPTH, processes=processes
        )
        return time.perf_counter() - wall, _processor_time() - processor


def _processor_time() -> float:
    """Return the processor time of this process and of those that have ended, in seconds."""
    both = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def _ask(store: Store, encoder: Any, queries: Sequence[Query]) -> tuple[float, float]:
    """Send the same dense queries to the engine, in one thread."""
    collection, effort = store.collection("msmarco"), SearchEffort()
    wall, processor = time.perf_counter(), time.process_time()
    for start in range(0, len(queries), _BATCH):
        vectors = encoder.encode_queries([one.text for one in queries[start : start + _BATCH]])
        collection.query(
            [
                PointQuery(
                    Nearest(one, encoder.info.vector_name), DEPTH + 2, effort, fields=("pid",)
                )
                for one in vectors
            ]
        )
    return time.perf_counter() - wall, time.process_time() - processor


# ---- memory --------------------------------------------------------------------------------


class CannedCollection(AliasedCollection):
    """A collection whose answers cost nothing: the same points for each query."""

    canned: list[ScoredPoint]

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries."""
        return [self.canned[: query.limit] for query in queries]


class SyntheticPositives(Mapping[str, Sequence[str]]):
    """One positive of each query, made when it is looked up."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __getitem__(self, qid: str) -> Sequence[str]:
        return (str(int(qid) % _PASSAGES),)

    def __iter__(self) -> Iterator[str]:
        return map(str, range(self._count))

    def __len__(self) -> int:
        return self._count


def mine_synthetic(count: int) -> dict[str, float]:
    """Mine so many queries, and return the peak of memory, the file's size and the time."""
    encoder = HashingEncoder()
    passages = [Passage(str(number), f"passage number {number}") for number in range(_PASSAGES)]
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store(Path(folder) / "store", create=True) as store,
    ):
        ingest_passages(passages, store, encoder=encoder, optimize=False)
        client = SearchClient(store, "msmarco", encoder)
        collection = CannedCollection(store, "msmarco")
        (vector,) = encoder.encode_queries(["passage"])
        nearest = Nearest(vector, encoder.info.vector_name)
        (collection.canned,) = store.collection("msmarco").query(
            [PointQuery(nearest, DEPTH + 2, fields=("pid",))]
        )
        client.session.searched = collection
        queries = (Query(str(number), f"query {number}") for number in range(count))
        out, started = Path(folder) / "out", time.perf_counter()
        mine_negatives(client, queries, SyntheticPositives(count), out, depth=DEPTH)
        seconds = time.perf_counter() - started
        size = (out / "negatives.jsonl.gz").stat().st_size
    # Of this program alone: ru_maxrss begins with that of the process that started it.
    return {"queries": count, "mib": status("VmHWM"), "file_mib": size / 2**20, "s": seconds}


if __name__ == "__main__":
    main()
