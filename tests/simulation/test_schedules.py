"""Schedules of the distributed ingest; `python benchmarks/simulate.py` runs many more."""

from __future__ import annotations

import pytest

from tests.simulation.bugs import BUGS, planted
from tests.simulation.schedule import run_schedule


def test_no_passage_is_lost_or_doubled() -> None:
    """In any of these schedules, with kills, crashes, and lost and repeated requests."""
    outcomes = {seed: run_schedule(seed) for seed in range(300)}
    failed = {seed: found.problems for seed, found in outcomes.items() if found.problems}
    assert {} == failed
    assert sum(found.faults for found in outcomes.values()) > 300
    assert sum(found.runs for found in outcomes.values()) > 360  # some commands were repeated


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    """Within the same number of schedules."""
    assert any(run_schedule(seed, planted(bug)).problems for seed in range(300))


def test_a_seed_replays_its_schedule() -> None:
    """Every time, every payload and every count."""
    for seed in range(20):
        assert run_schedule(seed) == run_schedule(seed)
