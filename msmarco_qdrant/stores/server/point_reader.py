"""Reading the points of a collection that another program wrote, by qdrant-client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.limits import at_most
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    StoreCorruptError,
    StoreInUseError,
    StoreNotFoundError,
)
from msmarco_qdrant.stores.names import own_collection
from msmarco_qdrant.stores.payload import page_size, to_id
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.client import ServerClient
from msmarco_qdrant.stores.server.limits import to_limits
from msmarco_qdrant.stores.server.retry import RetryPolicy

_LOCAL_INFO = "meta.json"  # of qdrant-client's local mode


class ServerPointReader:
    """The points of one collection with their whole payloads; see `PointReader`.

    Args:
        server: The connection.
        name: The collection, or an alias.

    Raises:
        CollectionNotFoundError: If there is none of that name; the message lists the others.
        UsageError: If it is a collection of this package.
    """

    def __init__(self, server: ServerClient, name: str) -> None:
        self.name = name
        self.dsn = server.place
        self._server = server
        try:
            info = server.call("reading the collection's state", server.client.get_collection, name)
        except CollectionNotFoundError:
            raise self._not_found() from None
        if (info.config.metadata or {}).get(convert.METADATA_KEY) is not None:
            raise own_collection(name, server.place)
        limits = to_limits(info.config.strict_mode_config)
        self._page = at_most(page_size(("text",)), limits.points)

    def count(self) -> int:
        """Return the exact number of points."""
        answer = self._server.call("counting points", self._server.client.count, self.name)
        return int(answer.count)

    def scan(self) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Yield the id and the payload of every point, in the order of ids."""
        offset: Any = None
        while True:
            records, offset = self._server.call(
                "reading points",
                partial(self._server.client.scroll, limit=self._page, with_payload=True),
                self.name,
                offset=offset,
            )
            for record in records:
                yield to_id(record.id), record.payload or {}
            if offset is None:
                return

    def _not_found(self) -> CollectionNotFoundError:
        listed = self._server.call("listing collections", self._server.client.get_collections)
        names = sorted(one.name for one in listed.collections)
        found = f"; it has {', '.join(names[:20])}" if names else "; it has none"
        return CollectionNotFoundError(f"no collection '{self.name}' in {self.dsn}{found}")


def open_local_folder(path: str | Path) -> ServerClient:
    """Open a folder of qdrant-client's local mode, as `QdrantClient(path=...)` writes it.

    All of its points are loaded into memory, as that mode does.

    Raises:
        StoreNotFoundError: If the folder does not exist.
        StoreCorruptError: If it is not such a folder.
        StoreInUseError: If another client has opened it.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise StoreNotFoundError(f"no folder {folder}: pass the URL of a server or a folder")
    try:
        is_local = "collections" in json.loads((folder / _LOCAL_INFO).read_bytes())
    except (OSError, ValueError, TypeError):
        is_local = False
    if not is_local:
        raise StoreCorruptError(f"{folder} is not a folder that QdrantClient(path=...) wrote")
    try:
        client = QdrantClient(path=str(folder), force_disable_check_same_thread=True)
    except RuntimeError as exc:  # what qdrant-client raises for a folder that is locked
        raise StoreInUseError(f"another client has opened {folder}: close it first") from exc
    return ServerClient(client, str(folder), RetryPolicy(0))
