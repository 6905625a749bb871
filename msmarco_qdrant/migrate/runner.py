"""The migration engine: what a collection's ledger holds, and what is to come.

The ledger is the collection's own metadata: the names of the migrations that were applied, in
order. It is written after each one; a migration that fails, or is interrupted, is not in it, and
runs again the next time. One process at a time migrates a collection: a lock says which.

The package's own migrations come first, then those of a folder of the user's. Each has its own
numbers, and in each a new migration has a higher number than all that were applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from msmarco_qdrant.collection.generations import (
    giving_up_command,
    read_generations,
    reembedding_command,
)
from msmarco_qdrant.collection.migration import CollectionPlan, Migration, Target, load_migrations
from msmarco_qdrant.core.records import Copying, Generation, LockHolder
from msmarco_qdrant.errors import MigrationError, MsmarcoQdrantError, StoreInUseError, UsageError
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.migration_locks import describe_holder, hold_lock, require_lock
from msmarco_qdrant.stores.names import base_name


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """Where a collection stands.

    Attributes:
        collection: The name that users see.
        physical: The physical collection's name.
        applied: What the ledger holds, in order.
        pending: What this code knows and the ledger does not, in order.
        unknown: What the ledger holds and this code does not know: newer code, or a folder that
            was not given, was here.
        locked_by: Who is migrating it just now.
        model: The model of its vectors.
        others: Physical collections beside it: older ones, and one that is being filled.
        copying: A re-embedding that is under way or was interrupted.
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

    @property
    def is_current(self) -> bool:
        """Whether nothing is pending, and nothing is unknown."""
        return not self.pending and not self.unknown


@dataclass(frozen=True, slots=True)
class MigrationStep:
    """A migration that is about to be applied: its name, a line about it, what it takes."""

    name: str
    description: str
    cost: str


def migration_status(
    store: Store, collection: str, *, directory: Path | None = None
) -> MigrationStatus:
    """Compare a collection's ledger with the migrations that there are. Only reads.

    Args:
        store: Where it is.
        collection: Its name.
        directory: The user's own migrations, which come after the package's.

    Raises:
        CollectionNotFoundError: If there is none of that name.
        UsageError: If the folder's migrations cannot be loaded, or for a physical name.
    """
    sources = _sources(directory)
    found = read_generations(store, collection)
    applied = found.metadata.migrations
    known = [migration for source in sources for migration in source]
    names = {migration.name for migration in known}
    return MigrationStatus(
        collection=found.name,
        physical=found.live,
        applied=applied,
        pending=tuple(migration for migration in known if migration.name not in applied),
        unknown=tuple(name for name in applied if name not in names),
        locked_by=store.migration_locks.holder(found.name),
        model=found.metadata.encoder.model,
        others=tuple(found.others),
        copying=found.copying,
    )


