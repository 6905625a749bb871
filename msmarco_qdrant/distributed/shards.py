"""Shards of a distributed encode: which chunks of the source each covers. Without I/O.

They are the shards of an encode by one process, so that either can resume the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from msmarco_qdrant.distributed.splits import Split
from msmarco_qdrant.encode.prepare import PreparedChunk
from msmarco_qdrant.sources.chunk_extents import changed_source
from msmarco_qdrant.sources.corpus import Chunk
from msmarco_qdrant.sources.extents import Extent

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A shard to encode.

    Attributes:
        split: Its number and extents. An extent of lines is one chunk.
        chunks: Number of its chunks.
        full: Chunks of every shard but the last.
    """

    split: Split
    chunks: int
    full: int


def plan_shards(
    chunks: Iterable[Extent], full: int, existing: Mapping[int, int]
) -> list[ShardPlan]:
    """Divide the chunks of a source into shards.

    Args:
        chunks: An extent for each chunk, in order.
        full: Chunks of a shard.
        existing: Chunks of each existing shard, by its number.
    """
    left, plans = iter(chunks), list[ShardPlan]()
    while covered := [*islice(left, existing.get(len(plans), full))]:
        split = Split(len(plans), tuple(_join_rows(covered)))
        plans.append(ShardPlan(split, len(covered), full))
    return plans


def _join_rows(extents: Sequence[Extent]) -> list[Extent]:
    """Join neighboring rows of Parquet, as a process reads each row group from its start."""
    joined: list[Extent] = []
    for extent in extents:
        last = joined[-1] if joined else None
        if last is not None and last.kind == "rows" and _follows(last, extent):
            size = last.bytes + extent.bytes
            joined[-1] = replace(last, stop=extent.stop, bytes=size)
        else:
            joined.append(extent)
    return joined


def _follows(before: Extent, extent: Extent) -> bool:
    return (before.path, before.stop) == (extent.path, extent.start) and not extent.is_first


def drop_repeats(
    parts: Sequence[PreparedChunk],
    chunks: Sequence[Chunk],
    rows: int,
    repeats: NDArray[np.uint64],
) -> list[PreparedChunk]:
    """Return the chunks of a shard without passages whose pid came before them.

    Args:
        parts: The chunks.
        chunks: The same as they are in the source.
        rows: Number of rows that were counted in them.
        repeats: Rows of the shard whose pid came before them, counted from 0.

    Raises:
        SourceError: If a file was changed since its rows were counted.
    """
    is_repeat, first = [], 0
    for part in parts:
        places = np.array(part.indexes, np.uint64) + np.uint64(first)
        is_repeat.append(np.isin(places, repeats))
        first += len(part.indexes) + len(part.rejects)
    if first != rows or sum(int(found.sum()) for found in is_repeat) != len(repeats):
        raise changed_source()
    return [
        _without(part, chunks, number, found) if found.any() else part
        for number, (part, found) in enumerate(zip(parts, is_repeat, strict=True))
    ]


def _without(
    part: PreparedChunk, chunks: Sequence[Chunk], number: int, is_repeat: NDArray[np.bool_]
) -> PreparedChunk:
    """Return a chunk without repeated passages; it is read once more for their rejects."""
    if chunks[number].digest() != part.digest:
        raise changed_source()
    return part.without(chunks[number], is_repeat)
