"""The benchmark of the adapters counts what it shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("haystack")

from tests.conftest import ROOT


@pytest.mark.slow
def test_a_repeated_write_embeds_and_writes_what_changed(tmp_path: Path) -> None:
    """Two of 150 passages change; the other adapter embeds and writes all of them each time."""
    file, program = tmp_path / "frameworks.json", ROOT / "benchmarks" / "frameworks.py"
    names = ("Haystack: msmarco-qdrant", "Haystack: qdrant-haystack")
    done = subprocess.run(
        [
            sys.executable,
            program,
            "--passages=150",
            "--rounds=1",
            f"--json={file}",
            "--only",
            *names,
        ],
        env={**os.environ, "MSMARCO_QDRANT_DATA": str(tmp_path / "absent")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    rows = [row["shown"] for row in json.loads(file.read_text("utf-8"))["rows"]]
    counts = [(int(row["texts embedded"]), int(row["points written"])) for row in rows]
    assert [(150, 150), (0, 0), (2, 2), *[(150, 150)] * 3] == counts
