"""What do 64 searches at once gain over the same searches one by one?

The real model and Qdrant Edge: passages are ingested once, then the phrases of MS MARCO dev are
searched for, each candidate in a process of its own, the candidates in turn; medians over the
rounds. Loading and 64 first searches are left out of the time. `search_many` is what concurrent
searches could reach at best: the same phrases, 64 in a call.

    python benchmarks/concurrent_search.py [--passages 5000] [--searches 1216] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from harness import print_table, run_apart, some_passages, some_queries, spread

from msmarco_qdrant.async_search import AsyncSearchClient
from msmarco_qdrant.ingest import ingest_passages
from msmarco_qdrant.records import Passage
from msmarco_qdrant.search import SearchClient

MODEL = "all-MiniLM-L6-v2"
AT_ONCE = 64
LIMIT = 10

Latencies = list[float]
Candidate = Callable[[Path, Sequence[str], Sequence[str]], tuple[float, Latencies]]
"""Opens the store, searches for first phrases, then for others: seconds, and those of each."""


def one_by_one(
    store: Path, first: Sequence[str], phrases: Sequence[str]
) -> tuple[float, Latencies]:
    """`SearchClient.search`, one after the other."""
    with SearchClient.open(store) as client:

        def search(phrase: str) -> float:
            started = time.perf_counter()
            check(client.search(phrase, limit=LIMIT))
            return time.perf_counter() - started

        for phrase in first:
            search(phrase)
        started = time.perf_counter()
        latencies = [search(phrase) for phrase in phrases]
        return time.perf_counter() - started, latencies


def in_calls(store: Path, first: Sequence[str], phrases: Sequence[str]) -> tuple[float, Latencies]:
    """`SearchClient.search_many`, as many phrases a call as are searched for at once."""
    with SearchClient.open(store) as client:
        latencies = []
        client.search_many(first, limit=LIMIT)
        started = time.perf_counter()
        for start in range(0, len(phrases), AT_ONCE):
            called = time.perf_counter()
            answers = client.search_many(phrases[start : start + AT_ONCE], limit=LIMIT)
            latencies += [time.perf_counter() - called] * len(answers)
            for hits in answers:
                check(hits)
        return time.perf_counter() - started, latencies


def at_once(
    count: int, store: Path, first: Sequence[str], phrases: Sequence[str]
) -> tuple[float, Latencies]:
    """`AsyncSearchClient.search`, so many under way at any time."""

    async def search_all() -> tuple[float, Latencies]:
        async with await AsyncSearchClient.open(store) as client:
            await asyncio.gather(*(client.search(phrase, limit=LIMIT) for phrase in first))
            latencies: Latencies = []
            waiting = iter(phrases)

            async def searcher() -> None:
                for phrase in waiting:
                    started = time.perf_counter()
                    check(await client.search(phrase, limit=LIMIT))
                    latencies.append(time.perf_counter() - started)

            started = time.perf_counter()
            await asyncio.gather(*(searcher() for _ in range(count)))
            return time.perf_counter() - started, latencies

    return asyncio.run(search_all())


def check(hits: Sequence[object]) -> None:
    """Refuse to time a search that found too little."""
    if len(hits) != LIMIT:
        raise SystemExit(f"a search found {len(hits)} passages, expected {LIMIT}")


CANDIDATES: Mapping[str, Candidate] = {
    "SearchClient, one by one": one_by_one,
    "AsyncSearchClient, one by one": partial(at_once, 1),
    f"AsyncSearchClient, {AT_ONCE} at once": partial(at_once, AT_ONCE),
    f"SearchClient.search_many, {AT_ONCE} a call": in_calls,
}


def run(candidate: str, store: Path, searches: int) -> dict[str, float]:
    """Search for so many phrases: searches a second, and how long the middle one took."""
    phrases = list(islice(cycle(some_queries()), AT_ONCE + searches))
    seconds, latencies = CANDIDATES[candidate](store, phrases[:AT_ONCE], phrases[AT_ONCE:])
    return {
        "searches_per_second": searches / seconds,
        "median_ms": 1000 * statistics.median(latencies),
    }


def compare(store: Path, rounds: int, searches: int) -> None:
    """Run the candidates in turn, round after round, and print their table."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    for _ in range(rounds):
        for name, runs in results.items():
            arguments = (f"--candidate={name}", f"--store={store}", f"--searches={searches}")
            runs.append(run_apart(__file__, *arguments))
    rates = {name: [one["searches_per_second"] for one in runs] for name, runs in results.items()}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base = next(iter(medians.values()))
    print_table(
        ("searches", "searches/s, median (range)", "times as many", "one takes, ms"),
        [
            (
                name,
                spread(rates[name]),
                f"{medians[name] / base:.2f}",
                f"{statistics.median(one['median_ms'] for one in results[name]):.1f}",
            )
            for name in CANDIDATES
        ],
    )


def main() -> None:
    """Ingest once, then compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--searches", type=int, default=1216)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--candidate", choices=CANDIDATES, help="run one, here, and print JSON")
    parser.add_argument("--store", type=Path, help="where that one finds the passages")
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(run(options.candidate, options.store, options.searches)))
        return
    passages = [Passage(pid, text) for pid, text in some_passages(options.passages)]
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        ingest_passages(passages, store, model=MODEL)
        print(f"{len(passages):,} passages\n")
        compare(store, options.rounds, options.searches)


if __name__ == "__main__":
    main()
