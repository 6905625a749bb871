"""The directory of a backup and its manifest.

::

    DIR/
      manifest.json     collection, settings, metadata and files; written last
      unfinished        only until the manifest is written; names the backup that writes here
      data/             the files

Without a manifest a directory is not a backup, so an interrupted one is never restored.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from msmarco_qdrant.core.collection_types import CollectionSpec, SettingsChange
from msmarco_qdrant.core.json_value import from_json_value, to_json_value
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.reports import BackupKind
from msmarco_qdrant.errors import OutputError, SourceError
from msmarco_qdrant.runtime.atomic_file import atomic_write_text
from msmarco_qdrant.stores.metadata import metadata_from_json

FORMAT = 1
_MANIFEST, _UNFINISHED, _DATA = "manifest.json", "unfinished", "data"
_TEMPORARY = re.compile(rf"\.({re.escape(_MANIFEST)}|{_UNFINISHED})\.\w+\.tmp")
"""Names of unfinished files that `atomic_write` leaves when its process is killed."""

_AGAIN = "make the backup again, or restore another one"


@dataclass(frozen=True, slots=True)
class BackupFile:
    """One file of a backup: its path below `data/`, its size, and its SHA-256 in hexadecimal."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """The description of a backup.

    Attributes:
        kind: See `BackupReport`.
        collection: The name that users see.
        physical: The physical collection that was copied.
        created: Time of its completion, in UTC as ISO 8601.
        package_version: Version of this package that made it.
        engine: The engine of the collection.
        passages: Passages in it.
        is_counted: False if other clients wrote to a server during the copy, so that the number
            is that of before.
        last_seq: The highest `seq` of the collection before it was copied.
        spec: Schema of the collection.
        optimizers: Thresholds in force; see `AdminCollection.optimizers`.
        settings: The engine's settings; see `Snapshots`.
        metadata: The metadata, as JSON values.
        files: Its files.
        format: Version of this layout.
    """

    kind: BackupKind
    collection: str
    physical: str
    created: str
    package_version: str
    engine: str
    passages: int
    is_counted: bool
    last_seq: int
    spec: CollectionSpec
    optimizers: SettingsChange
    settings: Mapping[str, Any]
    metadata: Mapping[str, Any]
    files: tuple[BackupFile, ...]
    format: int = FORMAT

    @property
    def id(self) -> str:
        """SHA-256 of everything in it."""
        return _digest(to_json_value(self))

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.bytes for file in self.files)

    def collection_metadata(self) -> CollectionMetadata:
        """Return the metadata for a restored collection, whose other collections are unknown."""
        found = metadata_from_json(dict(self.metadata), self.physical)
        return replace(found, copied_from=None, previous=None, only_copies=False)


class BackupDirectory:
    """A directory to write one backup into.

    Args:
        folder: A new or empty directory, or one of an interrupted backup, which is replaced.

    Raises:
        OutputError: If it contains a backup or other files, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / _DATA
        self._token = secrets.token_hex(8)
        try:
            self._check_replaceable()
            folder.mkdir(parents=True, exist_ok=True)
            self._write(folder / _UNFINISHED, self._token)
            shutil.rmtree(self.data, ignore_errors=True)
            self.data.mkdir()
        except OSError as exc:
            raise OutputError(
                f"cannot write a backup into {folder}: {exc.strerror or exc}; pass another "
                "directory"
            ) from exc

    def _check_replaceable(self) -> None:
        found = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        if _MANIFEST in found:
            raise OutputError(f"{self.folder} contains a backup already: pass another directory")
        temporary = {name for name in found if _TEMPORARY.fullmatch(name)}
        others = found - temporary - {_UNFINISHED}
        if _UNFINISHED in found:
            others -= {_DATA}
        if others:
            raise OutputError(
                f"the directory of a backup must be new or empty, got {self.folder} with "
                f"{min(others)}"
            )
        for name in temporary:
            (self.folder / name).unlink(missing_ok=True)

    def files(self) -> tuple[BackupFile, ...]:
        """List the files with their checksums.

        Raises:
            OutputError: If one cannot be read.
        """
        paths = sorted(path for path in self.data.rglob("*") if path.is_file())
        try:
            return tuple(
                BackupFile(
                    path.relative_to(self.data).as_posix(), path.stat().st_size, sha256(path)
                )
                for path in paths
            )
        except OSError as exc:
            raise OutputError(f"cannot read {self.data}: {exc.strerror or exc}") from exc

    def finish(self, manifest: BackupManifest) -> None:
        """Write the manifest, which makes the directory a backup.

        Raises:
            OutputError: If it cannot be written, or another backup has begun in the directory.
        """
        unfinished = self.folder / _UNFINISHED
        if not unfinished.is_file() or unfinished.read_text("utf-8") != self._token:
            raise OutputError(f"another backup has begun in {self.folder}: pass another directory")
        value = to_json_value(manifest)
        text = json.dumps({**value, "sha256": _digest(value)}, ensure_ascii=False, indent=1)
        self._write(self.folder / _MANIFEST, text)
        unfinished.unlink(missing_ok=True)

    def _write(self, path: Path, text: str) -> None:
        with atomic_write_text(path) as file:
            file.write(text)


def read_manifest(folder: Path) -> BackupManifest:
    """Read the manifest of a backup.

    Raises:
        SourceError: If the directory is not a complete backup of this format.
    """
    path = folder / _MANIFEST
    try:
        value = json.loads(path.read_text("utf-8"))
        found = value.pop("sha256")
        version = value["format"]
    except FileNotFoundError as exc:
        state = "an interrupted backup" if (folder / _UNFINISHED).exists() else "none"
        raise SourceError(
            f"{folder} must be a directory that `msmarco-qdrant backup NAME --out DIR` completed, "
            f"with a {_MANIFEST}, got {state}"
        ) from exc
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SourceError(f"{path} is damaged: {_AGAIN}") from exc
    if _digest(value) != found:
        raise SourceError(f"{path} is damaged: its checksum is not that of its content; {_AGAIN}")
    if version != FORMAT:
        raise SourceError(
            f"{path} has format {version}, this version of msmarco-qdrant reads format {FORMAT}: "
            f"use the version that wrote it ({value.get('package_version')})"
        )
    try:
        return from_json_value(BackupManifest, value)
    except ValueError as exc:
        raise SourceError(f"{path} is damaged: {_AGAIN}") from exc


def check_files(folder: Path, files: Sequence[BackupFile]) -> None:
    """Check that every file of a backup is as it was written.

    Raises:
        SourceError: If one is missing, cannot be read or was changed.
    """
    for file in files:
        path = data_path(folder, file)
        if not path.is_file():
            raise SourceError(f"{path} is missing: {_AGAIN}")
        try:
            size, found = path.stat().st_size, sha256(path)
        except OSError as exc:
            raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc
        if size != file.bytes:
            raise SourceError(f"{path} must have {file.bytes:,} bytes, got {size:,}: {_AGAIN}")
        if found != file.sha256:
            raise SourceError(f"{path} was changed after it was written: {_AGAIN}")


def data_folder(folder: Path) -> Path:
    """Return the directory of a backup's files."""
    return folder / _DATA


def data_path(folder: Path, file: BackupFile) -> Path:
    """Return the path of a file.

    Raises:
        SourceError: If it is outside of the backup.
    """
    relative = PurePosixPath(file.path)
    if relative.is_absolute() or ".." in relative.parts:
        raise SourceError(f"{folder} lists the file {file.path!r}, which is not in it: {_AGAIN}")
    return folder / _DATA / relative


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
