"""Texts on disk, read by their number: a training reads passages without holding them in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.runtime.atomic_file import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OFFSETS = ".offsets.npy"


class TextFile:
    """The texts of a file that `write` made, mapped into memory.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        self._offsets: NDArray[np.int64] = np.load(_offsets_path(path), mmap_mode="r")
        with path.open("rb") as file:
            empty = not self._offsets[-1]
            self._bytes = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, number: int) -> str:
        begin, end = self._offsets[number : number + 2]
        return self._bytes[begin:end].decode()

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The length of each text in bytes."""
        import numpy as np

        return np.diff(self._offsets)

    @staticmethod
    def write(path: Path, texts: Iterable[str]) -> None:
        """Write texts; the file appears only when it is complete."""
        from array import array

        import numpy as np

        offsets = array("q", [0])
        with atomic_write(path) as file:
            for text in texts:
                raw = text.encode("utf-8", "surrogatepass")
                file.write(raw)
                offsets.append(offsets[-1] + len(raw))
        with atomic_write(_offsets_path(path)) as file:  # last: it makes the pair complete
            np.save(file, np.array(offsets, np.int64))

    @staticmethod
    def exists(path: Path) -> bool:
        """True if both parts of a file are there."""
        return path.is_file() and _offsets_path(path).is_file()


def _offsets_path(path: Path) -> Path:
    return path.with_name(path.name + _OFFSETS)
