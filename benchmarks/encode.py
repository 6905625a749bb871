"""Speed of encoding, compared with `SentenceTransformer.encode` and with the machine's limit.

`SentenceTransformer.encode` as it comes (float32) and as its documentation tunes it ("Speeding up
Inference": bfloat16 on a CPU, float16 and large batches on a GPU; it sorts by length itself), ours
in the precision that it chooses, in float32 and in int8 (weights and activations), and the limit:
plain matrix products of the model's linear layers, in bfloat16 and in float32
(benchmarks/gemm_limit.py has the formula). Where they are installed, ONNX Runtime and fastembed,
too (benchmarks/onnx_peers.py). Each vector is held against the float32 one of
`SentenceTransformer.encode`: the worst cosine is in the table.

Each run in a process of its own, the candidates in turn, model loading and a first small batch
left out of the time; medians over the repeats. With `--together` all run in one process, which is
for a machine under the load of others: the rounds are short, and the times as fast are medians of
each round's, by the clock and by the processor's time. `--shape distilbert` and `--shape mpnet`
take a model of DistilBERT-base's or MPNet-base's shape with random weights instead of `--model`.

    python benchmarks/encode.py [--passages 2048] [--repeats 3] [--model all-MiniLM-L6-v2]
        [--shape distilbert|mpnet] [--only NAME ...] [--together] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_peers
from gemm_limit import Work, gemm_rate, work_of
from harness import (
    PACKAGES,
    Report,
    Row,
    column,
    data_name,
    json_option,
    middle,
    model_directory,
    read_passages,
    run_in_turn,
    some_passages,
    spread,
)
from model_shapes import SHAPES
from numpy.typing import NDArray

MODEL = "all-MiniLM-L6-v2"
WARM_UP = 32
GPU_BATCH = 256
# int8 is in use after so many passages.
CALIBRATION = 1536

Encode = Callable[[list[str]], NDArray[np.float32]]
"""Texts to float32 `(n, dimension)`, in their order."""


class Loaded(NamedTuple):
    """A model ready to encode, and what it computes in."""

    encode: Encode
    precision: str


# ---- the candidates ------------------------------------------------------------------------


def library(location: str, *, tuned: bool) -> Loaded:
    """`SentenceTransformer.encode`, as it comes or as its documentation tunes it."""
    import torch
    from sentence_transformers import SentenceTransformer

    if not tuned:
        return Loaded(SentenceTransformer(location).encode, "float32")
    on_gpu = torch.cuda.is_available()
    dtype = "float16" if on_gpu else "bfloat16"
    model = SentenceTransformer(location, model_kwargs={"dtype": dtype})
    return Loaded(partial(model.encode, batch_size=GPU_BATCH) if on_gpu else model.encode, dtype)


def ours(location: str, *, precision: Any = None) -> Loaded:
    """`load_encoder(...).encode_passages`, as an ingest calls it; int8 is calibrated before."""
    from msmarco_qdrant.encoding import load_encoder

    device = "cpu" if precision == "int8" else None
    encoder = load_encoder(location, device=device, precision=precision)
    if precision == "int8":
        encoder.encode([text for _, text in read_passages()[-CALIBRATION:]])  # others than measured

    def encode(texts: list[str]) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), encoder.info.dimension), np.float32)
        for batch in encoder.encode_passages(encoder.tokenizer(texts)):
            vectors[batch.positions] = batch.vectors
        return vectors

    return Loaded(encode, encoder.precision)


def onnx_runtime(location: str, *, quantized: bool) -> Loaded:
    """The library's model as an export that ONNX Runtime optimizes, and quantizes if asked."""
    return Loaded(
        onnx_peers.onnx_runtime(location, quantized=quantized), "int8" if quantized else "float32"
    )


def fastembed(location: str) -> Loaded:
    """`TextEmbedding.embed` of fastembed."""
    return Loaded(onnx_peers.fastembed(location), "float32")


BASE = "SentenceTransformer.encode"
CANDIDATES: dict[str, Callable[[str], Loaded]] = {
    BASE: partial(library, tuned=False),
    "SentenceTransformer.encode, tuned": partial(library, tuned=True),
    "msmarco-qdrant": ours,
    "msmarco-qdrant, float32": partial(ours, precision="float32"),
    "msmarco-qdrant, int8": partial(ours, precision="int8"),
}
if find_spec("onnxruntime"):
    CANDIDATES |= {
        "ONNX Runtime": partial(onnx_runtime, quantized=False),
        "ONNX Runtime, int8 weights": partial(onnx_runtime, quantized=True),
    }
if find_spec("fastembed"):
    CANDIDATES |= {"fastembed": fastembed}
LIMITS = {f"plain {precision} GEMMs": precision for precision in ("bfloat16", "float32")}
LIMIT = next(iter(LIMITS))


# ---- runs ----------------------------------------------------------------------------------


def run(candidate: str, location: str, texts: list[str], reference: Path) -> dict[str, object]:
    """Encode the texts: seconds, passages per second, and the worst cosine with the reference.

    The base makes the reference.
    """
    encode, precision = CANDIDATES[candidate](location)
    encode(texts[:WARM_UP])
    started = time.perf_counter()
    vectors = encode(texts)
    seconds = time.perf_counter() - started
    if candidate == BASE:
        np.save(reference, vectors)
    return {
        "seconds": seconds,
        "passages_per_second": len(texts) / seconds,
        "worst_cosine": worst_cosine(vectors, np.load(reference)),
        "precision": precision,
    }


