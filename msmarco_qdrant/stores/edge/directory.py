"""The directory of an Edge store: lock, aliases and metadata, which Qdrant Edge does not have.

::

    qdrant_data/
      .lock                     locked by the process that uses the directory
      store.json                format, aliases, and each collection's metadata; replaced atomically
      collections/NAME/         one shard of Qdrant Edge for each physical collection
      restoring/                a shard that is being copied from a backup

`store.json` lists what exists. Another directory under `collections/` is left from an interrupted
creation, and is removed when that name is created again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.errors import (
    OutputError,
    SchemaError,
    StoreCorruptError,
    StoreInUseError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from msmarco_qdrant.runtime.atomic_file import atomic_write_text, sync_directory
from msmarco_qdrant.runtime.file_lock import FileLock, FileLockedError
from msmarco_qdrant.stores.migration_locks import describe_holder, this_process
from msmarco_qdrant.stores.names import base_name

FORMAT = 1
_LOCK_FILE = ".lock"
_CATALOG_FILE = "store.json"
_COLLECTIONS, _RESTORING = "collections", "restoring"


class EdgeDirectory:
    """A locked store directory and its catalog. Not thread-safe: `Engine` has a lock for it.

    Args:
        path: The directory.
        create: Create the store if the directory is missing or empty.

    Raises:
        StoreNotFoundError: If it is missing and `create` is off; nothing is created.
        StoreInUseError: If another process uses it.
        StoreUnavailableError: If it cannot be created or written.
        StoreCorruptError: If it has other files, or a store of another format.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self.path = path
        if not create and not (path / _CATALOG_FILE).is_file():
            raise StoreNotFoundError(
                f"no store at {path}: ingest into it first, or pass the path of another store"
            )
        check_directory(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.lock = _lock(path)
        except OSError as exc:
            raise StoreUnavailableError(_unavailable(path, exc)) from exc
        try:
            self._catalog = self._read_or_start()
        except BaseException:
            self.close()
            raise

    @property
    def aliases(self) -> Mapping[str, str]:
        """Every alias and its physical collection."""
        return dict(self._catalog["aliases"])

    @property
    def collections(self) -> Mapping[str, Any]:
        """Every physical collection and its metadata (None before `put_collection` sets any)."""
        return dict(self._catalog["collections"])

    def resolve(self, name: str) -> str | None:
        """Return the physical collection that a name means; None if there is none."""
        physical: str = self._catalog["aliases"].get(name, name)
        return physical if physical in self._catalog["collections"] else None

    def shard_path(self, name: str) -> Path:
        """Return the directory of a physical collection's shard."""
        return self.path / _COLLECTIONS / name

    def fresh_shard_path(self, name: str) -> Path:
        """Return an empty directory for a new shard; remains of a crash are removed.

        Raises:
            SchemaError: If the name could be another collection's directory.
        """
        self.require_distinct(name)
        shard = self.shard_path(name)
        if shard.exists():
            shutil.rmtree(shard)
        shard.mkdir(parents=True)
        sync_directory(shard.parent)
        return shard

    def require_distinct(self, name: str) -> None:
        """Check that no other collection has the directory of this name on any disk.

        Raises:
            SchemaError: If another name differs only by case.
        """
        for other in self._same_on_some_disks(name):
            raise SchemaError(
                "names of collections must differ by more than upper and lower case, got "
                f"'{base_name(name)}' and there is '{base_name(other)}' in {self.path}: on some "
                "disks both are one directory; choose another name"
            )

    def _same_on_some_disks(self, name: str) -> list[str]:
        found = [other for other in self._catalog["collections"] if other != name]
        return [other for other in found if other.casefold() == name.casefold()]

    def staging_path(self) -> Path:
        """Return an empty directory for a shard that is copied; remains of a crash are removed."""
        staging = self.path / _RESTORING
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir()
        return staging

    def adopt_shard(self, name: str) -> None:
        """Make the directory of `staging_path` the shard of a new physical collection."""
        shard = self.fresh_shard_path(name)
        (self.path / _RESTORING).replace(shard)
        sync_directory(shard.parent)

    def put_collection(self, name: str, metadata: Any) -> None:
        """Record a physical collection with its metadata."""
        collections = {**self._catalog["collections"], name: metadata}
        self._replace({**self._catalog, "collections": collections})

    def put_alias(self, alias: str, name: str) -> None:
        """Record the physical collection of an alias."""
        self._replace({**self._catalog, "aliases": {**self._catalog["aliases"], alias: name}})

    def remove_alias(self, alias: str) -> None:
        """Remove an alias."""
        kept = {name: physical for name, physical in self.aliases.items() if name != alias}
        self._replace({**self._catalog, "aliases": kept})

    def drop_collection(self, name: str) -> None:
        """Remove a physical collection and its aliases from the catalog, then its shard."""
        aliases = {a: n for a, n in self._catalog["aliases"].items() if n != name}
        collections = {n: m for n, m in self._catalog["collections"].items() if n != name}
        self._replace({**self._catalog, "aliases": aliases, "collections": collections})
        shard = self.shard_path(name)
        if any(shard.samefile(self.shard_path(other)) for other in self._same_on_some_disks(name)):
            return  # copied from a disk where these were two directories
        try:
            shutil.rmtree(shard)
        except OSError as exc:
            raise StoreUnavailableError(_unavailable(self.path, exc)) from exc

    def close(self) -> None:
        """Release the directory. Closing twice is harmless."""
        self.lock.release()

    def invalidate_after_fork(self) -> None:
        """In a forked child: close the lock file; the parent keeps the lock."""
        self.lock.abandon()

    def _read_or_start(self) -> dict[str, Any]:
        path = self.path / _CATALOG_FILE
        if not path.exists():
            self._replace({"format": FORMAT, "aliases": {}, "collections": {}})
            return self._catalog
        try:
            catalog = json.loads(path.read_text("utf-8"))
            found = catalog["format"]
            if found == FORMAT:
                return {key: catalog[key] for key in ("format", "aliases", "collections")}
        except (ValueError, KeyError, TypeError) as exc:
            raise StoreCorruptError(
                f"{path} is damaged: {exc!r}; restore it from a backup"
            ) from exc
        raise StoreCorruptError(
            f"{path} has format {found}, this version reads format {FORMAT}: "
            "use the version of msmarco-qdrant that wrote it"
        )

    def _replace(self, catalog: dict[str, Any]) -> None:
        """Replace the catalog atomically."""
        path = self.path / _CATALOG_FILE
        try:
            with atomic_write_text(path) as file:
                json.dump(catalog, file, indent=1, ensure_ascii=False)
        except OutputError as exc:
            raise StoreUnavailableError(f"{exc}: the store needs it") from exc
        self._catalog = catalog


def read_aliases(path: Path) -> list[str]:
    """Return the aliases in a directory without its lock, for a look only; none if unreadable."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        return [*json.loads((path / _CATALOG_FILE).read_bytes())["aliases"]]
    return []


def check_directory(path: Path) -> None:
    """Check that a directory can be a store, without changing it.

    Raises:
        StoreUnavailableError: If it cannot be created or written.
        StoreCorruptError: If it has other files.
    """
    try:
        names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    except OSError as exc:
        raise StoreUnavailableError(_unavailable(path, exc)) from exc
    # A crash during the creation may have left only the files of a store.
    others = [name for name in names if not _is_own_file(name)]
    if others and _CATALOG_FILE not in names:
        raise StoreCorruptError(
            f"{path} must be a store of msmarco-qdrant, an empty or a new directory; it contains "
            f"{others[0]}"
        )
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise StoreUnavailableError(_unavailable(path, NotADirectoryError(f"{nearest} is a file")))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreUnavailableError(_unavailable(path, PermissionError(f"{nearest} is read-only")))


def _is_own_file(name: str) -> bool:
    unfinished = name.startswith(f".{_CATALOG_FILE}.") and name.endswith(".tmp")
    return unfinished or name in (_LOCK_FILE, _CATALOG_FILE)


def _lock(path: Path) -> FileLock:
    try:
        return FileLock(path / _LOCK_FILE, json.dumps(this_process()).encode())
    except FileLockedError as exc:
        raise StoreInUseError(
            f"the store {path} is in use by {_holder(exc.note)}: wait for it to end, or use a "
            "Qdrant server to share passages between processes"
        ) from exc


def _holder(note: bytes) -> str:
    """Describe the holder of the lock, for a message."""
    try:
        return describe_holder(LockHolder(token="", **json.loads(note)))
    except (ValueError, TypeError):  # the holder has not written it yet
        return "another process"


def _unavailable(path: Path, exc: OSError) -> str:
    return f"cannot use {path} as a store: {exc.strerror or exc}; pass a directory you may write"
