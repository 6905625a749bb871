"""Latency and throughput of searches, one at a time and many at once.

Ours (`SearchClient.search`, `search_many`, `AsyncSearchClient.search`) against the same by hand:
`SentenceTransformer.encode` and Qdrant Edge's own query, on the same collection, written here with
nothing of ours in between. By hand, many at once is a thread each; "in calls" gives as many queries
to one `encode` and one batch of queries, as `search_many` does.

The real model and Qdrant Edge: passages are ingested once, then the queries of MS MARCO dev are
searched for. Vectors of queries are not remembered, so that every search is encoded. Each candidate
in a process of its own, the candidates in turn; medians over the rounds. Loading, warming up and as
many first searches as are under way at once are left out of the time. Beside other programs,
compare the least time of a search, and the processor's.

    python benchmarks/search.py [--passages 5000] [--searches 960] [--at-once 1 8 32]
        [--rounds 5] [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import (
    PACKAGES,
    Report,
    Row,
    column,
    data_name,
    json_option,
    middle,
    model_directory,
    run_in_turn,
    some_passages,
    some_queries,
    spread,
)

if TYPE_CHECKING:
    from msmarco_qdrant.encoding import Encoder
    from msmarco_qdrant.search.async_client import AsyncSearchClient
    from msmarco_qdrant.search.client import SearchClient

MODEL = "all-MiniLM-L6-v2"
LIMIT = 10

SearchAll = Callable[[Sequence[str], int], list[float]]
"""Searches for all queries, so many at once: how many seconds each of them took."""
Candidate = Callable[[Path, str], AbstractContextManager[SearchAll]]
"""Opens a store with a model."""


# ---- the candidates ------------------------------------------------------------------------


@contextmanager
def by_hand(store: Path, model: str) -> Iterator[SearchAll]:
    """`encode` and a query, for each query; a thread each."""
    encode, ask = tools(store, model)

    def search(query: str) -> Sequence[object]:
        return ask(encode([query]))[0]

    yield in_threads(search)


@contextmanager
def by_hand_in_calls(store: Path, model: str) -> Iterator[SearchAll]:
    """`encode` and a batch of queries, for so many queries a call."""
    encode, query = tools(store, model)
    yield in_calls(lambda queries: query(encode(queries)))


def tools(store: Path, model: str) -> tuple[Any, Callable[[Any], list[Sequence[object]]]]:
    """Return the parts of a search by hand: the library's `encode`, and the engine's query."""
    import qdrant_edge
    from sentence_transformers import SentenceTransformer

    (path,) = (store / "collections").iterdir()
    shard = qdrant_edge.EdgeShard.load(str(path))
    (name,) = json.loads((path / "edge_config.json").read_text("utf-8"))["vectors"]

    def query(vectors: Any) -> list[Sequence[object]]:
        requests = [
            qdrant_edge.QueryRequest(
                limit=LIMIT,
                query=qdrant_edge.Query.Nearest(vector, using=name),
                with_payload=True,
            )
            for vector in vectors
        ]
        return [*shard.query_batch(qdrant_edge.QueryBatchRequest(requests))]

    return SentenceTransformer(model).encode, query


@contextmanager
def client(store: Path, model: str) -> Iterator[SearchAll]:
    """`SearchClient.search`; a thread each."""
    with opened(store, model) as searcher:
        yield in_threads(partial(searcher.search, limit=LIMIT))


@contextmanager
def client_in_calls(store: Path, model: str) -> Iterator[SearchAll]:
    """`SearchClient.search_many`, so many queries a call."""
    with opened(store, model) as searcher:
        yield in_calls(partial(searcher.search_many, limit=LIMIT))


@contextmanager
def async_client(store: Path, model: str) -> Iterator[SearchAll]:
    """`AsyncSearchClient.search`; a task each."""
    from msmarco_qdrant.search.async_client import AsyncSearchClient

    with asyncio.Runner() as runner:
        opening = AsyncSearchClient.open(store, encoder=load_collection_encoder(model))
        searcher = runner.run(opening)
        runner.run(searcher.warm_up())
        yield lambda queries, at_once: runner.run(in_tasks(searcher, queries, at_once))
        runner.run(searcher.close())


def opened(store: Path, model: str) -> SearchClient:
    """Our client."""
    from msmarco_qdrant.search.client import SearchClient

    searcher = SearchClient.open(store, encoder=load_collection_encoder(model))
    searcher.warm_up()
    return searcher


def load_collection_encoder(model: str) -> Encoder:
    """Our encoder, as it comes, but that it remembers no query."""
    from msmarco_qdrant.encoding import load_encoder

    return load_encoder(model, cached_queries=0)


# ---- many at once --------------------------------------------------------------------------


def in_threads(search: Callable[[str], Sequence[object]]) -> SearchAll:
    """One query a call, as many threads as searches at once."""

    def timed(query: str) -> float:
        started = time.perf_counter()
        check(search(query))
        return time.perf_counter() - started

    def search_all(queries: Sequence[str], at_once: int) -> list[float]:
        if at_once == 1:
            return [timed(query) for query in queries]
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(timed, queries))

    return search_all


def in_calls(search_many: Callable[[Sequence[str]], Sequence[Sequence[object]]]) -> SearchAll:
    """As many queries a call as searches at once, one call after the other."""

    def search_all(queries: Sequence[str], at_once: int) -> list[float]:
        latencies = []
        for start in range(0, len(queries), at_once):
            started = time.perf_counter()
            answers = search_many(queries[start : start + at_once])
            latencies += [time.perf_counter() - started] * len(answers)
            for hits in answers:
                check(hits)
        return latencies

    return search_all


async def in_tasks(
    searcher: AsyncSearchClient, queries: Sequence[str], at_once: int
) -> list[float]:
    """As many tasks as searches at once, each with one search after the other."""
    latencies: list[float] = []
    waiting = iter(queries)

    async def search_on() -> None:
        for query in waiting:
            started = time.perf_counter()
            check(await searcher.search(query, limit=LIMIT))
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(search_on() for _ in range(at_once)))
    return latencies


def check(hits: Sequence[object]) -> None:
    """Refuse to time a search that found too little."""
    if len(hits) != LIMIT:
        raise SystemExit(f"a search found {len(hits)} passages, expected {LIMIT}")


BASE = "by hand"
IN_CALLS: Mapping[str, Candidate] = {
    "by hand, in calls": by_hand_in_calls,
    "SearchClient.search_many": client_in_calls,
}
CANDIDATES: Mapping[str, Candidate] = {
    BASE: by_hand,
    "SearchClient.search": client,
    "AsyncSearchClient.search": async_client,
    **IN_CALLS,
}


# ---- runs ----------------------------------------------------------------------------------


def run(candidate: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Search for so many queries, at each number at once: speed, and how long one takes."""
    most = max(options.at_once)
    queries = list(islice(cycle(some_queries()), most + options.searches))
    results = {}
    with CANDIDATES[candidate](options.store, options.model) as search_all:
        for at_once in levels(candidate, options.at_once):
            search_all(queries[:at_once], at_once)
            started, spent = time.perf_counter(), time.process_time()
            latencies = search_all(queries[most:], at_once)
            seconds, spent = time.perf_counter() - started, time.process_time() - spent
            p50, p95 = np.percentile(latencies, (50, 95))
            results[str(at_once)] = {
                "searches_per_second": options.searches / seconds,
                "processor_ms": 1000 * spent / options.searches,
                "least_ms": 1000 * min(latencies),
                "p50_ms": 1000 * float(p50),
                "p95_ms": 1000 * float(p95),
            }
    return results


