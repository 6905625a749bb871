"""Speed of judging mined candidates on one GPU, against `CrossEncoder.predict`.

A cross-encoder of Electra-base's shape with random weights (as ms-marco-electra-base: 12 layers of
768, at most 512 tokens) scores the pairs of real queries and the passages that BM25 finds for them.
Ours is the whole of `judge_negatives`: reading texts from the collection, tokenizing, scoring and
writing. It is then killed after some parts and run again. The library gets its texts from memory:
as it comes, and tuned (float16, batch size 1,024). "scores alone" is our cross-encoder without
collection and files, "tokenizer alone" its tokenizer.

    python benchmarks/judge.py [--queries 1331] [--depth 100] [--tokenizer DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import (
    Report,
    Row,
    json_option,
    model_directory,
    run_apart,
    some_passages,
    some_queries,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("torch", "sentence-transformers", "transformers", "tokenizers")
OURS, AGAIN = "judge_negatives", "judge_negatives, killed and run again"
ALONE, TOKENIZER = "scores alone", "tokenizer alone"
LIBRARY, TUNED = "CrossEncoder.predict", "CrossEncoder.predict, float16, batch 1,024"
CANDIDATES = (OURS, AGAIN, ALONE, TOKENIZER, LIBRARY, TUNED)
LIBRARY_PAIRS, TUNED_PAIRS, CHECKED = 8_192, 32_768, 1_024
KILL_AFTER_PARTS = 2
_SEED = 0


def save_electra(directory: Path, tokenizer: str, layers: int) -> Path:
    """Save a cross-encoder of that shape, with a tokenizer of BERT's vocabulary."""
    import torch
    from transformers import AutoTokenizer, ElectraConfig, ElectraForSequenceClassification

    words = AutoTokenizer.from_pretrained(tokenizer)
    words.model_max_length = 512
    torch.manual_seed(_SEED)
    config = ElectraConfig(
        vocab_size=len(words),
        embedding_size=768,
        hidden_size=768,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=3072,
    )
    identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
    config.update({"num_labels": 1, "sentence_transformers": identity})
    ElectraForSequenceClassification(config).save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def prepare(folder: Path, options: argparse.Namespace) -> None:
    """Fill a collection with the passages, and mine candidates by BM25: words cost no model."""
    from msmarco_qdrant import SearchClient
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.ingest.api import ingest_passages
    from msmarco_qdrant.testing import HashingEncoder
    from msmarco_qdrant.train import mine_negatives

    encoder = HashingEncoder()
    passages = some_passages(options.passages)
    ingest_passages(passages, folder / "store", encoder=encoder, optimize=False)
    texts = some_queries()[: options.queries]
    queries = [Query(str(number), text) for number, text in enumerate(texts)]
    lines = [f"{query.qid}\t{query.text}\n" for query in queries]
    (folder / "queries.tsv").write_text("".join(lines), "utf-8")
    # Which passages answer does not matter to the speed: the first ones stand for them.
    positives = {
        query.qid: [pid] for query, (pid, _) in zip(queries, passages * len(queries), strict=False)
    }
    with SearchClient.open(folder / "store", encoder=encoder) as client:
        depth = options.depth
        mine_negatives(client, queries, positives, folder / "mined", modes=["bm25"], depth=depth)


# ---- candidates ----------------------------------------------------------------------------


@contextmanager
def judging(folder: Path, model: str, device: str | None) -> Iterator[Any]:
    """Yield a function that judges into a folder."""
    from msmarco_qdrant import SearchClient
    from msmarco_qdrant.encoding import load_reranker
    from msmarco_qdrant.sources.corpus import read_queries
    from msmarco_qdrant.testing import HashingEncoder
    from msmarco_qdrant.train import judge_negatives

    queries = [*read_queries(str(folder / "queries.tsv"))]
    reranker = load_reranker(model, device=device)
    reranker.warm_up()
    with SearchClient.open(folder / "store", encoder=HashingEncoder()) as client:
        hits = client.search(queries[0].text, mode="bm25", limit=1)

        def judge(out: Path) -> Any:
            return judge_negatives(
                reranker,
                client,
                queries,
                folder / "mined",
                out,
                dev_queries=queries[:1],
                dev_qrels={queries[0].qid: {hits[0].pid: 1}},
                allow_weak=True,  # its weights are random
            )

        yield judge


def ours(folder: Path, out: Path, model: str, device: str | None) -> dict[str, Any]:
    """Judge everything that is missing in a folder."""
    with judging(folder, model, device) as judge:
        report = judge(out)
    return {"pairs": report.pairs, "seconds": report.seconds}


