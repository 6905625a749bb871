"""Planted bugs: each replaces one decision, and the simulation must find it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from msmarco_qdrant.core.collection_types import SettingsChange
from msmarco_qdrant.distributed.tasks import TaskBoard
from tests.simulation.ingest import Decisions


class _DroppedRetry(TaskBoard):
    """A task whose worker was lost counts as done."""

    def lost(self, number: int, attempt: int, now: float) -> None:  # noqa: ARG002
        self.finished(number)


def _repeats_by_arrival(keys: Any, splits: Any, rows: Any) -> tuple[Any, Any]:
    """The occurrence that was read first counts, not the first of the source."""
    listed = keys.tolist()
    first = {key: index for index, key in reversed([*enumerate(listed)])}
    found = [index for index, key in enumerate(listed) if first[key] != index]
    return splits[found], rows[found]


@dataclass
class _Memory:
    """The former threshold in the driver's memory only."""

    threshold: int | None = None

    def begin(self, store: Any, name: str) -> None:  # noqa: ARG002
        self.threshold = store.optimizers().indexing_threshold_kb
        store.alter(SettingsChange(indexing_threshold_kb=0))

    def end(self, store: Any, name: str) -> None:  # noqa: ARG002
        store.alter(SettingsChange(indexing_threshold_kb=self.threshold))


def planted(name: str) -> Decisions:
    """Return the decisions with a planted bug."""
    decisions = Decisions()
    if name == "dropped-retry":
        return replace(decisions, board=_DroppedRetry)
    if name == "dedup-by-arrival":
        return replace(decisions, find_repeats=_repeats_by_arrival)
    memory = _Memory()
    return replace(decisions, begin_bulk=memory.begin, end_bulk=memory.end)


BUGS = ("dropped-retry", "dedup-by-arrival", "threshold-never-restored")
