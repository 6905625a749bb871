"""Cost of changing the model of a collection, and its effect on searches.

Passages are ingested with the real model, for comparison, and into another collection with an
encoder that costs nothing. That one is re-embedded with the real model while one thread searches
it at a steady rate. Qdrant Edge, one process. The client has to load the new model when it
meets the swap: that is the slowest of "the swap and after".

    python benchmarks/reembed.py [--passages 5000] [--searches 50] [--json FILE]
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np
from harness import Report, Row, data_name, in_background, json_option, some_passages, some_queries

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import ReembedProgress
from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder

MODEL = "all-MiniLM-L6-v2"
OLD = HashingEncoder(384)
BEFORE, AFTER = "before", "the swap and after"
STAGES = (BEFORE, "copy", "index", "compare", "verify", AFTER)
SEARCHES = 100
"""At least so many before and after."""


class Searcher:
    """Searches in a thread of its own until it is left, and keeps how long each search took.

    Args:
        client: What it searches with.
        queries: What for, over and over.
        pause_s: Seconds between a search and the next.

    Attributes:
        stage: What the searches that end now are counted for.
        seconds: Of each search, by stage.
    """

    def __init__(self, client: SearchClient, queries: Sequence[str], pause_s: float) -> None:
        self.stage = BEFORE
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._client = client
        self._queries = queries
        self._pause_s = pause_s
        self._done = threading.Event()
        self._searched = threading.Condition()
        self._failed: list[BaseException] = []

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Search while the block runs; an error of a search is raised at its end."""
        with in_background(self._done, self._search):
            yield
        if self._failed:
            raise self._failed[0]

    def wait_for(self, count: int) -> None:
        """Until so many searches of this stage have ended."""
        with self._searched:
            self._searched.wait_for(lambda: len(self.seconds[self.stage]) >= count or self._failed)

    def _search(self) -> None:
        for query in cycle(self._queries):
            if self._done.wait(self._pause_s):
                return
            started = time.perf_counter()
            try:
                self._client.search(query)
            except BaseException as exc:  # noqa: BLE001  # raised by `searching`
                self._failed.append(exc)
            with self._searched:
                self.seconds[self.stage].append(time.perf_counter() - started)
                self._searched.notify_all()
            if self._failed:
                return


def watched(searcher: Searcher, progress: ReembedProgress) -> None:
    """Count searches for the stage that a re-embedding is in."""
    searcher.stage = AFTER if progress.stage in ("swap", "last pass") else progress.stage


def reembedded(
    store: Store, encoder: Encoder, pause_s: float
) -> tuple[float, Mapping[str, list[float]]]:
    """Seconds that a re-embedding takes under searches, and theirs by its stages."""

    def load(encoder_info: EncoderInfo) -> Encoder:
        return load_encoder(encoder_info.model)

    with SearchClient(store, "old", OLD, load_encoder=load) as client:
        searcher = Searcher(client, some_queries(), pause_s)
        with searcher.searching():
            searcher.wait_for(SEARCHES)
            report = reembed_collection(
                store,
                "old",
                encoder=encoder,
                load_old=lambda _info: OLD,
                on_progress=lambda progress: watched(searcher, progress),
            )
            searcher.wait_for(SEARCHES)
    return report.seconds, searcher.seconds


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=5000, metavar="N")
    parser.add_argument("--searches", type=float, default=50, metavar="N", help="a second")
    json_option(parser)
    given = parser.parse_args()
    report = Report(given.json)
    encoder = load_encoder(MODEL)
    encoder.warm_up()
    passages = [Passage(pid, text) for pid, text in some_passages(given.passages)]
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_store(Path(folder) / "store", create=True)) as store,
    ):
        ingested = ingest_passages(passages, store, collection="new", encoder=encoder)
        ingest_passages(passages, store, collection="old", encoder=OLD)
        seconds, searches = reembedded(store, encoder, 1 / given.searches)
    print(f"{len(passages):,} {data_name()}, {MODEL}\n")
    rates = {"ingest": ingested.seconds, "re-embed, while it is searched": seconds}
    report.table(
        ("what", "seconds", "passages/s"),
        [
            Row((name, f"{spent:.1f}", f"{len(passages) / spent:,.0f}"), spent)
            for name, spent in rates.items()
        ],
    )
    report.table(
        ("searches during", "number", "median ms", "p99 ms", "slowest ms"),
        [searches_row(stage, searches[stage]) for stage in STAGES if searches[stage]],
    )


def searches_row(stage: str, seconds: Sequence[float]) -> Row:
    """Return a row with the times of the searches of a stage."""
    shown = (*np.percentile(seconds, (50, 99)), max(seconds))
    return Row((stage, len(seconds), *(f"{1000 * one:.1f}" for one in shown)), [*seconds])


if __name__ == "__main__":
    main()
