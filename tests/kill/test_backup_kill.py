"""A backup or a restore that is killed at any step: nothing half is taken for whole (V4)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.loopback import LoopbackServer

KILLS, SOAK_KILLS = 8, 100


def run_program(dsn: str, folder: Path, kills: int, seed: int) -> Mapping[str, int]:
    """The kills of `backup_program` by operation, after which all was as it must be."""
    command = [sys.executable, "-m", "tests.kill.backup_program", dsn, str(folder)]
    done = subprocess.run(
        [*command, str(kills), str(seed)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr[-4000:]
    found: Mapping[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


_OFTEN = [
    pytest.param(KILLS, marks=pytest.mark.slow),
    pytest.param(SOAK_KILLS, marks=pytest.mark.soak),
]


@pytest.mark.parametrize("kills", _OFTEN)
def test_v4_kills_on_edge(tmp_path: Path, kills: int) -> None:
    """Copies of files and portable backups in turn."""
    found = run_program(str(tmp_path / "store"), tmp_path, kills, seed=4)
    assert found["backup"] >= kills
    assert found["restore"] >= kills


@pytest.mark.parametrize("kills", _OFTEN)
def test_v4_kills_on_a_server(tmp_path: Path, kills: int) -> None:
    """Snapshots and portable backups in turn."""
    with LoopbackServer(adjacent=True) as server:
        found = run_program(server.url, tmp_path, kills, seed=4)
    assert found["backup"] >= kills
    assert found["restore"] >= kills
