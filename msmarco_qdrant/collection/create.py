"""Making and removing collections, by the package's own migrations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from msmarco_qdrant import __version__
from msmarco_qdrant.collection.generations import physical_collections
from msmarco_qdrant.collection.migration import CollectionPlan, Migration, Target, load_migrations
from msmarco_qdrant.core.records import (
    Bm25Settings,
    CollectionInfo,
    CollectionMetadata,
    EncoderInfo,
    PayloadIndex,
    StorageSettings,
)
from msmarco_qdrant.errors import CollectionNotFoundError, SchemaError, UsageError
from msmarco_qdrant.filters import check_field
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.names import LOCKS, PHYSICAL, unknown_collection
from msmarco_qdrant.stores.payload import SCHEMA_VERSION

_COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def create_collection(
    store: Store,
    name: str,
    encoder: EncoderInfo,
    bm25: Bm25Settings,
    storage: StorageSettings | None = None,
    payload_indexes: Mapping[str, PayloadIndex] | None = None,
) -> CollectionMetadata:
    """Create a collection by running every migration; it appears under its name when complete.

    Args:
        store: Where.
        name: The name that users see; an alias of the physical collection `NAME__0001`.
        encoder: Whose vectors will be inside.
        bm25: The settings of its sparse vectors.
        storage: How its dense vectors are kept; by default quantized, where the engine can.
        payload_indexes: Payload keys to index, such as `{"meta.year": "integer"}`.

    Returns:
        The metadata kept with it.

    Raises:
        UsageError: If the name cannot be a collection's.
        UnsupportedError: If the engine cannot quantize and was asked to.
    """
    check_collection_name(name)
    if storage is None:
        can = store.capabilities.quantization
        storage = StorageSettings() if can else StorageSettings(quantization="none")
    plan = CollectionPlan(f"{name}__0001", encoder, bm25, storage, payload_indexes or {})
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
) -> None:
    """Create a collection as `create_collection` does, unless another process has just done so.

    Which encoder that one was for is the caller's to look at.

    Raises:
        UsageError: If the name cannot be a collection's.
        UnsupportedError: If the engine cannot quantize and was asked to.
    """
    with store.lock():
        try:
            if name not in store.aliases():
                create_collection(store, name, encoder, bm25, storage, payload_indexes)
        except SchemaError:
            if name not in store.aliases():  # else another process has finished it meanwhile
                raise


def create_physical(
    store: Store,
    plan: CollectionPlan,
    migrations: Sequence[Migration],
    *,
    copied_from: str | None = None,
    swaps: int = 0,
    check: Callable[[], None] = lambda: None,
) -> CollectionMetadata:
    """Create a physical collection that no name leads to yet.

    Args:
        store: Where.
        plan: What it is for.
        migrations: All that it has had when this returns; the first creates it.
        copied_from: See `CollectionMetadata`; None for one that nothing is copied into.
        swaps: See `CollectionMetadata`.
        check: Called before each write; raises if somebody else does this by now.

    Returns:
        The metadata kept with it.
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
    )
    for count, migration in enumerate(migrations, 1):
        check()
        migration.operation.apply(Target(store, plan, check=check))
        if metadata.migrations:  # the operation may have changed what was kept
            metadata = store.metadata(plan.physical)
        # Not what was kept and one more: another process may be creating the same on a server.
        ledger = tuple(one.name for one in migrations[:count])
        metadata = replace(metadata, migrations=ledger)
        check()
        store.put_metadata(plan.physical, metadata)
    return metadata


def drop_collection(store: Store, name: str) -> int:
    """Remove a collection with every passage in it: all physical collections of the name.

    The one that the name leads to goes last: if it is interrupted, either the name works as before
    or repeating it removes the rest.

    Args:
        store: Where.
        name: The name that users see, or a physical collection's, which alone goes then.

    Returns:
        The number of passages that were in it.

    Raises:
        CollectionNotFoundError: If there is none of that name.
        StoreCorruptError: If one is another application's; all stay.
    """
    found = to_be_dropped(store, name)
    for info in found:
        if info.points:
            store.metadata(info.name)  # which only ours has
    for info in found:
        try:
            store.drop_collection(info.name)
        except CollectionNotFoundError:
            if len(found) == 1:
                raise
    return found[-1].points


def to_be_dropped(store: Store, name: str) -> Sequence[CollectionInfo]:
    """The physical collections that `drop_collection` removes, in that order.

    Raises:
        CollectionNotFoundError: If there are none.
    """
    if PHYSICAL.fullmatch(name):
        return [store.collection(name).info()]
    aliases = store.aliases()
    found = physical_collections(store, name)
    if (live := aliases.get(name)) is not None:
        found = [*(physical for physical in found if physical != live), live]
    if not found:  # not ours; on a server it may be another application's
        raise unknown_collection(name, aliases, store.dsn)
    return [store.collection(physical).info() for physical in found]


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
    if name == LOCKS:
        raise UsageError(f"{name!r} cannot name a collection: it is where locks are kept")
    if PHYSICAL.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a collection: names that end in two underscores and four "
            "digits are those of the physical collections behind a name"
        )


def check_index(field: str, kind: PayloadIndex) -> None:
    """Refuse a payload index of a `meta` field that there cannot be.

    Raises:
        UsageError: For a name that no field can have, or a kind that there is not.
    """
    check_field(field)
    if kind not in get_args(PayloadIndex):
        kinds = ", ".join(get_args(PayloadIndex))
        raise UsageError(f"'{field}' cannot have an index of kind {kind!r}: expected {kinds}")
