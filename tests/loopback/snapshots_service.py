"""Snapshots of collections: the gRPC calls, and the two of REST that carry a file.

A snapshot contains the points, config and payload indexes of one collection, and no aliases. It is
pickled, so only these tests can read it. The rules are those of
lib/storage/src/content_manager/snapshots/recover.rs.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from qdrant_client import grpc, models

from tests.loopback.engine import Engine, Shelf
from tests.loopback.statuses import Mistake

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')


class Download(NamedTuple):
    """A request for the file of a snapshot."""

    collection_name: str
    snapshot_name: str


class Upload(NamedTuple):
    """A request to recover a collection from a file."""

    collection_name: str
    checksum: str | None
    content: bytes


class SnapshotsService:
    """Snapshots, on the engine that the server has. The server calls it under its lock.

    Attributes:
        files: the snapshots of each collection, by name.
    """

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine_now = engine
        self._number = 0
        self.files: dict[str, dict[str, bytes]] = {}

    @property
    def _engine(self) -> Engine:
        return self._engine_now()

    def create(self, request: grpc.CreateSnapshotRequest, _context: Any) -> Mapping[str, Any]:
        """Make a snapshot of a collection; answer its description."""
        name = self._engine.resolve(request.collection_name)
        self._number += 1
        file = f"{name}-{self._number}.snapshot"
        self.files.setdefault(name, {})[file] = self._save(name)
        return _describe(file, self.files[name][file])

    def list(self, request: grpc.ListSnapshotsRequest, _context: Any) -> list[Mapping[str, Any]]:
        """Describe the snapshots of a collection."""
        name = self._engine.resolve(request.collection_name)
        return [_describe(*one) for one in self.files.get(name, {}).items()]

    def delete(self, request: grpc.DeleteSnapshotRequest, _context: Any) -> bool:
        """Delete a snapshot."""
        name = self._engine.resolve(request.collection_name)
        if self.files.get(name, {}).pop(request.snapshot_name, None) is None:
            raise Mistake.NO_SNAPSHOT.refusal(name=request.snapshot_name)
        return True

    def download(self, request: Download, _context: Any) -> bytes:
        """Answer the file of a snapshot."""
        name = self._engine.resolve(request.collection_name)
        try:
            return self.files[name][request.snapshot_name]
        except KeyError:
            raise Mistake.NO_SNAPSHOT.refusal(name=request.snapshot_name) from None

    def upload(self, request: Upload, _context: Any) -> bool:
        """Replace a collection's points and indexes by those of a snapshot; make it if missing."""
        if request.checksum not in (None, hashlib.sha256(request.content).hexdigest()):
            raise Mistake.SNAPSHOT_CHECKSUM.refusal(
                expected=request.checksum, found=hashlib.sha256(request.content).hexdigest()
            )
        local, config_bytes, indexes = pickle.loads(request.content)  # noqa: S301  # made by `_save`
        config = grpc.CollectionConfig.FromString(config_bytes)
        name = request.collection_name
        if name not in self._engine.shelves:
            self._engine.create(name, models.CreateCollection(vectors={}), config)
        shelf = self._engine.shelves[name]
        for field in ("vectors_config", "shard_number"):
            if getattr(shelf.config.params, field) != getattr(config.params, field):
                raise Mistake.SNAPSHOT_CONFIG.refusal(field=field)
        places: Any = self._engine.client._client
        places.collections[name] = local
        shelf.indexes = {
            key: grpc.PayloadSchemaInfo.FromString(value) for key, value in indexes.items()
        }
        return True

    def _save(self, name: str) -> bytes:
        shelf: Shelf = self._engine.shelves[name]
        places: Any = self._engine.client._client
        indexes = {key: value.SerializeToString() for key, value in shelf.indexes.items()}
        return pickle.dumps((places.collections[name], shelf.config.SerializeToString(), indexes))


def _describe(name: str, content: bytes) -> Mapping[str, Any]:
    return {
        "name": name,
        "creation_time": "2026-01-01T00:00:00",
        "size": len(content),
        "checksum": hashlib.sha256(content).hexdigest(),
    }


def read_upload(
    variables: Mapping[str, str], query: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> Upload:
    """The file of a `multipart/form-data` body, which has one part."""
    found = _BOUNDARY.search(headers["content-type"])
    assert found is not None
    boundary = b"--" + found[1].encode()
    part = body.split(b"\r\n\r\n", 1)[1]
    content = part[: part.rindex(b"\r\n" + boundary)]
    return Upload(variables["name"], query.get("checksum"), content)
