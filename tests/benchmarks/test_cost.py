"""The cost model: its table in the docs, and what its formulas must keep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "benchmarks" / "cost.py"


def table(*options: str) -> list[list[str]]:
    """The rows that the command prints, without the head."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *options], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_docs_have_the_table_of_the_command() -> None:
    """Row for row."""
    lines = (ROOT / "docs" / "scale.md").read_text("utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if "memory by node, GB" in line)
    shown = lines[start + 2 : lines.index("", start)]
    assert table() == [[cell.strip() for cell in line.strip("|").split("|")] for line in shown]


def test_ten_times_the_passages_on_larger_nodes() -> None:
    """Memory and hours of a node grow with the passages, where the number of nodes stays."""
    (small,) = [row for row in table("--passages", "1000000") if row[1:3] == ["768", "int8"]]
    (large,) = [row for row in table("--passages", "10000000") if row[1:3] == ["768", "int8"]]
    assert small[3] == large[3] == "3"
    assert float(large[5]) == pytest.approx(10 * 1e6 * 2 * 1038 / 3e9, abs=0.5)
    assert float(large[9]) > float(small[9])


def test_a_number_below_one_is_refused() -> None:
    """In one line."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--gpus", "0"], capture_output=True, text=True, check=False
    )
    assert 2 == done.returncode
    assert "each number must be 1 or more" in done.stderr
