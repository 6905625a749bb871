"""Describe a store and its collections in one value."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from os import PathLike

from msmarco_qdrant import __version__
from msmarco_qdrant.collection.graph import graph_note
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.collection_types import CollectionInfo
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.server_state import ServerState
from msmarco_qdrant.errors import CollectionNotFoundError, StoreCorruptError
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.names import PHYSICAL, base_name
from msmarco_qdrant.stores.unlinked import find_unlinked, missing_alias

_log = logging.getLogger(__name__)

_PACKAGES = ("qdrant-edge-py", "qdrant-client", "sentence-transformers", "torch")


@dataclass(frozen=True, slots=True)
class CollectionDescription:
    """One collection: its name, state, metadata, the time of its last write, and its server.

    `server` is None for an engine in this process, and if it was not asked for. `graph_note` is the
    advice for a large collection without a graph, None for any other.
    """

    name: str
    info: CollectionInfo
    metadata: CollectionMetadata
    last_write: datetime | None
    server: ServerState | None = None
    graph_note: str | None = None


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """A store: its path or URL, engine, package versions, and collections sorted by name."""

    store: str
    engine: str
    versions: Mapping[str, str]
    collections: tuple[CollectionDescription, ...]


@suggest_keywords
def describe_store(
    store: Store | str | PathLike[str],
    collection: str | None = None,
    *,
    server: bool = True,
    connection: Connection = DEFAULT_CONNECTION,
) -> StoreDescription:
    """Describe a store, or one collection of it.

    In a whole store, a collection that this package did not create, or that another client drops
    during the call, is skipped with a warning.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        collection: The collection; None for all.
        server: False to leave out the state of the server, which takes two requests a collection.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreCorruptError: If that collection's metadata cannot be read.
    """
    with use_store(store, connection) as opened:
        return StoreDescription(
            store=opened.dsn,
            engine=opened.capabilities.engine,
            versions=_versions(),
            collections=tuple(
                _describe_all(opened, server)
                if collection is None
                else [_describe(opened, collection, server)]
            ),
        )


def _describe_all(store: Store, server: bool) -> Iterator[CollectionDescription]:
    for name in sorted(store.aliases()):
        try:
            yield _describe(store, name, server)
        except (CollectionNotFoundError, StoreCorruptError) as exc:
            _log.warning("skipped a collection: %s", exc)
    names = {base_name(name) for name in store.physical_names() if PHYSICAL.fullmatch(name)}
    for name in sorted(names.difference(store.aliases())):
        if found := find_unlinked(store, name):
            _log.warning("skipped a collection: %s", missing_alias(name, found, store.dsn))


def _describe(store: Store, name: str, server: bool) -> CollectionDescription:
    metadata, info = store.metadata(name), store.collection(name).info(all_replicas=False)
    moment = datetime.fromtimestamp(info.last_seq // 10**9, UTC) if info.last_seq else None
    state = store.server_state(name) if server else None
    note = graph_note(store, name, info)
    return CollectionDescription(name, info, metadata, moment, state, note)


def _versions() -> dict[str, str]:
    found = {"msmarco-qdrant": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
