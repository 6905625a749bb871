"""The graph of a collection: whether its passages are in it."""

from __future__ import annotations

from msmarco_qdrant.collection.bulk import BULK_THRESHOLD_KB, DEFAULT_THRESHOLD_KB
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.collection_types import CollectionInfo
from msmarco_qdrant.stores.base import Store

_FEW_POINTS = 10_000  # a scan of fewer takes some milliseconds
_FLOAT_BYTES = 4


def graph_note(store: Store, name: str, info: CollectionInfo) -> str | None:
    """Return the advice for a large collection most of whose passages are not in its graph.

    Args:
        store: The store.
        name: The collection's name.
        info: Its state.

    Returns:
        The advice; None for any other collection, for an engine that has no graphs, and if the
        engine would build none: it scans segments below its indexing threshold.
    """
    missing = info.points - info.in_graph
    is_large = store.capabilities.ann and info.points >= _FEW_POINTS
    if not is_large or 2 * missing < info.points or not _can_build(store, name, info):
        return None
    command = advised_command("optimize", collection=name, store=store.dsn)
    return (
        f"{missing:,} of the {info.points:,} passages of '{name}' are not in its graph, and a "
        f"search compares with each of them: build the graph with {command}"
    )


def _can_build(store: Store, name: str, info: CollectionInfo) -> bool:
    """Return True if the engine builds a graph of the passages that have none when called to."""
    if store.capabilities.multi_process:  # a server, which builds each graph by itself
        return info.state != "ready" or bool(store.bulk_holders(name))
    least = None
    if store.capabilities.admin:
        least = store.admin_collection(name).optimizers().indexing_threshold_kb
    if least == BULK_THRESHOLD_KB:
        return False
    size = (info.points - info.in_graph) * info.spec.dimension * _FLOAT_BYTES
    return size >= 1024 * (DEFAULT_THRESHOLD_KB if least is None else least)
