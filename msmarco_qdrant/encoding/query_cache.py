"""The vectors of the phrases that were asked last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A key is kept as long as its vector: what is longer is no phrase that many people ask.
_LONGEST_PHRASE = 1000


class RecentVectors:
    """Remembers so many phrases, and forgets the one that was not asked for the longest time.

    Thread-safe.

    Args:
        capacity: Most phrases; 0 to remember none.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def vectors(
        self,
        phrases: Sequence[str],
        dimension: int,
        encode: Callable[[Sequence[str]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """The phrases' vectors, from memory where they are there.

        Args:
            phrases: Any number of phrases.
            dimension: Length of a vector.
            encode: Makes float32 `(n, dimension)` of `n` phrases; asked for the unknown ones, each
                once.

        Returns:
            float32 `(len(phrases), dimension)`, the caller's own.
        """
        import numpy as np

        if not self._capacity:
            return encode(phrases)
        found = self._recall(phrases)
        if missing := [phrase for phrase in found if found[phrase] is None]:
            found.update(zip(missing, encode(missing), strict=True))
            self._remember({phrase: found[phrase] for phrase in missing})
        vectors = np.empty((len(phrases), dimension), np.float32)
        for row, phrase in enumerate(phrases):
            vectors[row] = found[phrase]
        return vectors

    def _recall(self, phrases: Sequence[str]) -> dict[str, NDArray[np.float32] | None]:
        with self._lock:
            for phrase in phrases:
                if phrase in self._known:
                    self._known.move_to_end(phrase)
            return {phrase: self._known.get(phrase) for phrase in phrases}

    def _remember(self, new: dict[str, NDArray[np.float32] | None]) -> None:
        with self._lock:
            for phrase, vector in new.items():
                if vector is not None and len(phrase) <= _LONGEST_PHRASE:
                    self._known[phrase] = vector.copy()  # not a view that keeps its batch alive
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
