"""Queries to a shard of Qdrant Edge: several in one batch answer as each alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from msmarco_qdrant.core.search_types import Nearest, PointQuery, ScoredPoint, SearchEffort
from msmarco_qdrant.stores.edge.collection import EdgeCollection
from msmarco_qdrant.stores.edge.store import EdgeStore
from msmarco_qdrant.stores.filters import to_qdrant
from tests.stores.edge.test_store import fill

_DEPTH, _COUNT = 40, 300
_EFFORT = SearchEffort(exact=True)
_ALL = models.Filter(must=[models.FieldCondition(key="seq", range=models.Range(gte=0))])


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeCollection]:
    """Random vectors, none of which are equal."""
    path = tmp_path_factory.mktemp("reads") / "store"
    fill(path, _COUNT)
    with closing(EdgeStore.open(str(path), create=False)) as store:
        yield store.collection("c__0001")


def _shown(points: list[ScoredPoint]) -> list[tuple[Any, Any]]:
    return [(point.id, pytest.approx(point.score, abs=1e-6)) for point in points]


@pytest.mark.parametrize("offset", [0, 7])
@pytest.mark.parametrize("meta_filter", [None, _ALL], ids=["plain", "filtered"])
@pytest.mark.parametrize("by_point", [False, True])
def test_candidates_of_the_same_batch_are_ordered_by_diversity(
    collection: EdgeCollection, *, by_point: bool, meta_filter: Any, offset: int
) -> None:
    """They are not searched for again, and the answer is that of the query alone."""
    vector = np.random.default_rng(1).standard_normal(64).astype(np.float32)
    nearest = Nearest(11 if by_point else vector / np.linalg.norm(vector), "dense-x")
    plain = PointQuery(nearest, _DEPTH + 1, _EFFORT, meta_filter, fields=())
    diverse = replace(plain, limit=10, depth=_DEPTH, diversity=0.5, offset=offset)
    (alone,) = collection.query([diverse])
    read = PointQuery(None, 1, ids=[5], fields=("pid",))
    found, points, candidates = collection.query([diverse, read, plain])
    assert [5] == [point.id for point in points]
    assert _shown(alone) == [(point.id, point.score) for point in found]
    assert (10, _DEPTH + 1) == (len(found), len(candidates))
    best = {point.id for point in candidates[:_DEPTH]}
    assert {point.id for point in found} <= best
    assert 11 not in best or not by_point
    too_few = replace(plain, limit=_DEPTH)
    assert _shown(alone) == [(p.id, p.score) for p in collection.query([diverse, too_few])[0]]


def test_no_candidates_have_no_order(collection: EdgeCollection) -> None:
    """A filter that nothing matches."""
    nothing = to_qdrant({"none": "x"})
    plain = PointQuery(Nearest(3, "dense-x"), _DEPTH + 1, _EFFORT, nothing, fields=())
    assert [[], []] == collection.query([replace(plain, diversity=0.5, depth=_DEPTH), plain])
