"""What a store is, whichever engine is behind it.

Changing a collection that holds points, beside what `Collection` has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from msmarco_qdrant.core.records import (
    CollectionInfo,
    CollectionMetadata,
    CollectionSpec,
    PayloadIndex,
    PointBatch,
    PointId,
    SettingsChange,
    SparseVector,
)
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint
from msmarco_qdrant.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do; the rest raises `UnsupportedError`.

    Attributes:
        engine: Its name, for people.
        ann: Searches an HNSW graph (else every search is exact).
        payload_indexes: Filters by an index (else by a scan).
        quantization: Can keep vectors quantized.
        multi_process: Several processes may use the store at once.
    """

    engine: str
    ann: bool
    payload_indexes: bool
    quantization: bool
    multi_process: bool


class Collection(Protocol):
    """One physical collection: points and queries. Safe to use from several threads."""

    def info(self) -> CollectionInfo:
        """Counts, index state and settings, as the engine tells them now."""
        ...

    def upsert(self, batch: PointBatch) -> None:
        """Write points, replacing those of the same ids.

        They are found from now on, and durable after the next `flush()`.

        Raises:
            SchemaError: For vectors of a wrong dimension.
        """
        ...

    def replace_payloads(self, ids: Sequence[PointId], payloads: Sequence[dict[str, Any]]) -> None:
        """Replace the whole payload of existing points and leave their vectors."""
        ...

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """The named payload fields of those ids that exist."""
        ...

    def delete(self, ids: Sequence[PointId], *, up_to_seq: int) -> None:
        """Remove the points of those ids that exist and whose `seq` is not higher.

        So what another writer has brought back since the caller looked stays, however often the
        call is repeated. `seq` is compared as a float64: to some hundred nanoseconds. Durable
        after the next `flush()`.
        """
        ...

    def scan(self, fields: Sequence[str]) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Every point's id and named payload fields, in the order of ids, a page at a time.

        A point written or removed meanwhile may be seen or not; any other is seen once.
        """
        ...

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch: for each, points by descending similarity.

        Raises:
            SchemaError: For a vector of a name or dimension that the collection does not hold.
        """
        ...

    def flush(self) -> None:
        """Make all writes so far survive a power cut.

        Raises:
            StoreError: If the engine cannot; what was flushed before is there.
        """
        ...

    def optimize(self) -> None:
        """Build or renew the indexes now; returns when done. May take minutes.

        Raises:
            StoreError: If it failed; every point is there, and it can be called again.
        """
        ...


class Store(Protocol):
    """Where collections live. Safe to use from several threads.

    A name is an alias or a physical collection; an alias is looked for first.
    """

    @property
    def dsn(self) -> str:
        """The path or URL it was opened by, without secrets."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        ...

    def create_collection(self, name: str, spec: CollectionSpec) -> None:
        """Create an empty physical collection.

        One of that name that no alias stands for is what a crash left of an earlier creation: it
        is replaced. Where several processes may use the store, another may be making it just now:
        then it is kept if it is of the same plan, and refused if not.

        Raises:
            SchemaError: If one of that name exists and an alias stands for it, or it is of
                another plan.
            UnsupportedError: If the engine cannot make one of this plan.
        """
        ...

    def drop_collection(self, name: str) -> None:
        """Remove a physical collection with everything in it, and the aliases that stand for it.

        Raises:
            CollectionNotFoundError: If there is no such physical collection.
        """
        ...

    def collection(self, name: str) -> Collection:
        """The collection behind a name.

        Raises:
            CollectionNotFoundError: If there is none; the message lists those there are.
        """
        ...

    def metadata(self, name: str) -> CollectionMetadata:
        """What was kept with a collection by `put_metadata`.

        Raises:
            CollectionNotFoundError: If there is no such collection.
            StoreCorruptError: If it was kept by a version that this one does not understand.
        """
        ...

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Keep metadata with a collection, replacing what was kept, durably and atomically.

        Raises:
            CollectionNotFoundError: If there is no such collection.
            StoreUnavailableError: If it cannot be written.
        """
        ...

    def lock(self) -> AbstractContextManager[object]:
        """Held while a collection is looked for and made, so that two do not make the same.

        May be entered again by the thread that holds it.
        """
        ...

    def aliases(self) -> Mapping[str, str]:
        """Every alias and the physical collection it stands for."""
        ...

    def set_alias(self, alias: str, name: str) -> None:
        """Let an alias stand for a physical collection, durably and atomically.

        Raises:
            CollectionNotFoundError: If there is no such collection.
            StoreUnavailableError: If it cannot be written.
        """
        ...

    def close(self) -> None:
        """Give back this handle; the last one closes the engine. Closing twice is no error."""
        ...


class AdminCollection(Protocol):
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

    def upsert_if_seq(self, batch: PointBatch, seen: Sequence[int | None]) -> None:
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
    def alterable(self, name: str) -> AdminCollection: ...


def alterable(store: Store, name: str) -> AdminCollection:
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
    """A batch for `upsert_if_seq` in two.

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
    storage = {"on_disk": change.on_disk, "quantization": change.quantization}
    return replace(
        spec,
        hnsw=replace(spec.hnsw, **_given(hnsw)),
        storage=replace(spec.storage, **_given(storage)),
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
