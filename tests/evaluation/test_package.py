"""What the package costs to import, and what it brings along."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import msmarco_qdrant.evaluation
from msmarco_qdrant.evaluation import datasets, judging, plots, report, statistics, tables
heavy = {"ir_datasets", "ir_measures", "jinja2", "matplotlib", "numpy", "scipy", "torch"}
print(sorted(heavy & set(sys.modules)), "msmarco_qdrant.search" in sys.modules)
"""


def test_importing_costs_nothing() -> None:
    """No library of the extra `eval`, and nothing that searches, before it is needed."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )

    assert "[] False" == done.stdout.strip()
