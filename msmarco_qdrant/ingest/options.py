"""Arguments that an ingest by one process and by a cluster share, each checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeVar

from msmarco_qdrant.collection.create import check_index
from msmarco_qdrant.core.arguments import check_counts, to_settings
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    PayloadIndex,
    ShardSettings,
    StorageSettings,
)
from msmarco_qdrant.core.records import PrunePolicy
from msmarco_qdrant.errors import UnsupportedError, UsageError
from msmarco_qdrant.stores import INDEX_STALL_S, Store, redact_dsn
from msmarco_qdrant.stores.connection import is_url
from msmarco_qdrant.stores.filters import index_keys

_T = TypeVar("_T")

INDEX_PIECE = 1_000_000
"""Passages of one index build, which takes at least 2 KB of memory for each.

Seen in a build of 1 million passages of 384 dimensions, before its end (benchmarks/RESULTS.md).
"""


@dataclass(frozen=True, slots=True)
class NewCollection:
    """Settings to create a collection with; an existing one must have those that are given.

    Attributes:
        bm25: Its sparse vectors.
        storage: Its dense vectors; an existing collection may have others.
        indexes: Its payload indexes, by payload key.
        sharding: Its shards and replicas.
    """

    bm25: Bm25Settings | None
    storage: StorageSettings | None
    indexes: Mapping[str, PayloadIndex]
    sharding: ShardSettings | None

    @classmethod
    def of(
        cls,
        bm25: object,
        storage: object,
        payload_indexes: Mapping[str, PayloadIndex] | None,
        sharding: object,
    ) -> NewCollection:
        """Return the settings that were given as objects, dictionaries or strings.

        Raises:
            UsageError: For another type, an unknown field or an invalid value.
        """
        return cls(
            _optional(Bm25Settings, bm25, "bm25", "language"),
            _optional(StorageSettings, storage, "storage", "quantization"),
            _to_payload_keys(payload_indexes or {}),
            _optional(ShardSettings, sharding, "sharding"),
        )


def _optional(kind: type[_T], value: object, name: str, plain: str | None = None) -> _T | None:
    return None if value is None else to_settings(kind, value, name, plain)


def _to_payload_keys(fields: Any) -> Mapping[str, PayloadIndex]:
    """Check the kind of index of each `meta` field, and return them by payload key."""
    if not isinstance(fields, Mapping):
        raise UsageError(f"payload_indexes must map fields to kinds, got {fields!r}")
    for name, kind in fields.items():
        check_index(name, kind)
    return index_keys(fields)


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """The points of an ingest at which the index is built.

    Attributes:
        optimize: Build it at the end.
        wait_index: Wait for a server's index without a bound.
        bulk: Let a server build it at the end only.
        index_every: Build that of a directory after each so many written passages, too; None for
            the default.

    Raises:
        UsageError: For options of an index that is not built, or an invalid number.
    """

    optimize: bool
    wait_index: bool
    bulk: bool
    index_every: int | None = None

    def __post_init__(self) -> None:
        every = self.index_every
        for name, given in {"bulk": self.bulk, "index_every": every}.items():
            if given and not self.optimize:
                raise UsageError(f"{name} needs the index at the end: omit optimize=False")
        if every is not None and (not isinstance(every, int) or every < 1):
            raise UsageError(f"index_every must be 1 or more, or None for a million, got {every!r}")

    @property
    def stall_s(self) -> float:
        """Seconds to wait for a server that builds nothing."""
        return math.inf if self.wait_index else INDEX_STALL_S

    def check_store(self, store: Store | str | PathLike[str]) -> None:
        """Refuse `index_every` for an engine that builds no index on request.

        Raises:
            UnsupportedError: If it was given, and the store is not a directory.
        """
        if self.index_every is None:
            return
        if isinstance(store, str | PathLike):
            is_directory = not is_url(str(store)) and str(store) != ":memory:"
            place = redact_dsn(str(store))
        else:
            is_directory, place = _is_directory(store), store.dsn
        if not is_directory:
            raise UnsupportedError(
                f"index_every needs a directory, got {place}: omit it, a server builds its index "
                "itself"
            )

    def piece(self, store: Store) -> int | None:
        """Return the passages after which the index is built in between; None for never."""
        if not self.optimize or not _is_directory(store):
            return None
        return self.index_every or INDEX_PIECE


def _is_directory(store: Store) -> bool:
    return store.capabilities.ann and not store.capabilities.multi_process


def check_amounts(window: int, max_passages: int | None, prune: PrunePolicy | None) -> None:
    """Refuse numbers out of range, and a prune after a part of the source.

    Raises:
        UsageError: If one is.
    """
    check_counts(window=window, max_passages=max_passages)
    if max_passages is not None and prune is not None:
        raise UsageError("prune needs the whole source: omit max_passages")
