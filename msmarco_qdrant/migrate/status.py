"""State of a collection's migrations, and the lock of the process that migrates it."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from msmarco_qdrant.collection.generations import read_generations
from msmarco_qdrant.collection.migration import Migration
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.metadata_types import Copying, Generation, LockHolder, UserMigration
from msmarco_qdrant.errors import StoreAccessError, StoreInUseError
from msmarco_qdrant.migrate.ledger import Ledger, load_sources
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.migration_locks import describe_holder
from msmarco_qdrant.stores.names import base_name


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """The state of a collection's migrations.

    Attributes:
        collection: The name that users see.
        physical: The physical collection's name.
        applied: Migrations in the ledger, in order.
        pending: Known migrations that are not in the ledger, in order.
        unknown: Migrations in the ledger that this code cannot find: they belong to a newer
            version, or their files are missing in the given folder.
        edited: Applied migrations of the given folder whose files were edited since.
        users: The applied migrations of a user, with their folders and checksums.
        locked_by: The process that is migrating it.
        model: The model of its vectors.
        others: Other physical collections of the name: older ones, and one that is being filled.
        copying: A re-embedding that is running or was interrupted.
    """

    collection: str
    physical: str
    applied: tuple[str, ...]
    pending: tuple[Migration, ...]
    unknown: tuple[str, ...]
    locked_by: LockHolder | None
    model: str
    others: tuple[Generation, ...]
    copying: Copying | None
    edited: tuple[str, ...] = ()
    users: tuple[UserMigration, ...] = ()

    @property
    def is_current(self) -> bool:
        """True if no migration is pending, unknown or edited."""
        return not (self.pending or self.unknown or self.edited)


@suggest_keywords
def migration_status(
    store: Store | str | PathLike[str],
    collection: str,
    *,
    directory: Path | None = None,
    connection: Connection = DEFAULT_CONNECTION,
) -> MigrationStatus:
    """Compare a collection's ledger with the known migrations. Changes nothing.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        collection: The collection's name.
        directory: The user's own migrations, which come after the package's; without it, only
            the package's own count.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        UsageError: If the folder's migrations cannot be loaded, or for a physical name.
    """
    with use_store(store, connection) as opened:
        own, theirs = load_sources(directory)
        found = read_generations(opened, collection)
        ledger = Ledger(found.metadata, own, theirs)
        return MigrationStatus(
            collection=found.name,
            physical=found.live,
            applied=found.metadata.migrations,
            pending=tuple(ledger.pending),
            unknown=ledger.unknown,
            locked_by=_read_holder(opened, found.name),
            model=found.metadata.encoder.model,
            others=tuple(found.others),
            copying=found.copying,
            edited=ledger.edited,
            users=ledger.users,
        )


def _read_holder(store: Store, name: str) -> LockHolder | None:
    """Return the holder of a lock; None if the API key may not read locks."""
    try:
        return store.migration_locks.holder(name, all_replicas=False)
    except StoreAccessError:
        return None


def lock_holder(store: Store, collection: str) -> LockHolder | None:
    """Return the holder of the lock of a collection, which a restore may hold before it exists.

    Raises:
        CollectionNotFoundError: If the collection does not exist and is not locked.
        StoreError: If the collection is another program's.
    """
    holder = store.migration_locks.holder(base_name(collection))
    if holder is None:
        store.metadata(collection)  # refuses a name that does not exist, or is another program's
    return holder


def unlock_migrations(store: Store, collection: str, token: str) -> None:
    """Release the lock of a process that has ended without releasing it.

    If that process is still running, it stops before it writes the ledger again.

    Args:
        store: The store that holds the collection.
        collection: The collection's name.
        token: The token of the holder, from `migration_status`.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreInUseError: If the lock has another token.
    """
    lock_holder(store, collection)
    name = base_name(collection)
    holder = store.migration_locks.release(name, token)
    if holder is not None:
        raise StoreInUseError(
            f"'{name}' is being migrated or restored by {describe_holder(holder)} with the token "
            f"{holder.token}, not {token}: check again with "
            f"{advised_command('migrate', 'status', collection=name, store=store.dsn)}"
        )
