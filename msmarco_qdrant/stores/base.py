"""The interface of every store: `Store`, its collections, and the capabilities of an engine.

To add an engine, subclass `Store` and run `tests/contract` over it. A method that an engine cannot
provide keeps its default, which raises `UnsupportedError`; `Store.capabilities` reports it
beforehand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

from msmarco_qdrant.core.limits import NO_LIMITS, RequestLimits
from msmarco_qdrant.core.records import (
    CollectionInfo,
    CollectionMetadata,
    CollectionSpec,
    PayloadIndex,
    PointBatch,
    PointId,
    ReplicaCounts,
    SettingsChange,
    SparseVector,
)
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint
from msmarco_qdrant.core.server_state import ServerState
from msmarco_qdrant.errors import StoreError, UnsupportedError
from msmarco_qdrant.stores.metadata import metadata_from_json
from msmarco_qdrant.stores.names import (
    PHYSICAL,
    foreign_collection,
    unfinished_collection,
    unknown_collection,
)
from msmarco_qdrant.stores.unlinked import find_unlinked, missing_alias

if TYPE_CHECKING:
    from msmarco_qdrant.stores.migration_locks import MigrationLocks

SnapshotFormat: TypeAlias = Literal["edge", "server"]

INDEX_STALL_S = 600.0
"""Seconds without progress after which a server's index counts as not being built.

The server's counts change only when a whole segment is done, which takes some minutes at most.
"""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The optional features of an engine. Calls of a missing one raise `UnsupportedError`.

    Attributes:
        engine: Its name, for messages.
        ann: It searches an HNSW graph; otherwise every search is exact.
        payload_indexes: It filters by an index; otherwise by a scan.
        quantization: It can store vectors quantized.
        multi_process: Several processes may use the store at once.
        admin: It changes collections in place: `Store.admin_collection`.
        migration_locks: It has `Store.migration_locks`.
        resolves_aliases: A request may name an alias: `Store.unresolved_collection`.
        async_search: It searches from an event loop without a thread: `Store.async_collection`.
        replicas: It may store each point several times: `Store.replicas`.
        snapshots: It copies collections in its own format: `Store.snapshots`.
    """

    engine: str
    ann: bool = False
    payload_indexes: bool = False
    quantization: bool = False
    multi_process: bool = False
    admin: bool = False
    migration_locks: bool = False
    resolves_aliases: bool = False
    async_search: bool = False
    replicas: bool = False
    snapshots: bool = False


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
        self, fields: Sequence[str], *, all_replicas: bool = False
    ) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Yield the id and the named payload fields of every point, in the order of ids.

        Points are read page by page. One that is written or deleted during the scan may be
        missing; every other is yielded once.

        Args:
            fields: The fields to read.
            all_replicas: Yield only points that every active replica stores with the same values
                of these fields; see `retrieve`.
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


