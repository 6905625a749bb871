"""Does training on your own queries help? The whole loop on NFCorpus (BEIR), for several seeds.

For each seed: `improve` with hard negatives, two rounds, and once more with in-batch negatives
alone. Dev decides; training and the choice of checkpoints use the training queries.

    python benchmarks/improve.py --work DIR [--seeds 0 1 2] [--training JSON] [--json FILE]

Run it again to resume. One GPU takes minutes per seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import Report, Row, data_folder, json_option

from msmarco_qdrant import SearchClient
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.evaluation import read_qrels
from msmarco_qdrant.evaluation.statistics import mean_interval, paired_test
from msmarco_qdrant.evaluation.tables import p_text
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.sources.corpus import read_queries
from msmarco_qdrant.train import ImproveReport, improve_collection

MODEL = "all-MiniLM-L6-v2"
MEASURE = "nDCG@10"
MODES: tuple[SearchMode, ...] = ("dense", "hybrid")
PACKAGES = ("torch", "sentence-transformers", "transformers", "qdrant-edge-py")
PerQuery = Mapping[str, float]


def main() -> None:
    """Train for each seed, and print four tables."""
    options = _options()
    report = Report(options.json, PACKAGES)
    hard, in_batch = [], []
    for seed in options.seeds:
        folder = options.work / f"seed-{seed}"
        training = {**options.training, "seed": seed}
        hard.append(_improve(options, folder / "hard", training, rounds=2))
        in_batch.append(_improve(options, folder / "in-batch", {**training, "negatives": 0}))
    print("The steps of the first seed:\n")
    report.table(("round", "step", "seconds", "figures", "command"), _steps(hard[0]))
    print(f"{MEASURE} on {hard[0].test:,} dev queries, by mode:\n")
    report.table(("model", "mode", *_seed_heads(options.seeds), "mean"), _means(hard, in_batch))
    print("Paired differences, each query's mean over the seeds:\n")
    report.table(
        ("compared", "mode", "difference", "95 %", "p t", "p perm."), _tests(hard, in_batch)
    )
    print("What improve decides:\n")
    report.table(("seed", "round", "better", "by"), _verdicts(options.seeds, hard))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for stores and models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--training", type=json.loads, default={}, metavar="JSON", help="fields of TrainSettings"
    )
    parser.add_argument("--strategy", default="ranks:1-60", help="how negatives are chosen")
    parser.add_argument("--queries", type=int, help="so many training queries, for a trial")
    parser.add_argument("--passages", type=int, help="so many unjudged passages, for a trial")
    parser.add_argument("--model", default=MODEL, help="the model to train")
    json_option(parser)
    return parser.parse_args()


def _improve(
    options: argparse.Namespace, out: Path, training: dict[str, Any], rounds: int = 1
) -> ImproveReport:
    data = data_folder().parent / "nfcorpus"
    queries = list(read_queries(data / "queries.jsonl"))
    qrels = read_qrels(data / "qrels" / "train.tsv.gz")
    dev = read_qrels(data / "qrels" / "dev.tsv")
    store = options.work / "store"
    train = [one for one in queries if one.qid in qrels][: options.queries]
    with _client(store, data, options) as client:
        return improve_collection(
            client,
            train,
            qrels,
            out,
            training=training,
            rounds=rounds,
            strategy=options.strategy,
            test_queries=[one for one in queries if one.qid in dev],
            test_qrels=dev,
            modes=MODES,
            measures=f"{MEASURE} R@100",
            progress=True,
        )


def _client(store: Path, data: Path, options: argparse.Namespace) -> SearchClient:
    if not store.exists():
        ingest_passages(
            data / "corpus.jsonl.gz",
            store,
            collection="nfcorpus",
            model=options.model,
            max_passages=options.passages,
            progress=True,
        )
    return SearchClient.open(store, collection="nfcorpus", model=options.model)


def _steps(one: ImproveReport) -> Iterator[Row]:
    for step in one.steps:
        numbers = [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value:,}"
            for name, value in step.figures.items()
            if isinstance(value, int | float)
        ]
        cells = (step.round or "-", step.name, f"{step.seconds:.1f}", ", ".join(numbers[:4]))
        yield Row((*cells, f"`{step.command}`" if step.command else "-"), dict(step.figures))


def _seed_heads(seeds: Sequence[int]) -> list[str]:
    return [f"seed {seed}" for seed in seeds]


def _values(one: ImproveReport, mode: str, number: int) -> PerQuery:
    """Return the measure of each dev query; number 0 is the model before."""
    return one.evaluations[mode].runs[number].values[MEASURE].per_query


def _models(
    hard: Sequence[ImproveReport], in_batch: Sequence[ImproveReport], mode: str
) -> dict[str, list[PerQuery]]:
    """Return the measure by dev query, of each model and seed."""
    return {
        "before": [_values(one, mode, 0) for one in hard],
        "in-batch negatives": [_values(one, mode, 1) for one in in_batch],
        "hard negatives": [_values(one, mode, 1) for one in hard],
        "hard negatives, second round": [_values(one, mode, 2) for one in hard],
    }


def _means(hard: Sequence[ImproveReport], in_batch: Sequence[ImproveReport]) -> Iterator[Row]:
    for mode in MODES:
        for name, seeds in _models(hard, in_batch, mode).items():
            means = [fmean(values.values()) for values in seeds]
            cells = (name, mode, *(f"{mean:.4f}" for mean in means), f"{fmean(means):.4f}")
            yield Row(cells, means)


def _tests(hard: Sequence[ImproveReport], in_batch: Sequence[ImproveReport]) -> Iterator[Row]:
    for mode in MODES:
        models = _models(hard, in_batch, mode)
        for old, new in (
            ("before", "in-batch negatives"),
            ("before", "hard negatives"),
            ("in-batch negatives", "hard negatives"),
            ("hard negatives", "hard negatives, second round"),
        ):
            before, after = _over_seeds(models[old]), _over_seeds(models[new])
            differences = [after[qid] - value for qid, value in before.items()]
            interval, test = mean_interval(differences), paired_test(differences)
            shown = "-" if interval is None else f"{interval.low:+.4f} to {interval.high:+.4f}"
            yield Row(
                (
                    f"{new} against {old}",
                    mode,
                    f"{fmean(differences):+.4f}",
                    shown,
                    p_text(test.t_test),
                    p_text(test.permutation),
                ),
                {"differences": differences},
            )


def _over_seeds(seeds: Sequence[PerQuery]) -> PerQuery:
    return {qid: fmean(values[qid] for values in seeds) for qid in seeds[0]}


def _verdicts(seeds: Sequence[int], hard: Sequence[ImproveReport]) -> Iterator[Row]:
    for seed, one in zip(seeds, hard, strict=True):
        verdict = one.verdict
        yield Row((seed, verdict.round, "yes" if verdict.is_better else "no", verdict.reason))


if __name__ == "__main__":
    main()