def killed(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Kill a judging after some parts, run it again, and compare with one that nobody killed."""
    out = folder / "again"
    arguments = ["--candidate", OURS, "--folder", str(folder), "--model", options.model]
    if options.device:
        arguments += ["--device", options.device]
    program = [sys.executable, __file__, *arguments, "--out", str(out)]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len([*out.glob("parts/*")]) < KILL_AFTER_PARTS:
            time.sleep(0.05)
        is_killed = process.poll() is None
        if is_killed:
            os.kill(process.pid, signal.SIGKILL)
    kept = len([*out.glob("parts/*.parquet")])
    result = ours(folder, out, options.model, options.device)
    whole = (folder / "out" / "scores.parquet").read_bytes()
    is_equal = (out / "scores.parquet").read_bytes() == whole
    return {**result, "killed": is_killed, "kept_parts": kept, "same_bytes": is_equal}


def real_pairs(folder: Path) -> list[tuple[str, str]]:
    """The pairs that ours judges, with their texts."""
    from msmarco_qdrant.sources.corpus import read_queries
    from msmarco_qdrant.train import read_negatives

    queries = {query.qid: query.text for query in read_queries(str(folder / "queries.tsv"))}
    texts = dict(some_passages(10**9))
    return [
        (queries[query.qid], texts[pid])
        for query in read_negatives(folder / "mined")
        for pid in (*query.positives, *query.negatives["bm25"])
    ]


def library(folder: Path, model: str, device: str | None, *, tuned: bool) -> dict[str, Any]:
    """Score some pairs with the library."""
    import torch
    from sentence_transformers import CrossEncoder

    half = {"dtype": torch.float16} if tuned else None
    encoder: Any = CrossEncoder(model, device=device, model_kwargs=half)
    batch_size = 1024 if tuned else 32  # which is its default
    pairs = real_pairs(folder)
    pairs = pairs[: TUNED_PAIRS if tuned else LIBRARY_PAIRS]
    encoder.predict(pairs[:batch_size], batch_size=batch_size)
    started = time.perf_counter()
    encoder.predict(pairs, batch_size=batch_size)
    return {"pairs": len(pairs), "seconds": time.perf_counter() - started}


def alone(folder: Path, model: str, device: str | None) -> dict[str, Any]:
    """Score the pairs from memory, and compare some with the library in float32."""
    from sentence_transformers import CrossEncoder

    from msmarco_qdrant.encoding import load_reranker

    reranker = load_reranker(model, device=device)
    pairs = real_pairs(folder)
    reranker.scores(pairs[: len(pairs) // 8])
    started = time.perf_counter()
    reranker.scores(pairs)
    seconds = time.perf_counter() - started
    some = pairs[:CHECKED]
    library_model: Any = CrossEncoder(model, device=device)
    expected = library_model.predict(some)
    worst = float(np.abs(reranker.scores(some) - expected).max())
    result = {"pairs": len(pairs), "seconds": seconds}
    return {**result, "worst_difference": worst, "deviation": float(np.std(expected))}


def tokenizer(folder: Path, model: str) -> dict[str, Any]:
    """Tokenize the pairs and do nothing else."""
    from msmarco_qdrant.encoding.pair_tokenizers import build_pair_tokenizer
    from msmarco_qdrant.encoding.pretrained import load_cross_encoder

    tokenize = build_pair_tokenizer(load_cross_encoder(model, "cpu"))
    pairs = real_pairs(folder)
    started = time.perf_counter()
    tokens = sum(
        len(tokenize(pairs[start : start + 4096]).tokens.ids)
        for start in range(0, len(pairs), 4096)
    )
    seconds = time.perf_counter() - started
    return {"pairs": len(pairs), "seconds": seconds, "tokens": tokens / len(pairs)}


def run(candidate: str, options: argparse.Namespace) -> dict[str, Any]:
    """One candidate, here."""
    folder, model, device = options.folder, options.model, options.device
    if candidate == OURS:
        return ours(folder, options.out or folder / "out", model, device)
    if candidate == AGAIN:
        return killed(folder, options)
    if candidate == ALONE:
        return alone(folder, model, device)
    if candidate == TOKENIZER:
        return tokenizer(folder, model)
    return library(folder, model, device, tuned=candidate == TUNED)


def main() -> None:
    """Run every candidate once and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1331)
    parser.add_argument("--depth", type=int, default=100, help="candidates per query")
    parser.add_argument("--passages", type=int, default=10**9)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--device", help="a torch device; the best one by default")
    parser.add_argument("--tokenizer", help="a model's directory; all-MiniLM-L6-v2 by default")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=CANDIDATES)
    parser.add_argument("--candidate", choices=CANDIDATES, help="run one, here, and print JSON")
    parser.add_argument("--folder", type=Path, help="where that one finds collection and queries")
    parser.add_argument("--model", help="and the model")
    parser.add_argument("--out", type=Path, help="where it writes scores")
    json_option(parser)
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(run(options.candidate, options)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = options.tokenizer or model_directory("all-MiniLM-L6-v2")
        model = save_electra(folder / "electra", words, options.layers)
        prepare(folder, options)
        given = [f"--folder={folder}", f"--model={model}"]
        given += [f"--device={options.device}"] if options.device else []
        rows = []
        for one in options.only:
            result = run_apart(__file__, f"--candidate={one}", *given)
            print(one, json.dumps(result), file=sys.stderr, flush=True)
            rows.append(Row(cells(one, result), result))
    head = ("judging", "pairs", "s", "pairs/s", "notes")
    Report(options.json, PACKAGES).table(head, rows)


def cells(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    pairs, seconds = result["pairs"], result["seconds"]
    rate = "-" if name == AGAIN else f"{pairs / seconds:,.0f}"
    notes = {
        AGAIN: "{kept_parts} parts kept, same bytes: {same_bytes}",
        ALONE: "largest difference to float32 {worst_difference:.4f}, deviation {deviation:.4f}",
        TOKENIZER: "{tokens:.0f} tokens per pair",
    }.get(name, "")
    return (name, f"{pairs:,}", f"{seconds:.1f}", rate, notes.format(**result))


if __name__ == "__main__":
    main()
