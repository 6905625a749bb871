"""The physical collections of one name, and the re-embedding that is in progress.

A name's physical collections are numbered (`msmarco__0001`, `msmarco__0002`). Each holds the
vectors of one model, and the name is an alias of one of them, the live one. An interrupted creation
or re-embedding also leaves a physical collection, without an alias.

No state file exists. The metadata of a collection that is being filled names its source as
`copied_from` until the last pass is done. Before the swap that collection is not the live one;
after the swap it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.metadata_types import CollectionMetadata, Copying, Generation
from msmarco_qdrant.errors import StoreCorruptError, UsageError
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.names import (
    base_name,
    is_own_alias,
    physical_name,
    physical_number,
)


@dataclass(frozen=True, slots=True)
class Generations:
    """The physical collections of a name.

    Attributes:
        name: The name that users see.
        live: The physical collection that the alias points to.
        metadata: The metadata of the live collection.
        others: The other collections, in the order of their numbers.
        unreadable: Collections without readable metadata, left by an interrupted creation.
    """

    name: str
    live: str
    metadata: CollectionMetadata
    others: Sequence[Generation]
    unreadable: Sequence[str]

    @property
    def copying(self) -> Copying | None:
        """The unfinished re-embedding or rollback; None if its source was dropped.

        If both are unfinished it is the rollback, which began later.
        """
        source = self.metadata.copied_from
        if source in [other.physical for other in self.others]:
            return Copying(source, self.live, self.metadata, is_swapped=True)
        begun = [other for other in self.others if other.metadata.copied_from == self.live]
        first = min(begun, key=lambda other: other.physical != self.metadata.previous, default=None)
        if first is None:
            return None
        return Copying(self.live, first.physical, first.metadata, is_swapped=False)

    @property
    def rollback(self) -> Copying | None:
        """The copying from the live collection into the previous one, if that still exists."""
        found = [other for other in self.others if other.physical == self.metadata.previous]
        return self.copying_into(found[0]) if found else None

    def copying_into(self, other: Generation) -> Copying:
        """The copying from the live collection into another existing one."""
        metadata = replace(other.metadata, copied_from=self.live, swaps=self.metadata.swaps + 1)
        return Copying(self.live, other.physical, metadata, is_swapped=False)

    @property
    def next_physical(self) -> str:
        """The name of the next physical collection; an unreadable one is replaced."""
        numbers = [physical_number(other.physical) for other in self.others]
        return physical_name(self.name, 1 + max(physical_number(self.live), *numbers, 0))


def reembed_command(dsn: str, name: str, model: str) -> str:
    """The command that re-embeds with a model, for messages."""
    return advised_command("migrate", "reembed", "--model", model, collection=name, store=dsn)


def abandon_command(dsn: str, name: str) -> str:
    """The command that abandons an unfinished re-embedding and nothing else, for messages."""
    return advised_command("migrate", "prune", "--unfinished", "--yes", collection=name, store=dsn)


def abandon_hint(dsn: str, name: str, copying: Copying) -> str:
    """The end of a message about an unfinished re-embedding; "" after its swap."""
    return "" if copying.is_swapped else f", or abandon it with {abandon_command(dsn, name)}"


def read_generations(store: Store, collection: str) -> Generations:
    """Read the physical collections of a name with their metadata.

    Raises:
        CollectionNotFoundError: If the name does not exist.
        UsageError: If it is the name of a physical collection.
    """
    name, aliases = base_name(collection), store.aliases()
    if name not in aliases:
        raise store.unknown_collection(collection)
    if name != collection:
        raise UsageError(
            f"'{collection}' is a physical collection of '{name}': use the name '{name}', which "
            "covers all of its physical collections"
        )
    live = aliases[name]
    readable, unreadable = {}, []
    for physical in physical_collections(store, name):
        try:
            readable[physical] = store.metadata(physical)
        except StoreCorruptError:
            unreadable.append(physical)
    metadata = readable.pop(live, None) or store.metadata(live)
    others = [Generation(physical, kept) for physical, kept in readable.items()]
    return Generations(name, live, metadata, others, unreadable)


def physical_collections(store: Store, name: str) -> Sequence[str]:
    """List every physical collection of a name, by ascending number.

    Args:
        store: The store that holds them.
        name: The name that users see; it need not be an alias.

    Returns:
        Their names, including those without metadata and those without an alias.
    """
    found = (physical for physical in store.physical_names() if is_own_alias(name, physical))
    return sorted(found, key=physical_number)
