"""Build the index of a collection, outside of an ingest."""

from __future__ import annotations

import math
from os import PathLike

from msmarco_qdrant.collection.bulk import BulkMode, end_bulk
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.collection_types import CollectionInfo
from msmarco_qdrant.stores import (
    DEFAULT_CONNECTION,
    INDEX_STALL_S,
    Connection,
    Store,
    use_store,
)


@suggest_keywords
def optimize_collection(
    store: Store | str | PathLike[str],
    collection: str = "msmarco",
    *,
    wait_index: bool = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> CollectionInfo:
    """Build the index over vectors written since the last build; return when it is done.

    An ingest builds it at its end. Use this after an interruption, and after `optimize=False`. It
    ends the bulk mode of an ingest that was interrupted; one that runs keeps it.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        collection: The collection's name.
        wait_index: Wait for a server's index without a bound. By default the wait ends with a
            warning if the server builds no index.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The state of the collection.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreError: If the build failed; no passage is lost, and it can be called again.
    """
    with use_store(store, connection) as opened:
        opened.metadata(collection)  # raises for another program's collection
        return build_index(opened, collection, wait_index=wait_index)


def build_index(store: Store, collection: str, *, wait_index: bool) -> CollectionInfo:
    """Build the index of a collection of this package; see `optimize_collection`."""
    found = store.collection(collection)
    end_bulk(BulkMode(store, collection))
    found.optimize(stall_s=math.inf if wait_index else INDEX_STALL_S)
    return found.info(all_replicas=False)
