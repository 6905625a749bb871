"""Pages of hits: whether they fit together, and what they cost.

Ingests the real passages (a store in the work folder stays for the next time) and asks, for every
query of MS MARCO dev and TREC DL 2019 and for each way of searching: are ten pages of ten, by
offset and from cursor to cursor, the single answer of a hundred? Then times a page, a cursor and a
score threshold against Qdrant Edge's own query for the same hits, by turns, on one copied shard.

With `--costless` the vectors are hashes of words instead of the model's: no model is needed.

    python benchmarks/pages.py --work DIR [--costless] [--passages N] [--queries N] [--calls N]
        [--only NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import (
    Report,
    Row,
    copied_shard,
    data_folder,
    json_option,
    read_passages,
    read_tsv,
)

if TYPE_CHECKING:
    from msmarco_qdrant import Hits, SearchClient
    from msmarco_qdrant.encoding import Encoder

MODEL = "all-MiniLM-L6-v2"
DEPTH, SIZE = 100, 10
GROUPS = 20_000
SEARCHES: dict[str, dict[str, Any]] = {
    "dense": {},
    "bm25": {"mode": "bm25"},
    "hybrid, convex": {"mode": "hybrid"},
    "hybrid, rrf": {"mode": "hybrid", "fusion": "rrf"},
    "hybrid, dbsf": {"mode": "hybrid", "fusion": "dbsf"},
    "dense, grouped": {"group_by": "group"},
    "hybrid, grouped": {"mode": "hybrid", "group_by": "group"},
    "dense, reranked": {"rerank_depth": DEPTH, "rerank_sigmoid": True},
}


def main() -> None:
    """Ingest, compare and time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--costless", action="store_true")
    parser.add_argument("--passages", type=int, metavar="N")
    parser.add_argument("--queries", type=int, metavar="N")
    parser.add_argument("--calls", type=int, default=500, metavar="N")
    parser.add_argument("--only", default="", metavar="NAME", help="searches with this in the name")
    json_option(parser)
    given = parser.parse_args()
    from msmarco_qdrant import SearchClient
    from msmarco_qdrant.testing import WordOverlapReranker

    encoder = load(costless=given.costless)
    store = given.work / f"pages-{encoder.info.model}-{given.passages or 'all'}"
    ingest(store, encoder, given.passages)
    queries = read_queries()[: given.queries]
    report = Report(given.json)
    with SearchClient.open(store, encoder=encoder, reranker=WordOverlapReranker()) as client:
        print(f"{client.count():,} passages, {encoder.info.model}, {len(queries):,} queries\n")
        report.table(
            ["search", "queries", "pages by offset differ", "pages by cursor differ"],
            (compare(client, queries, name) for name in SEARCHES if given.only in name),
        )
        (folder,) = (store / "collections").iterdir()
        with copied_shard(folder) as engine:
            report.table(
                ["call", "engine's own, ms", "ours, ms", "times"],
                timed(client, engine, encoder, queries[: given.calls]),
            )


def load(*, costless: bool) -> Encoder:
    """The encoder; it remembers every query."""
    from msmarco_qdrant.encoding import load_encoder
    from msmarco_qdrant.testing import HashingEncoder

    if costless:
        return HashingEncoder(384)
    return load_encoder(MODEL, cached_queries=4_096)


def ingest(store: Path, encoder: Encoder, limit: int | None) -> None:
    """Write the passages, each in a group of two or three; a repeated run finds them."""
    from msmarco_qdrant import Passage, ingest_passages

    rows = (
        Passage(pid, text, {"group": number % GROUPS})
        for number, (pid, text) in enumerate(read_passages(limit))
    )
    ingest_passages(rows, store, encoder=encoder)


def read_queries() -> list[str]:
    """The queries of TREC DL 2019, then those of MS MARCO dev."""
    files = (data_folder() / f"queries.{name}.tsv" for name in ("dl19", "dev"))
    return [query for file in files for _, query in read_tsv(file)]


