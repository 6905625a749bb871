"""Speed of a GPU machine from a TSV file to vectors on disk.

`msmarco-qdrant encode` of the real passages repeated under new pids, by a model of
DistilBERT-base's shape with random weights, against `SentenceTransformer.encode` of some of them
as it comes and in float16 with large batches. Each in a process of its own; ours from when the
first batch may begin to the last file's fsync, the library's encoding alone. Then what could hold
ours back: the forward pass over texts that are tokenized already, and reading, parsing and
tokenizing with no forward pass. GPU busy is the mean of what nvidia-smi reports while ours runs.

    python benchmarks/gpu_encode.py [--lines 2000000] [--tokenizer DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import Report, Row, json_option, model_directory, run_apart, some_passages
from model_shapes import save_distilbert

if TYPE_CHECKING:
    from msmarco_qdrant.encoding.options import Precision

PACKAGES = ("torch", "sentence-transformers", "transformers")
SAMPLE, TUNED_SAMPLE, READY = 8_192, 32_768, 131_072
CHECKED = 1_024
LIBRARY, TUNED = "SentenceTransformer.encode", "SentenceTransformer.encode, float16, batch 1024"
OURS, FP8 = "msmarco-qdrant encode", "msmarco-qdrant encode --precision fp8"
FORWARD, FORWARD_FP8, FEED = "forward pass alone", "forward pass alone, fp8", "feed alone"


def write_lines(path: Path, lines: int) -> None:
    """The passages again and again, each time under new pids."""
    rows = some_passages(10**9)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        numbered = ((number, text) for _ in count() for number, (_, text) in enumerate(rows))
        for pid, (_, text) in enumerate(islice(numbered, lines)):
            file.write(f"{pid}\t{text}\n")


# ---- the library ---------------------------------------------------------------------------


def library(location: str, texts: list[str], *, tuned: bool) -> dict[str, Any]:
    """Passages per second of the library."""
    import torch
    from sentence_transformers import SentenceTransformer

    half = {"dtype": torch.float16} if tuned else None
    model = SentenceTransformer(location, model_kwargs=half)
    batch_size = 1024 if tuned else 32  # which is its default
    model.encode(texts[:2048], batch_size=batch_size)
    started = time.perf_counter()
    model.encode(texts, batch_size=batch_size)
    return {"passages_per_second": len(texts) / (time.perf_counter() - started)}


# ---- ours ----------------------------------------------------------------------------------


class Busy:
    """GPU utilization from nvidia-smi, several times per second, each with its time."""

    def __init__(self) -> None:
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        self._smi = subprocess.Popen(
            ["nvidia-smi", *query, "--loop-ms=100"],  # noqa: S607  # wherever the driver put it
            stdout=subprocess.PIPE,
            text=True,
        )
        self._seen: list[tuple[float, float]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._smi.stdout or ():
            self._seen.append((time.time(), float(line)))

    def mean(self, start: float, end: float) -> float:
        """The mean share between two times, 0 to 1; it ends the watching."""
        self._smi.terminate()
        self._reader.join()
        self._smi.wait()
        return statistics.fmean(use for at, use in self._seen if start <= at <= end) / 100


def ours(location: str, source: Path, *options: str) -> dict[str, Any]:
    """The command's own report, the GPU's use, and the worst cosine to the library's float32."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "vectors"
        busy = Busy()
        program = [sys.executable, "-m", "msmarco_qdrant", "encode", str(source), "--json"]
        given = ["--out", str(out), "--model", location, *options]
        done = subprocess.run([*program, *given], stdout=subprocess.PIPE, text=True, check=True)
        report: dict[str, Any] = json.loads(done.stdout)
        end = (out / "manifest.json").stat().st_mtime  # which is written last
        report["busy"] = busy.mean(end - report["seconds"], end)
        report["worst_cosine"] = worst_cosine(location, out)
    return report


def worst_cosine(location: str, out: Path) -> float:
    """Of the first passages' vectors on disk, to what `SentenceTransformer.encode` makes."""
    import pyarrow.parquet as pq
    from sentence_transformers import SentenceTransformer

    table = next(pq.ParquetFile(out / "00000.parquet").iter_batches(batch_size=CHECKED))
    texts = table.column("text").to_pylist()
    mine = np.asarray(table.column("vector").to_pylist(), np.float32)
    theirs = SentenceTransformer(location).encode(texts, normalize_embeddings=True)
    cosines = np.einsum("ij,ij->i", mine, theirs) / np.linalg.norm(mine, axis=1)
    return float(cosines.min())


