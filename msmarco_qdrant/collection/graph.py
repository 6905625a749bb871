"""The graph of a collection: whether its passages are in it."""

from __future__ import annotations

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.collection_types import CollectionInfo
from msmarco_qdrant.stores.base import Store

_FEW_POINTS = 10_000  # a scan of fewer takes some milliseconds


def graph_note(store: Store, name: str, info: CollectionInfo) -> str | None:
    """Return the advice for a large collection most of whose passages are not in its graph.

    Args:
        store: The store.
        name: The collection's name.
        info: Its state.

    Returns:
        The advice; None for any other collection, and for an engine that has no graphs.
    """
    missing = info.points - info.in_graph
    if not store.capabilities.ann or info.points < _FEW_POINTS or 2 * missing < info.points:
        return None
    command = advised_command("optimize", collection=name, store=store.dsn)
    return (
        f"{missing:,} of the {info.points:,} passages of '{name}' are not in its graph, and a "
        f"search compares with each of them: build the graph with {command}"
    )
