"""`kill -9` of a judging, then the same again: the same bytes, and no complete part is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from msmarco_qdrant.testing import WordOverlapReranker
from tests.conftest import ROOT
from tests.kill.judge_program import run
from tests.train.small_collection import fill

_CHECK = 1  # calls of the judge for the check of itself


@pytest.mark.slow
def test_a_killed_judging_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """Killed while the judge is judged, then twice between parts."""
    store, out = fill(tmp_path / "store"), tmp_path / "killed"
    whole = WordOverlapReranker()
    run(store, tmp_path / "whole", whole)
    words = [sys.executable, "-m", "tests.kill.judge_program", str(store), str(out)]
    calls = map(str, (_CHECK, _CHECK + 2, 3))
    done = subprocess.run([*words, *calls], cwd=ROOT, check=False, capture_output=True, text=True)
    ended = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [-9] * 3 == [status for status, _ in ended], done.stderr
    first, second, third = (parts for _, parts in ended)
    assert 0 == first < second < third

    judge = WordOverlapReranker()
    run(store, out, judge)
    assert 0 < judge.scored < whole.scored
    for name in ("scores.parquet", "settings.json", "check.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (out / "parts").exists()
