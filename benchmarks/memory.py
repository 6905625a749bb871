"""Memory of an ingest, and the part that grows with the source.

Synthetic passages and `HashingEncoder` of `msmarco_qdrant.testing`, so that only the pipeline
is measured: once into a store that discards, once into Edge (without building the index, which a
process of its own does). Peak RSS, and with Edge its parts at the end, each run in a process of
its own.

    python benchmarks/memory.py [--sizes 100000 1000000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import Report, Row, json_option, run_apart

from msmarco_qdrant.core.records import Passage

WORDS = ("passage", "about", "nothing", "in", "particular", "but", "of", "the", "usual", "length")


def synthetic(count: int) -> Iterator[Passage]:
    """So many passages of 30 words, each its own."""
    for number in range(count):
        words = (f"{word}{number % 9973}" for word in WORDS)
        yield Passage(str(number), f"{number} {' '.join(words)} {' '.join(WORDS * 2)}")


def status(name: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def run(store: str, count: int) -> dict[str, float]:
    """Ingest so many passages and return the memory used, in MB."""
    from msmarco_qdrant.ingest.api import ingest_passages
    from msmarco_qdrant.stores import open_store
    from msmarco_qdrant.testing import HashingEncoder, NullStore

    encoder = HashingEncoder(64)
    with tempfile.TemporaryDirectory() as folder:
        target = NullStore() if store == "discarding" else open_store(folder, create=True)
        report = ingest_passages(synthetic(count), target, encoder=encoder, optimize=False)
        if report.written != count:
            raise SystemExit(f"{report.written} of {count} passages were written")
        parts = {name: status(name) for name in ("RssAnon", "RssFile")}
        target.close()
    # Of this program alone: ru_maxrss begins with that of the process that started it.
    return {"peak": status("VmHWM"), **parts, "passages_per_second": report.passages_per_second}


def main() -> None:
    """Run every store at every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--store", choices=("discarding", "edge"), help="run one, print JSON")
    json_option(parser)
    options = parser.parse_args()
    if options.store:
        print(json.dumps(run(options.store, options.sizes[0])))
        return
    report = Report(options.json)
    rows = []
    for store in ("discarding", "edge"):
        for size in options.sizes:
            result = run_apart(__file__, f"--store={store}", "--sizes", str(size))
            figures = (f"{result[name]:,.0f}" for name in ("peak", "RssAnon", "RssFile"))
            cells = (store, f"{size:,}", *figures, f"{result['passages_per_second']:,.0f}")
            rows.append(Row(cells, result))
    report.table(
        ("store", "passages", "peak RSS, MB", "RssAnon, MB", "RssFile, MB", "passages/s"), rows
    )


if __name__ == "__main__":
    main()
