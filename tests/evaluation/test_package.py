"""Imports of the package."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import msmarco_qdrant.evaluation
from msmarco_qdrant.evaluation import datasets, evaluate, plots, report, statistics, tables
heavy = {"ir_datasets", "ir_measures", "jinja2", "matplotlib", "numpy", "scipy", "torch"}
print(sorted(heavy & set(sys.modules)), "msmarco_qdrant.stores.open" in sys.modules)
"""


def test_importing_costs_nothing() -> None:
    """It loads no library of the extra `eval` and no engine."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )

    assert "[] False" == done.stdout.strip()