def levels(candidate: str, at_once: Sequence[int]) -> list[int]:
    """Return the concurrency levels of a candidate: a call of one query is another candidate's."""
    return [number for number in at_once if number > 1 or candidate not in IN_CALLS]


def print_results(
    report: Report, results: Mapping[str, list[dict[str, Any]]], at_once: Sequence[int]
) -> None:
    """The table: each number at once, each candidate against by hand."""
    head = (
        "searches",
        "at once",
        "searches/s, median (range)",
        "times by hand",
        "of the processor, ms",
        "least, ms",
        "p50, ms",
        "p95, ms",
    )
    rows = []
    for number in at_once:
        for name in results:
            if number not in levels(name, at_once):
                continue
            runs = [run[str(number)] for run in results[name]]
            base = middle([run[str(number)] for run in results[BASE]], "searches_per_second")
            cells = (
                name,
                number,
                spread(column(runs, "searches_per_second")),
                f"{middle(runs, 'searches_per_second') / base:.2f}",
                f"{middle(runs, 'processor_ms'):.1f}",
                f"{middle(runs, 'least_ms'):.1f}",
                f"{middle(runs, 'p50_ms'):.1f}",
                f"{middle(runs, 'p95_ms'):.1f}",
            )
            rows.append(Row(cells, runs))
    report.table(head, rows)


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Ingest once, run the candidates in turn, and print their table."""
    from msmarco_qdrant.core.records import Passage
    from msmarco_qdrant.ingest.api import ingest_passages

    passages = [Passage(pid, text) for pid, text in some_passages(options.passages)]
    model = model_directory(options.model)
    ingest_passages(passages, folder / "store", model=model)
    names = [BASE, *(name for name in options.only if name != BASE)]
    arguments = [f"--store={folder / 'store'}", f"--model={model}"]
    arguments += [f"--searches={options.searches}", "--at-once", *map(str, options.at_once)]
    results = run_in_turn(__file__, names, options.rounds, *arguments)
    print(f"{len(passages):,} {data_name()}, {options.model}\n")
    print_results(Report(options.json, PACKAGES), results, options.at_once)


def main() -> None:
    """Compare all candidates, or run one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--searches", type=int, default=960)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default=MODEL, help="a name or a directory")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--candidate", choices=CANDIDATES, help="run one, here, and print JSON")
    parser.add_argument("--store", type=Path, help="where that one finds the passages")
    json_option(parser)
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(run(options.candidate, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


if __name__ == "__main__":
    main()
