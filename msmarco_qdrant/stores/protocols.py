"""The interfaces of what a `Store` returns: collections, their replicas and their snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from msmarco_qdrant.core.collection_types import (
    CollectionInfo,
    CollectionSpec,
    PayloadIndex,
    PointBatch,
    PointId,
    SettingsChange,
    SparseVector,
)
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.search_types import (
    Facet,
    OrderedPoint,
    PointOrder,
    PointQuery,
    ScoredPoint,
)
from msmarco_qdrant.core.server_state import ReplicaCounts
from msmarco_qdrant.filters import SearchFilter

SnapshotFormat: TypeAlias = Literal["edge", "server"]

INDEX_STALL_S = 600.0
"""Seconds without progress after which a server's index counts as not being built.

The server's counts change only when a whole segment is done, which takes some minutes at most.
"""


class Collection(Protocol):
    """One physical collection: points and queries. Thread-safe."""

    def info(self, *, all_replicas: bool = True) -> CollectionInfo:
        """Return counts, index state and settings, as the engine reports them.

        The number of points is exact.

        Args:
            all_replicas: Count the points of the replica that holds the fewest, which needs all of
                them. False to describe the collection while a node may be away.
        """

    def spec(self) -> CollectionSpec:
        """Return the settings alone. No point is counted, so one replica of each shard is enough.

        Raises:
            StoreCorruptError: If this package did not create the collection.
        """

    def upsert(self, batch: PointBatch) -> None:
        """Write points, replacing those of the same ids.

        Searches find them at once; they are durable after the next `flush()`.

        Raises:
            SchemaError: For vectors of a wrong dimension.
        """

    def replace_payloads(self, ids: Sequence[PointId], payloads: Sequence[dict[str, Any]]) -> None:
        """Replace the whole payload of existing points; their vectors stay."""

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str], *, all_replicas: bool = False
    ) -> Mapping[PointId, dict[str, Any]]:
        """Return the named payload fields of those ids that exist.

        Args:
            ids: The points.
            fields: The fields to read.
            all_replicas: Return only points that every active replica stores with the same values
                of these fields. A write that too few replicas accepted fails, but stays on those
                that accepted it. A caller that decides by the answer if a write is needed must
                therefore ask all of them. Engines without replicas ignore it.
        """

    def delete(self, ids: Sequence[PointId], *, up_to_seq: int) -> None:
        """Delete the points of those ids whose `seq` is not higher than `up_to_seq`.

        Points that another client has written since stay, however often the call is repeated.
        `seq` is compared as a float64, exact to some hundred nanoseconds. Durable after the next
        `flush()`.
        """

    def scan(
        self,
        fields: Sequence[str],
        *,
        all_replicas: bool = False,
        meta_filter: SearchFilter | None = None,
        start: PointId | None = None,
    ) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Yield the id and the named payload fields of every point, in the order of ids.

        Points are read page by page. One that is written or deleted during the scan may be
        missing; every other is yielded once.

        Args:
            fields: The fields to read.
            all_replicas: Yield only points that every active replica stores with the same values
                of these fields; see `retrieve`.
            meta_filter: Yield only points that match.
            start: Begin with this id, or the next that exists.
        """

    def read_ordered(
        self,
        order: PointOrder,
        fields: Sequence[str],
        *,
        limit: int,
        meta_filter: SearchFilter | None = None,
    ) -> list[OrderedPoint] | None:
        """Return the first points of an order, once for each of its values that a point has.

        Points of the same value are in no order; those without a value are missing.

        Args:
            order: The order.
            fields: The fields to read.
            limit: Maximum number of points.
            meta_filter: Return only points that match.

        Returns:
            None if the key has no payload index of kind integer, float or datetime.
        """

    def count(self, meta_filter: SearchFilter | None = None, *, exact: bool = True) -> int:
        """Count the points, or those that match a filter.

        Args:
            meta_filter: Count only points that match.
            exact: False to estimate the number, by the payload indexes of the filter's fields. A
                server whose strict mode forbids exact counts estimates it always, with a warning.
        """

    def facet(
        self,
        key: str,
        *,
        limit: int,
        meta_filter: SearchFilter | None = None,
        exact: bool = True,
    ) -> list[Facet] | None:
        """Return the most frequent values of a payload key, the most frequent first.

        Args:
            key: The JSON path of the key, such as `meta.lang`.
            limit: Maximum number of values.
            meta_filter: Count only points that match.
            exact: False to estimate the counts; see `count`.

        Returns:
            None if the key has no payload index of kind keyword, integer or bool.
        """

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch: for each, points by descending similarity.

        Raises:
            SchemaError: For a vector of a name or dimension that the collection does not have.
        """

    def flush(self) -> None:
        """Make all writes so far durable.

        Raises:
            StoreError: If the engine fails to; earlier flushes stay durable.
        """

    def optimize(self, *, stall_s: float = INDEX_STALL_S) -> None:
        """Build or rebuild the indexes; return when done. May take minutes.

        A server builds them itself. If it makes no progress, this logs a warning and returns:
        every point is found without the index, too.

        Args:
            stall_s: Seconds without a newly indexed segment of a server after which the wait
                ends; infinite to wait without a bound.

        Raises:
            StoreError: If it failed; no point is lost, and it can be called again.
        """


class AsyncCollection(Protocol):
    """The collection behind a name, searched from one event loop; see `AliasedCollection`."""

    async def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch; see `Collection.query`. May be cancelled."""

    async def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Return payload fields of those ids that exist; see `Collection.retrieve`."""

    async def close(self) -> None:
        """Wait for running calls, and release what was opened for them."""


class AdminCollection(Protocol):
    """A physical collection, to change settings and points while others write to it.

    Every call is idempotent.
    """

    def alter(self, change: SettingsChange) -> None:
        """Change settings. The next `optimize` rebuilds existing indexes; a server does at once.

        Raises:
            UnsupportedError: If the engine has no such setting.
        """

    def optimizers(self) -> SettingsChange:
        """Return the thresholds in force, so that a copy can have the same.

        Returns:
            `indexing_threshold_kb` and `max_segment_size_kb`, None for a default that the engine
            does not report; the rest is None.
        """

    def create_payload_index(self, field: str, kind: PayloadIndex) -> None:
        """Index a payload field, or change the kind of its index; return when it is done.

        Raises:
            UnsupportedError: If the engine has no payload indexes.
        """

    def drop_payload_index(self, field: str) -> None:
        """Remove the index of a payload field, if it has one.

        Raises:
            UnsupportedError: If the engine has no payload indexes.
        """

    def sparse_vectors(self, ids: Sequence[PointId]) -> Mapping[PointId, SparseVector]:
        """Return the sparse vectors of those ids that exist, tokens in ascending order.

        A point whose replicas have different vectors is missing.
        """

    def scan_points(self) -> Iterator[PointBatch]:
        """Yield every point with its vectors and whole payload, page by page in the order of ids.

        Points without both vectors, which another program wrote, are skipped. One that is written
        or deleted during the scan may be missing; every other is yielded once.
        """

    def dense_vectors(self, ids: Sequence[PointId], name: str) -> Mapping[PointId, Sequence[float]]:
        """Return the dense vectors of that name of those ids that have one."""

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Replace the sparse vectors of points whose `seq` is not higher; the rest stays.

        Durable after the next `flush()`.

        Raises:
            StoreError: If one of the points does not exist; others may have their new vectors.
        """

    def upsert_if_seq(self, batch: PointBatch, seen: Sequence[int | None]) -> None:
        """Write points whose stored `seq` is still the one seen; others stay as they are.

        Durable after the next `flush()`.

        Args:
            batch: `n` points, each id once.
            seen: The `seq` seen in each point, or None without a point. A point that was
                deleted since is not written, except by a server before 1.17.

        Raises:
            ValueError: If `batch` and `seen` differ in length.
        """

    def set_payloads_if_seq(
        self,
        ids: Sequence[PointId],
        payloads: Sequence[dict[str, Any]],
        seen: Sequence[int | None],
    ) -> None:
        """Set payload fields of points whose stored `seq` is still the one seen.

        Other fields, and points that another client has written or deleted since, stay as they
        are. Durable after the next `flush()`.

        Args:
            ids: The points.
            payloads: The fields to set in each, with their values.
            seen: The `seq` seen in each point, or None for a point without a number there.
        """

    def delete_if_seq(self, ids: Sequence[PointId], seen: Sequence[int | None]) -> None:
        """Delete points whose stored `seq` is still the one seen; see `set_payloads_if_seq`.

        Durable after the next `flush()`.
        """


