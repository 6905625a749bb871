"""Collections whose alias is missing: a snapshot was restored, or the alias was removed.

Snapshots of a server contain no aliases. Such a collection is found by its physical name and by
the metadata of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.errors import SchemaError, StoreError, StoreUnavailableError
from msmarco_qdrant.stores.names import base_name, is_own_alias

if TYPE_CHECKING:
    from msmarco_qdrant.stores.base import Store


@dataclass(frozen=True, slots=True)
class UnlinkedCollection:
    """A physical collection with passages, or being restored, whose name is not an alias.

    Attributes:
        physical: Its name.
        points: Passages stored.
        metadata: Its metadata.
    """

    physical: str
    points: int
    metadata: CollectionMetadata

    @property
    def is_complete(self) -> bool:
        """False if a re-embedding or a restore was still filling it."""
        return self.metadata.copied_from is None and self.metadata.restoring is None

    def __str__(self) -> str:
        return f"{self.physical} ({self.points:,} passages, {self.metadata.encoder.model})"


def find_unlinked(store: Store, name: str) -> Sequence[UnlinkedCollection]:
    """Find the physical collections of a name that is not an alias, by ascending number.

    Empty ones are left by an interrupted creation; they and those of other programs are skipped.
    A collection that is being restored is found also while it is empty.

    Raises:
        StoreUnavailableError: If the store does not answer.
    """
    found = []
    for physical in store.physical_names():
        if not is_own_alias(name, physical):
            continue
        try:
            metadata, points = (
                store.metadata(physical),
                store.collection(physical).info(all_replicas=False).points,
            )
        except StoreUnavailableError:
            raise
        except StoreError:  # of another program, or dropped just now
            continue
        if points or metadata.restoring is not None:
            found.append(UnlinkedCollection(physical, points, metadata))
    # Read last: a client that creates the collection sets the alias before it writes passages.
    if found and store.aliases().get(name) in store.physical_names():
        return []
    return sorted(found, key=lambda one: one.physical)


def missing_alias(name: str, found: Sequence[UnlinkedCollection], dsn: str) -> StoreError:
    """Return the error for a name without an alias, although collections of it exist."""
    complete = [one for one in found if one.is_complete]
    if complete:
        return StoreError(
            f"the alias '{name}' is missing in {dsn}, where its passages are in "
            f"{', '.join(map(str, complete))}: restore the alias with "
            f"{advised_command('migrate', 'link', name, store=dsn)}"
        )
    if found[0].metadata.restoring is not None:
        return being_restored(found[0].physical, dsn)
    return StoreError(
        f"the alias '{name}' is missing in {dsn}, where {found[0]} was being filled from "
        f"{found[0].metadata.copied_from}, which is missing, too: point the alias to it, although "
        "passages may be missing, with "
        f"{advised_command('migrate', 'link', name, '--to', found[0].physical, store=dsn)}"
    )


def being_restored(physical: str, dsn: str) -> SchemaError:
    """Return the error for a physical collection that a restore is filling."""
    return SchemaError(
        f"the collection '{base_name(physical)}' in {dsn} is being restored from a backup into "
        f"{physical}: wait for the restore to end; if it was interrupted, run the same restore "
        "again"
    )