def migrate_collection(
    store: Store,
    collection: str,
    *,
    directory: Path | None = None,
    to: str | None = None,
    dry_run: bool = False,
    on_step: Callable[[MigrationStep], None] = lambda _step: None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Sequence[MigrationStep]:
    """Apply what is pending, in order. Doing it again does nothing.

    Args:
        store: Where the collection is.
        collection: Its name.
        directory: The user's own migrations, which come after the package's.
        to: The last one to apply, by its name or its number; None for all.
        dry_run: Change nothing, take no lock, and only tell what would be done.
        on_step: Called before each, with what it takes on the collection as it is then; in a dry
            run as it is now.
        on_progress: Called now and then with the passages that are through, and their number.

    Returns:
        What was applied, or would be.

    Raises:
        CollectionNotFoundError: If there is none of that name.
        MigrationError: If the ledger holds what this code does not know, one that is pending comes
            before one that was applied, or one failed. What was applied before it stays, and is in
            the ledger; it is not.
        StoreInUseError: If somebody else is migrating it, saying who, or took our lock away.
        UsageError: If the folder's migrations cannot be loaded, `to` is none of them, or for a
            physical name.
    """
    run = _Run(store, collection, directory, to, on_progress)
    if dry_run:
        steps = []
        for migration in run.pending():
            steps.append(run.step(migration))
            on_step(steps[-1])
        return steps
    return run.apply(on_step)


def unlock_migrations(store: Store, collection: str, token: str) -> None:
    """Take the lock away from whoever holds it under a token, as its process is gone.

    If it is not gone, it stops before it writes the ledger again.

    Args:
        store: Where the collection is.
        collection: Its name.
        token: What `migration_status` told of the holder.

    Raises:
        CollectionNotFoundError: If there is none of that name.
        StoreInUseError: If somebody else holds it by now.
    """
    name = base_name(store.collection(collection).info().name)
    left = store.migration_locks.release(name, token)
    if left is not None:
        raise StoreInUseError(
            f"'{name}' is being migrated by {describe_holder(left)}, whose token is {left.token}, not "
            f"{token}: look again with `msmarco-qdrant migrate status`"
        )


# ---- one run -------------------------------------------------------------------------------


class _Run:
    """The migrations of one collection, to be applied."""

    def __init__(
        self,
        store: Store,
        collection: str,
        directory: Path | None,
        to: str | None,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._store = store
        self._sources = _sources(directory)
        self._last = _named(to, [one for source in self._sources for one in source])
        read_generations(store, collection)  # which has to be one that users see
        self._collection = collection
        self._on_progress = on_progress

    def apply(self, on_step: Callable[[MigrationStep], None]) -> Sequence[MigrationStep]:
        """Apply what is pending under the lock."""
        locks = self._store.migration_locks
        name = base_name(self._physical())
        applied: list[MigrationStep] = []
        with hold_lock(locks, name) as ours:
            self._check_settled()
            for migration in self.pending():
                step = self.step(migration)
                on_step(step)
                self._apply(migration, lambda: require_lock(locks, name, ours))
                applied.append(step)
        return applied

    def pending(self) -> Sequence[Migration]:
        """What the ledger lacks, up to the last that is wanted.

        Raises:
            MigrationError: If the ledger is not one that this code can go on from.
        """
        applied = self._store.metadata(self._physical()).migrations
        _check_known(applied, self._sources, self._collection)
        for source in self._sources:
            _check_order(applied, source, self._collection)
        known = [migration for source in self._sources for migration in source]
        if self._last is not None:
            known = [*takewhile(lambda one: one is not self._last, known), self._last]
        return [migration for migration in known if migration.name not in applied]

    def _check_settled(self) -> None:
        """Refuse to change one collection while another is being made like it."""
        copying = read_generations(self._store, self._collection).copying
        if copying is not None and self.pending():
            name, model = self._collection, copying.metadata.encoder.model
            give_up = (
                "" if copying.is_swapped else f", or give it up with {giving_up_command(name)}"
            )
            raise MigrationError(
                f"the re-embedding of '{name}' with {model} is not finished: finish it with "
                f"{reembedding_command(name, model)}{give_up}, and run the same again"
            )

    def step(self, migration: Migration) -> MigrationStep:
        """What a migration takes now."""
        try:
            cost = migration.operation.cost(self._target())
        except Exception as exc:
            raise MigrationError(
                f"{migration.name} cannot tell what it takes on '{self._collection}': {_told(exc)}"
            ) from exc
        if not isinstance(cost, str):
            raise MigrationError(
                f"{migration.name} cannot tell what it takes on '{self._collection}': its cost() "
                f"returned {cost!r}, expected a line of text"
            )
        return MigrationStep(migration.name, migration.description, cost)

    def _apply(self, migration: Migration, check: Callable[[], None]) -> None:
        """Apply one and write it into the ledger, if the lock is still ours."""
        try:
            migration.operation.apply(replace(self._target(), check=check))
        except StoreInUseError:  # the lock was taken away, which is no failure of the migration
            raise
        except Exception as exc:
            raise MigrationError(
                f"{migration.name} failed on '{self._collection}': {_told(exc)}; it is not in the "
                "ledger, and what came before it is: mend what is wrong and run the same again"
            ) from exc
        physical = self._physical()
        metadata = self._store.metadata(physical)
        ledger = (*metadata.migrations, migration.name)
        check()  # after what is written back was read: so nobody else has written it since
        self._store.put_metadata(physical, replace(metadata, migrations=ledger))

    def _target(self) -> Target:
        physical = self._physical()
        metadata = self._store.metadata(physical)
        spec = self._store.collection(physical).info().spec
        plan = CollectionPlan(
            physical, metadata.encoder, metadata.bm25, spec.storage, spec.payload_indexes
        )
        return Target(self._store, plan, self._on_progress)

    def _physical(self) -> str:
        return self._store.collection(self._collection).info().name


def _sources(directory: Path | None) -> Sequence[Sequence[Migration]]:
    """The package's own migrations, and the user's."""
    own = load_migrations()
    if directory is None:
        return [own]
    theirs = load_migrations(directory)
    taken = {migration.name for migration in own} & {migration.name for migration in theirs}
    if taken:
        raise UsageError(
            f"{directory} holds {min(taken)}, which is the name of one of the package's own "
            "migrations: give it another"
        )
    if not theirs:
        raise UsageError(f"{directory} holds no migration: expected files such as 0001_name.py")
    return [own, theirs]


def _named(to: str | None, known: Sequence[Migration]) -> Migration | None:
    """The migration of a name or a number; None for none wanted."""
    if to is None:
        return None
    number = f"{to:0>4}"
    found = [one for one in known if to == one.name or number == one.number]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{to} is the number of {' and of '.join(one.name for one in found)}: give the name"
        )
    raise UsageError(f"there is no migration {to}; there: {', '.join(one.name for one in known)}")


def _check_known(
    applied: Sequence[str], sources: Sequence[Sequence[Migration]], collection: str
) -> None:
    known = {migration.name for source in sources for migration in source}
    unknown = [name for name in applied if name not in known]
    if unknown:
        raise MigrationError(
            f"'{collection}' has had {', '.join(unknown)}, which this code does not know: newer "
            "code was here, or migrations of your own, whose folder goes with --dir"
        )


def _check_order(applied: Sequence[str], source: Sequence[Migration], collection: str) -> None:
    """Refuse a migration that was added before one that was applied."""
    done = [index for index, one in enumerate(source) if one.name in applied]
    late = [one for one in source[: max(done, default=0)] if one.name not in applied]
    if late:
        raise MigrationError(
            f"{late[0].name} comes before {source[max(done)].name}, which '{collection}' has had "
            "already: give it a higher number"
        )


def _told(exc: Exception) -> str:
    """What went wrong; of an exception that is not ours, with its type, or it may mean nothing."""
    if isinstance(exc, MsmarcoQdrantError):
        return str(exc)
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
