"""Does training on your own queries help? The whole loop on NFCorpus (BEIR), for several seeds.

For each seed: `improve` with hard negatives, and once more with in-batch negatives alone, two
rounds of each, in a process of its own. A tenth of the training queries chooses checkpoints and
rounds; it chose the learning rate, too, of 2e-5, 5e-5 and 1e-4. Dev only decides at the end.

    python benchmarks/improve.py --work DIR [--seeds 0 1 2] [--jobs 6] [--json FILE]

Run it again to resume. It prints the figures of each process when it ends, then the tables.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import Report, Row, data_folder, json_option

from msmarco_qdrant import SearchClient
from msmarco_qdrant.core.json_value import from_json_value
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
TRAINING = {"learning_rate": 1e-4, "eval_steps": 53, "checkpoint_steps": 106}
HARD, IN_BATCH = "hard", "in-batch"
PerQuery = Mapping[str, float]


def main() -> None:
    """Train for each seed, and print four tables."""
    options = _options()
    if options.only:
        kind, _, seed = options.only.rpartition(":")
        _train(options, kind, int(seed))
        return
    _make_store(options)
    jobs = [f"{kind}:{seed}" for kind in (HARD, IN_BATCH) for seed in options.seeds]
    _run_apart(jobs, options.jobs)
    hard, in_batch = (
        [_read(options.work, kind, seed) for seed in options.seeds] for kind in (HARD, IN_BATCH)
    )
    report = Report(options.json, PACKAGES)
    print("The steps of the first seed:\n")
    report.table(("round", "step", "seconds", "figures", "command"), _steps(hard[0]))
    print(f"{MEASURE} on {hard[0].test:,} dev queries, by mode:\n")
    heads = [f"seed {seed}" for seed in options.seeds]
    report.table(("model", "mode", *heads, "mean"), _means(hard, in_batch))
    print("Paired differences, each query's mean over the seeds:\n")
    head = ("compared", "mode", "difference", "95 %", "p t", "p perm.")
    report.table(head, _tests(hard, in_batch))
    print("What improve decides:\n")
    report.table(("seed", "round", "better", "by"), _verdicts(options.seeds, hard))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for stores and models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=6, help="processes at once")
    parser.add_argument(
        "--training", type=json.loads, default={}, metavar="JSON", help="fields of TrainSettings"
    )
    parser.add_argument("--strategy", default="ranks:1-60", help="how negatives are chosen")
    parser.add_argument("--queries", type=int, help="so many training queries, for a trial")
    parser.add_argument("--passages", type=int, help="so many passages, for a trial")
    parser.add_argument("--model", default=MODEL, help="the model to train")
    parser.add_argument("--only", metavar="KIND:SEED", help="one process, such as hard:0")
    json_option(parser)
    return parser.parse_args()


# ---- processes -----------------------------------------------------------------------------


def _run_apart(jobs: Sequence[str], at_once: int) -> None:
    """Run this program for each job, some at once; the first that fails ends all."""
    waiting, running = [*jobs], list[subprocess.Popen[bytes]]()
    while waiting or running:
        while waiting and len(running) < at_once:
            command = [sys.executable, *sys.argv, "--only", waiting.pop(0)]
            running.append(subprocess.Popen(command))
        time.sleep(0.5)
        for ended in [one for one in running if one.poll() is not None]:
            running.remove(ended)
            if ended.returncode:
                for one in running:
                    one.terminate()
                sys.exit(f"{ended.args!r} ended with {ended.returncode}")


def _train(options: argparse.Namespace, kind: str, seed: int) -> None:
    """Improve once, and print the figures after each round."""
    folder = _folder(options.work, kind, seed)
    training = {**TRAINING, **options.training, "seed": seed}
    if kind == IN_BATCH:
        training["negatives"] = 0
    if not (folder / "store").exists():
        shutil.copytree(options.work / "store", folder / "copying", dirs_exist_ok=True)
        (folder / "copying").rename(folder / "store")
    for rounds in (1, 2):
        started = time.perf_counter()
        report = _improve(options, folder, training, rounds)
        means = [
            f"{run.name} {run.values[MEASURE].mean:.4f}"
            for evaluation in report.evaluations.values()
            for run in evaluation.runs
        ]
        seconds = time.perf_counter() - started
        print(f"{kind}, seed {seed}: {'; '.join(means)} ({seconds:.0f} s)", flush=True)


def _folder(work: Path, kind: str, seed: int) -> Path:
    return work / f"{kind}-{seed}"


def _make_store(options: argparse.Namespace) -> None:
    """Ingest the corpus once; each process copies the store, which only one may open."""
    ingest_passages(
        data_folder().parent / "nfcorpus" / "corpus.jsonl.gz",
        options.work / "store",
        collection="nfcorpus",
        model=options.model,
        max_passages=options.passages,
        progress=True,
    )


def _improve(
    options: argparse.Namespace, folder: Path, training: dict[str, Any], rounds: int
) -> ImproveReport:
    data = data_folder().parent / "nfcorpus"
    queries = list(read_queries(data / "queries.jsonl"))
    qrels = read_qrels(data / "qrels" / "train.tsv.gz")
    dev = read_qrels(data / "qrels" / "dev.tsv")
    train = [one for one in queries if one.qid in qrels][: options.queries]
    store = folder / "store"
    with SearchClient.open(store, collection="nfcorpus", model=options.model) as client:
        return improve_collection(
            client,
            train,
            qrels,
            folder / "out",
            model=options.model,
            training=training,
            rounds=rounds,
            strategy=options.strategy,
            test_queries=[one for one in queries if one.qid in dev],
            test_qrels=dev,
            modes=MODES,
            measures=f"{MEASURE} R@100",
        )


def _read(work: Path, kind: str, seed: int) -> ImproveReport:
    path = _folder(work, kind, seed) / "out" / "report.json"
    return from_json_value(ImproveReport, json.loads(path.read_bytes()))


# ---- tables --------------------------------------------------------------------------------


def _steps(one: ImproveReport) -> Iterator[Row]:
    for step in one.steps:
        numbers = [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value:,}"
            for name, value in step.figures.items()
            if isinstance(value, int | float)
        ]
        cells = (step.round or "-", step.name, f"{step.seconds:.1f}", ", ".join(numbers[:4]))
        yield Row((*cells, f"`{step.command}`" if step.command else "-"), dict(step.figures))


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
        "in-batch negatives, second round": [_values(one, mode, 2) for one in in_batch],
        "hard negatives": [_values(one, mode, 1) for one in hard],
        "hard negatives, second round": [_values(one, mode, 2) for one in hard],
    }


def _means(hard: Sequence[ImproveReport], in_batch: Sequence[ImproveReport]) -> Iterator[Row]:
    for mode in MODES:
        for name, seeds in _models(hard, in_batch, mode).items():
            means = [fmean(values.values()) for values in seeds]
            cells = (name, mode, *(f"{mean:.4f}" for mean in means), f"{fmean(means):.4f}")
            yield Row(cells, {"means": means, "per_query": seeds})


def _tests(hard: Sequence[ImproveReport], in_batch: Sequence[ImproveReport]) -> Iterator[Row]:
    for mode in MODES:
        models = _models(hard, in_batch, mode)
        for old, new in (
            ("before", "in-batch negatives"),
            ("before", "hard negatives"),
            ("in-batch negatives", "hard negatives"),
            ("hard negatives", "hard negatives, second round"),
            ("in-batch negatives, second round", "hard negatives, second round"),
        ):
            before, after = _over_seeds(models[old]), _over_seeds(models[new])
            differences = [after[qid] - value for qid, value in before.items()]
            interval, test = mean_interval(differences), paired_test(differences)
            shown = "-" if interval is None else f"{interval.low:+.4f} to {interval.high:+.4f}"
            tests = (p_text(test.t_test), p_text(test.permutation))
            cells = (f"{new} against {old}", mode, f"{fmean(differences):+.4f}", shown, *tests)
            yield Row(cells, {"differences": differences})


def _over_seeds(seeds: Sequence[PerQuery]) -> PerQuery:
    return {qid: fmean(values[qid] for values in seeds) for qid in seeds[0]}


def _verdicts(seeds: Sequence[int], hard: Sequence[ImproveReport]) -> Iterator[Row]:
    for seed, one in zip(seeds, hard, strict=True):
        verdict = one.verdict
        yield Row((seed, verdict.round, "yes" if verdict.is_better else "no", verdict.reason))


if __name__ == "__main__":
    main()
