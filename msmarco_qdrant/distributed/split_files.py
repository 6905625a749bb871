"""Files of the driver about the splits of a distributed run."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msmarco_qdrant.core.records import Reject

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SplitFiles:
    """Files of the driver for each split: repeated rows, and rejects until their turn.

    Args:
        folder: An empty directory.

    Attributes:
        folder: The same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._attempts: dict[int, set[int]] = {}  # by split, those with rejects

    def add_repeats(self, number: int, rows: NDArray[np.uint64]) -> None:
        """Add rows of a split whose pid came before them."""
        with self._repeats(number).open("ab") as file:
            file.write(rows.astype("<u8").tobytes())

    def repeats(self, number: int) -> NDArray[np.uint64]:
        """Return these rows in ascending order."""
        path = self._repeats(number)
        return np.unique(np.fromfile(path, "<u8")) if path.exists() else np.empty(0, np.uint64)

    def add_rejects(self, number: int, attempt: int, rejects: list[Reject]) -> None:
        """Add some rejects of an attempt."""
        self._attempts.setdefault(number, set()).add(attempt)
        with self._rejects(number, attempt).open("ab") as file:
            pickle.dump(rejects, file)

    def take_rejects(self, number: int, attempt: int) -> Iterator[Reject]:
        """Yield all rejects of an attempt, then delete those of every attempt."""
        path = self._rejects(number, attempt)
        if path.exists():
            with path.open("rb") as file:
                while file.peek(1):
                    yield from pickle.load(file)  # noqa: S301  # written above
        for one in self._attempts.pop(number, ()):
            self._rejects(number, one).unlink()

    def _repeats(self, number: int) -> Path:
        return self.folder / f"repeats-{number}"

    def _rejects(self, number: int, attempt: int) -> Path:
        return self.folder / f"rejects-{number}-{attempt}"
