"""Conditions on `meta` fields as values: valid and invalid ones."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import UserDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any, get_args, get_type_hints
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
import qdrant_edge
from qdrant_client import models

from msmarco_qdrant.core.filter_values import list_values, split_words, to_utc
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import (
    All,
    Exists,
    GeoRadius,
    MetaFilter,
    Not,
    Range,
    Text,
    check_filter,
)
from msmarco_qdrant.filters import Any as Either
from msmarco_qdrant.search.options import SearchOptions

NOON = datetime(2024, 5, 1, 12)


class Color(Enum):
    """An enum of strings."""

    RED = "red"


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"lang": "en", "year": 2001, "score": 0.5, "live": True},
        {"lang": ["en", "de"], "mixed": ("1", 1, 1.5, False)},
        {"year": Range(gte=2001, lt=2010.5), "published": Range(gt=date(2001, 1, 1), lte=NOON)},
        {"author.name": Exists(), "tags": Not(["draft", 1]), "lang": Not(Exists())},
        {"year": Not(Not(Range(gt=-(2**63))))},
        {"": 1, "a b": 1, "größe": "ß", "list[].x": 2**63 - 1},
        UserDict({"lang": "en"}),
        models.Filter(must=models.HasIdCondition(has_id=[1])),
        Either([{"lang": "en"}, All([{"year": 1}, Not({"tags": "draft"})]), models.Filter()]),
        {"year": Either([Range(lt=1), 7, ["a", 1]]), "tags": All(["sea", Not("draft"), Exists()])},
        {"title": Text("sea music"), "place": GeoRadius(lat=-90, lon=180, radius_m=0.1)},
        {"authors": {"name": "Ada", "born": Not(Range(lt=1900)), "books": {"title": Text("x")}}},
        {"authors": Not({"name": Either(["Ada", Range(gt=1)])}), "a[0].b[]": {"c": 1}},
    ],
)
def test_filters_that_pass(given: Any) -> None:
    """None, mappings of every form, and Qdrant's own."""
    check_filter(given)


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], math.nan, -math.inf, 2**63, -(2**63) - 1, set(), b"\xff", "\ud800"),
        *(["en", None], ["en", b"\xff"], [["en"]], [Range(gt=1)], Exists, object(), np.nan, 1j),
        *(iter(["en"]), np.zeros((1, 1)), Decimal("NaN")),
    ],
)
def test_invalid_values(value: Any) -> None:
    """The message names the field, also inside a `Not`."""
    for condition in (value, Not(value)):
        with pytest.raises(UsageError, match=r"the filter on 'lang' (must|holds) "):
            check_filter({"lang": condition})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (date(2024, 5, 1), [date(2024, 5, 1)]),
        (NOON, [NOON]),
        (np.datetime64("2024-05-01T12"), [NOON]),
        (np.array(["2024-05-01T12"], "datetime64[s]"), [NOON]),
        ([date(2024, 5, 1), "en", 1], [date(2024, 5, 1), "en", 1]),
        (np.int64(7), [7]),
        (np.float32(0.5), [0.5]),
        (np.bool_(True), [True]),
        (np.array([1, 2]), [1, 2]),
        (np.array(1), [1]),
        (("a", "b"), ["a", "b"]),
        ({"a"}, ["a"]),
        (frozenset({1}), [1]),
        (range(2), [0, 1]),
        (Decimal("9.99"), [9.99]),
        (Decimal(7), [7]),
        (UUID(int=1), ["00000000-0000-0000-0000-000000000001"]),
        (time(12, 30), ["12:30:00"]),
        (Color.RED, ["red"]),
        (b"en", ["en"]),
        (PurePosixPath("a/b"), ["a/b"]),
        (pa.scalar(7), [7]),
        (pa.array(["a", "b"]), ["a", "b"]),
        (pa.scalar(datetime(2024, 5, 1, 12)), [NOON]),
    ],
)
def test_c7_values_mean_the_same_as_in_meta(given: Any, expected: list[Any]) -> None:
    """A moment stays one: it is compared with any way of writing it."""
    check_filter({"x": given})
    listed = list_values("x", given)
    assert expected == listed
    assert [type(value) for value in expected] == [type(value) for value in listed]


