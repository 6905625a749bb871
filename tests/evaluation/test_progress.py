"""The progress of an evaluation on standard error."""

from __future__ import annotations

import io

from msmarco_qdrant.evaluation import System
from msmarco_qdrant.evaluation.progress import EvaluationDisplay


def test_each_system_is_announced_with_its_queries() -> None:
    """A line per system, and more if it takes long."""
    for line_every_s, more in ((0.0, ["1 queries"]), (3600.0, [])):
        stream = io.StringIO()
        display = EvaluationDisplay(stream=stream, line_every_s=line_every_s)
        for count in range(2):
            display(System(), count, 2)
        display(System(label="a\x1b"), 0, 1)
        lines = stream.getvalue().splitlines()
        assert "searching with dense: 2 queries" == lines[0]
        assert more == [line.split(", ")[0] for line in lines[1:-1]]
        assert "searching with a\\x1b: 1 query" == lines[-1]
