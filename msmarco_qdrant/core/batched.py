"""Lists of items from any iterable (`itertools.batched` needs Python 3.12)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")


def in_batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield the items in order, in lists of `size`; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
