"""Vectors of each precision on the CPU against the library's in float32, and what is found by them.

Encodes every real passage and the queries of TREC DL 2019 with `SentenceTransformer.encode` in
float32 (on a GPU if there is one) and with `load_encoder(device="cpu", precision=...)`: the least
cosine of a passage, passages under 0.999, and nDCG@10 of exact search. int8 encodes its first
passages in floats, which calibrate it; queries stay in floats.

    python benchmarks/vectors.py [--precision float32 int8] [--passages N] [--json FILE]
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import time
from typing import Any

import numpy as np
from harness import PACKAGES, Report, Row, data_folder, json_option, model_directory, read_passages
from numpy.typing import NDArray

from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.backends.choice import cosines
from msmarco_qdrant.sources.corpus import read_queries

MODEL = "all-MiniLM-L6-v2"
WINDOW = 8192
DEPTH = 10


def ndcg(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    pids: list[str],
    qids: list[str],
) -> float:
    """nDCG@10 of exact search over the judged queries, with the gains of trec_eval."""
    judged: dict[str, dict[str, int]] = {}
    for line in (data_folder() / "qrels.dl19.txt").read_text().splitlines():
        qid, _, pid, grade = line.split()
        judged.setdefault(qid, {})[pid] = int(grade)
    values = []
    for qid, scores in zip(qids, queries @ vectors.T, strict=True):
        grades = judged.get(qid, {})
        ideal = sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:DEPTH]
        if not any(ideal):
            continue
        best = np.argsort(-scores, kind="stable")[:DEPTH]
        found = [max(grades.get(pids[place], 0), 0) for place in best]
        values.append(_discounted(found) / _discounted(ideal))
    return float(np.mean(values))


def _discounted(grades: list[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def ours(location: str, precision: Any, texts: list[str], asked: list[str]) -> tuple[Any, ...]:
    """Vectors of passages and queries, the precision that computed, and passages per second."""
    encoder = load_encoder(location, device="cpu", precision=precision, cached_queries=0)
    encoder.warm_up()
    started = time.perf_counter()
    parts = [
        encoder.encode(texts[start : start + WINDOW]) for start in range(0, len(texts), WINDOW)
    ]
    rate = len(texts) / (time.perf_counter() - started)
    return np.concatenate(parts), encoder.encode_queries(asked), encoder.precision, rate


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    choices = ("float32", "bfloat16", "int8")
    parser.add_argument("--precision", nargs="+", choices=choices, default=["float32", "int8"])
    parser.add_argument("--passages", type=int, help="only so many, from the start")
    json_option(parser)
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("msmarco_qdrant.encoding").setLevel(logging.INFO)
    location, rows = model_directory(MODEL), read_passages()[: options.passages]
    pids, texts = [pid for pid, _ in rows], [text for _, text in rows]
    queries = list(read_queries(data_folder() / "queries.dl19.tsv"))
    qids, asked = [query.qid for query in queries], [query.text for query in queries]
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(location)
    expected = model.encode(texts, batch_size=64, normalize_embeddings=True)
    base = ndcg(expected, model.encode(asked, normalize_embeddings=True), pids, qids)
    table = [Row(("SentenceTransformer.encode", "float32", "-", "-", "-", f"{base:.4f}", "-"), {})]
    for precision in options.precision:
        vectors, found, computed, rate = ours(location, precision, texts, asked)
        near = cosines(expected, vectors)
        value = ndcg(vectors, found, pids, qids)
        cells = (
            *(f"msmarco-qdrant, {precision}", computed, f"{near.min():.6f}", f"{near.mean():.6f}"),
            *(f"{(near < 0.999).sum():,}", f"{value:.4f}", f"{rate:,.0f}"),
        )
        raw = {"least": float(near.min()), "mean": float(near.mean()), "ndcg": value, "rate": rate}
        table.append(Row(cells, raw))
    print(f"{len(texts):,} passages, {MODEL}; load averages {os.getloadavg()}\n")
    head = ("vectors", "computes in", "least cosine", "mean", "under 0.999", "DL 19 nDCG@10")
    Report(options.json, PACKAGES[:2]).table((*head, "passages/s"), table)


if __name__ == "__main__":
    main()
