"""Create collections by the package's own migrations, and drop them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, get_args

from msmarco_qdrant import __version__
from msmarco_qdrant.collection.generations import physical_collections
from msmarco_qdrant.collection.migration import CollectionPlan, Migration, Target, load_migrations
from msmarco_qdrant.collection.replicas import most_points
from msmarco_qdrant.collection.tenants import check_tenant_field
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    CollectionInfo,
    PayloadIndex,
    ShardSettings,
    StorageSettings,
)
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.field_path import check_field, payload_keys
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    SchemaError,
    UnsupportedError,
    UsageError,
)
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.filters import index_kind
from msmarco_qdrant.stores.names import LOCKS, PHYSICAL
from msmarco_qdrant.stores.payload import SCHEMA_VERSION
from msmarco_qdrant.stores.unlinked import find_unlinked, missing_alias

_COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def create_collection(
    store: Store,
    name: str,
    encoder: EncoderInfo,
    bm25: Bm25Settings,
    storage: StorageSettings | None = None,
    payload_indexes: Mapping[str, PayloadIndex] | None = None,
    sharding: ShardSettings | None = None,
) -> CollectionMetadata:
    """Create a collection by running every migration; the alias is set last.

    Args:
        store: The store to create it in.
        name: The name that users see; an alias of the physical collection `NAME__0001`.
        encoder: The encoder of its dense vectors.
        bm25: The settings of its sparse vectors.
        storage: Storage of its dense vectors; by default quantized if the engine can quantize.
        payload_indexes: Payload keys to index, such as `{"meta.year": "integer"}`.
        sharding: Shards and replicas on a server.

    Returns:
        The metadata stored with it.

    Raises:
        UsageError: If the name is not valid.
        StoreError: If a collection of that name with passages exists without its alias.
        UnsupportedError: If quantization or shards are requested and the engine has none.
    """
    check_collection_name(name)
    if sharding is not None:
        require_shards(store)
    indexes = {**(payload_indexes or {}), **shard_key_index(sharding, payload_indexes or {})}
    if found := find_unlinked(store, name):
        raise missing_alias(name, found, store.dsn)
    if storage is None:
        can = store.capabilities.quantization
        storage = StorageSettings() if can else StorageSettings(quantization="none")
    plan = CollectionPlan(f"{name}__0001", encoder, bm25, storage, indexes, sharding)
    metadata = create_physical(store, plan, load_migrations())
    store.set_alias(name, plan.physical)
    return metadata


def create_if_missing(
    store: Store,
    name: str,
    encoder: EncoderInfo,
    bm25: Bm25Settings,
    storage: StorageSettings | None = None,
    payload_indexes: Mapping[str, PayloadIndex] | None = None,
    sharding: ShardSettings | None = None,
) -> bool:
    """Call `create_collection` unless the name exists, also if another process just created it.

    The caller must check which encoder the existing collection is for.

    Returns:
        True if this call created it.
    """
    with store.lock():
        try:
            if name not in store.aliases():
                create_collection(store, name, encoder, bm25, storage, payload_indexes, sharding)
                return True
        except SchemaError:
            if name not in store.aliases():  # otherwise another process has created it
                raise
    return False


def shard_key_index(
    sharding: ShardSettings | None, given: Mapping[str, PayloadIndex]
) -> Mapping[str, PayloadIndex]:
    """Return the payload index of a shard key, which searches filter by; empty without one.

    Args:
        sharding: The settings of the shards.
        given: The other payload indexes.

    Raises:
        UsageError: If the field cannot be that of tenants, or has an index of another kind.
    """
    if sharding is None or sharding.shard_key is None:
        return {}
    check_tenant_field(sharding.shard_key)
    (key,) = payload_keys(sharding.shard_key)
    if (kind := index_kind(given, key)) not in (None, "tenant"):
        raise UsageError(
            f"the index of the shard key '{sharding.shard_key}' must be of kind tenant, got "
            f"{kind}: omit it"
        )
    return {key: "tenant"}


def require_shards(store: Store) -> None:
    """Refuse shards and replicas on an engine that keeps each point once, in one place.

    Raises:
        UnsupportedError: If the store is not a server.
    """
    if not store.capabilities.replicas:
        raise UnsupportedError(
            f"shards and replicas need a Qdrant server, got {store.dsn} "
            f"({store.capabilities.engine}): omit them, or pass the URL of a server"
        )


def drop_if_empty(store: Store, name: str, physical: str) -> bool:
    """Drop a collection that holds no passage, unless the name points to another one.

    The alias is removed before the count. A writer checks the alias after each write: if the count
    misses a write of another client, that client finds no alias and does not count its write.

    Returns:
        True if it was dropped.
    """
    with store.lock():
        if store.aliases().get(name) != physical or store.collection(physical).info().points:
            return False
        store.remove_alias(name)
        if store.collection(physical).info().points:
            store.set_alias(name, physical)
            return False
        store.drop_collection(physical)
        return True


def create_physical(
    store: Store,
    plan: CollectionPlan,
    migrations: Sequence[Migration],
    *,
    copied_from: str | None = None,
    swaps: int = 0,
    check: Callable[[], None] = lambda: None,
) -> CollectionMetadata:
    """Create a physical collection without an alias.

    Args:
        store: The store to create it in.
        plan: Its name and settings.
        migrations: All migrations to apply; the first creates the collection.
        copied_from: See `CollectionMetadata`; None if nothing is copied into it.
        swaps: See `CollectionMetadata`.
        check: Called before each write; raises if another process has taken the lock.

    Returns:
        The metadata stored with it.
    """
    metadata = CollectionMetadata(
        SCHEMA_VERSION,
        __version__,
        plan.encoder,
        plan.bm25,
        (),
        copied_from=copied_from,
        swaps=swaps,
        only_copies=copied_from is not None,
        tenant_field=None if plan.sharding is None else plan.sharding.shard_key,
    )
    for count, migration in enumerate(migrations, 1):
        check()
        migration.operation.apply(Target(store, plan, check=check))
        if metadata.migrations:  # the operation may have changed the stored metadata
            metadata = store.metadata(plan.physical)
        # The ledger is not read back: another process may be creating the same collection.
        ledger = tuple(applied.name for applied in migrations[:count])
        metadata = replace(metadata, migrations=ledger)
        check()
        store.put_metadata(plan.physical, metadata)
    return metadata


@suggest_keywords
def drop_collection(
    store: Store | str | PathLike[str],
    name: str,
    *,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Drop a collection: all physical collections of the name, with every passage.

    The live one is dropped last. After an interruption the name still works, or repeating the
    call drops the rest.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        name: The name that users see, or a physical collection's name to drop that one only.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The number of passages in the live collection.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreCorruptError: If one of them belongs to another application; nothing is dropped.
    """
    with use_store(store, connection) as opened:
        found = list_collections_to_drop(opened, name)
        for info in found:
            if most_points(opened, info.name):
                opened.metadata(info.name)  # raises if the collection is not from this package
        for info in found:
            try:
                opened.drop_collection(info.name)
            except CollectionNotFoundError:
                if len(found) == 1:
                    raise
        return found[-1].points


