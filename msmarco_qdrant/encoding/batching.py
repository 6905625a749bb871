"""Batches under a token budget.

Every batch takes about the same time. Texts that lie end to end cost their tokens. Padded texts
cost the batch's rows times its longest text; a window sorted by length wastes a few percent
(1.02 to 1.08 times the tokens on MS MARCO passages).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def split_by_tokens(
    lengths: NDArray[np.int64], budget: int, *, padded: bool, max_rows: int = 1024
) -> Iterator[NDArray[np.int64]]:
    """Split texts into batches of similar length.

    The batch of the longest texts comes first, so that a batch too large for memory fails at the
    start. The others follow in a fixed random order, so that progress predicts the time left.

    Args:
        lengths: int64 `(n,)`, tokens of each text.
        budget: Maximum tokens of a batch, padding included. A longer text is a batch of its own.
        padded: True if texts are padded to the longest of their batch, False if they lie end to
            end.
        max_rows: Maximum texts of a padded batch.

    Yields:
        int64 arrays of positions, by descending length; together they hold each of `0..n-1` once.
    """
    import numpy as np

    order = np.argsort(-lengths, kind="stable")
    split = _split_padded if padded else _split_varlen
    edges = split(lengths[order], budget, max_rows)
    batches = [order[start:stop] for start, stop in pairwise(edges)]
    shuffled = batches[1:]
    random.Random(0).shuffle(shuffled)  # noqa: S311  # not a secret
    yield from (*batches[:1], *shuffled)


def _split_padded(lengths: NDArray[np.int64], budget: int, max_rows: int) -> list[int]:
    """Split descending lengths; a batch costs its rows times its first length."""
    edges = [0]
    while edges[-1] < len(lengths):
        longest = max(int(lengths[edges[-1]]), 1)
        rows = max(1, min(budget // longest, max_rows))
        edges.append(min(edges[-1] + rows, len(lengths)))
    return edges


def _split_varlen(lengths: NDArray[np.int64], budget: int, _max_rows: int) -> list[int]:
    """Split descending lengths; a batch costs the tokens of its texts."""
    import numpy as np

    ends = np.cumsum(np.maximum(lengths, 1))
    edges = [0]
    while edges[-1] < len(lengths):
        done = int(ends[edges[-1] - 1]) if edges[-1] else 0
        fitting = int(np.searchsorted(ends, done + budget, side="right"))
        edges.append(max(fitting, edges[-1] + 1))
    return edges
