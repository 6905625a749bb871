"""The vectors of the queries that were asked last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A key is kept as long as its vector: what is longer is no query that many people ask.
_LONGEST_QUERY = 1000


class QueryVectorCache:
    """Remembers so many queries, and forgets the one that was not asked for the longest time.

    Thread-safe.

    Args:
        capacity: Most queries; 0 to remember none.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def vectors(
        self,
        queries: Sequence[str],
        dimension: int,
        encode: Callable[[Sequence[str]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """The queries' vectors, from memory where they are there.

        Args:
            queries: Any number of queries.
            dimension: Length of a vector.
            encode: Makes float32 `(n, dimension)` of `n` queries; asked for the unknown ones, each
                once.

        Returns:
            float32 `(len(queries), dimension)`, the caller's own.
        """
        import numpy as np

        if not self._capacity:
            return encode(queries)
        found = self._recall(queries)
        if missing := [query for query in found if found[query] is None]:
            found.update(zip(missing, encode(missing), strict=True))
            self._remember({query: found[query] for query in missing})
        vectors = np.empty((len(queries), dimension), np.float32)
        for row, query in enumerate(queries):
            vectors[row] = found[query]
        return vectors

    def _recall(self, queries: Sequence[str]) -> dict[str, NDArray[np.float32] | None]:
        with self._lock:
            for query in queries:
                if query in self._known:
                    self._known.move_to_end(query)
            return {query: self._known.get(query) for query in queries}

    def _remember(self, new: dict[str, NDArray[np.float32] | None]) -> None:
        with self._lock:
            for query, vector in new.items():
                if vector is not None and len(query) <= _LONGEST_QUERY:
                    self._known[query] = vector.copy()  # not a view that keeps its batch alive
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