# ---- what could hold ours back --------------------------------------------------------------


def forward(location: str, texts: list[str], precision: Precision | None) -> dict[str, Any]:
    """Passages per second of the forward pass alone, over texts that are tokenized already."""
    from msmarco_qdrant.encoding import load_encoder

    encoder = load_encoder(location, precision=precision)
    ready = encoder.tokenizer(texts)
    encoder.warm_up()
    for _ in encoder.encode_passages(ready.take(np.arange(len(ready) // 4))):
        pass
    started = time.perf_counter()
    for _ in encoder.encode_passages(ready):
        pass
    seconds = time.perf_counter() - started
    return {
        "passages_per_second": len(texts) / seconds,
        "tokens_per_passage": float(ready.lengths.mean()),
    }


def feed(location: str, source: Path, workers: int) -> dict[str, Any]:
    """Passages per second of reading, parsing and tokenizing alone."""
    from msmarco_qdrant.encode.feed import Feed, Layout
    from msmarco_qdrant.encoding import load_encoder
    from msmarco_qdrant.runtime.subprocesses import SubprocessIterator
    from msmarco_qdrant.sources.corpus import Corpus

    encoder = load_encoder(location, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder), 12, "float16")
        items = Feed(Corpus(source), layout, encoder.info, encoder.tokenizer, workers)
        apart = SubprocessIterator(items)
        apart.wait_until_ready()
        started = time.perf_counter()
        passages = sum(shard.rows for shard in islice(apart, 20) if hasattr(shard, "rows"))
        seconds = time.perf_counter() - started
        apart.close()
    return {"passages_per_second": passages / seconds}


def run(candidate: str, options: argparse.Namespace) -> dict[str, Any]:
    """One candidate, here."""
    source, location = options.source, options.model
    texts = [text for _, text in some_passages(10**9)]
    texts = (texts * (READY // len(texts) + 1))[:READY]
    if candidate in (LIBRARY, TUNED):
        tuned = candidate == TUNED
        return library(location, texts[: TUNED_SAMPLE if tuned else SAMPLE], tuned=tuned)
    if candidate in (OURS, FP8):
        return ours(location, source, *(["--precision", "fp8"] if candidate == FP8 else []))
    if candidate == FEED:
        return feed(location, source, workers=8)
    return forward(location, texts, "fp8" if candidate == FORWARD_FP8 else None)


def main() -> None:
    """Run every candidate once and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = (OURS, FP8, LIBRARY, TUNED, FORWARD, FORWARD_FP8, FEED)
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--tokenizer", help="a model's directory; all-MiniLM-L6-v2 by default")
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parser.add_argument("--candidate", choices=known, help="run one, here, and print JSON")
    parser.add_argument("--source", type=Path, help="where that one finds the passages")
    parser.add_argument("--model", help="and the model")
    json_option(parser)
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(run(options.candidate, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = options.tokenizer or model_directory("all-MiniLM-L6-v2")
        model = save_distilbert(Path(folder) / "distilbert", tokenizer)
        source = Path(folder) / "passages.tsv"
        write_lines(source, options.lines)
        rows = []
        for name in options.only:
            result = run_apart(
                __file__, f"--candidate={name}", f"--model={model}", f"--source={source}"
            )
            print(name, json.dumps(result), file=sys.stderr, flush=True)
            rows.append((name, result))
    columns = ("passages/s", "s", "start-up, s", "GPU busy", "worst cosine")
    Report(options.json, PACKAGES).table(
        ("encoding", *columns), [Row(cells(name, result), result) for name, result in rows]
    )


def cells(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table; only ours has more than a rate."""
    rate = f"{result['passages_per_second']:,.0f}"
    if "busy" not in result:
        return (name, rate, "-", "-", "-", "-")
    times = (f"{result['seconds']:.1f}", f"{result['startup_seconds']:.1f}")
    return (name, rate, *times, f"{result['busy']:.0%}", f"{result['worst_cosine']:.6f}")


if __name__ == "__main__":
    main()
