"""Rejects on their way from a worker to the caller, who gets them in the source's order."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.distributed.split_files import SplitFiles
from msmarco_qdrant.sources.rejects import RejectCount

_REJECTS_AT_ONCE = 1000


@dataclass(slots=True)
class SpilledRejects:
    """Rejects of a split, in a temporary file until it is done."""

    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    held: list[Reject] = field(default_factory=list)
    spilled: int = 0

    def add(self, reject: Reject) -> None:
        """Keep a reject."""
        self.held.append(reject)
        if len(self.held) >= _REJECTS_AT_ONCE:
            self._spill()

    def batches(self) -> Iterator[list[Reject]]:
        """Yield all of them, some at a time."""
        self._spill()
        self.file.seek(0)
        for _ in range(self.spilled):
            yield pickle.load(self.file)  # noqa: S301  # written below

    def _spill(self) -> None:
        if self.held:
            pickle.dump(self.held, self.file)
            self.spilled += 1
            self.held = []


class OrderedRejects:
    """Counts the rejects of finished splits, split after split in the source's order.

    Args:
        splits: The numbers of the splits, in ascending order.
        files: Keeps them until their turn.
        rejected: Counts them.
    """

    def __init__(self, splits: Iterable[int], files: SplitFiles, rejected: RejectCount) -> None:
        self._splits = iter(splits)
        self._files = files
        self._rejected = rejected
        self._next = next(self._splits, None)
        self._finished: dict[int, int] = {}  # attempts, until the split's turn

    def finish(self, number: int, attempt: int) -> None:
        """Count those of all splits up to the first unfinished one."""
        self._finished[number] = attempt
        while self._next is not None and self._next in self._finished:
            for reject in self._files.take_rejects(self._next, self._finished.pop(self._next)):
                self._rejected.add(reject)
            self._next = next(self._splits, None)
