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

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import (
    Exists,
    MetaFilter,
    Not,
    Range,
    check_filter,
    list_values,
    to_utc,
)
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
    ],
)
def test_filters_that_pass(given: Any) -> None:
    """None, mappings of every form, and Qdrant's own."""
    check_filter(given)


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], math.nan, -math.inf, 2**63, -(2**63) - 1, {"a": 1}, set(), b"\xff", "\ud800"),
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
    assert {type(None), Any, MetaFilter} == {*get_args(hints["meta_filter"])}
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
