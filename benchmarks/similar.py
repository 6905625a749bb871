"""Diverse hits and similar passages on real data.

Ingests the real passages as `pages.py` does (a store in the work folder stays for the next time)
and measures, over Qdrant Edge:

* the mean cosine between the ten hits of a query of TREC DL 2019, and their nDCG@10, by
  `diversity`;
* in how many of these the engine's order is that of the formula, computed here;
* recall@10 of `similar` through the graph against exact search, for passages drawn at random.

    python benchmarks/similar.py --work DIR [--passages N] [--pids N] [--json FILE]
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from harness import Report, Row, data_folder, json_option, read_passages
from pages import ingest, load

if TYPE_CHECKING:
    from msmarco_qdrant import Hits, Query, SearchClient
    from msmarco_qdrant.evaluation import Qrels

DIVERSITIES = (0.0, 0.1, 0.3, 0.5, 0.7)
SIZE, CANDIDATES = 10, 100


def main() -> None:
    """Ingest and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--passages", type=int, metavar="N")
    parser.add_argument("--pids", type=int, default=500, metavar="N")
    json_option(parser)
    given = parser.parse_args()
    from msmarco_qdrant import SearchClient
    from msmarco_qdrant.evaluation import read_qrels
    from msmarco_qdrant.sources.corpus import read_queries

    encoder = load(costless=False)
    store = given.work / f"pages-{encoder.info.model}-{given.passages or 'all'}"
    ingest(store, encoder, given.passages)
    qrels = read_qrels(data_folder() / "qrels.dl19.txt")
    queries = [q for q in read_queries(data_folder() / "queries.dl19.tsv") if q.qid in qrels]
    report = Report(given.json)
    with SearchClient.open(store, encoder=encoder) as client:
        print(f"{client.count():,} passages, {len(queries)} queries, {given.pids} pids\n")
        report.table(
            ["diversity", "mean cosine of the ten", "nDCG@10", "order of the formula"],
            (diverse(client, queries, qrels, share) for share in DIVERSITIES),
        )
        report.table(["similar", "pids", "recall@10", "worst"], similar(client, given))


def diverse(client: SearchClient, queries: Sequence[Query], qrels: Qrels, share: float) -> Row:
    """Cosines, nDCG and order of the hits with one `diversity`."""
    from msmarco_qdrant.evaluation import Run, evaluate_runs

    texts = [query.text for query in queries]
    found = client.search_many(texts, limit=SIZE, diversity=share, with_vectors=True)
    wide = client.search_many(texts, limit=CANDIDATES, offset=0, with_vectors=True)
    alike = [
        select(hits, share) == [hit.pid for hit in f] for hits, f in zip(wide, found, strict=True)
    ]
    cosines = [mean_cosine(hits) for hits in found]
    rankings = {
        query.qid: [(hit.pid, 1 / hit.rank) for hit in hits]
        for query, hits in zip(queries, found, strict=True)
    }
    (run,) = evaluate_runs(queries, qrels, [Run(f"{share:g}", rankings)], measures="nDCG@10").runs
    ndcg = run.values["nDCG@10"].mean
    cells = (f"{share:g}", f"{statistics.fmean(cosines):.3f}", f"{ndcg:.4f}", f"{sum(alike)}")
    return Row(cells, {"cosine": cosines, "ndcg": ndcg, "alike": alike})


def mean_cosine(hits: Hits) -> float:
    """The mean cosine between two of some hits."""
    vectors = np.array([hit.vector for hit in hits])
    return float((vectors @ vectors.T)[np.triu_indices(len(hits), 1)].mean())


def select(hits: Hits, share: float) -> list[str]:
    """Maximal marginal relevance, as its formula reads."""
    vectors = np.array([hit.vector for hit in hits])
    cosines, scores = vectors @ vectors.T, np.array([hit.score for hit in hits])
    chosen = [0]
    while len(chosen) < min(SIZE, len(hits)):
        gain = (1 - share) * scores - share * cosines[chosen].max(axis=0)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
    return [hits[place].pid for place in chosen]


def similar(client: SearchClient, given: argparse.Namespace) -> Iterator[Row]:
    """Recall of the graph against exact search."""
    pids = [pid for pid, _ in read_passages(given.passages)]
    drawn = random.Random(1).sample(pids, min(given.pids, len(pids)))  # noqa: S311
    recalls = []
    for pid in drawn:
        found, exact = ({h.pid for h in client.similar(pid, exact=one)} for one in (False, True))
        recalls.append(len(found & exact) / SIZE)
    cells = ("by one pid", len(drawn), f"{statistics.fmean(recalls):.4f}", f"{min(recalls):.1f}")
    yield Row(cells, recalls)


if __name__ == "__main__":
    main()