def run_limit(candidate: str, work: Work) -> dict[str, object]:
    """The products alone: operations per second, and how many passages per second that would be."""
    precision = LIMITS[candidate]
    rate = gemm_rate(work, precision)
    passages = rate / work.flops_per_passage
    return {"flops": rate, "passages_per_second": passages, "precision": precision}


def worst_cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The least cosine of rows of float32 `(n, dimension)`, computed in float64."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float((np.einsum("ij,ij->i", left, right) / norms).min())


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Run the candidates in turn and print their table."""
    location = model_directory(options.model or MODEL)
    if options.shape is not None:
        location = str(SHAPES[options.shape](folder / options.shape, location))
    texts = [text for _, text in some_passages(options.passages)]
    work = work_of(location, texts)
    names = [BASE, *(name for name in options.only if name != BASE)]
    results = run_in_turn(
        __file__,
        names,
        options.repeats,
        f"--passages={options.passages}",
        f"--model={location}",
        f"--reference={folder / 'reference.npy'}",
    )
    model = f"{options.shape}'s shape, {work.layers} layers" if options.shape else options.model
    tokens = sum(work.lengths) / len(texts)
    print(
        f"{len(texts):,} {data_name()} of {tokens:.1f} tokens on average, {model or MODEL}: "
        f"{work.flops_per_passage / 1e9:.2f} GFLOP a passage\n"
    )
    print_results(Report(options.json, PACKAGES[:2]), results, work)


def compare_together(options: argparse.Namespace, folder: Path) -> None:
    """Run the candidates round after round in this process, and print their table."""
    location = model_directory(options.model or MODEL)
    if options.shape is not None:
        location = str(SHAPES[options.shape](folder / options.shape, location))
    texts = [text for _, text in some_passages(options.passages)]
    names = [BASE, *(name for name in options.only if name != BASE and name not in LIMITS)]
    loaded = {name: CANDIDATES[name](location) for name in names}
    reference = loaded[BASE].encode(texts)
    cosines = {name: worst_cosine(one.encode(texts), reference) for name, one in loaded.items()}
    rounds = [
        {name: _times(one, texts) for name, one in loaded.items()} for _ in range(options.repeats)
    ]
    print(f"{len(texts):,} {data_name()}, {options.shape or options.model or MODEL}; ", end="")
    print(f"load averages {', '.join(f'{load:.1f}' for load in os.getloadavg())}\n")
    rows = []
    for name in names:
        ratios = [
            [one[BASE][kind] / one[name][kind] for one in rounds]  # of the clock, the processor
            for kind in (0, 1)
        ]
        rates = [len(texts) / one[name][0] for one in rounds]
        shown = (spread(rates), *(spread(ratio, 2) for ratio in ratios))
        row = (name, loaded[name].precision, *shown, f"{cosines[name]:.6f}")
        rows.append(Row(row, [one[name] for one in rounds]))
    head = ("encoding", "computes in", "passages/s", "times as fast", "by the processor's time")
    Report(options.json, PACKAGES[:2]).table((*head, "worst cosine"), rows)


def _times(loaded: Loaded, texts: list[str]) -> tuple[float, float]:
    """Encode: seconds of the clock, and of the processor."""
    started, spent = time.perf_counter(), time.process_time()
    loaded.encode(texts)
    return time.perf_counter() - started, time.process_time() - spent


def print_results(report: Report, results: Mapping[str, list[dict[str, Any]]], work: Work) -> None:
    """The table: speed, against the base and against the limit, and the worst cosine."""
    rates = {name: middle(runs, "passages_per_second") for name, runs in results.items()}

    def cells(name: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
        share = f"{rates[name] / rates[LIMIT]:.0%}" if LIMIT in rates else "-"
        exact = name == BASE or name in LIMITS
        return (
            name,
            runs[0]["precision"],
            spread(column(runs, "passages_per_second")),
            f"{rates[name] / rates[BASE]:.2f}",
            f"{rates[name] * work.flops_per_passage / 1e12:.3f}",
            share,
            "-" if exact else f"{min(column(runs, 'worst_cosine')):.6f}",
        )

    head = (
        "encoding",
        "computes in",
        "passages/s, median (range)",
        "times as fast",
        "TFLOP/s",
        "of plain bf16 GEMMs",
        "worst cosine",
    )
    report.table(head, [Row(cells(name, runs), runs) for name, runs in results.items()])


def main() -> None:
    """Run every candidate, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", help=f"a name or a directory; {MODEL} by default")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of that shape")
    known = (*CANDIDATES, *LIMITS)
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parser.add_argument("--candidate", choices=known, help="run one, here, and print JSON")
    parser.add_argument("--reference", type=Path, help="where that one finds the base's vectors")
    parser.add_argument("--together", action="store_true", help="all in one process")
    json_option(parser)
    options = parser.parse_args()
    if options.candidate is None:
        with tempfile.TemporaryDirectory() as folder:
            (compare_together if options.together else compare)(options, Path(folder))
        return
    texts = [text for _, text in some_passages(options.passages)]
    if options.candidate in LIMITS:
        print(json.dumps(run_limit(options.candidate, work_of(options.model, texts))))
    else:
        print(json.dumps(run(options.candidate, options.model, texts, options.reference)))


if __name__ == "__main__":
    main()
