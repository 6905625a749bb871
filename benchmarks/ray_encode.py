"""`encode --ray` beside `encode` on one machine: the same passages, the same model, in turn.

Real passages repeated under new pids, by a model of DistilBERT-base's shape with random weights
(or another one). The cluster is one of this machine. The rates are those of the reports: from the
first batch, for Ray from the reading of the pids, to the last file; medians over the rounds.

    python benchmarks/ray_encode.py [--lines 2000000] [--rounds 2] [--model DIR] [--source FILE]
        [--json FILE] [-- OPTION...]

Options after `--` are for both commands.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpu_encode import write_lines
from harness import Report, Row, json_option, model_directory
from model_shapes import save_distilbert

PACKAGES = ("torch", "sentence-transformers", "ray")
ALONE, RAY = "msmarco-qdrant encode", "msmarco-qdrant encode --ray local"


def encode(name: str, model: str, source: Path, options: list[str]) -> dict[str, Any]:
    """Return the report of a command that encodes into a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["encode", str(source), "--out", str(Path(folder) / "vectors"), "--json"]
        extra = ["--ray", "local"] if name == RAY else []
        done = subprocess.run(
            [sys.executable, "-m", "msmarco_qdrant", *command, "--model", model, *extra, *options],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", help="a model's directory")
    parser.add_argument("--source", type=Path, help="a file instead of the passages")
    parser.add_argument("options", nargs="*", metavar="OPTION")
    json_option(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made = given.model or save_distilbert(place / "model", model_directory("all-MiniLM-L6-v2"))
        source = given.source or place / "passages.tsv"
        if given.source is None:
            write_lines(source, given.lines)
        found: dict[str, list[dict[str, Any]]] = {ALONE: [], RAY: []}
        for _ in range(given.rounds):
            for name, reports in found.items():
                reports.append(encode(name, str(made), source, given.options))
                print(name, json.dumps(reports[-1]), file=sys.stderr, flush=True)
    columns = ("passages/s", "each round", "start-up, s")
    rows = [Row(cells(name, reports), {"rounds": reports}) for name, reports in found.items()]
    Report(given.json, PACKAGES).table(("encoding", *columns), rows)


def cells(name: str, reports: list[dict[str, Any]]) -> tuple[str, ...]:
    """A row of the table."""
    rates = [report["passages_per_second"] for report in reports]
    startup = statistics.median(report["startup_seconds"] for report in reports)
    each = ", ".join(f"{rate:,.0f}" for rate in rates)
    return (name, f"{statistics.median(rates):,.0f}", each, f"{startup:.1f}")


if __name__ == "__main__":
    main()
