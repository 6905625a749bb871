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


@pytest.mark.soak
def test_fifty_kills_end_in_the_same_bytes(tmp_path: Path) -> None:
    """The whole count."""
    assert kill(tmp_path, 50, seed=0) >= 50
