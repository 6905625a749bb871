"""Quality of the vectors and of the answers.

Encodes the real passages with `SentenceTransformer.encode` in float32 (kept in the work folder for
the next time), ingests them with the command, and compares:

* every stored vector with the library's;
* nDCG@10 on TREC DL 2019 and RR@10 on MS MARCO dev: exact NumPy search over the library's vectors
  against `msmarco-qdrant search --queries --run`, through the graph and exact;
* recall of the graph against exact search, on the mean and at worst.

    python benchmarks/quality.py --work DIR [--json FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from harness import Report, Row, command, data_folder, json_option, read_passages
from numpy.typing import NDArray

MODEL = "all-MiniLM-L6-v2"
DEPTH = 100
REFERENCE = "reference.npy"
ASKED = {"dl19": ("nDCG@10", "R@100"), "dev": ("RR@10",)}
RUNS: dict[str, list[str] | None] = {
    "NumPy, exact": None,
    "search --exact": ["--exact"],
    "search": [],
}
"""How each run is made: by the options of `search`, or None by NumPy."""


def make_reference(work: Path, texts: list[str]) -> None:
    """The library's own float32 vectors of unit length, `(n, dimension)`, if not made before."""
    path = work / REFERENCE
    if path.exists():
        return
    from sentence_transformers import SentenceTransformer

    from msmarco_qdrant.encoding import load_encoder

    model = SentenceTransformer(load_encoder(MODEL).location)
    np.save(path, model.encode(texts, normalize_embeddings=True, show_progress_bar=True))


def run_path(work: Path, queries: str, name: str) -> Path:
    """Return the file of one search's run over some queries."""
    return work / f"{queries}.{name.rpartition(' ')[2].strip('-')}.run"


def stored_vectors(store: Path, pids: list[str]) -> NDArray[np.float32]:
    """Read the stored vectors with the engine alone."""
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

    from msmarco_qdrant.encoding import load_encoder
    from msmarco_qdrant.sources.corpus import read_queries

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


def compare_vectors(report: Report, store: Path, pids: list[str], work: Path) -> None:
    """Every stored vector against the library's."""
    reference = np.load(work / REFERENCE)
    cosines = np.einsum("ij,ij->i", reference, stored_vectors(store, pids))
    least, under = float(cosines.min()), int((cosines < 0.999).sum())
    cells = ("stored against float32", len(pids), f"{least:.6f}", under)
    raw = {"least": least, "under_0.999": under, "mean": float(cosines.mean())}
    report.table(("vectors", "passages", "least cosine", "under 0.999"), [Row(cells, raw)])


def compare_answers(report: Report, store: Path, pids: list[str], work: Path) -> None:
    """Retrieval measures of NumPy, of our exact search and of our graph."""
    data, reference, table = data_folder(), np.load(work / REFERENCE), []
    for name, options in RUNS.items():
        found: dict[str, str] = {}
        for queries, measures in ASKED.items():
            run, asked = run_path(work, queries, name), data / f"queries.{queries}.tsv"
            if options is None:
                write_exact_run(run, asked, pids, reference)
            else:
                given = ("--queries", asked, "--run", run, "--limit", str(DEPTH))
                command("search", *given, "--store", store, *options)
            values = measured(run, data / f"qrels.{queries}.txt", *measures)
            found |= {
                f"{queries} {measure}": value
                for measure, value in zip(measures, values, strict=True)
            }
        table.append(Row((name, *found.values()), found))
    report.table(("search", "DL 19 nDCG@10", "DL 19 R@100", "dev RR@10"), table)


def compare_graph(report: Report, work: Path) -> None:
    """Show the share of the exact hits that the graph finds, query by query."""
    shares: list[float] = []
    for queries in ASKED:
        exact, found = (
            top(run_path(work, queries, name), 10) for name in ("search --exact", "search")
        )
        shares += [len(exact[qid] & found.get(qid, set())) / len(exact[qid]) for qid in exact]
    cells = (f"{np.mean(shares):.4f}", f"{min(shares):.1f}", sum(s < 0.5 for s in shares))
    report.table(
        ("graph against exact", "recall@10", "worst query", "queries under 0.5"),
        [Row((f"{len(shares)} queries", *cells), shares)],
    )


def main() -> None:
    """Run it all and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for vectors and store")
    json_option(parser)
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    store, report, rows = work / "store", Report(options.json), read_passages()
    pids = [pid for pid, _ in rows]
    make_reference(work, [text for _, text in rows])
    source = data_folder() / "collection.tsv.gz"
    command("ingest", source, "--model", MODEL, "--store", store)
    compare_vectors(report, store, pids, work)
    compare_answers(report, store, pids, work)
    compare_graph(report, work)


if __name__ == "__main__":
    main()
