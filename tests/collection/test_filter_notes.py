"""The fields of a filter, and the notes on those that cannot match."""

from __future__ import annotations

from typing import Any

import pytest
from qdrant_client import models

from msmarco_qdrant.collection.filter_notes import filter_fields
from msmarco_qdrant.filters import All, Exists, GeoRadius, Not, Range, Text
from msmarco_qdrant.filters import Any as Either

_NULL = models.IsNullCondition(is_null=models.PayloadField(key="k"))
_CIRCLE = GeoRadius(lat=1, lon=2, radius_m=3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"a": 1, "b": Not(1)}, {"a": False, "b": True}),
        ({"a": Not(Not(1)), "b": Not(Exists())}, {"a": False, "b": True}),
        ({"a": Either([1, Not(2)]), "b": All([1, Not(2)])}, {"a": True, "b": False}),
        (Either([{"a": 1}, {"b": 1}]), {"a": True, "b": True}),
        (Either([{"a": 1}]), {"a": False}),
        (All([{"a": 1}, Not({"b": 1, "a": 2})]), {"a": True, "b": True}),
        ({"a": {"b": 1, "c.d": Not(2)}}, {"a.b": False, "a.c.d": True}),
        ({"a": Not({"b": 1})}, {"a.b": True}),
        (
            All([models.Filter(must=models.IsNullCondition(is_null=models.PayloadField(key="k")))]),
            {"k": True},
        ),
    ],
)
def test_fields_of_a_filter(given: Any, expected: dict[str, bool]) -> None:
    """Each once; true if a passage without the field may match."""
    assert expected == {field.name: field.is_negative for field in filter_fields(given)}


@pytest.mark.parametrize(
    ("given", "values", "note"),
    [
        ({"a": Text("x")}, ["text"], None),
        ({"a": Text("x")}, [7], "has values such as 7, and the filter compares strings"),
        ({"a": _CIRCLE}, [{"lat": 1.5, "lon": 2}], None),
        ({"a": _CIRCLE}, [[{"lat": 1.5, "lon": 2}]], None),
        ({"a": _CIRCLE}, [{"lat": "1", "lon": 2}], 'write a place as {"lat": 52.5, "lon": 13.4}'),
        ({"a": _CIRCLE}, ["52.5,13.4"], "compares places; write a place as"),
        ({"a": Either(["x", Range(gt=1)])}, [7], None),
        ({"a": Either(["x", Range(gt=1)])}, [True], "compares numbers and strings"),
        ({"a": All([Exists(), Not("x")])}, [7], None),
        ({"a": {"b": "x"}}, [7], "the field 'a.b' has values such as 7"),
    ],
)
def test_notes_on_types(given: Any, values: list[Any], note: str | None) -> None:
    """None where one of the condition's types is that of a value."""
    (field,) = filter_fields(given)
    found = field.note(values)
    assert (note is None) == (found is None)
    assert note is None or note in (found or "")
