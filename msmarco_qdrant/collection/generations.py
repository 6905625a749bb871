"""The physical collections of one name: the live one, and those that a re-embedding made.

There is no state file. What is under way stands in the metadata: a collection that is being filled
remembers its source as `copied_from` until the last pass is done. Before the swap it is another one
than the live one, after it the live one itself.

The physical collections that one name has had: the live one, its forerunners and those to come.

A name's collections are numbered (`msmarco__0001`, `msmarco__0002`), each with the vectors of one
model, and the name is an alias of one of them. What an interrupted creation or re-embedding left
is a collection, too, though no alias leads to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msmarco_qdrant.core.records import CollectionMetadata, Copying, Generation
from msmarco_qdrant.errors import StoreCorruptError, UsageError
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.names import (
    base_name,
    is_own_alias,
    physical_name,
    physical_number,
    unknown_collection,
)


@dataclass(frozen=True, slots=True)
class Generations:
    """The physical collections of a name.

    Attributes:
        name: The name that users see.
        live: The physical collection that the name leads to.
        metadata: What was kept with that one.
        others: The rest, in the order of their numbers.
        unreadable: Those whose metadata cannot be read: what an interrupted creation left.
    """

    name: str
    live: str
    metadata: CollectionMetadata
    others: Sequence[Generation]
    unreadable: Sequence[str]

    @property
    def copying(self) -> Copying | None:
        """What is under way, or was interrupted; not what is copied from a collection that is gone.

        The way back comes before a re-embedding: it was begun later.
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
    def way_back(self) -> Copying | None:
        """From the live collection into the one that the name led to before."""
        for other in self.others:
            if other.physical == self.metadata.previous:
                return self.into(other)
        return None

    def into(self, other: Generation) -> Copying:
        """From the live collection into another that is there already."""
        metadata = replace(other.metadata, copied_from=self.live, swaps=self.metadata.swaps + 1)
        return Copying(self.live, other.physical, metadata, is_swapped=False)

    @property
    def next_physical(self) -> str:
        """The name of the next physical collection; an interrupted creation is done again."""
        taken = [self.live, *(other.physical for other in self.others)]
        return physical_name(self.name, 1 + max(map(physical_number, taken)))


def reembedding_command(name: str, model: str) -> str:
    """What to type for another model, as messages have it."""
    return f"`msmarco-qdrant migrate reembed --collection {name} --model {model}`"


def giving_up_command(name: str) -> str:
    """What to type to give up what was begun, and that alone, as messages have it."""
    return f"`msmarco-qdrant migrate prune --collection {name} --unfinished --yes`"


def read_generations(store: Store, collection: str) -> Generations:
    """Look which physical collections a name has, and what is under way.

    Raises:
        CollectionNotFoundError: If there is no such name.
        UsageError: If it is the name of a physical collection: what is done to a name concerns all
            of its collections.
    """
    name, aliases = base_name(collection), store.aliases()
    if name not in aliases:
        raise unknown_collection(collection, aliases, store.dsn)
    if name != collection:
        raise UsageError(
            f"'{collection}' is a physical collection behind '{name}': pass --collection {name}"
        )
    live = aliases[name]
    others, unreadable = [], []
    for physical in physical_collections(store, name):
        try:
            others.append(Generation(physical, store.metadata(physical)))
        except StoreCorruptError:
            unreadable.append(physical)
    metadata = next((one.metadata for one in others if one.physical == live), None)
    return Generations(
        name,
        live,
        metadata or store.metadata(live),
        [one for one in others if one.physical != live],
        unreadable,
    )


def physical_collections(store: Store, name: str) -> Sequence[str]:
    """Every physical collection of a name, by ascending number.

    Args:
        store: Where they are.
        name: The name that users see; it need not be an alias of anything.

    Returns:
        Their names, also of those without metadata and of those that no alias leads to.
    """
    found = (physical for physical in store.physical_names() if is_own_alias(name, physical))
    return sorted(found, key=physical_number)
