"""Rows of different lengths in two arrays: lists would need ten times the memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Ragged:
    """Rows of integers, each of its own length.

    Args:
        values: int32 `(n,)`, the rows one after the other.
        offsets: int64 `(rows + 1,)`, where each row begins and the last one ends.
    """

    def __init__(self, values: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
        self.values = values
        self.offsets = offsets

    @classmethod
    def of(cls, rows: Iterable[Iterable[int]]) -> Ragged:
        """Collect rows."""
        from array import array

        import numpy as np

        values, offsets = array("i"), array("q", [0])
        for row in rows:
            values.extend(row)
            offsets.append(len(values))
        return cls(np.array(values, np.int32), np.array(offsets, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The length of each row."""
        import numpy as np

        return np.diff(self.offsets)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each value."""
        import numpy as np

        return np.repeat(np.arange(len(self)), self.lengths)
