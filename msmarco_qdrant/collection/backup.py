"""Back up a collection into a directory.

A backup is either a snapshot in the engine's own format, with its indexes, or portable: points in
files that every engine can be filled from.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from msmarco_qdrant import __version__
from msmarco_qdrant.collection.backup_manifest import BackupDirectory, BackupFile, BackupManifest
from msmarco_qdrant.collection.bulk import lasting_optimizers
from msmarco_qdrant.collection.generations import read_generations, reembed_command
from msmarco_qdrant.collection.point_files import write_points
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.collection_types import CollectionInfo, PointBatch
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.reports import BackupKind, BackupReport
from msmarco_qdrant.errors import StoreError, StoreInUseError, UnsupportedError
from msmarco_qdrant.runtime.progress import counted_progress
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.metadata import metadata_to_json

_log = logging.getLogger(__name__)

_Progress = Callable[[int, int], None]


@suggest_keywords
def backup_collection(
    store: Store | str | PathLike[str],
    collection: str,
    folder: str | PathLike[str],
    *,
    portable: bool = False,
    connection: Connection = DEFAULT_CONNECTION,
    on_progress: _Progress | None = None,
    progress: bool = False,
) -> BackupReport:
    """Back up a collection into a directory, for `restore_collection`.

    Other clients may search and write during the call. A snapshot has the state of one moment; a
    portable backup lacks some of the passages that are written or deleted during the call.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        collection: The collection's name.
        folder: The directory, new or empty; that of an interrupted backup is replaced.
        portable: Write points that any engine can be filled from, which then builds its indexes
            again. By default a snapshot is used where the engine has one.
        connection: The API key, port and time limits of a server, if `store` is a URL.
        on_progress: Called regularly with the passages written and their total, if it is portable.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.

    Returns:
        The kind and size of the backup.

    Raises:
        OutputError: If the directory contains something else, or cannot be written.
        StoreInUseError: If another process uses the directory of the store.
        StoreError: If the store cannot be read, has no such collection, or a re-embedding of it is
            not finished.
    """
    started = time.perf_counter()
    try:
        opening = use_store(store, connection)
    except StoreInUseError as exc:
        raise StoreInUseError(
            f"{exc}. The process that uses it can back it up: backup_collection(store, "
            f"{collection!r}, ...)"
        ) from exc
    with opening as opened, counted_progress(on_progress, progress=progress) as count:
        source = _BackupSource(opened, collection)
        target = BackupDirectory(Path(folder))
        kind, files = source.write(target, portable=portable, on_progress=count)
        manifest = source.manifest(kind, files)
        target.finish(manifest)
    return BackupReport(
        collection=manifest.collection,
        physical=manifest.physical,
        kind=kind,
        folder=str(folder),
        passages=manifest.passages,
        files=len(files),
        bytes=manifest.bytes,
        seconds=time.perf_counter() - started,
    )


class _BackupSource:
    """The live physical collection of a name, and its description from before the copy."""

    def __init__(self, store: Store, collection: str) -> None:
        found = read_generations(store, collection)
        if found.metadata.copied_from is not None:
            command = reembed_command(store.dsn, found.name, found.metadata.encoder.model)
            raise StoreError(
                f"the re-embedding of '{found.name}' is not finished, so passages may be missing "
                f"in {found.live}: finish it with {command}, then back it up"
            )
        self._store, self._name, self._physical = store, found.name, found.live
        # Read before the points: a migration is recorded after its work, and repeating it is safe.
        self._metadata: CollectionMetadata = found.metadata
        self._info: CollectionInfo = store.collection(found.live).info()
        self._optimizers = lasting_optimizers(store, found.live)
        self._settings: Mapping[str, Any] = {}
        if store.capabilities.snapshots:
            self._settings = store.snapshots.settings(found.live)
        self._points: int | None = None

    def write(
        self, target: BackupDirectory, *, portable: bool, on_progress: _Progress | None
    ) -> tuple[BackupKind, tuple[BackupFile, ...]]:
        """Write the files; returns their kind and checksums."""
        if not portable and self._store.capabilities.snapshots:
            snapshots = self._store.snapshots
            try:
                self._points = snapshots.save(self._physical, target.data)
            except UnsupportedError as exc:
                _log.warning("this backup is portable, without indexes: %s", exc)
            else:
                return snapshots.format, target.files()
        self._points = self._export(target, on_progress)
        return "portable", target.files()

    def manifest(self, kind: BackupKind, files: tuple[BackupFile, ...]) -> BackupManifest:
        """Return the description of the backup."""
        return BackupManifest(
            kind=kind,
            collection=self._name,
            physical=self._physical,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            package_version=__version__,
            engine=self._store.capabilities.engine,
            passages=self._info.points if self._points is None else self._points,
            is_counted=self._points is not None,
            last_seq=self._info.last_seq,
            spec=self._info.spec,
            optimizers=self._optimizers,
            settings=self._settings,
            metadata=metadata_to_json(self._metadata),
            files=files,
        )

    def _export(self, target: BackupDirectory, on_progress: _Progress | None) -> int:
        def report(done: int) -> None:
            if on_progress is not None:
                on_progress(done, max(done, self._info.points))

        written = write_points(self._scan(), target.data, report)
        after = self._store.collection(self._physical).info()
        before = (self._info.points, self._info.last_seq)
        if before == (after.points, after.last_seq) and written != after.points:
            _log.warning(
                "%s has %s points, but %s are in the backup: the others have no vectors of this "
                "package, or replicas differ",
                self._physical,
                f"{after.points:,}",
                f"{written:,}",
            )
        return written

    def _scan(self) -> Iterator[PointBatch]:
        return self._store.admin_collection(self._physical).scan_points()
