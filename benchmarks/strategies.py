"""What would each strategy keep of mined candidates? NFCorpus (BEIR), its training queries.

Mines 100 candidates for each training query by all-MiniLM-L6-v2, scores them by the cosine of the
same model, and counts what the strategies of `choose` keep.

    python benchmarks/strategies.py --work DIR [--model DIR] [--json FILE]

Run it again to resume.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness import Report, Row, data_folder, json_option

from msmarco_qdrant import SearchClient
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.sources.corpus import read_queries
from msmarco_qdrant.train import (
    ChoiceReport,
    compare_strategies,
    mine_negatives,
    read_negatives,
    read_positives,
    write_scores,
)
from msmarco_qdrant.train.score_files import QueryScores

MODEL = "all-MiniLM-L6-v2"
RULES = ("ranks:1-60", "ranks:31-100", "max-score:0.5", "margin:0.05", "relative:0.95")
COMPARED = tuple(
    f"{rule},to:{positive}"
    for rule in ("margin:0.05", "relative:0.95", "relative:0.8")
    for positive in ("lowest", "median", "highest")
)
_BATCH = 32


def main() -> None:
    """Print a table of rules, and one of the positives that they compare with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the store")
    parser.add_argument("--model", default=MODEL, help="the model that mines and scores")
    json_option(parser)
    options = parser.parse_args()
    mined, scores = _prepare(options.work, options.model)
    report = Report(options.json)
    head = ("strategy", "allowed", "per query", "full", "empty", "mean rank", "mean score")
    for strategies in (RULES, COMPARED):
        found = compare_strategies(mined, strategies, scores=scores)
        report.table(head, _rows(found))


def _prepare(work: Path, model: str) -> tuple[Path, Path]:
    """Ingest, mine and score; return the folders with candidates and scores."""
    data = data_folder().parent / "nfcorpus"
    ingest_passages(
        data / "corpus.jsonl.gz", work / "store", collection="nfcorpus", model=model, progress=True
    )
    positives = read_positives(data / "qrels" / "train.tsv.gz")
    queries = [one for one in read_queries(data / "queries.jsonl") if one.qid in positives]
    mined, scores = work / "mined", work / "scores.parquet"
    with SearchClient.open(work / "store", collection="nfcorpus", model=model) as client:
        mine_negatives(client, queries, positives, mined, progress=True)
        texts = {one.qid: one.text for one in queries}
        write_scores(scores, _score(client, texts, mined))
    return mined, scores


def _score(client: SearchClient, texts: Mapping[str, str], mined: Path) -> Iterator[QueryScores]:
    """Yield the cosine of each positive and each candidate, by the collection's vectors."""
    for some in in_batches(read_negatives(mined), _BATCH):
        pids = [
            [*one.positives, *(pid for of_system in one.negatives.values() for pid in of_system)]
            for one in some
        ]
        found = client.rank_many([texts[one.qid] for one in some], pids)
        for one, hits in zip(some, found, strict=True):
            yield one.qid, {hit.pid: hit.score for hit in hits}


def _rows(found: Sequence[ChoiceReport]) -> list[Row]:
    return [
        Row(
            (
                f"`{one.strategy}`",
                f"{one.allowed / one.candidates:.1%}",
                f"{one.chosen / one.queries:.2f}",
                f"{one.full / one.queries:.1%}",
                f"{one.empty / one.queries:.1%}",
                "-" if one.mean_rank is None else f"{one.mean_rank:.1f}",
                "-" if one.mean_score is None else f"{one.mean_score:.3f}",
            ),
            to_json_value(one),
        )
        for one in found
    ]


if __name__ == "__main__":
    main()
