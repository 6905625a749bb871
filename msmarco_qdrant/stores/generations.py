"""The physical collections that one name has had: the live one, its forerunners and those to come.

A name's collections are numbered (`msmarco__0001`, `msmarco__0002`), each with the vectors of one
model, and the name is an alias of one of them. What an interrupted creation or re-embedding left
is a collection, too, though no alias leads to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from msmarco_qdrant.errors import UnsupportedError
from msmarco_qdrant.stores.names import physical_number, stands_for
from msmarco_qdrant.stores.protocols import Store


@runtime_checkable
class _Listing(Protocol):
    def physical_names(self) -> Sequence[str]: ...


def physical_collections(store: Store, name: str) -> Sequence[str]:
    """Every physical collection of a name, by ascending number.

    Args:
        store: Where they are.
        name: The name that users see; it need not be an alias of anything.

    Returns:
        Their names, also of those without metadata and of those that no alias leads to.

    Raises:
        UnsupportedError: If the store cannot list them.
    """
    if not isinstance(store, _Listing):
        raise UnsupportedError(
            f"{store.dsn} ({store.capabilities.engine}) does not list its physical collections: "
            "nothing can be deleted or re-embedded there"
        )
    found = (physical for physical in store.physical_names() if stands_for(name, physical))
    return sorted(found, key=physical_number)
