"""Time from the start of a process to its first answer: `--help`, and one search.

A search by `msmarco-qdrant search` on a directory of 300 passages, next to the least that a program
by hand does: import sentence-transformers, load the model, encode the query. The candidates in
turn, after one run each that warms the disk and compares the model with the library. Seconds of
the clock, and of the processor: those are nearly the same under the load of others.

    python benchmarks/start.py [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import SAMPLE, Report, Row, command, json_option, model_directory, spread

MODEL = "all-MiniLM-L6-v2"
QUERY = "how big is london"
BY_HAND = """
import sys
from sentence_transformers import SentenceTransformer
SentenceTransformer(sys.argv[1], device="cpu").encode(sys.argv[2])
"""


def candidates(folder: Path) -> Mapping[str, Sequence[str]]:
    """The arguments of Python for each."""
    ours = ("-m", "msmarco_qdrant")
    store = ("--store", str(folder / "store"), "--collection", "sample")
    return {
        "msmarco-qdrant --help": (*ours, "--help"),
        "msmarco-qdrant search": (*ours, "search", QUERY, *store),
        "by hand: sentence-transformers, one query": ("-c", BY_HAND, model_directory(MODEL), QUERY),
    }


def measure(arguments: Sequence[str]) -> tuple[float, float]:
    """Run a process: seconds of the clock and of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, spent


def main() -> None:
    """Measure every candidate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passages = SAMPLE / "passages.tsv"
        target = ("--store", folder / "store", "--collection", "sample")
        command("ingest", passages, "--model", MODEL, *target)
        programs = candidates(folder)
        found: dict[str, list[tuple[float, float]]] = {label: [] for label in programs}
        for number in range(options.rounds + 1):
            for label, arguments in programs.items():
                measured = measure(arguments)
                if number:
                    found[label].append(measured)
    head = ("start to answer", "seconds, median (range)", "of the processor")
    rows = [
        Row((label, spread([one[0] for one in runs], 2), spread([one[1] for one in runs], 2)), runs)
        for label, runs in found.items()
    ]
    Report(options.json).table(head, rows)


if __name__ == "__main__":
    main()
