"""Metadata of a collection, its generations, and the lock of its migrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.encoder_types import EncoderInfo, Int8Loss
from msmarco_qdrant.core.search_defaults import NO_DEFAULTS, SearchDefaults


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The process that is migrating a collection.

    Attributes:
        token: Unique token of the lock.
        host: Name of its machine.
        pid: Process id.
        since: Start of the migration, in UTC as ISO 8601.
    """

    token: str
    host: str
    pid: int
    since: str


@dataclass(frozen=True, slots=True)
class BulkHolder(LockHolder):
    """The process of an ingest in bulk mode, which several may have at once.

    Attributes:
        threshold_kb: The indexing threshold before it, to restore.
        order: Higher than that of every ingest that was recorded before.
        renewals: Grows while the process runs.
        is_done: True if it has ended.
    """

    threshold_kb: int
    order: int
    renewals: int = 0
    is_done: bool = False


def bulk_threshold(holders: Mapping[str, BulkHolder]) -> int | None:
    """Return the indexing threshold to restore after a bulk mode; None without one.

    Args:
        holders: The ingests in bulk mode by their tokens. The last to begin found the threshold
            that counts: a user may have changed it since an earlier one began.
    """
    last = max(holders.values(), key=lambda one: one.order, default=None)
    return None if last is None else last.threshold_kb


@dataclass(frozen=True, slots=True)
class UserMigration:
    """An applied migration of a user's folder.

    Attributes:
        name: The file's name, without `.py`.
        folder: The name of its folder; "" if an earlier version applied it.
        checksum: The digest of the file as it was applied, in hexadecimal; "" if unknown.
    """

    name: str
    folder: str = ""
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class CollectionMetadata:
    """Metadata of a collection: enough to encode the same way again, or to refuse.

    Attributes:
        schema_version: Version of the payload and vector layout.
        package_version: Version of this package that created the collection.
        encoder: Encoder of the collection's vectors.
        bm25: Settings of its sparse vectors.
        migrations: Names of the applied migrations, in order.
        copied_from: Physical collection that a re-embedding copies into this one; None before
            the copy begins and after it is complete.
        previous: Physical collection that the alias pointed to before; None if there was none.
        swaps: Number of times that the alias was repointed, up to this collection. A writer
            detects by it that the alias was repointed during the write, even there and back.
        only_copies: True if only a re-embedding has ever written to it.
        restoring: Token of the restore that fills it; None when that is complete.
        user_migrations: Those of `migrations` that are a user's; None in the metadata of an
            earlier version, which did not record them.
        search_defaults: Options of searches that do not choose their own.
        tenant_field: The `meta` field whose values are the tenants; None without tenants.
        int8_loss: The largest that was measured for vectors that a model in int8 made; None if no
            model did.
    """

    schema_version: int
    package_version: str
    encoder: EncoderInfo
    bm25: Bm25Settings
    migrations: tuple[str, ...]
    copied_from: str | None = None
    previous: str | None = None
    swaps: int = 0
    only_copies: bool = False
    restoring: str | None = None
    user_migrations: tuple[UserMigration, ...] | None = ()
    search_defaults: SearchDefaults = NO_DEFAULTS
    tenant_field: str | None = None
    int8_loss: Int8Loss | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One physical collection and its metadata."""

    physical: str
    metadata: CollectionMetadata


@dataclass(frozen=True, slots=True)
class Copying:
    """An unfinished re-embedding.

    Attributes:
        source: Physical collection to copy.
        target: Physical collection being filled.
        metadata: Metadata of the target.
        is_swapped: True if the alias points to the target already.
    """

    source: str
    target: str
    metadata: CollectionMetadata
    is_swapped: bool
