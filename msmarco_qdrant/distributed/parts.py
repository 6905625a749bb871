"""Parts of a run whose results are small: they come back to the driver, which writes them.

So no folder has to be shared by the machines, and the driver's lock on its folder is enough: a
worker that outlives its driver cannot write into what another run has begun.
"""

from __future__ import annotations

import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.tasks import TaskBoard, TaskPolicy

_Work = TypeVar("_Work")
_Outcome = TypeVar("_Outcome")


class WorkFiles(Generic[_Work]):
    """The work of unfinished parts, in files of the driver.

    Args:
        folder: An empty directory.

    Attributes:
        numbers: The numbers of the parts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.numbers: list[int] = []

    def put(self, number: int, work: _Work) -> None:
        """Keep the work of a part."""
        self._path(number).write_bytes(pickle.dumps(work))
        self.numbers.append(number)

    def get(self, number: int) -> _Work:
        """Return the work of a part."""
        work: _Work = pickle.loads(self._path(number).read_bytes())  # noqa: S301  # written above
        return work

    def remove(self, number: int) -> None:
        """Remove the work of a finished part."""
        self._path(number).unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"work-{number}"


def run_parts(
    pool: WorkerPool[_Outcome],
    job: object,
    works: WorkFiles[_Work],
    on_outcome: Callable[[_Work, _Outcome], None],
    policy: TaskPolicy,
) -> None:
    """Have the workers of a pool do all parts; a lost worker's part is done by another.

    Args:
        pool: The workers.
        job: The argument of `begin` of each.
        works: The parts.
        on_outcome: Called once for each part, in any order.
        policy: Retries of failed parts.

    Raises:
        MsmarcoQdrantError: If a part failed and may not be tried again.
    """
    board = TaskBoard(works.numbers, policy, random.random, time.monotonic())
    pool.run(job, board, _PartSink(works, on_outcome))


class _PartSink(Generic[_Work, _Outcome]):
    """Gives the parts to the workers, and takes what comes back."""

    def __init__(
        self, works: WorkFiles[_Work], on_outcome: Callable[[_Work, _Outcome], None]
    ) -> None:
        self._works = works
        self._on_outcome = on_outcome

    def work(self, number: int, attempt: int) -> tuple[Any, ...]:  # noqa: ARG002  # for ingests
        return (self._works.get(number),)

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Do nothing: parts have no rejects."""

    def finish(self, number: int, attempt: int, outcome: _Outcome) -> None:  # noqa: ARG002
        self._on_outcome(self._works.get(number), outcome)
        self._works.remove(number)

    def poll(self, rows: int) -> None:
        """Do nothing: a part is done when the driver has it."""
