"""Collections without their aliases, as a restored snapshot leaves them."""

from __future__ import annotations

from typing import Any

from qdrant_client import models

from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.edge.store import EdgeStore
from msmarco_qdrant.stores.server.store import ServerStore


def remove_alias(store: Store, name: str) -> None:
    """Remove an alias, and leave its collection as it is."""
    if isinstance(store, EdgeStore):
        directory = store._engine.directory
        kept: dict[str, Any] = {**directory._catalog, "aliases": {**directory.aliases}}
        del kept["aliases"][name]
        directory._replace(kept)
        return
    assert isinstance(store, ServerStore)
    deletion = models.DeleteAlias(alias_name=name)
    store._change_aliases([models.DeleteAliasOperation(delete_alias=deletion)])
