"""Restore a collection from a backup.

``check the files → fill a new physical collection → count → build indexes → set the alias``

The metadata of the new collection have a token of the restore as `restoring` until it is complete:
it is neither searched, linked nor ingested into. A restore holds the migration lock of its name, so
a collection with another token is left from an interrupted one: it is dropped. If only the alias
was left to do, that is set.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import astuple, replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

from msmarco_qdrant.collection.backup_manifest import (
    BackupManifest,
    check_files,
    data_folder,
    data_path,
    read_manifest,
)
from msmarco_qdrant.collection.create import check_collection_name
from msmarco_qdrant.collection.generations import physical_collections
from msmarco_qdrant.collection.point_files import read_points
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.collection_types import CollectionSpec, PointBatch
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.reports import RestoreReport
from msmarco_qdrant.errors import (
    MsmarcoQdrantError,
    SchemaError,
    StoreCorruptError,
    StoreError,
    UnsupportedError,
)
from msmarco_qdrant.runtime.progress import counted_progress
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, open_store, use_store
from msmarco_qdrant.stores.migration_locks import hold_lock
from msmarco_qdrant.stores.names import physical_name, physical_number
from msmarco_qdrant.stores.unlinked import find_unlinked, missing_alias

_log = logging.getLogger(__name__)

_Progress = Callable[[int, int], None]


@suggest_keywords
def restore_collection(
    store: Store | str | PathLike[str],
    folder: str | PathLike[str],
    *,
    name: str | None = None,
    connection: Connection = DEFAULT_CONNECTION,
    on_progress: _Progress | None = None,
    progress: bool = False,
) -> RestoreReport:
    """Restore a collection from a directory that `backup_collection` wrote.

    The alias is set last: after an interruption nothing is searched that is not complete, and the
    same call starts over.

    Args:
        store: An open store, which is not closed, or a path or URL to open; a directory is created
            if it is missing.
        folder: The directory of the backup.
        name: The collection's name; by default that of the backup.
        connection: The API key, port and time limits of a server, if `store` is a URL.
        on_progress: Called regularly with the passages written and their total, unless the backup
            is in the store's own format.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.

    Returns:
        The restored collection.

    Raises:
        SourceError: If the directory is not a complete backup, or a file was changed.
        SchemaError: If the store has a collection of that name.
        StoreInUseError: If another restore or a migration of that name is running.
        StoreUnavailableError: If disk space is missing, or the store cannot be written.
        UnsupportedError: If the store cannot read the backup's format.
        StoreError: If the store fails, or the restored collection is not as it was.
    """
    started = time.perf_counter()
    manifest = read_manifest(Path(folder))
    check_collection_name(name or manifest.collection)
    check_files(Path(folder), manifest.files)
    with (
        use_store(store, connection, create=True) as opened,
        counted_progress(on_progress, progress=progress) as count,
    ):
        run = _Restore(opened, Path(folder), manifest, name or manifest.collection, count)
        physical = run.run()
        passages = opened.collection(physical).info().points
    return RestoreReport(
        collection=run.name,
        physical=physical,
        kind=manifest.kind,
        passages=passages,
        folder=str(folder),
        seconds=time.perf_counter() - started,
    )


class _Restore:
    """One restore into an open store."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        manifest: BackupManifest,
        name: str,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.name = name
        self._store, self._folder, self._manifest = store, folder, manifest
        self._on_progress = on_progress
        self._metadata: CollectionMetadata = manifest.collection_metadata()
        self._marked = replace(self._metadata, restoring=uuid.uuid4().hex)

    def run(self) -> str:
        """Restore while holding the lock; returns the physical collection's name."""
        store = self._store
        if not store.capabilities.migration_locks:
            return self._run()
        with hold_lock(store.migration_locks, self.name, store.dsn):
            return self._run()

    def _run(self) -> str:
        live = self._store.aliases().get(self.name)
        physical = self._find_restored() if live is None else None
        if physical is None:
            self._require_unused(live)
            physical = self._next_physical()
            self._remove_leftovers()
            self._restore(physical)
        self._store.set_alias(self.name, physical)
        return physical

    def _restore(self, physical: str) -> None:
        """Restore everything but the alias; after an error nothing is left."""
        try:
            if self._can_load:
                self._load(physical)
            else:
                self._fill(physical)
            self._check(physical)
            self._require_unused(self._store.aliases().get(self.name))
            self._store.put_metadata(physical, self._metadata)
        except BaseException:
            with suppress(MsmarcoQdrantError):  # the first error is the one to raise
                if self._token(physical) == self._marked.restoring:
                    self._store.drop_collection(physical)
            raise

    def _token(self, physical: str) -> str | None:
        """Return the token of the restore that was filling a collection without an alias."""
        try:
            token = self._store.metadata(physical).restoring
        except StoreCorruptError:  # another client is creating it
            return None
        return None if physical in self._store.aliases().values() else token

    # ---- before ----------------------------------------------------------------------------

    def _find_restored(self) -> str | None:
        """Find the collection of an earlier run, which ended before it set the alias."""
        for found in find_unlinked(self._store, self.name):
            last_seq = self._store.collection(found.physical).info().last_seq
            counts = (found.points, last_seq)
            is_same = counts == (self._manifest.passages, self._manifest.last_seq)
            if is_same and found.metadata == self._metadata:
                return found.physical
        return None

    def _require_unused(self, live: str | None) -> None:
        """Refuse a name that is in use, also without its alias."""
        store = self._store
        if live is not None or self.name in store.physical_names():
            raise SchemaError(
                f"a collection '{self.name}' exists already in {store.dsn}: restore it under "
                f"another name, such as --name {self.name}-restored "
                f"(name='{self.name}-restored')"
            )
        found = [one for one in find_unlinked(store, self.name) if one.metadata.restoring is None]
        if found:
            raise missing_alias(self.name, found, store.dsn)

    def _next_physical(self) -> str:
        numbers = map(physical_number, physical_collections(self._store, self.name))
        return physical_name(self.name, 1 + max(numbers, default=0))

    def _remove_leftovers(self) -> None:
        """Drop the collections of interrupted restores of this name."""
        for physical in physical_collections(self._store, self.name):
            if self._token(physical) is not None:
                _log.info("dropping %s, left from an interrupted restore", physical)
                self._store.drop_collection(physical)

    # ---- filling ---------------------------------------------------------------------------

    @property
    def _can_load(self) -> bool:
        """True if the backup is in the store's own format, which contains the indexes."""
        can = self._store.capabilities.snapshots
        return can and self._store.snapshots.format == self._manifest.kind

    def _load(self, physical: str) -> None:
        place = data_folder(self._folder)
        self._store.snapshots.load(physical, self._manifest.settings, self._marked, place)
        self._create_indexes(physical)
        self._restore_thresholds(physical)

    def _fill(self, physical: str) -> None:
        """Create the collection and write the backup's points into it, then build its indexes."""
        store, manifest = self._store, self._manifest
        if manifest.kind == "server":
            raise UnsupportedError(
                f"{self._folder} is a snapshot of a Qdrant server, which {store.dsn} "
                f"({store.capabilities.engine}) cannot read: make a portable backup, with "
                f"`msmarco-qdrant backup {manifest.collection} --out DIR --portable` or "
                "portable=True"
            )
        self._create(physical)
        self._restore_thresholds(physical)
        self._write_points(physical)
        if manifest.passages:
            store.collection(physical).optimize()

    def _create(self, physical: str) -> None:
        """Create an empty collection with the settings of the backup."""
        store, manifest = self._store, self._manifest
        can = store.capabilities
        if can.snapshots and can.engine == manifest.engine:
            store.snapshots.create(physical, manifest.settings, self._marked)
            self._create_indexes(physical)  # before the points, as the migrations do
            return
        with store.lock():  # an ingest in this process looks, then creates
            store.create_collection(physical, self._supported_spec(), self._marked)

    def _restore_thresholds(self, physical: str) -> None:
        """Set the thresholds of the backup; a snapshot may have those of a bulk mode."""
        wanted, can = self._manifest.optimizers, self._store.capabilities
        admin = self._store.admin_collection(physical)
        is_given = any(value is not None for value in astuple(wanted))
        if can.ann and is_given and admin.optimizers() != wanted:
            admin.alter(wanted)

    def _supported_spec(self) -> CollectionSpec:
        """Return the backup's spec, without quantization where the engine has none."""
        spec = self._manifest.spec
        if self._store.capabilities.quantization or spec.storage.quantization == "none":
            return spec
        _log.warning(
            "%s cannot quantize vectors: '%s' is restored without quantization",
            self._store.dsn,
            self.name,
        )
        return replace(spec, storage=replace(spec.storage, quantization="none"))

    def _write_points(self, physical: str) -> None:
        target, done = self._store.collection(physical), 0
        for batch in self._read_points():
            target.upsert(batch)
            done += len(batch.ids)
            self._on_progress(done, max(done, self._manifest.passages))
        target.flush()

    def _read_points(self) -> Iterator[PointBatch]:
        """Yield the points of a portable backup, or of a copied Edge shard in a temporary store."""
        manifest = self._manifest
        if manifest.kind == "portable":
            paths = [data_path(self._folder, file) for file in manifest.files]
            yield from read_points(paths, manifest.spec.dense)
            return
        with TemporaryDirectory() as place, closing(open_store(place, create=True)) as edge:
            edge.snapshots.load(
                manifest.physical, manifest.settings, self._marked, data_folder(self._folder)
            )
            for batch in edge.admin_collection(manifest.physical).scan_points():
                if batch.ids:
                    yield batch

    # ---- after -----------------------------------------------------------------------------

    def _check(self, physical: str) -> None:
        """Refuse a collection with another number of points than the backup."""
        manifest, found = self._manifest, self._store.collection(physical).info().points
        if manifest.is_counted and found != manifest.passages:
            raise StoreError(
                f"{physical} must have {manifest.passages:,} passages after the restore, got "
                f"{found:,}: nothing was restored; stop other writers to {physical} in "
                f"{self._store.dsn}, then run the same restore again"
            )

    def _create_indexes(self, physical: str) -> None:
        """Create the payload indexes that the collection lacks."""
        found = self._store.collection(physical).info().spec.payload_indexes
        for field, kind in self._manifest.spec.payload_indexes.items():
            if found.get(field) != kind:
                self._store.admin_collection(physical).create_payload_index(field, kind)
