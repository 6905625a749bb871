"""Several runs by the workers of one pool on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.distributed.cluster import PoolSize
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.tasks import TaskBoard, TaskPolicy

pytest.importorskip("ray", reason="needs the extra ray: make integrations")
pytestmark = pytest.mark.usefixtures("cluster")


class Worker:
    """A worker with two answers to each split, of which the second comes after the run.

    Args:
        late: The second answer.
    """

    def __init__(self, late: str) -> None:
        self._late = late

    def begin(self, job: str) -> None:
        """Do nothing."""

    def run_split(self, work: str) -> Iterator[str]:
        """Answer twice."""
        yield work
        yield self._late

    def done(self) -> int:
        """Return 0."""
        return 0


class Sink:
    """Keeps the answers.

    Args:
        name: The work of each split.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.found: dict[int, str] = {}

    def work(self, number: int, attempt: int) -> tuple[str]:  # noqa: ARG002
        """Return the work."""
        return (self._name,)

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Do nothing."""

    def finish(self, number: int, attempt: int, outcome: str) -> None:  # noqa: ARG002
        """Keep an answer."""
        self.found[number] = outcome

    def poll(self, rows: int) -> None:
        """Do nothing."""


def test_an_answer_to_an_earlier_run_counts_for_none() -> None:
    """Splits of two runs have the same numbers, but another pass is another work."""
    with closing(WorkerPool[str](Worker, "late", PoolSize(1, 0.5, 0), 2)) as pool:
        for name in ("first", "second", "third"):
            sink = Sink(name)
            pool.run("job", TaskBoard(range(4), TaskPolicy(), lambda: 0.0, 0.0), sink)
            assert dict.fromkeys(range(4), name) == sink.found
