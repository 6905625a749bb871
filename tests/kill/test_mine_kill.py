"""Mining that is killed at any change of its folder, then the same again: the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def kill(place: Path, kills: int, seed: int) -> int:
    """Run the program; return its number of kills."""
    arguments = [str(place), str(kills), str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill.mine_program", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return int(done.stdout)


@pytest.mark.slow
def test_kills_end_in_the_same_bytes(tmp_path: Path) -> None:
    """Histories of one to four kills, each followed by a run that completes the folder."""
    assert kill(tmp_path, 10, seed=1) >= 10


_MINE_AND_DIE = """
import os, signal, sys
from tests.kill.mine_program import mine_once
from msmarco_qdrant.testing import HashingEncoder

class Killing(HashingEncoder):
    left = int(sys.argv[2])
    def encode_queries(self, queries):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_queries(queries)

mine_once(sys.argv[1], Killing(), processes=2 if Killing.left > 0 else 1)
"""


@pytest.mark.slow
def test_the_processes_of_a_killed_run_end(tmp_path: Path) -> None:
    """The same call then completes the folder with the same bytes; no shared file is left."""
    found = []
    for name, calls in (("whole", [-1]), ("killed", [3, -1])):
        (tmp_path / name).mkdir()
        for left in calls:
            done = subprocess.run(  # returns when every process has closed its standard error
                [sys.executable, "-c", _MINE_AND_DIE, str(tmp_path / name), str(left)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (-9 if left > 0 else 0) == done.returncode, done.stderr
        found.append((tmp_path / name / "out" / "negatives.jsonl.gz").read_bytes())
        assert [] == [*(tmp_path / name / "store").rglob("shared/*")]
    assert found[0] == found[1]


@pytest.mark.soak
def test_fifty_kills_end_in_the_same_bytes(tmp_path: Path) -> None:
    """The whole count."""
    assert kill(tmp_path, 50, seed=0) >= 50
