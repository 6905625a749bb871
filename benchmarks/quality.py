"""Are the vectors right, and are the answers?

Encodes the real passages with `SentenceTransformer.encode` in float32 (kept in the work folder for
the next time), ingests them with the command, and compares:

* every stored vector with the library's;
* nDCG@10 on TREC DL 2019 and RR@10 on MS MARCO dev: exact NumPy search over the library's vectors
  against `msmarco-qdrant search --queries --run`, through the graph and exact;
* recall of the graph against exact search, on the mean and at worst.

    python benchmarks/quality.py --work DIR
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from harness import data_folder, print_table, read_passages
from numpy.typing import NDArray

MODEL = "all-MiniLM-L6-v2"
DEPTH = 100


def reference_vectors(work: Path, texts: list[str]) -> NDArray[np.float32]:
    """The library's own float32 vectors of unit length, `(n, dimension)`."""
    path = work / "reference.npy"
    if not path.exists():
        from sentence_transformers import SentenceTransformer

        from msmarco_qdrant.encoding import load_encoder

        model = SentenceTransformer(load_encoder(MODEL).location)
        np.save(path, model.encode(texts, normalize_embeddings=True, show_progress_bar=True))
    vectors: NDArray[np.float32] = np.load(path)
    return vectors


def command(*arguments: str | Path) -> None:
    """Run a command of ours."""
    program = [sys.executable, "-m", "msmarco_qdrant"]
    subprocess.run([*program, *map(str, arguments)], check=True)


def stored_vectors(store: Path, pids: list[str]) -> NDArray[np.float32]:
    """What the engine holds, read by the engine alone."""
    from qdrant_edge import EdgeShard

    (path,) = (store / "collections").iterdir()
    shard = EdgeShard.load(str(path))
    found = shard.retrieve([int(pid) for pid in pids], with_payload=False, with_vector=True)
    by_id: dict[Any, Any] = {record.id: record.vector for record in found}
    shard.close()
    names = [name for name in by_id[int(pids[0])] if name.startswith("dense-")]
    return np.asarray([by_id[int(pid)][names[0]] for pid in pids], np.float32)


def write_exact_run(
    path: Path, queries: Path, pids: list[str], vectors: NDArray[np.float32]
) -> None:
    """Exact search by NumPy over the library's vectors, as a TREC run."""
    from sentence_transformers import SentenceTransformer

    from msmarco_qdrant.corpus import read_queries
    from msmarco_qdrant.encoding import load_encoder

    asked = list(read_queries(queries))
    model = SentenceTransformer(load_encoder(MODEL).location)
    encoded = model.encode([query.text for query in asked], normalize_embeddings=True)
    with path.open("w") as file:
        for query, scores in zip(asked, encoded @ vectors.T, strict=True):
            best = np.argsort(-scores, kind="stable")[:DEPTH]
            for rank, place in enumerate(best, start=1):
                file.write(f"{query.qid} Q0 {pids[place]} {rank} {scores[place]:.9g} numpy\n")


def measured(run: Path, qrels: Path, *names: str) -> list[str]:
    """Measures of a run, by ir_measures."""
    import ir_measures

    measures = [ir_measures.parse_measure(name) for name in names]
    judged = ir_measures.read_trec_qrels(str(qrels))  # type: ignore[no-untyped-call]
    answered = ir_measures.read_trec_run(str(run))  # type: ignore[no-untyped-call]
    values = ir_measures.calc_aggregate(measures, judged, answered)
    return [f"{values[measure]:.4f}" for measure in measures]


def top(run: Path, depth: int) -> dict[str, set[str]]:
    """The pids of each query's first hits."""
    found: dict[str, set[str]] = {}
    for line in run.read_text().splitlines():
        qid, _, pid, rank, *_ = line.split()
        if int(rank) <= depth:
            found.setdefault(qid, set()).add(pid)
    return found


def main() -> None:
    """Run it all and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for vectors and store")
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    data, store = data_folder(), work / "store"
    rows = read_passages()
    pids = [pid for pid, _ in rows]
    reference = reference_vectors(work, [text for _, text in rows])
    command("ingest", data / "collection.tsv.gz", "--model", MODEL, "--store", store)

    cosines = np.einsum("ij,ij->i", reference, stored_vectors(store, pids))
    print_table(
        ("vectors", "passages", "least cosine", "under 0.999"),
        [("stored against float32", len(pids), f"{cosines.min():.6f}", (cosines < 0.999).sum())],
    )

    table, recalls = [], []
    runs = {"NumPy, exact": [], "search --exact": ["--exact"], "search": []}
    for name, options in runs.items():
        cells = [name]
        for queries, measures in (("dl19", ("nDCG@10", "R@100")), ("dev", ("RR@10",))):
            run = work / f"{queries}.{name.split(' ')[-1].strip('-')}.run"
            asked = data / f"queries.{queries}.tsv"
            if name.startswith("NumPy"):
                write_exact_run(run, asked, pids, reference)
            else:
                given = ("--queries", asked, "--run", run, "--depth", str(DEPTH))
                command("search", *given, "--store", store, *options)
            cells += measured(run, data / f"qrels.{queries}.txt", *measures)
        table.append(cells)
    print_table(("search", "DL 19 nDCG@10", "DL 19 R@100", "dev RR@10"), table)

    shares: list[float] = []
    for queries in ("dl19", "dev"):
        exact, found = (
            top(work / f"{queries}.exact.run", 10),
            top(work / f"{queries}.search.run", 10),
        )
        shares += [len(exact[qid] & found.get(qid, set())) / len(exact[qid]) for qid in exact]
    recalls = [f"{np.mean(shares):.4f}", f"{min(shares):.1f}", sum(s < 0.5 for s in shares)]
    print_table(
        ("graph against exact", "recall@10", "worst query", "queries under 0.5"),
        [(f"{len(shares)} queries", *recalls)],
    )


if __name__ == "__main__":
    main()