def test_c7_bounds_of_other_types() -> None:
    """They are as those of Python."""
    assert Range(gt=1, lte=9.99) == Range(gt=np.int8(1), lte=Decimal("9.99"))  # type: ignore[arg-type]
    assert Range(lt=NOON) == Range(lt=np.datetime64("2024-05-01T12"))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["a\0b", "\ud800", 1, None, b"lang"])
def test_invalid_fields(field: Any) -> None:
    """The engines have no path for such a field."""
    with pytest.raises(UsageError, match="must be a string without"):
        check_filter({field: "x"})


@pytest.mark.parametrize("field", ['a"b', '"a', 'a"', '"a"b', 'a."b', '"', '"a"."b'])
def test_s5_quotation_marks_enclose_a_whole_name(field: str) -> None:
    """The message has the valid form."""
    with pytest.raises(UsageError, match=r'such as "first.name" or author."first.name", got'):
        check_filter({field: "x"})


def test_s5_dots_are_bounded() -> None:
    """Each dot doubles the number of keys."""
    check_filter({"a.b.c.d.e.f.g.h.i": "x"})
    with pytest.raises(UsageError, match="must have at most 8 dots, got 9"):
        check_filter({"a.b.c.d.e.f.g.h.i.j": "x"})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["lang"], "list"),
        ("lang=en", "str"),
        (Exists(), "msmarco_qdrant.filters.Exists"),
        (qdrant_edge.Filter(), "Filter"),
        (models.MatchValue(value=1), "qdrant_client.http.models.models.MatchValue"),
    ],
)
def test_invalid_filters(given: Any, name: str) -> None:
    """The message contains the type found and the types expected."""
    with pytest.raises(UsageError, match=rf"mapping of fields .*models\.Filter, got an? .*{name}$"):
        check_filter(given)


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({}, "must have a bound"),
        ({"gt": 1, "gte": 1}, "gt or gte, not both"),
        ({"lt": 1, "lte": 2}, "lt or lte, not both"),
        ({"gt": 1, "lt": date(2024, 1, 1)}, "all numbers or all dates"),
        ({"gt": math.nan}, "gt must be .*, got nan"),
        ({"lte": math.inf}, "lte must be .*, got inf"),
        ({"lt": 2**63}, "lt must be .*, got 9223372036854775808"),
        ({"gte": True}, "gte must be .*, got True"),
        ({"gte": "2024-01-01"}, "gte must be .*, got '2024-01-01'"),
        ({"gte": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "must be 1 to 9999"),
    ],
)
def test_invalid_ranges(bounds: dict[str, Any], reason: str) -> None:
    """They are refused on construction."""
    with pytest.raises(UsageError, match=reason):
        Range(**bounds)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (date(2024, 5, 1), datetime(2024, 5, 1, tzinfo=UTC)),
        (NOON, datetime(2024, 5, 1, 12, tzinfo=UTC)),
        (NOON.replace(tzinfo=timezone(timedelta(hours=2))), datetime(2024, 5, 1, 10, tzinfo=UTC)),
    ],
)
def test_moments_are_in_utc(given: date, expected: datetime) -> None:
    """A date is its first moment; without an offset, a moment is in UTC."""
    assert (expected, UTC) == (to_utc(given), to_utc(given).tzinfo)


def test_hints_can_be_read_at_run_time() -> None:
    """Tools that generate forms or documents evaluate type hints."""
    hints = get_type_hints(SearchOptions)
    assert SearchOptions.__annotations__.keys() == hints.keys()
    combined = {All, Either, Not}
    assert {type(None), Any, MetaFilter} | combined == {*get_args(hints["meta_filter"])}
    assert (str | None) == hints["group_by"]
    assert {Exists, Not, Range} < {*get_args(get_type_hints(Not)["condition"])}


