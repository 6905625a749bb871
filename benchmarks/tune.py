"""Does tuning on MS MARCO dev choose well for TREC DL 2019?

Tunes by RR@10 on dev over the store that `quality.py` or `answers.py` has made, and measures
nDCG@10 on TREC DL 2019 with the chosen fusion and with the package's.

    python benchmarks/tune.py --work DIR [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from harness import Report, Row, data_folder, json_option

from msmarco_qdrant import Fusion, SearchClient
from msmarco_qdrant.evaluation import System, evaluate_search, read_qrels, tune_search
from msmarco_qdrant.sources.corpus import read_queries


def main() -> None:
    """Print what was chosen, the time, and both figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the folder with the store")
    json_option(parser)
    options = parser.parse_args()
    report, data = Report(options.json), data_folder()
    with SearchClient.open(options.work / "store", model="all-MiniLM-L6-v2") as client:
        wall, processor = time.perf_counter(), time.process_time()
        tuning = tune_search(
            client,
            list(read_queries(data / "queries.dev.tsv")),
            read_qrels(data / "qrels.dev.txt"),
            measure="RR@10",
        )
        seconds = (time.perf_counter() - wall, time.process_time() - processor)
        systems = [
            System("hybrid", tuning.fusion.chosen, label="chosen"),
            System("hybrid", Fusion(), label="the package's"),
        ]
        found = evaluate_search(
            client,
            list(read_queries(data / "queries.dl19.tsv")),
            read_qrels(data / "qrels.dl19.txt"),
            systems,
            measures="nDCG@10",
        ).evaluation
    chosen, package = (run.values["nDCG@10"].mean for run in found.runs)
    cells = (
        f"{tuning.fusion.chosen.method} {tuning.fusion.chosen.weight:g}",
        "-" if tuning.ef is None else tuning.ef.chosen,
        f"{tuning.fusion.gain:+.4f}",
        *(f"{one:.1f}" for one in seconds),
        f"{chosen:.4f}",
        f"{package:.4f}",
    )
    head = ("chosen", "ef", "gain on dev", "s", "processor s", "DL 19 nDCG@10", "with 0.8")
    report.table(head, [Row(cells, {"chosen": chosen, "package": package, "seconds": seconds})])


if __name__ == "__main__":
    main()
