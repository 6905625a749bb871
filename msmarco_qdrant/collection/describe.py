"""What a store holds, told in one value."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from msmarco_qdrant import __version__
from msmarco_qdrant.core.records import CollectionInfo, CollectionMetadata
from msmarco_qdrant.errors import CollectionNotFoundError, StoreCorruptError
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)

_TOLD = ("qdrant-edge-py", "qdrant-client", "sentence-transformers", "torch")


@dataclass(frozen=True, slots=True)
class CollectionDescription:
    """One collection: its name, its state, what was kept with it, and when it was written to."""

    name: str
    info: CollectionInfo
    metadata: CollectionMetadata
    last_write: datetime | None


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """A store: where it is, its engine, the versions at work, and its collections by name."""

    store: str
    engine: str
    versions: Mapping[str, str]
    collections: tuple[CollectionDescription, ...]


def describe_store(store: Store, collection: str | None = None) -> StoreDescription:
    """Describe a store, or one collection of it.

    Of a whole store, a collection that was not made by this package, or that is removed meanwhile,
    is left out with a warning: a server may hold anything.

    Raises:
        CollectionNotFoundError: If there is no such collection.
        StoreCorruptError: If that collection's metadata cannot be read.
    """
    return StoreDescription(
        store=store.dsn,
        engine=store.capabilities.engine,
        versions=_versions(),
        collections=tuple(_all(store) if collection is None else [_described(store, collection)]),
    )


def _all(store: Store) -> Iterator[CollectionDescription]:
    for name in sorted(store.aliases()):
        try:
            yield _described(store, name)
        except (CollectionNotFoundError, StoreCorruptError) as exc:
            _log.warning("left out: %s", exc)


def _described(store: Store, name: str) -> CollectionDescription:
    metadata, info = store.metadata(name), store.collection(name).info()
    moment = datetime.fromtimestamp(info.last_seq // 10**9, UTC) if info.last_seq else None
    return CollectionDescription(name, info, metadata, moment)


def _versions() -> dict[str, str]:
    found = {"msmarco-qdrant": __version__}
    for name in _TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