class Replicas(Protocol):
    """The replicas of one physical collection, to compare them and to make them equal."""

    def counts(self) -> ReplicaCounts:
        """Return the number of replicas and of their points."""

    def read_points(self, ids: Sequence[PointId]) -> PointBatch:
        """Return whole points of those ids, as one replica has them.

        Points without both vectors, which another program wrote, are missing.
        """

    def delete_older_writes(
        self, ids: Sequence[PointId], kept: Sequence[int], *, up_to_seq: int
    ) -> None:
        """Delete points from replicas where their `seq` is lower than the one to keep.

        Args:
            ids: The points.
            kept: The `seq` to keep of each.
            up_to_seq: Writes with a higher `seq` stay.
        """

    def delete_unknown(self, known: Sequence[PointId], *, above: float, up_to: float) -> None:
        """Delete the points with a `seq` in a range, except those known, from all replicas.

        Args:
            known: The points that stay.
            above: The exclusive lower end, as float64; -inf for none.
            up_to: The inclusive upper end, as float64.
        """


class PointReader(Protocol):
    """The points of a collection that another program wrote.

    Attributes:
        name: The name it was opened by.
        dsn: The path or URL of its store, without secrets.
    """

    name: str
    dsn: str

    def count(self) -> int:
        """Return the exact number of points."""

    def scan(self) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Yield the id and the whole payload of every point, in the order of ids."""


class Snapshots(Protocol):
    """Copies of physical collections in the engine's own format, with their indexes."""

    @property
    def format(self) -> SnapshotFormat:
        """The format of the files."""

    def settings(self, physical: str) -> Mapping[str, Any]:
        """Return the engine's settings of a collection, as JSON values for `create`."""

    def create(
        self, physical: str, settings: Mapping[str, Any], metadata: CollectionMetadata
    ) -> None:
        """Create an empty physical collection, without an alias, with settings of another.

        Raises:
            SchemaError: If one of that name exists.
        """

    def save(self, physical: str, folder: Path) -> int | None:
        """Write the state of one moment into an empty folder, durably; searches go on.

        Returns:
            The number of points, None if other clients wrote so that it is not known.

        Raises:
            OutputError: If a file cannot be written.
            UnsupportedError: If this collection has no snapshot with all of its points.
        """

    def load(
        self,
        physical: str,
        settings: Mapping[str, Any],
        metadata: CollectionMetadata,
        folder: Path,
    ) -> None:
        """Create a physical collection, without an alias, with the files of a folder.

        Raises:
            SchemaError: If one of that name exists.
            StoreUnavailableError: If disk space is missing.
            UnsupportedError: If the collection would not have all of its points.
        """
