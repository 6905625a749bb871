"""Schedules of the distributed ingest, simulated: kills, crashes, lost and repeated requests.

Each schedule is drawn from a seed: a source with repeats and damaged rows, a collection that has a
part of it, a cluster of nodes and server shards, and their faults. The project's own decisions run
against simulated time, processes, network and files (tests/simulation). An operator repeats the
command until it succeeds; in three of ten schedules another one ingests other passages into the
same collection at the same time. Then no passage may be lost, doubled or from a later row, each
reject is reported once, and the indexing threshold is the former one, also after the last late
request; it is never restored while an ingest in bulk mode runs.

`--bug` plants a bug, of which the simulation must find an effect; `--seed` replays one schedule.

    python benchmarks/simulate.py [--schedules 100000] [--processes 2] [--bug NAME]
        [--seed SEED] [--json FILE]
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness import Report, Row, json_option

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.simulation.bugs import BUGS, planted  # noqa: E402  # needs the path
from tests.simulation.schedule import Outcome, run_schedule  # noqa: E402

_PART = 200
_SHOWN = 5


def run_one(bug: str | None, seed: int) -> Outcome:
    """Run the schedule of a seed."""
    logging.disable()  # its ingests warn of each other
    return run_schedule(seed, planted(bug) if bug else None)


def run_part(bug: str | None, seeds: range) -> tuple[Counter[str], list[tuple[int, str]], float]:
    """Run some schedules; returns counts, the failed seeds with a problem, and processor time."""
    started = time.process_time()
    counts: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        found = run_one(bug, seed)
        counts.update(schedules=1, runs=found.runs, faults=found.faults)
        counts["hours"] += int(found.seconds)
        if found.problems:
            failed.append((seed, found.problems[0]))
    return counts, failed, time.process_time() - started


def run_all(
    bug: str | None, schedules: int, processes: int
) -> Iterator[tuple[Counter[str], list[tuple[int, str]], float]]:
    """Run the seeds from 0 in several processes."""
    parts = [range(at, min(at + _PART, schedules)) for at in range(0, schedules, _PART)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(partial(run_part, bug), parts)


def main() -> None:
    """Print one table; exit with 1 if a schedule failed without a planted bug, or none with one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--bug", choices=BUGS)
    parser.add_argument("--seed", type=int, help="run this schedule only, and show its problems")
    json_option(parser)
    options = parser.parse_args()
    if options.seed is not None:
        outcome = run_one(options.bug, options.seed)
        print(
            outcome.digest,
            f"{outcome.runs} runs, {outcome.faults} faults",
            *outcome.problems,
            sep="\n",
        )
        sys.exit(bool(outcome.problems))
    report = Report(options.json, ())
    counts: Counter[str] = Counter()
    failed: list[tuple[int, str]] = []
    seconds = 0.0
    for part, problems, took in run_all(options.bug, options.schedules, options.processes):
        counts += part
        failed += problems
        seconds += took
    for seed, problem in failed[:_SHOWN]:
        print(f"seed {seed}: {problem}")
    head = (
        "planted bug",
        "schedules",
        "runs",
        "faults",
        "simulated hours",
        "failed",
        "processor s",
    )
    cells = (
        options.bug or "none",
        *(f"{counts[name]:,}" for name in ("schedules", "runs", "faults")),
        f"{counts['hours'] // 3600:,}",
        f"{len(failed):,}",
        f"{seconds:.0f}",
    )
    report.table(head, [Row(cells, {"counts": dict(counts), "failed": failed})])
    sys.exit(bool(failed) != bool(options.bug))


if __name__ == "__main__":
    main()
