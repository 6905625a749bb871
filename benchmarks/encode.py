"""How fast are passages encoded? Ours against `SentenceTransformer.encode` as it comes.

Each run in a process of its own, the candidates in turn, model loading and a first small batch
left out of the time; medians over the repeats.

    python benchmarks/encode.py [--passages 2048] [--repeats 3] [--model all-MiniLM-L6-v2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from harness import print_table, read_passages, run_apart, spread

CANDIDATES = ("SentenceTransformer.encode", "msmarco-qdrant")


def run(candidate: str, model: str, count: int) -> dict[str, float]:
    """Encode so many passages; seconds, and passages a second."""
    from msmarco_qdrant.encoding import load_encoder

    texts = [text for _, text in read_passages(count)]
    encoder = load_encoder(model)
    if candidate == "msmarco-qdrant":

        def encode(texts: list[str]) -> None:
            for _ in encoder.encode_passages(texts):
                pass
    else:
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(encoder.location)

        def encode(texts: list[str]) -> None:
            reference.encode(texts)

    encode(texts[:32])
    started = time.perf_counter()
    encode(texts)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "passages_per_second": len(texts) / seconds}


def main() -> None:
    """Run every candidate in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--candidate", choices=CANDIDATES, help="run one, here, and print JSON")
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(run(options.candidate, options.model, options.passages)))
        return
    rates: dict[str, list[float]] = {candidate: [] for candidate in CANDIDATES}
    for _ in range(options.repeats):
        for candidate in CANDIDATES:
            result = run_apart(
                __file__,
                f"--candidate={candidate}",
                f"--passages={options.passages}",
                f"--model={options.model}",
            )
            rates[candidate].append(result["passages_per_second"])
    base = statistics.median(rates[CANDIDATES[0]])
    print_table(
        ("encoding", "passages/s, median (range)", "times as fast"),
        [
            (name, spread(values), f"{statistics.median(values) / base:.2f}")
            for name, values in rates.items()
        ],
    )


if __name__ == "__main__":
    main()
