"""Migrations: what creates a collection, and later changes it.

A migration is a Python file `NNNN_name.py` with a `DESCRIPTION` and a function
`up(store, plan)`. The package's own are in `migrations/` of a checkout and in
`msmarco_qdrant/_migrations/` of an installed wheel; both are loaded by path.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msmarco_qdrant._version import __version__
from msmarco_qdrant.errors import StoreCorruptError, UsageError
from msmarco_qdrant.records import (
    Bm25Settings,
    CollectionMetadata,
    EncoderCard,
    PayloadIndex,
    StorageSettings,
)
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.names import PHYSICAL, unknown_collection
from msmarco_qdrant.stores.points import SCHEMA_VERSION

_FILE_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.py")
_COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """What a migration is told: the physical collection and what it is for.

    Attributes:
        physical: The physical collection's name.
        encoder: Whose vectors will be inside.
        bm25: The settings of its sparse vectors.
        storage: How its dense vectors are kept.
        payload_indexes: Payload keys to index beside those that this package needs itself.
    """

    physical: str
    encoder: EncoderCard
    bm25: Bm25Settings
    storage: StorageSettings
    payload_indexes: Mapping[str, PayloadIndex] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration: its name (the file's, without `.py`), a line about it, its operation."""

    name: str
    description: str
    up: Callable[[Store, CollectionPlan], None]


def load_migrations(directory: Path | None = None) -> Sequence[Migration]:
    """The migrations of a directory in the order of their numbers.

    Args:
        directory: By default the package's own.

    Raises:
        UsageError: If a file there is no migration.
    """
    directory = directory or _own_directory()
    return [
        _load(path) for path in sorted(directory.glob("*.py")) if _FILE_NAME.fullmatch(path.name)
    ]


def create_collection(
    store: Store,
    name: str,
    encoder: EncoderCard,
    bm25: Bm25Settings,
    storage: StorageSettings | None = None,
    payload_indexes: Mapping[str, PayloadIndex] | None = None,
) -> CollectionMetadata:
    """Create a collection by running every migration; it appears under its name when complete.

    Args:
        store: Where.
        name: The name that users see; an alias of the physical collection `NAME__0001`.
        encoder: Whose vectors will be inside.
        bm25: The settings of its sparse vectors, fixed from here on.
        storage: How its dense vectors are kept; by default quantised, where the engine can.
        payload_indexes: Payload keys to index, such as `{"meta.year": "integer"}`.

    Returns:
        The metadata kept with it.

    Raises:
        UsageError: If the name cannot be a collection's.
        UnsupportedError: If the engine cannot quantise and was asked to.
    """
    check_collection_name(name)
    if storage is None:
        can = store.capabilities.quantisation
        storage = StorageSettings() if can else StorageSettings(quantisation="none")
    plan = CollectionPlan(f"{name}__0001", encoder, bm25, storage, payload_indexes or {})
    migrations = load_migrations()
    for migration in migrations:
        migration.up(store, plan)
    metadata = CollectionMetadata(
        schema_version=SCHEMA_VERSION,
        package_version=__version__,
        encoder=encoder,
        bm25=bm25,
        migrations=tuple(migration.name for migration in migrations),
    )
    store.put_metadata(plan.physical, metadata)
    store.set_alias(name, plan.physical)
    return metadata


def drop_collection(store: Store, name: str) -> int:
    """Remove a collection with every passage in it.

    Args:
        store: Where.
        name: The name that users see, or a physical collection's that an interrupted creation left.

    Returns:
        The number of passages that were in it.

    Raises:
        CollectionNotFoundError: If there is none of that name.
        StoreCorruptError: If it is another application's; it stays.
    """
    aliases = store.aliases()
    if name not in aliases and not PHYSICAL.fullmatch(name):  # another application's, on a server
        raise unknown_collection(name, aliases, store.dsn)
    info = store.collection(name).info()
    if info.points:
        store.metadata(name)  # which only ours has
    store.drop_collection(info.name)
    return info.points


def check_collection_name(name: str) -> None:
    """Refuse a name that cannot be a collection's on every engine.

    Raises:
        UsageError: With the rule it breaks.
    """
    if not _COLLECTION_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a collection: expected 1 to 63 letters, digits, '_', '-' or "
            "'.', starting with a letter or digit"
        )
    if PHYSICAL.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a collection: names that end in two underscores and four "
            "digits are those of the physical collections behind a name"
        )


def _own_directory() -> Path:
    package = Path(__file__).parent
    for directory in (package / "_migrations", package.parent / "migrations"):
        if directory.is_dir():
            return directory
    raise StoreCorruptError(f"the installation is incomplete: {package} holds no migrations")


def _load(path: Path) -> Migration:
    spec = importlib.util.spec_from_file_location(f"msmarco_qdrant_migration_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return Migration(path.stem, module.DESCRIPTION, module.up)
    except AttributeError as exc:
        raise UsageError(f"{path} is no migration: {exc}; expected DESCRIPTION and up()") from exc
