"""Cost of the reads that ask every replica, on a re-run of unchanged passages.

The same passages are ingested again and again into a collection whose points have two replicas, by
an encoder that is never needed, because nothing changed. `all` decides by reads and counts of every
active replica, as the package does; `one` by those of one replica, as it did before. Both in turn,
in one process; medians over the rounds.

Without a URL the cluster is the tests' own, in Python, on loopback: it shows how many more requests
and answers there are, not the speed of a real one. With a URL, a collection `msmarco-replicas` is
created there and dropped in the end.

    python benchmarks/replicas.py [--passages 20000] [--rounds 5] [--url URL] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from harness import Report, Row, json_option, spread

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from msmarco_qdrant.collection.create import drop_collection  # noqa: E402  # needs the path
from msmarco_qdrant.core.records import Passage  # noqa: E402
from msmarco_qdrant.ingest.api import ingest_passages  # noqa: E402
from msmarco_qdrant.stores import Store, open_store  # noqa: E402
from msmarco_qdrant.stores.server.collection import ServerCollection  # noqa: E402
from msmarco_qdrant.testing import HashingEncoder  # noqa: E402
from tests.loopback import LoopbackCluster  # noqa: E402

NAME = "msmarco-replicas"
PACKAGES = ("qdrant-client", "grpcio")


@contextmanager
def one_replica() -> Iterator[None]:
    """Let every read and count ask one replica."""
    read = ServerCollection._read_options  # noqa: SLF001

    def read_one(self: ServerCollection, fields: Sequence[str], *, all_replicas: bool) -> object:
        del all_replicas
        return read(self, fields, all_replicas=False)

    def count_one(self: ServerCollection, consistency: object) -> int:
        del consistency
        return self._count(None, None, exact=True)

    with (
        mock.patch.object(ServerCollection, "_read_options", read_one),
        mock.patch.object(ServerCollection, "count_replicas", count_one),
    ):
        yield


def rerun(store: Store, passages: Sequence[Passage]) -> float:
    """Ingest passages that are there already; returns seconds."""
    started = time.perf_counter()
    report = ingest_passages(passages, store, collection=NAME, encoder=HashingEncoder(8))
    if report.unchanged != len(passages):
        raise SystemExit(f"{report.unchanged:,} of {len(passages):,} passages are unchanged")
    return time.perf_counter() - started


def measure(store: Store, passages: Sequence[Passage], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, by consistency."""
    ingest_passages(passages, store, collection=NAME, encoder=HashingEncoder(8))
    seconds: dict[str, list[float]] = {"one": [], "all": []}
    rerun(store, passages)
    for _ in range(rounds):
        with one_replica():
            seconds["one"].append(rerun(store, passages))
        seconds["all"].append(rerun(store, passages))
    return seconds


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--url", help="a server; the tests' own cluster, if absent")
    json_option(parser)
    options = parser.parse_args()
    report = Report(options.json, PACKAGES)
    passages = [Passage(str(n), f"passage {n} of many") for n in range(options.passages)]
    with ExitStack() as stack:
        url = options.url or stack.enter_context(LoopbackCluster(2)).url
        store = stack.enter_context(open_store(url))
        try:
            seconds = measure(store, passages, options.rounds)
        finally:
            drop_collection(store, NAME)
    least = statistics.median(seconds["one"])
    rows = [
        Row(
            (
                name,
                spread(runs, 2),
                f"{len(passages) / statistics.median(runs):,.0f}",
                f"{statistics.median(runs) / least:.2f}",
            ),
            runs,
        )
        for name, runs in seconds.items()
    ]
    report.table(("replicas asked", "seconds", "passages/s", "relative"), rows)


if __name__ == "__main__":
    main()