def list_collections_to_drop(store: Store, name: str) -> Sequence[CollectionInfo]:
    """List the physical collections that `drop_collection` drops, in that order.

    Raises:
        CollectionNotFoundError: If there are none.
        StoreCorruptError: If another program made a collection of that name.
    """
    if PHYSICAL.fullmatch(name):
        return [store.collection(name).info()]
    aliases = store.aliases()
    found = physical_collections(store, name)
    if (live := aliases.get(name)) is not None:
        found = [*(physical for physical in found if physical != live), live]
    if not found:  # a server may hold another application's collection of that name
        raise store.unknown_collection(name)
    return [store.collection(physical).info() for physical in found]


def check_collection_name(name: str) -> None:
    """Refuse a name that is not valid on every engine.

    Raises:
        UsageError: With the rule that the name breaks.
    """
    if not _COLLECTION_NAME.fullmatch(name):
        raise UsageError(
            "collection name must be 1 to 63 letters, digits, '_', '-' or '.', starting with a "
            f"letter or digit, got {name!r}"
        )
    if name == LOCKS:
        raise UsageError(f"collection name must not be {name!r}: it is reserved for locks")
    if PHYSICAL.fullmatch(name):
        raise UsageError(
            "collection name must not end in two underscores and four digits, as names of "
            f"physical collections do, got {name!r}"
        )


def parse_indexes(texts: Iterable[str], subject: str) -> Mapping[str, PayloadIndex]:
    """Parse the meta fields to index, each with its kind, which follows the last `=`.

    Args:
        texts: Each FIELD=KIND.
        subject: The option or variable, for messages.

    Raises:
        UsageError: For another format, or two kinds of one field.
    """
    kinds = get_args(PayloadIndex)
    parsed: dict[str, PayloadIndex] = {}
    for text in texts:
        kind: Any  # one of `kinds` once it is checked
        field, _, kind = text.rpartition("=")
        if not field or kind not in kinds:
            raise UsageError(
                f"{subject} must be FIELD=KIND with a KIND of {', '.join(kinds)}, got {text!r}"
            )
        check_index(field, kind)
        if parsed.setdefault(field, kind) != kind:
            raise UsageError(
                f"{subject} must have one KIND per field, got {parsed[field]} and {kind} for "
                f"'{field}'"
            )
    return parsed


def check_index(field: str, kind: PayloadIndex) -> None:
    """Refuse an invalid payload index of a `meta` field.

    Raises:
        UsageError: If the field name or the kind is not valid.
    """
    check_field(field)
    if kind not in get_args(PayloadIndex):
        kinds = ", ".join(get_args(PayloadIndex))
        raise UsageError(f"index kind of '{field}' must be one of {kinds}, got {kind!r}")
