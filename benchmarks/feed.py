"""The commands `encode` and `ingest` beside their encoder: what is left of its speed.

Around the forward pass a command reads, parses, tokenizes, counts BM25's tokens, writes and builds
the index. On a CPU all of that takes the time of the cores that encode. Three candidates take the
same passages in turn, in one process: the encoder alone, from texts in memory to vectors;
`encode_corpus`, from a TSV file to Parquet shards on disk; `ingest_passages`, from the same file
into Qdrant Edge until the index is built. Loading the model is left out. The shares are medians of
each round's, by the clock and by the processor's time, subprocesses included: on a machine under
the load of others the second is the one to read.

    python benchmarks/feed.py [--passages 4608] [--rounds 3] [--model all-MiniLM-L6-v2]
        [--device cpu] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from harness import PACKAGES, Report, Row, data_name, json_option, some_passages, spread

from msmarco_qdrant.encode.api import encode_corpus
from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.ingest.api import ingest_passages

MODEL = "all-MiniLM-L6-v2"
ALONE = "the encoder alone"


class Spent(NamedTuple):
    """Seconds of the clock, and of the processor."""

    wall: float
    processor: float


def candidates(
    encoder: Encoder, source: Path, texts: list[str], folder: Path
) -> Mapping[str, Callable[[], object]]:
    """Return what encodes all passages once, by name; the folder must be new each time."""

    def alone() -> None:
        for _ in encoder.encode_passages(encoder.tokenizer(texts)):
            pass

    return {
        ALONE: alone,
        "encode, to Parquet": lambda: encode_corpus(source, folder / "vectors", encoder=encoder),
        "ingest, into Edge": lambda: ingest_passages(source, folder / "store", encoder=encoder),
    }


def timed(work: Callable[[], object]) -> Spent:
    """Run it."""
    started, spent = time.perf_counter(), _processor_seconds()
    work()
    return Spent(time.perf_counter() - started, _processor_seconds() - spent)


def _processor_seconds() -> float:
    """Of this process and of its ended subprocesses."""
    return sum(os.times()[:4])


def measure(
    encoder: Encoder, passages: list[tuple[str, str]], rounds: int
) -> dict[str, list[Spent]]:
    """Run the candidates in turn, round after round."""
    texts = [text for _, text in passages]
    results: dict[str, list[Spent]] = {}
    encoder.warm_up()
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            source = Path(name) / "passages.tsv"
            source.write_text("".join(f"{pid}\t{text}\n" for pid, text in passages), "utf-8")
            for candidate, work in candidates(encoder, source, texts, Path(name)).items():
                results.setdefault(candidate, []).append(timed(work))
    return results


def rows(results: Mapping[str, list[Spent]], count: int) -> list[Row]:
    """The table: rates, and the shares of the encoder's own of the same round."""
    base = results[ALONE]
    shown = []
    for name, runs in results.items():
        rates = [count / run.wall for run in runs]
        shares = [first.wall / run.wall for first, run in zip(base, runs, strict=True)]
        spent = [first.processor / run.processor for first, run in zip(base, runs, strict=True)]
        cells = (name, spread(rates), spread(shares, 3), spread(spent, 3))
        shown.append(Row(cells, [run._asdict() for run in runs]))
    return shown


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=4608)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=MODEL, help="a name or a directory")
    parser.add_argument("--device", help="by default the fastest")
    json_option(parser)
    options = parser.parse_args()
    encoder = load_encoder(options.model, device=options.device)
    passages = some_passages(options.passages)
    results = measure(encoder, passages, options.rounds)
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{len(passages):,} {data_name()}, {encoder!r}; load averages {loads}\n")
    head = ("passages", "passages/s", "of the encoder's rate", "by the processor's time")
    Report(options.json, PACKAGES).table(head, rows(results, len(passages)))


if __name__ == "__main__":
    main()
