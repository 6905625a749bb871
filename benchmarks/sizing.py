"""Disk, memory and minutes of a collection, by dimension and quantization.

Synthetic passages of 30 words and `HashingEncoder` of `msmarco_qdrant.testing` into Edge, index
included. Memory is that of another process that opens the store and searches it: RssAnon cannot be
taken away by the system, RssFile is files in its page cache. A quarter of the passages is measured
too, and the difference is counted: what does not grow with the passages is left out, about 100 MB
of the engine, and so is the model's memory. The index is built in a subprocess: its
processor time hardly depends on what else the machine does, the time until it ends does.

    python benchmarks/sizing.py [--passages 100000] [--dimensions 384 768]
        [--quantizations none int8 turbo4] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

from harness import Report, Row, json_option, run_apart
from memory import status, synthetic

from msmarco_qdrant import SearchClient, StorageSettings, ingest_passages
from msmarco_qdrant.testing import HashingEncoder

QUANTIZATIONS = ("none", "int8", "turbo4")
SEARCHES = 500


def fill(folder: str, dimension: int, quantization: str, count: int) -> dict[str, float]:
    """Ingest passages; return bytes on disk, and seconds of the ingest and of its index build."""
    storage = StorageSettings(quantization=quantization)  # type: ignore[arg-type]  # as an option
    encoder = HashingEncoder(dimension)
    report = ingest_passages(synthetic(count), folder, encoder=encoder, storage=storage)
    if report.written != count:
        raise SystemExit(f"{report.written} of {count} passages were written")
    blocks = (file.stat().st_blocks for file in Path(folder).rglob("*") if file.is_file())
    index_s = sum(stage.seconds for stage in report.stages if stage.name == "index")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = used.ru_utime + used.ru_stime
    return {
        "disk": sum(blocks) * 512,
        "seconds": report.seconds,
        "index_s": index_s,
        "index_processor_s": processor_s,
    }


def search(folder: str, dimension: int, count: int) -> dict[str, float]:
    """Search a store; return the memory of this process in bytes, and the median search in ms."""
    took = []
    with SearchClient.open(folder, encoder=HashingEncoder(dimension)) as client:
        for passage in synthetic(SEARCHES):
            started = time.perf_counter()
            client.search(f"{passage.text} {int(passage.pid) * 7919 % count}")
            took.append(time.perf_counter() - started)
        parts = {name: status(name) * (1 << 20) for name in ("RssAnon", "RssFile")}
    return {**parts, "median_ms": statistics.median(took) * 1000}


def measure(dimension: int, quantization: str, count: int) -> dict[str, float]:
    """Fill and search a store, each in a process of its own."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        words = (folder, str(dimension), quantization, str(count))
        for step in ("fill", "search"):
            found |= run_apart(__file__, f"--step={step}", *words)
    return found


def row(dimension: int, quantization: str, count: int) -> Row:
    """Return what a passage adds between a quarter of the passages and all of them."""
    base = measure(dimension, quantization, count // 4)
    found = measure(dimension, quantization, count)
    each = {name: (found[name] - base[name]) / (count - count // 4) for name in base}
    cells = (
        str(dimension),
        quantization,
        *(f"{each[name]:,.0f}" for name in ("disk", "RssAnon", "RssFile")),
        f"{each['index_processor_s'] * 1e6 / 60:,.1f}",
        f"{each['index_s'] * 1e6 / 60:,.1f}",
        f"{found['median_ms']:.2f}",
    )
    return Row(cells, {**found, **{f"base_{name}": value for name, value in base.items()}})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 768])
    parser.add_argument("--quantizations", nargs="+", default=QUANTIZATIONS, choices=QUANTIZATIONS)
    parser.add_argument("--step", choices=("fill", "search"), help="run one, print JSON")
    parser.add_argument("place", nargs="*", help=argparse.SUPPRESS)
    json_option(parser)
    options = parser.parse_args()
    if options.step:
        folder, dimension, quantization, count = options.place
        if options.step == "fill":
            print(json.dumps(fill(folder, int(dimension), quantization, int(count))))
        else:
            print(json.dumps(search(folder, int(dimension), int(count))))
        return
    report, count = Report(options.json), options.passages
    rows = [
        row(dimension, quantization, count)
        for dimension in options.dimensions
        for quantization in options.quantizations
    ]
    columns = ("dimension", "quantization", "disk, bytes", "RssAnon, bytes", "RssFile, bytes")
    times = ("index, processor minutes per million", "index, minutes per million", "search, ms")
    report.table((*columns, *times), rows)


if __name__ == "__main__":
    main()