# ---- do pages fit together? ----------------------------------------------------------------


def compare(client: SearchClient, queries: Sequence[str], name: str) -> Row:
    """Count the queries whose pages are not the single answer."""
    options = SEARCHES[name]
    whole = client.search_many(queries, limit=DEPTH, **options)
    by_page = [
        client.search_many(queries, limit=SIZE, offset=start, **options)
        for start in range(0, DEPTH, SIZE)
    ]
    answers = [shown(hits) for hits in whole]
    offset = [
        answer != [item for page in by_page for item in shown(page[number])]
        for number, answer in enumerate(answers)
    ]
    cursor = [
        answer != list(walk(client, query, options))
        for query, answer in zip(queries, answers, strict=True)
    ]
    cells = (name, f"{len(queries):,}", sum(offset), sum(cursor))
    return Row(cells, {"by offset": sum(offset), "by cursor": sum(cursor)})


def walk(client: SearchClient, query: str, options: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Ranks and pids of the hits of pages, from cursor to cursor."""
    cursor: str | None = None
    for _ in range(DEPTH // SIZE):
        place: dict[str, Any] = {"offset": 0} if cursor is None else {"cursor": cursor}
        page = client.search(query, limit=SIZE, **place, **options)
        yield from shown(page)
        if (cursor := page.cursor) is None:
            return


def shown(hits: Hits) -> list[tuple[int, str]]:
    """What two answers are compared by."""
    return [(hit.rank, hit.pid) for hit in hits]


# ---- what do they cost? --------------------------------------------------------------------


def timed(
    client: SearchClient, engine: Any, encoder: Encoder, queries: Sequence[str]
) -> Iterator[Row]:
    """Time each new call against the engine's own, query by query in turn."""
    import qdrant_edge

    name = client.metadata.encoder.vector_name
    starts = {q: client.search(q, limit=DEPTH - SIZE, offset=0) for q in queries}
    bounds = {query: hits[SIZE // 2].score for query, hits in starts.items()}

    def own(query: str, **options: Any) -> object:
        vector = encoder.encode_queries([query])[0]
        return engine.query(
            qdrant_edge.QueryRequest(
                limit=SIZE,
                query=qdrant_edge.Query.Nearest(vector, using=name),
                with_payload=["pid", "text", "meta"],
                params=qdrant_edge.SearchParams(
                    hnsw_ef=128,
                    quantization=qdrant_edge.QuantizationSearchParams(
                        rescore=True, oversampling=2.0
                    ),
                ),
                **options,
            )
        )

    def own_page(query: str) -> object:
        return own(query, offset=DEPTH - SIZE)

    calls: dict[str, tuple[Callable[[str], object], Callable[[str], object]]] = {
        "the first ten": (own, lambda q: client.search(q, limit=SIZE)),
        "hits 91 to 100, by offset": (
            own_page,
            lambda q: client.search(q, limit=SIZE, offset=DEPTH - SIZE),
        ),
        "hits 91 to 100, by cursor": (
            own_page,
            lambda q: client.search(q, limit=SIZE, cursor=starts[q].cursor),
        ),
        "ten above a score threshold": (
            lambda q: own(q, score_threshold=bounds[q]),
            lambda q: client.search(q, limit=SIZE, score_threshold=bounds[q]),
        ),
    }
    for call, both in calls.items():
        times: tuple[list[float], list[float]] = ([], [])
        for query in queries:
            for function, taken in zip(both, times, strict=True):
                started = time.perf_counter()
                function(query)
                taken.append(1000 * (time.perf_counter() - started))
        theirs, ours = map(statistics.median, times)
        cells = (call, f"{theirs:.3f}", f"{ours:.3f}", f"{ours / theirs:.2f}")
        yield Row(cells, {"engine": times[0], "ours": times[1]})


if __name__ == "__main__":
    main()
