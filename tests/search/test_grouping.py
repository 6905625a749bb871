"""One best passage of each group."""

from __future__ import annotations

from typing import Any

import pytest

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.search.ranking import best_per_group


def hits(*metas: dict[str, Any]) -> list[Hit]:
    """Hits by falling score, whose pids count from 1."""
    return [Hit(n, str(n), 1 / n, f"text {n}", meta) for n, meta in enumerate(metas, start=1)]


@pytest.mark.parametrize(
    ("metas", "expected"),
    [
        ([{"doc": "a"}, {"doc": "a"}, {"doc": "b"}], ["1", "3"]),
        ([{}, {"doc": None}, {"doc": "a"}, {"doc": {}}, {"doc": []}], ["3"]),
        ([{"doc": 1}, {"doc": True}, {"doc": "1"}, {"doc": 1.0}], ["1", "2", "3"]),
        ([{"doc": ["a", "b"]}, {"doc": "b"}, {"doc": ["b", "c"]}, {"doc": "c"}], ["1", "3"]),
    ],
)
def test_the_best_per_group(metas: list[dict[str, Any]], expected: list[str]) -> None:
    """The first that shows a value; what has none is left out; kinds are told apart."""
    assert expected == [hit.pid for hit in best_per_group(hits(*metas), "doc")]


def test_a_field_in_an_object() -> None:
    """Dots go into objects; what is no object has no fields."""
    metas: list[dict[str, Any]] = [
        {"doc": {"id": 1}},
        {"doc": {"id": 1}},
        {"doc": 7},
        {"doc": {"id": 2}},
    ]
    assert ["1", "4"] == [hit.pid for hit in best_per_group(hits(*metas), "doc.id")]
