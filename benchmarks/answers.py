"""Search quality of each way of searching.

Ingests the real passages with the command (a store in the work folder stays for the next time) and
measures, by ir_measures:

* ranking the candidates of a given BM25 run, as the reranking task of TREC DL 2019 does;
* full search by each mode, and by each weight of the convex fusion: the weight is chosen by RR@10
  on MS MARCO dev and reported on TREC DL 2019;
* our BM25 against `bm25s` (extra `bench`) over the same passages with k1=0.9, b=0.4, the same
  stemmer, and its own stop words and tokens or ours.

    python benchmarks/answers.py --work DIR [--weights W ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from harness import Report, Row, command, data_folder, json_option, read_passages

from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_types import Fusion
from msmarco_qdrant.encoding import EncoderOptions
from msmarco_qdrant.evaluation import (
    Evaluation,
    Qrels,
    Run,
    System,
    evaluate_runs,
    evaluate_search,
    read_qrels,
    read_run,
    search_run,
)
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.sources.corpus import read_queries

MODEL = "all-MiniLM-L6-v2"
DEPTH = 100
WEIGHTS = tuple(tenth / 10 for tenth in range(1, 10))
# With b=0 a weight is tf * (k + 1) / (tf + k), which tends to tf as k grows.
COUNTS = Bm25Settings(k=1e6, b=0.0)


class Task(NamedTuple):
    """Queries, their judgments, and what is measured of them."""

    queries: list[Query]
    qrels: Qrels
    measures: str


def task(name: str, measures: str) -> Task:
    """The queries of one test collection."""
    data = data_folder()
    queries = list(read_queries(data / f"queries.{name}.tsv"))
    return Task(queries, read_qrels(data / f"qrels.{name}.txt"), measures)


def mean(evaluation: Evaluation, run: str, measure: str) -> float:
    """One value of one run."""
    (found,) = (one for one in evaluation.runs if one.name == run)
    return found.values[measure].mean


def rank_candidates(report: Report, client: SearchClient, dl19: Task) -> None:
    """The given run, and each mode over its candidates."""
    given = read_run(data_folder() / "bm25-top100.dl19.trec", "the given run")
    systems = [System("dense"), System("bm25"), System("hybrid")]
    done = evaluate_search(
        client, dl19.queries, dl19.qrels, systems, measures="nDCG@10", candidates=given
    )
    values = {run.name: run.values["nDCG@10"].mean for run in done.evaluation.runs}
    rows = [Row((name, f"{value:.4f}"), value) for name, value in values.items()]
    report.table(("candidates of bm25-top100.dl19.trec by", "DL 19 nDCG@10"), rows)


def search_everything(
    report: Report, client: SearchClient, dl19: Task, dev: Task, weights: Sequence[float]
) -> None:
    """Every mode and weight over the whole collection, and the test of the best against dense."""
    fusions = [Fusion("rrf"), Fusion("dbsf"), *(Fusion("convex", w) for w in weights)]
    systems = [System("dense"), System("bm25"), *(labeled(fusion) for fusion in fusions)]
    answered = {
        kind: evaluate_search(
            client, asked.queries, asked.qrels, systems, measures=asked.measures, depth=DEPTH
        ).evaluation
        for kind, asked in (("dl19", dl19), ("dev", dev))
    }
    rows = []
    for system in systems:
        values = {
            "dev RR@10": mean(answered["dev"], system.name, "RR@10"),
            "DL 19 nDCG@10": mean(answered["dl19"], system.name, "nDCG@10"),
            "DL 19 R@100": mean(answered["dl19"], system.name, "R@100"),
        }
        took = milliseconds(client, dl19.queries, system)
        shown = (system.name, *(f"{value:.4f}" for value in values.values()), f"{took:.1f}")
        rows.append(Row(shown, {**values, "ms": took}))
    report.table(("search", "dev RR@10", "DL 19 nDCG@10", "DL 19 R@100", "ms a query"), rows)
    best = max(
        (system.name for system in systems if "convex" in system.name),
        key=lambda name: mean(answered["dev"], name, "RR@10"),
    )
    test_differences(report, answered, best)


def labeled(fusion: Fusion) -> System:
    """A hybrid search, called by its fusion and the weight that is tried."""
    weight = "" if fusion.dense_weight is None else f" {fusion.dense_weight:g}"
    return System("hybrid", fusion, label=f"hybrid, {fusion.method}{weight}")


def test_differences(report: Report, answered: dict[str, Evaluation], best: str) -> None:
    """The weight chosen on dev against dense, query by query."""
    rows = [
        Row(
            (
                f"{best}, chosen on dev",
                f"{kind} {one.measure}",
                f"{one.mean_difference:+.4f}",
                f"{one.wins}/{one.ties}/{one.losses}",
                f"{one.test.permutation:.4f}" if one.test.permutation is not None else "-",
            ),
            one.mean_difference,
        )
        for kind, evaluation in answered.items()
        for one in evaluation.comparisons
        if one.run == best
    ]
    report.table(("run", "measure", "less dense", "better/equal/worse", "p (permutation)"), rows)


def milliseconds(client: SearchClient, queries: Sequence[Query], system: System) -> float:
    """Median time of one search for ten hits, encoding included."""
    times = []
    for query in queries:
        start = time.perf_counter()
        client.search(query.text, **system.options(10))
        times.append((time.perf_counter() - start) * 1000)
    return median(times)


# ---- BM25 ----------------------------------------------------------------------------------


def compare_bm25(report: Report, client: SearchClient, dev: Task) -> None:
    """The same formula by another library, with its tokens and with ours."""
    import Stemmer
    from bm25s import stopwords, tokenize

    stemmer = Stemmer.Stemmer("english")

    def theirs(words: Any) -> Callable[[list[str]], Any]:
        return lambda texts: tokenize(texts, stopwords=words, stemmer=stemmer, show_progress=False)

    tokenizers = {
        "bm25s, its stop words": theirs("en"),
        "bm25s, its long list of stop words": theirs(list(stopwords.STOPWORDS_EN_PLUS)),
        "bm25s, tokens of Qdrant": tokens_of_qdrant,
    }
    rows = read_passages()
    runs = [search_run(client, dev.queries, System("bm25"), 10)]
    runs += [bm25s_run(name, tokens, rows, dev) for name, tokens in tokenizers.items()]
    evaluation = evaluate_runs(dev.queries, dev.qrels, runs, "RR@10")
    ours = mean(evaluation, "bm25", "RR@10")
    table = []
    for run in evaluation.runs:
        value = run.values["RR@10"].mean
        name = "msmarco-qdrant" if run.name == "bm25" else run.name
        table.append(Row((name, f"{value:.4f}", f"{value - ours:+.4f}"), value))
    report.table(("BM25 by", "dev RR@10", "less ours"), table)


def bm25s_run(
    name: str, tokens: Callable[[list[str]], Any], passages: Sequence[tuple[str, str]], dev: Task
) -> Run:
    """The ten best of each query by bm25s."""
    import bm25s

    index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    index.index(tokens([text for _, text in passages]), show_progress=False)
    asked = tokens([query.text for query in dev.queries])
    places, scores = index.retrieve(asked, k=10, show_progress=False)
    return Run(
        name,
        {
            query.qid: [(passages[p][0], float(s)) for p, s in zip(*found, strict=True)]
            for query, *found in zip(dev.queries, places, scores, strict=True)
        },
    )


def tokens_of_qdrant(texts: list[str]) -> list[list[str]]:
    """Return the count of each token, as a number."""
    from msmarco_qdrant.encoding.bm25 import Bm25Encoder

    encoder = Bm25Encoder(COUNTS)
    counted = (encoder.encode_passage(text) for text in texts)
    return [
        [
            str(token)
            for token, count in zip(one.indices, one.values, strict=True)
            for _ in range(round(count))
        ]
        for one in counted
    ]


def main() -> None:
    """Run it all and print four tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the store")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, metavar="W")
    json_option(parser)
    options = parser.parse_args()
    store, report = options.work / "store", Report(options.json)
    options.work.mkdir(parents=True, exist_ok=True)
    command("ingest", data_folder() / "collection.tsv.gz", "--model", MODEL, "--store", store)
    dl19, dev = task("dl19", "nDCG@10 R@100"), task("dev", "RR@10")
    afresh = EncoderOptions(cached_queries=0)
    with SearchClient.open(store, encoder_options=afresh) as client:
        rank_candidates(report, client, dl19)
        search_everything(report, client, dl19, dev, options.weights)
        compare_bm25(report, client, dev)


if __name__ == "__main__":
    main()
