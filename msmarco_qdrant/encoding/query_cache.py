"""Cache of the vectors of recent queries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Longer queries are rare and would use more memory than their vectors.
_LONGEST_QUERY = 1000


class QueryVectorCache:
    """Least-recently-used cache of queries and their vectors. Thread-safe.

    Args:
        capacity: Maximum queries; 0 to cache none.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def vectors(
        self,
        queries: Sequence[str],
        dimension: int,
        encode: Callable[[Sequence[str]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Return the queries' vectors, encoding those that are not cached.

        Args:
            queries: Any number of queries.
            dimension: Length of a vector.
            encode: Encodes `n` queries to float32 `(n, dimension)`; called with the distinct
                queries that are not cached.

        Returns:
            float32 `(len(queries), dimension)`; the caller may change it.
        """
        import numpy as np

        if not self._capacity:
            return encode(queries)
        found = self._get(queries)
        if missing := [query for query in dict.fromkeys(queries) if query not in found]:
            new = dict(zip(missing, encode(missing), strict=True))
            self._put(new)
            found |= new
        vectors = np.empty((len(queries), dimension), np.float32)
        for row, query in enumerate(queries):
            vectors[row] = found[query]
        return vectors

    def _get(self, queries: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        with self._lock:
            cached = [query for query in queries if query in self._vectors]
            for query in cached:
                self._vectors.move_to_end(query)
            return {query: self._vectors[query] for query in cached}

    def _put(self, new: dict[str, NDArray[np.float32]]) -> None:
        with self._lock:
            for query, vector in new.items():
                if len(query) <= _LONGEST_QUERY:
                    self._vectors[query] = vector.copy()  # a view would keep its batch in memory
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)