class Store(ABC):
    """A place for collections. Thread-safe.

    A name is an alias or a physical collection; an alias is looked up first. Third parties
    subclass it. Each method without a default is required; the others belong to a capability.
    """

    @property
    @abstractmethod
    def dsn(self) -> str:
        """The path or URL it was opened by, without secrets."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """The optional features of the engine."""

    @abstractmethod
    def create_collection(
        self, name: str, spec: CollectionSpec, metadata: CollectionMetadata | None = None
    ) -> None:
        """Create an empty physical collection.

        One of that name without an alias is left from an interrupted creation: it is replaced.
        In a store that several processes may use, another may be creating it: it is kept if it
        has the same spec and is not being restored, and refused if not.

        Args:
            name: Its physical name.
            spec: Its settings.
            metadata: Stored with it from the start; any existing collection is then refused.

        Raises:
            SchemaError: If one of that name exists and has an alias or another spec, is being
                restored, or `metadata` is passed.
            UnsupportedError: If the engine cannot create one of this spec.
        """

    @abstractmethod
    def drop_collection(self, name: str) -> None:
        """Delete a physical collection with everything in it, and its aliases.

        Raises:
            CollectionNotFoundError: For an unknown physical name.
        """

    @abstractmethod
    def collection(self, name: str) -> Collection:
        """Return the physical collection that a name means now.

        Raises:
            CollectionNotFoundError: For an unknown name; the message lists the known ones.
        """

    @abstractmethod
    def metadata(self, name: str) -> CollectionMetadata:
        """Return what `put_metadata` stored with a collection.

        Raises:
            CollectionNotFoundError: For an unknown name.
            StoreCorruptError: If this version cannot read it.
        """

    @abstractmethod
    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Store metadata with a collection, replacing the former, durably and atomically.

        Raises:
            CollectionNotFoundError: For an unknown name.
            StoreUnavailableError: If it cannot be written.
        """

    @abstractmethod
    def lock(self) -> AbstractContextManager[object]:
        """Return the reentrant lock for "look for a collection, then create it"."""

    @abstractmethod
    def aliases(self) -> Mapping[str, str]:
        """Return every alias and its physical collection."""

    @abstractmethod
    def set_alias(self, alias: str, name: str) -> None:
        """Point an alias to a physical collection, durably and atomically.

        Raises:
            CollectionNotFoundError: For an unknown name.
            StoreUnavailableError: If it cannot be written.
        """

    @abstractmethod
    def physical_names(self) -> Sequence[str]:
        """Return every physical collection, with or without an alias; a server may have others'."""

    @abstractmethod
    def close(self) -> None:
        """Release this handle; the last one closes the engine. Closing twice is harmless."""

    def admin_collection(self, name: str) -> AdminCollection:
        """Return the collection behind a name, to change it in place.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UnsupportedError: Without the capability `admin`.
        """
        raise self._unsupported(f"change '{name}' in place: create another collection")

    @property
    def migration_locks(self) -> MigrationLocks:
        """The locks that keep two migrations of one collection apart.

        Raises:
            UnsupportedError: Without the capability `migration_locks`.
        """
        raise self._unsupported("lock a collection for a migration: create another collection")

    def replicas(self, name: str) -> Replicas:
        """Return the replicas of the physical collection that a name means now.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UnsupportedError: Without the capability `replicas`.
        """
        raise self._unsupported(f"have replicas of '{name}'")

    @property
    def snapshots(self) -> Snapshots:
        """Copies of physical collections in the engine's own format.

        Raises:
            UnsupportedError: Without the capability `snapshots`.
        """
        raise self._unsupported("copy a collection in its own format: use a portable backup")

    def request_limits(self, name: str) -> RequestLimits:  # noqa: ARG002  # an engine may use it
        """Return the limits on requests to the collection behind a name; by default none.

        Raises:
            CollectionNotFoundError: For an unknown name.
        """
        return NO_LIMITS

    def server_state(self, name: str) -> ServerState | None:  # noqa: ARG002  # a server uses it
        """Return the state of the server behind a name; None for an engine in this process.

        Raises:
            CollectionNotFoundError: For an unknown name.
        """
        return None

    def request_failures(self) -> Mapping[tuple[str, str], int]:
        """Return counts of failed requests to a server, by "retried" or "raised" and status."""
        return {}

    def unresolved_collection(self, name: str) -> Collection:
        """Return a collection whose requests carry the alias itself; the server resolves it.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UnsupportedError: Without the capability `resolves_aliases`.
        """
        raise self._unsupported(f"resolve '{name}' in requests: use AliasedCollection(store, name)")

    def async_collection(self, name: str) -> AsyncCollection:
        """Return the collection behind a name, for the running event loop.

        Raises:
            CollectionNotFoundError: For an unknown name.
            UnsupportedError: Without the capability `async_search`.
        """
        raise self._unsupported(
            f"search '{name}' without a thread: use open_async_collection(store, name)"
        )

    def unknown_collection(self, name: str) -> StoreError:
        """Return the error for a name that is not a collection of this package.

        It may have lost its alias. The error is a `CollectionNotFoundError` only if the name is
        free.
        """
        if found := find_unlinked(self, name):
            return missing_alias(name, found, self.dsn)
        return unknown_collection(name, self.aliases(), self.dsn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resolve(self, name: str) -> str:
        """Return the physical collection that a name means now."""
        physical = self.aliases().get(name, name)
        self._check_physical(physical, name)
        return physical

    def _check_physical(self, physical: str, name: str = "") -> None:
        if physical not in self.physical_names():
            raise self.unknown_collection(name or physical)

    def _to_metadata(self, stored: object, physical: str) -> CollectionMetadata:
        """Convert the stored metadata of a physical collection; None if it has none."""
        if stored is not None:
            return metadata_from_json(stored, physical)
        if PHYSICAL.fullmatch(physical):
            raise unfinished_collection(physical, self.dsn)
        raise foreign_collection(physical, self.aliases(), self.dsn)

    def _unsupported(self, action: str) -> UnsupportedError:
        return UnsupportedError(f"{self.dsn} ({self.capabilities.engine}) cannot {action}")
