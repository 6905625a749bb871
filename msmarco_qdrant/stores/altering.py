"""Changing a collection that holds points, beside what `Collection` has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from msmarco_qdrant.errors import UnsupportedError
from msmarco_qdrant.records import (
    CollectionSpec,
    PayloadIndex,
    PointBatch,
    PointId,
    SettingsChange,
    SparseVector,
)
from msmarco_qdrant.stores.protocols import Store


class Alterable(Protocol):
    """A physical collection that can be changed in place, and filled beside other writers.

    Every call may be repeated: done twice, it does no more than done once.
    """

    def alter(self, change: SettingsChange) -> None:
        """Change settings; what is indexed already is built anew by the next `optimize`.

        A server begins to at once.

        Raises:
            UnsupportedError: If the engine has no such setting.
        """
        ...

    def optimizers(self) -> SettingsChange:
        """The thresholds in force, so that a copy can have the same.

        Returns:
            `indexing_threshold_kb` and `max_segment_size_kb`, None for a default that the engine
            does not tell; the rest is None.
        """
        ...

    def create_payload_index(self, field: str, kind: PayloadIndex) -> None:
        """Index a payload field, or index it as another kind; returns when it is done.

        Raises:
            UnsupportedError: If the engine has no payload indexes.
        """
        ...

    def drop_payload_index(self, field: str) -> None:
        """Remove the index of a payload field; one that is not there is no error.

        Raises:
            UnsupportedError: If the engine has no payload indexes.
        """
        ...

    def sparse_vectors(self, ids: Sequence[PointId]) -> Mapping[PointId, SparseVector]:
        """The sparse vectors of those ids that exist, with their tokens in ascending order."""
        ...

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Replace the sparse vectors of points whose `seq` is not higher; the rest stays.

        Durable after the next `flush()`.

        Raises:
            StoreError: If one of the points does not exist; others may have their new vectors.
        """
        ...

    def write_over(self, batch: PointBatch, seen: Sequence[int | None]) -> None:
        """Write points where what is there is as it was seen; the others stay as they are.

        Durable after the next `flush()`.

        Args:
            batch: `n` points, each id once.
            seen: The `seq` of what was there, of each; None where nothing was. What was there and
                is gone by now stays so, but a server before 1.17 writes it.

        Raises:
            ValueError: If there are more or fewer of one than of the other.
        """
        ...


@runtime_checkable
class _Altering(Protocol):
    def alterable(self, name: str) -> Alterable: ...


def alterable(store: Store, name: str) -> Alterable:
    """The collection behind a name, to be changed.

    Raises:
        CollectionNotFoundError: If there is none.
        UnsupportedError: If it is of a store whose collections cannot be changed.
    """
    if not isinstance(store, _Altering):
        raise UnsupportedError(
            f"the collections of {store.dsn} ({store.capabilities.engine}) cannot be changed in "
            "place: make a new one"
        )
    return store.alterable(name)


def by_presence(
    batch: PointBatch, seen: Sequence[int | None]
) -> tuple[PointBatch, Sequence[int], PointBatch]:
    """A batch for `write_over` in two.

    Returns:
        The points that were there, the `seq` that each had, and the points that were not.
    """
    pairs = enumerate(zip(batch.ids, seen, strict=True))
    there = {row: seq for row, (_, seq) in pairs if seq is not None}
    absent = [row for row, _ in enumerate(batch.ids) if row not in there]
    return rows_of(batch, list(there)), list(there.values()), rows_of(batch, absent)


def rows_of(batch: PointBatch, rows: Sequence[int]) -> PointBatch:
    """Some of a batch's points, in ascending order of their rows."""
    if len(rows) == len(batch.ids):
        return batch
    return PointBatch(
        using=batch.using,
        ids=[batch.ids[row] for row in rows],
        dense=batch.dense[list(rows)],
        sparse=[batch.sparse[row] for row in rows],
        payloads=[batch.payloads[row] for row in rows],
    )


def altered(spec: CollectionSpec, change: SettingsChange) -> CollectionSpec:
    """What a collection is made of after a change; its thresholds are no part of it."""
    hnsw = {"m": change.m, "ef_construct": change.ef_construct}
    storage = {"on_disk": change.on_disk, "quantisation": change.quantisation}
    return replace(
        spec,
        hnsw=replace(spec.hnsw, **_given(hnsw)),
        storage=replace(spec.storage, **_given(storage)),
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
