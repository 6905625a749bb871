"""Planted bugs: each replaces one decision, and the simulation must find it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msmarco_qdrant.collection.bulk import BulkMode
from msmarco_qdrant.core.collection_types import SettingsChange
from msmarco_qdrant.core.metadata_types import BulkHolder
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


class _Memory(BulkMode):
    """The former threshold is in the driver's memory only."""

    threshold: int | None = None

    def begin(self) -> None:
        admin = self._store.admin_collection(self.name)
        self.threshold = admin.optimizers().indexing_threshold_kb
        admin.alter(SettingsChange(indexing_threshold_kb=0))

    def try_end(self) -> bool:
        if self.threshold is not None:
            change = SettingsChange(indexing_threshold_kb=self.threshold)
            self._store.admin_collection(self.name).alter(change)
        return True


class _FirstEnds(BulkMode):
    """The first ingest that ends restores the threshold under all others."""

    def _may_run(self, holder: BulkHolder) -> bool:  # noqa: ARG002
        return False


class _NeverExpires(BulkMode):
    """An ingest that was killed counts as running."""

    def _may_run(self, holder: BulkHolder) -> bool:
        self._at_end = {}
        return not holder.is_done


_PLANTED: Mapping[str, Decisions] = {
    "dropped-retry": Decisions(board=_DroppedRetry),
    "dedup-by-arrival": Decisions(find_repeats=_repeats_by_arrival),
    "threshold-never-restored": Decisions(bulk=_Memory),
    "first-ingest-ends-bulk": Decisions(bulk=_FirstEnds),
    "killed-ingest-keeps-bulk": Decisions(bulk=_NeverExpires),
}
BUGS = tuple(_PLANTED)


def planted(name: str) -> Decisions:
    """Return the decisions with a planted bug."""
    return _PLANTED[name]
