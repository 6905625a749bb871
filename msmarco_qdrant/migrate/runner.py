"""Applying migrations to a collection.

The ledger is part of the collection's metadata; see `migrate.ledger`. It is written after each
migration; one that fails or is interrupted is not recorded and runs again the next time. A lock
ensures that only one process migrates a collection.

The package's own migrations come first, then those of a user's folder. Each source has its own
numbers, and a new migration must have a higher number than all applied ones of its source. Without
the folder, only the package's own count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from msmarco_qdrant.collection.generations import abandon_hint, read_generations, reembed_command
from msmarco_qdrant.collection.migration import CollectionPlan, Migration, Target
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.errors import MigrationError, MsmarcoQdrantError, StoreInUseError, UsageError
from msmarco_qdrant.migrate.ledger import Ledger, load_sources
from msmarco_qdrant.runtime.progress import counted_progress
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.migration_locks import hold_lock, require_lock
from msmarco_qdrant.stores.names import base_name

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MigrationStep:
    """A migration that is about to be applied: its name, description and cost."""

    name: str
    description: str
    cost: str


@suggest_keywords
def migrate_collection(  # noqa: PLR0913  # all but two have defaults
    store: Store | str | PathLike[str],
    collection: str,
    *,
    directory: Path | None = None,
    to: str | None = None,
    dry_run: bool = False,
    on_step: Callable[[MigrationStep], None] = lambda _step: None,
    on_progress: Callable[[int, int], None] | None = None,
    progress: bool = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> Sequence[MigrationStep]:
    """Apply the pending migrations in order. Repeating it does nothing.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        collection: The collection's name.
        directory: The user's own migrations, which come after the package's.
        to: The last one to apply, by name or number; None for all.
        dry_run: Change nothing, take no lock, and only report the steps.
        on_step: Called before each step with its cost at that time; in a dry run, the cost on the
            collection as it is now.
        on_progress: Called regularly with the passages done and their total.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The steps that were applied, or would be in a dry run.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        MigrationError: If the ledger has unknown migrations, a pending one comes before an applied
            one, a re-embedding is not finished, or a migration failed. Earlier migrations of this
            call stay applied and recorded; the failed one is not recorded.
        StoreInUseError: If another process is migrating it, or has taken the lock away.
        UsageError: If the folder's migrations cannot be loaded, `to` is not one of them, or for a
            physical name.
    """
    with (
        use_store(store, connection) as opened,
        counted_progress(on_progress, progress=progress) as count,
    ):
        run = _MigrationRun(opened, collection, directory, to, count)
        if dry_run:
            steps = []
            for migration in run.pending():
                steps.append(run.step(migration))
                on_step(steps[-1])
            return steps
        return run.apply(on_step)


class _MigrationRun:
    """The migrations to apply to one collection."""

    def __init__(
        self,
        store: Store,
        collection: str,
        directory: Path | None,
        to: str | None,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._store = store
        self._own, self._theirs = load_sources(directory)
        self._known = [*self._own, *(self._theirs or ())]
        self._last = None if to is None else _find(to, self._known)
        read_generations(store, collection)  # refuses a physical name
        self._collection = collection
        self._on_progress = on_progress

    def apply(self, on_step: Callable[[MigrationStep], None]) -> Sequence[MigrationStep]:
        """Apply the pending migrations while holding the lock."""
        locks = self._store.migration_locks
        name = base_name(self._physical())
        applied: list[MigrationStep] = []
        with hold_lock(locks, name, self._store.dsn) as ours:
            self._check_not_copying()
            self._record_missing(lambda: require_lock(locks, name, ours))
            for migration in self.pending():
                step = self.step(migration)
                on_step(step)
                self._apply(migration, lambda: require_lock(locks, name, ours))
                applied.append(step)
        return applied

    def _record_missing(self, check: Callable[[], None]) -> None:
        """Record the files of migrations that an earlier version applied; warn of edited ones."""
        ledger = self._ledger()
        if ledger.edited:
            _log.warning(
                "edited since it was applied to '%s', and not applied again: %s; write a new "
                "migration for the change",
                *(self._collection, ", ".join(ledger.edited)),
            )
        metadata = ledger.record_missing()
        if self._theirs and metadata != ledger.metadata:
            check()
            self._store.put_metadata(self._physical(), metadata)

    def _ledger(self) -> Ledger:
        return Ledger(self._store.metadata(self._physical()), self._own, self._theirs)

    def pending(self) -> Sequence[Migration]:
        """List the migrations missing from the ledger, up to the last one requested.

        Raises:
            MigrationError: If the ledger does not fit the known migrations.
        """
        ledger = self._ledger()
        applied = ledger.metadata.migrations
        _check_known(ledger.unknown, self._collection)
        for source in (self._own, self._theirs or ()):
            _check_order(applied, source, self._collection)
        end = len(self._known) if self._last is None else self._known.index(self._last) + 1
        return [migration for migration in self._known[:end] if migration.name not in applied]

    def _check_not_copying(self) -> None:
        """Refuse to change a collection while another one is being filled from it."""
        copying = read_generations(self._store, self._collection).copying
        if copying is not None and self.pending():
            name, model = self._collection, copying.metadata.encoder.model
            dsn = self._store.dsn
            raise MigrationError(
                f"the re-embedding of '{name}' with {model} is not finished: finish it with "
                f"{reembed_command(dsn, name, model)}{abandon_hint(dsn, name, copying)}, then run "
                "this again"
            )

    def step(self, migration: Migration) -> MigrationStep:
        """Describe a migration with its cost at this time."""
        try:
            cost = migration.operation.cost(self._target())
        except Exception as exc:
            raise MigrationError(
                f"the cost() of {migration.name} failed on '{self._collection}': {_error_text(exc)}"
            ) from exc
        if not isinstance(cost, str):
            raise MigrationError(
                f"the cost() of {migration.name} must return a line of text, got {cost!r}"
            )
        return MigrationStep(migration.name, migration.description, cost)

    def _apply(self, migration: Migration, check: Callable[[], None]) -> None:
        """Apply a migration and record it in the ledger, if the lock is still held."""
        try:
            migration.operation.apply(replace(self._target(), check=check))
        except StoreInUseError:  # a lost lock is not a failure of the migration
            raise
        except Exception as exc:
            raise MigrationError(
                f"{migration.name} failed on '{self._collection}': {_error_text(exc)}; it is not "
                "in the ledger, earlier migrations are: fix the cause and run this again"
            ) from exc
        metadata = self._ledger().record([migration])
        check()  # after the read: no other process can have written the metadata since
        self._store.put_metadata(self._physical(), metadata)

    def _target(self) -> Target:
        physical = self._physical()
        metadata = self._store.metadata(physical)
        spec = self._store.collection(physical).spec()
        plan = CollectionPlan(
            physical, metadata.encoder, metadata.bm25, spec.storage, spec.payload_indexes
        )
        return Target(self._store, plan, self._on_progress)

    def _physical(self) -> str:
        """Return the physical collection that the name means now; raise if there is none."""
        self._store.collection(self._collection)
        return self._store.aliases().get(self._collection, self._collection)


def _find(to: str, known: Sequence[Migration]) -> Migration:
    """Find a migration by its name or number."""
    number = f"{to:0>4}"
    found = [migration for migration in known if migration.name == to or migration.number == number]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{to} is the number of {' and of '.join(one.name for one in found)}: give the name"
        )
    names = ", ".join(migration.name for migration in known)
    raise UsageError(f"migration must be one of {names}, got {to}")


def _check_known(unknown: Sequence[str], collection: str) -> None:
    if unknown:
        raise MigrationError(
            f"the ledger of '{collection}' contains unknown migrations: {', '.join(unknown)}. "
            "Upgrade this package, or put the missing files back into the folder of your own "
            "migrations, --dir (directory=...)"
        )


def _check_order(applied: Sequence[str], source: Sequence[Migration], collection: str) -> None:
    """Refuse a pending migration whose number is below that of an applied one."""
    last = max((index for index, one in enumerate(source) if one.name in applied), default=0)
    for migration in source[:last]:
        if migration.name not in applied:
            raise MigrationError(
                f"{migration.name} comes before {source[last].name}, which is already applied to "
                f"'{collection}': give it a higher number"
            )


def _error_text(exc: Exception) -> str:
    """The message of an exception; with its type if it is not from this package."""
    if isinstance(exc, MsmarcoQdrantError):
        return str(exc)
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
