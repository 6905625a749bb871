"""Copies of shards: their files, as they are between two writes.

Writers wait during a copy, searches do not. A restored shard is copied into `restoring/` and
appears among the collections by one rename.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.errors import MsmarcoQdrantError, OutputError
from msmarco_qdrant.runtime.atomic_file import sync_directory, sync_file
from msmarco_qdrant.stores.edge.collection import create_shard
from msmarco_qdrant.stores.edge.convert import spec_of
from msmarco_qdrant.stores.edge.index_build import (
    LEFTOVERS,
    allocated_bytes,
    require_free_space,
)
from msmarco_qdrant.stores.edge.registry import Engine
from msmarco_qdrant.stores.error_mapping import map_error
from msmarco_qdrant.stores.metadata import metadata_to_json
from msmarco_qdrant.stores.names import just_created
from msmarco_qdrant.stores.protocols import SnapshotFormat

_BLOCK = 256 * 2**10


class EdgeSnapshots:
    """Copies of the shards of a directory; see `Snapshots`."""

    format: SnapshotFormat = "edge"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def settings(self, physical: str) -> Mapping[str, Any]:
        """Return the configuration of a shard."""
        with self._engine.lock:
            return self._engine.collection(physical).config()

    def create(
        self, physical: str, settings: Mapping[str, Any], metadata: CollectionMetadata
    ) -> None:
        """Create an empty shard with the configuration of another."""
        with self._staged(physical, metadata) as staging:
            create_shard(staging, spec_of(settings, {}), settings.get("optimizers"))

    def save(self, physical: str, folder: Path) -> int:
        """Copy the files of a shard, while its writers wait."""
        with self._engine.lock:
            collection = self._engine.collection(physical)
        with collection.freeze() as shard:
            require_free_space(folder, "copying the collection", allocated_bytes(shard))
            try:
                _copy_tree(shard, folder)
            except OSError as exc:
                raise OutputError(f"cannot write {folder}: {exc.strerror or exc}") from exc
            return collection.info().points

    def load(
        self,
        physical: str,
        settings: Mapping[str, Any],  # noqa: ARG002  # they are among the files
        metadata: CollectionMetadata,
        folder: Path,
    ) -> None:
        """Copy the files of a folder into a new shard."""
        with self._staged(physical, metadata) as staging:
            require_free_space(staging, "restoring the collection", allocated_bytes(folder))
            _copy_tree(folder, staging)

    @contextmanager
    def _staged(self, physical: str, metadata: CollectionMetadata) -> Iterator[Path]:
        """Yield an empty directory, which becomes a collection if the block succeeds."""
        engine, directory = self._engine, self._engine.directory
        with engine.restoring, _map_errors(directory.path):
            directory.require_distinct(physical)
            staging = directory.staging_path()
            try:
                yield staging
                with engine.lock:
                    if physical in directory.collections:
                        raise just_created(physical, str(directory.path))
                    engine.close_collection(physical)
                    directory.adopt_shard(physical)
                    directory.put_collection(physical, metadata_to_json(metadata))
            finally:
                shutil.rmtree(staging, ignore_errors=True)  # remains only take disk space


@contextmanager
def _map_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except MsmarcoQdrantError:
        raise
    except OSError as exc:
        raise map_error(exc, "restoring the collection", str(place)) from exc


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a directory's files durably, without the remains of an index build."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if relative.parts[0] in LEFTOVERS:
            continue
        if path.is_dir():
            (target / relative).mkdir()
        else:
            copy_sparse(path, target / relative)
    for path in (*(path for path in target.rglob("*") if path.is_dir()), target):
        sync_directory(path)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file durably; blocks of zeros take no disk space, as in most files of Edge.

    Raises:
        OSError: If it cannot be read or written.
    """
    zeros = bytes(_BLOCK)
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        while block := reader.read(_BLOCK):
            if block == zeros[: len(block)]:
                writer.seek(len(block), os.SEEK_CUR)
            else:
                _write(writer, block)
        writer.truncate()  # to the position, which is the size
        sync_file(writer.fileno())


def _write(writer: Any, block: bytes) -> None:
    """Write a whole block: an unbuffered file may write only a part."""
    view = memoryview(block)
    while view:
        view = view[writer.write(view) :]
