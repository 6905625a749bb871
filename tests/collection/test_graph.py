"""Whether the passages of a collection are in its graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from msmarco_qdrant.collection.create import create_collection
from msmarco_qdrant.collection.graph import graph_note
from msmarco_qdrant.core.collection_types import Bm25Settings

if TYPE_CHECKING:
    from msmarco_qdrant.stores import Store
    from msmarco_qdrant.testing import HashingEncoder


@pytest.mark.parametrize(
    ("points", "indexed", "in_graph", "noted"),
    [
        (47_283, 47_283, 0, True),  # each sparse vector, and no dense one
        (47_283, 94_566, 47_283, False),
        (47_283, 60_000, 12_717, True),
        (47_283, 80_000, 32_717, False),
        (47_283, 120_000, 47_283, False),  # Edge counts vectors that were replaced
        (47_283, 0, 0, True),
        (9_000, 9_000, 0, False),  # few
        (0, 0, 0, False),
    ],
)
def test_a_large_collection_without_a_graph_is_noted(
    store: Store, encoder: HashingEncoder, points: int, indexed: int, in_graph: int, noted: bool
) -> None:
    """With the command that builds it; not for an engine that has no graphs."""
    create_collection(store, "msmarco", encoder.info, Bm25Settings())
    empty = store.collection("msmarco").info()
    info = replace(empty, points=points, indexed=indexed)
    assert in_graph == info.in_graph
    note = graph_note(store, "msmarco", info)
    assert (noted and store.capabilities.ann) == (note is not None)
    if note is not None:
        assert f"{points - in_graph:,} of the {points:,} passages of 'msmarco'" in note
        assert "`msmarco-qdrant optimize --store " in note
