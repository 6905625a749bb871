"""What a store holds, told in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from msmarco_qdrant._version import __version__
from msmarco_qdrant.records import CollectionInfo, CollectionMetadata
from msmarco_qdrant.stores import Store

_TOLD = ("qdrant-edge-py", "qdrant-client", "sentence-transformers", "torch")


@dataclass(frozen=True, slots=True)
class CollectionDescription:
    """One collection: its name, its state, and what was kept with it."""

    name: str
    info: CollectionInfo
    metadata: CollectionMetadata


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """A store: where it is, its engine, the versions at work, and its collections by name."""

    store: str
    engine: str
    versions: Mapping[str, str]
    collections: tuple[CollectionDescription, ...]


def describe_store(store: Store, collection: str | None = None) -> StoreDescription:
    """Describe a store, or one collection of it.

    Raises:
        CollectionNotFoundError: If there is no such collection.
        StoreCorruptError: If a collection's metadata cannot be read.
    """
    names = sorted(store.aliases()) if collection is None else [collection]
    return StoreDescription(
        store=store.dsn,
        engine=type(store).__name__.removesuffix("Store"),
        versions=_versions(),
        collections=tuple(
            CollectionDescription(name, store.collection(name).info(), store.metadata(name))
            for name in names
        ),
    )


def _versions() -> dict[str, str]:
    found = {"msmarco-qdrant": __version__}
    for name in _TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