def test_filters_import_no_engine() -> None:
    """Making and checking a filter imports neither client nor engine."""
    program = (
        "import sys; from msmarco_qdrant.filters import *; from msmarco_qdrant.filters import "
        "check_filter, is_qdrant_filter; check_filter({'a': Not(Range(gt=1))}); "
        "assert not is_qdrant_filter({}); "
        "assert not {'qdrant_client', 'qdrant_edge', 'numpy'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


_CENTER = {"lat": 0, "lon": 0, "radius_m": 1}


@pytest.mark.parametrize(
    ("kind", "arguments", "reason"),
    [
        (Text, {"words": ""}, "a Text must be a string with a letter or digit, got ''"),
        (Text, {"words": " -- "}, "a letter or digit, got ' -- '"),
        (Text, {"words": ["sea"]}, r"must be a string with a letter or digit, got \['sea'\]"),
        (GeoRadius, {**_CENTER, "lat": 91}, "lat of a GeoRadius must be -90 to 90, got 91"),
        (GeoRadius, {**_CENTER, "lon": -181}, "lon .* must be -180 to 180, got -181"),
        (GeoRadius, {**_CENTER, "lat": "1"}, "lat of .* must be -90 to 90, got '1'"),
        (GeoRadius, {**_CENTER, "lat": True}, "must be -90 to 90, got True"),
        (GeoRadius, {**_CENTER, "radius_m": 0}, "radius_m .* must be more than 0, got 0"),
        (GeoRadius, {**_CENTER, "radius_m": math.inf}, "must be more than 0, got inf"),
        (Either, {"conditions": []}, r"Any must have a condition or filter, got \[\]"),
        (Either, {"conditions": {"a": 1}}, "Any must be a list of conditions or filters, got {"),
        (All, {"conditions": "lang"}, "All must be a list of .*, got 'lang'"),
        (All, {"conditions": Not("x")}, "All must be a list of conditions or filters, got Not"),
    ],
)
def test_invalid_conditions(kind: Any, arguments: dict[str, Any], reason: str) -> None:
    """When they are made: the rule, then the value."""
    with pytest.raises(UsageError, match=reason):
        kind(**arguments)


@pytest.mark.parametrize(
    ("kind", "given", "named", "reason"),
    [
        (Either, ("de", "fr"), {}, r"Any takes one argument: a list of .* got \('de', 'fr'\)"),
        (All, (), {}, r"All takes one argument: .*such as All\(\[a, b\]\), got \(\)"),
        (Not, (), {}, r"Not takes one argument: a condition or filter, such as Not\(.*got \(\)"),
        (Not, ("de", "fr"), {}, r"Not takes one argument: .* got \('de', 'fr'\)"),
        (Either, (), {"values": ["de"]}, r"Any takes one argument: .* got \(values=\['de'\]\)"),
        (All, (["de"],), {"conditions": ["fr"]}, "All takes one argument"),
    ],
)
def test_a_combination_takes_one_argument(
    kind: Any, given: tuple[Any, ...], named: dict[str, Any], reason: str
) -> None:
    """Others are refused with an example, not with Python's own error."""
    with pytest.raises(UsageError, match=reason):
        kind(*given, **named)


def _nested(depth: int) -> Any:
    return Not(_nested(depth - 1)) if depth else {"a": 1}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Either([{"lang": "en"}, {}]), "a filter in Any must have a condition"),
        (Not({}), "a filter in Not must have a condition"),
        (All([{"lang": "en"}, "de"]), "a filter must be a mapping of .*, got a str"),
        ({"lang": All([[]])}, "filter on 'lang' must have a value"),
        ({"lang": models.Filter()}, "on 'lang' must be a condition on its value, got a qdrant"),
        ({"authors": {}}, "the filter on objects of 'authors' must have a condition, got {}"),
        ({"authors": {"name": Not("Ada")}}, "that an object without the field does not meet"),
        ({"authors": {"name": Either(["Ada", Not("Bo")])}}, "an object without the field"),
        ({"a[][0]": {"b": 1}}, r"must not count the items of .*, got 'a\[\]\[0\]': write \[\]"),
        ({"a.b.c.d.e": {"f.g.h.i.j": 1}}, "a field must have at most 8 dots, got 9"),
        ({"authors": {1: 2}}, "must be a string without NUL and lone surrogates, got 1"),
        (_nested(13), "a filter must be nested at most 12 levels deep"),
    ],
)
def test_invalid_combinations(given: Any, reason: str) -> None:
    """They are refused before an engine is asked."""
    with pytest.raises(UsageError, match=reason):
        check_filter(given)


def test_a_list_is_copied() -> None:
    """A filter does not change with the list."""
    given = ["a", "b"]
    made = All(given)
    given.clear()
    assert All(("a", "b")) == made
    check_filter(_nested(12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sea music", ["sea", "music"]),
        ("The sea-side, 2nd_part: (x)", ["The", "sea", "side", "2nd", "part", "x"]),
        ("हिन्दी e\u0301t\u00e9 ° —", ["हिन्दी", "e\u0301t\u00e9"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    """Marks stay with their letters, as the engines split by scripts that Python does not know."""
    assert words == [*split_words(text)]
