"""Tasks of a distributed encode on a Ray cluster: chunks are prepared ahead, or only read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from msmarco_qdrant.distributed.cluster import PoolSize, import_ray, start_in_order
from msmarco_qdrant.distributed.encode_worker import prepare_extent
from msmarco_qdrant.distributed.splits import CountedSplit
from msmarco_qdrant.encode.prepare import PreparedChunk
from msmarco_qdrant.encoding import Tokenizer
from msmarco_qdrant.errors import WorkerError
from msmarco_qdrant.sources.chunk_extents import read_chunks
from msmarco_qdrant.sources.corpus import Reading
from msmarco_qdrant.sources.extents import Extent

_TASK_RETRIES = 20
_SHARDS_PER_WORKER = 2


class Preparers:
    """Tasks that parse and tokenize, on the processors that the workers leave.

    Args:
        tokenizer: The encoder's tokenizer.
        reading: How files are read.
        size: Number and size of the workers.
    """

    def __init__(self, tokenizer: Tokenizer, reading: Reading, size: PoolSize) -> None:
        ray = import_ray()
        self._reading = reading
        self._tokenizer = ray.put(pickle.dumps(tokenizer))
        free = int(ray.cluster_resources().get("CPU", 0) - size.workers * size.cpus)
        self._tasks_at_once = max(1, free)
        self._workers = size.workers
        options = {
            "num_cpus": 1 if free >= 1 else 0,
            "max_retries": _TASK_RETRIES,
            "scheduling_strategy": "SPREAD",
        }
        self._task = ray.remote(_prepare_extent).options(**options)

    def shards_ahead(self, full: int) -> int:
        """Return how many shards of so many chunks to prepare before a worker asks for them."""
        return -(-2 * self._tasks_at_once // full) + _SHARDS_PER_WORKER * self._workers

    def start(self, counted: CountedSplit) -> list[Any]:
        """Start to prepare a shard, and return the references of its parts."""
        return [
            self._task.remote(extent, self._reading, before, self._tokenizer)
            for extent, before in counted.extents()
        ]


def _prepare_extent(
    extent: Extent, reading: Reading, lines_before: int, tokenizer: bytes
) -> list[PreparedChunk]:
    return prepare_extent(extent, reading, lines_before, _load_tokenizer(tokenizer))


@lru_cache(maxsize=1)
def _load_tokenizer(pickled: bytes) -> Tokenizer:
    """Load a tokenizer once for all tasks of a process, each of which has a processor."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer: Tokenizer = pickle.loads(pickled)  # noqa: S301  # pickled by the driver
    return tokenizer


def read_digests(splits: Sequence[CountedSplit], reading: Reading) -> Iterator[list[bytes]]:
    """Yield for each shard the digests of its chunks.

    Raises:
        SourceError: If a file cannot be read.
        WorkerError: If too many nodes were lost.
    """
    ray = import_ray()
    calls = ((split, reading) for split in splits)
    try:
        found = start_in_order(_read_digests, calls, max_retries=_TASK_RETRIES)
        yield from map(ray.get, found)
    except ray.exceptions.RayTaskError as exc:
        raise exc.cause from None
    except ray.exceptions.RayError as exc:
        raise WorkerError(f"too many nodes were lost while shards were compared: {exc}") from exc


def _read_digests(counted: CountedSplit, reading: Reading) -> list[bytes]:
    return [
        chunk.digest()
        for extent, before in counted.extents()
        for chunk in read_chunks(extent, reading, before)
    ]
