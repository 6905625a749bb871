"""Ledger of a collection: which of its applied migrations are the package's, and which a user's.

`CollectionMetadata.migrations` has the names of all. `user_migrations` records those of a user's
folder, each with the folder's name and the file's checksum. A ledger of an earlier version has no
such records: of its names, those that are not the package's own are a user's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msmarco_qdrant.collection.migration import Migration, load_migrations
from msmarco_qdrant.core.metadata_types import CollectionMetadata, UserMigration
from msmarco_qdrant.errors import UsageError


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger of a collection, compared with migrations in files.

    Attributes:
        metadata: The collection's metadata.
        own: The package's own migrations.
        theirs: Those of the user's folder; None if no folder was given.
    """

    metadata: CollectionMetadata
    own: Sequence[Migration]
    theirs: Sequence[Migration] | None

    @property
    def users(self) -> tuple[UserMigration, ...]:
        """The applied migrations of a user, in the order of the ledger."""
        recorded = self.metadata.user_migrations
        if recorded is not None:
            return recorded
        own = {migration.name for migration in self.own}
        return tuple(UserMigration(name) for name in self.metadata.migrations if name not in own)

    @property
    def pending(self) -> list[Migration]:
        """The known migrations that are not applied, the package's own first."""
        applied = self.metadata.migrations
        known = [*self.own, *(self.theirs or ())]
        return [migration for migration in known if migration.name not in applied]

    @property
    def unknown(self) -> tuple[str, ...]:
        """The applied migrations of newer code, and those that the user's folder lost."""
        users = {one.name for one in self.users}
        known = {migration.name for migration in (*self.own, *(self.theirs or ()))}
        newer = [name for name in self.metadata.migrations if name not in known | users]
        lost: list[str] = []
        if self.theirs:
            here = ("", self.theirs[0].folder)
            lost = [one.name for one in self.users if one.folder in here and one.name not in known]
        return (*newer, *lost)

    @property
    def edited(self) -> tuple[str, ...]:
        """The applied migrations of the user's folder whose files have another content now."""
        applied = {one.name: one.checksum for one in self.users}
        return tuple(
            migration.name
            for migration in self.theirs or ()
            if applied.get(migration.name, "") not in ("", migration.checksum)
        )

    def record(self, migrations: Iterable[Migration]) -> CollectionMetadata:
        """Return the metadata with these migrations as applied, and with all records of users."""
        names, users = list(self.metadata.migrations), {one.name: one for one in self.users}
        for migration in migrations:
            names += [migration.name] if migration.name not in names else []
            if migration.folder:
                record = UserMigration(migration.name, migration.folder, migration.checksum)
                users[migration.name] = record
        return replace(
            self.metadata, migrations=tuple(names), user_migrations=tuple(users.values())
        )

    def record_missing(self) -> CollectionMetadata:
        """Return the metadata with records of the applied files that have no checksum yet."""
        without = {one.name for one in self.users if not one.checksum}
        return self.record(one for one in self.theirs or () if one.name in without)


def load_sources(
    directory: Path | None,
) -> tuple[Sequence[Migration], Sequence[Migration] | None]:
    """Load the package's own migrations and those of the user's folder, None without one."""
    own = load_migrations()
    if directory is None:
        return own, None
    theirs = load_migrations(directory)
    shared = {migration.name for migration in own} & {migration.name for migration in theirs}
    if shared:
        raise UsageError(
            f"{directory} contains {min(shared)}, the name of one of the package's own migrations: "
            "rename it"
        )
    if not theirs:
        raise UsageError(f"{directory} contains no migration, such as 0001_name.py")
    return own, theirs
