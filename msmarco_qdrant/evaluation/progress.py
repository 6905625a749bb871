"""The progress of an evaluation, for people."""

from __future__ import annotations

from typing import Any

from msmarco_qdrant.core.escape import escape_controls
from msmarco_qdrant.evaluation.systems import System
from msmarco_qdrant.runtime.progress import ProgressDisplay


class EvaluationDisplay(ProgressDisplay):
    """Announces each system and shows its progress; call it as `on_query`.

    Args:
        options: See `ProgressDisplay`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(unit="queries", **options)

    def __call__(self, system: System, done: int, total: int) -> None:
        """Show the number of queries done; 0 announces the system."""
        if done:
            self.show_of(done, total)
        else:
            name = escape_controls(system.name)
            self.announce(f"searching with {name}: {count_queries(total)}")


def count_queries(count: int) -> str:
    """Return a number of queries in words."""
    return f"{count:,} {'query' if count == 1 else 'queries'}"
