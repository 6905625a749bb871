"""The `--filter` option's forms."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any

import click
import pytest

from msmarco_qdrant.cli.filters import parse_filters
from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.filters import Condition, Exists, Not, Range, Scalar, check_filter
from msmarco_qdrant.stores.filter_indexes import index_advice
from msmarco_qdrant.stores.filters import meta_key, to_qdrant

IN_BERLIN = datetime(2024, 5, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["lang=en"], {"lang": ["en"]}),
        (["lang=en", "lang=de"], {"lang": ["en", "de"]}),
        (["lang=en", "year=2024"], {"lang": ["en"], "year": ["2024", 2024.0, 2024]}),
        (["price=-1.5"], {"price": ["-1.5", -1.5]}),
        (["live=true", "dead=false"], {"live": ["true", True], "dead": ["false", False]}),
        (["id=9007199254740993"], {"id": ["9007199254740993", 9007199254740993]}),
        (["x=nan"], {"x": ["nan"]}),
        (["live=True", "dead=FALSE"], {"live": ["True", True], "dead": ["FALSE", False]}),
        (["empty="], {"empty": [""]}),
        (["author.name=Ann Lee"], {"author.name": ["Ann Lee"]}),
        (["lang!=en", "lang!=de"], {"lang": Not(["en", "de"])}),
        (["year!=2024"], {"year": Not(["2024", 2024.0, 2024])}),
    ],
)
def test_values_match_as_each_possible_type(
    given: list[str], expected: dict[str, Condition]
) -> None:
    """As a string, and as a number or boolean; any of several values, or none."""
    assert expected == parse_filters(given)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("2024", None, ["2024", 2024.0, 2024]),
        ("2024", "integer", [2024.0, 2024]),
        ("2024", "float", [2024.0]),
        ("2024", "keyword", ["2024"]),
        ("true", "bool", [True]),
        ("False", "bool", [False]),
        ("False", "keyword", ["False"]),
        ("2024", "bool", ["2024", 2024.0, 2024]),
        ("soon", "integer", ["soon"]),
        ("9007199254740993", "integer", [9007199254740993]),
        ("2024-05-01", "datetime", [date(2024, 5, 1)]),
        ("2024-05-01", "keyword", ["2024-05-01"]),
        ("2024-05-01", None, ["2024-05-01", date(2024, 5, 1)]),
        ("2024-02-30", None, ["2024-02-30"]),
        ("20240501", "datetime", ["20240501", 20240501.0, 20240501]),
    ],
)
@pytest.mark.parametrize("field", ["year", "größe", "a b.c"])
def test_index_decides_the_type(
    field: str, value: str, kind: PayloadIndex | None, expected: list[Scalar]
) -> None:
    """Other types are omitted, unless none fits."""
    indexes = {meta_key(field): kind} if kind else {}
    assert {field: expected} == parse_filters([f"{field}={value}"], indexes)
    assert {field: Not(expected)} == parse_filters([f"{field}!={value}"], indexes)


@pytest.mark.parametrize(
    ("value", "kind"), [("2024", "integer"), ("2.5", "float"), ("true", "bool"), ("x", "keyword")]
)
def test_indexed_values_need_no_advice(value: str, kind: PayloadIndex) -> None:
    """The index serves their types."""
    indexes: dict[str, PayloadIndex] = {"meta.x": kind}
    for text in (f"x={value}", f"x!={value}"):
        parsed = parse_filters([text], indexes)
        assert parsed is not None
        assert [] == index_advice(to_qdrant(parsed), indexes)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["year>=2001"], Range(gte=2001)),
        (["year>2001", "year<=2010"], Range(gt=2001, lte=2010)),
        (["year<1.5"], Range(lt=1.5)),
        (["year>-1e3"], Range(gt=-1000.0)),
        (["year>=20240501"], Range(gte=20240501)),
        (["year>=2024-05-01"], Range(gte=date(2024, 5, 1))),
        (["year<2024-05-01T12:30:00"], Range(lt=datetime(2024, 5, 1, 12, 30))),
        (["year>2024-05-01T12:30:00+02:00", "year<2025-01-01"],
         Range(gt=IN_BERLIN, lt=date(2025, 1, 1))),
        (["year"], Exists()),
        (["year", "year"], Exists()),
        (["!year"], Not(Exists())),
    ],
)  # fmt: skip
def test_ranges_and_existence(given: list[str], expected: Condition) -> None:
    """Numbers, dates and times; two bounds of one field are one range."""
    assert {"year": expected} == parse_filters(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("formula=a=b", {"formula": ["a=b"]}),
        ("formula=a>=b", {"formula": ["a>=b"]}),
        ("formula!=a=b", {"formula": Not(["a=b"])}),
        ("x=>5", {"x": [">5"]}),
        ("list[].x.y=1.0.0", {"list[].x.y": ["1.0.0"]}),
        ("a b", {"a b": Exists()}),
        ("a!b", {"a!b": Exists()}),
    ],
)
def test_the_first_operator_ends_the_field(given: str, expected: dict[str, Condition]) -> None:
    """Later characters have no special meaning."""
    assert expected == parse_filters([given])


def test_no_filter_is_none() -> None:
    """A parsed filter is valid."""
    assert parse_filters([]) is None
    check_filter(parse_filters(["a=1", "b!=x", "c>2", "c<3", "d", "!e"]))


@pytest.mark.parametrize("given", ["", "=en", "!=en", ">5", "!", "<=2024-01-01"])
def test_a_condition_without_a_field_is_refused(given: str) -> None:
    """The message has the value and every form."""
    with pytest.raises(click.UsageError, match=r"expected FIELD=VALUE, .* or !FIELD") as caught:
        parse_filters([given])

    assert repr(given) in caught.value.message


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["year>"], r"'year>': expected a number, a date such as"),
        (["year>=soon"], r"'year>=soon': expected a number"),
        (["year>=2024-05"], r"a date such as 2024-05-01"),
        (["year<>5"], r"'year<>5': expected a number"),
        (["year>nan"], r"'year>nan': expected a number"),
        (["year>1_000"], r"'year>1_000': expected a number"),
        (["year>=2024-W18"], r"expected a number, a date"),
        (["year<1e999"], r"lt must be .*, got inf"),
        (["year<9223372036854775808"], r"lt must be a finite number"),
        (["year>1", "year>2"], r"takes one year>, got two"),
        (["year>1", "year>=2"], r"'year>1 year>=2': a Range takes gt or gte"),
        (["year>1", "year<2024-05-01"], r"all numbers or all dates"),
        (["year>=0001-01-01T00:00:00+01:00"], r"must be 1 to 9999"),
        (["!lang=en"], r"pass lang!=en"),
        (["!year>=5"], r"'!' needs a field without a value"),
    ],
)
def test_invalid_condition_is_refused(given: list[str], reason: str) -> None:
    """The message has the valid form."""
    with pytest.raises(click.UsageError, match=reason):
        parse_filters(given)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (["year=1", "year>2"], "equality and a range"),
        (["year>2", "lang=en", "year!=3"], "a range and inequality"),
        (["year=1", "year!=1"], "equality and inequality"),
        (["year", "!year"], "existence and absence"),
        (["year", "year!=1"], "existence and inequality"),
    ],
)
def test_a_field_takes_one_kind_of_condition(given: list[str], asked: str) -> None:
    """The message names both kinds, the field, and what to do."""
    reason = f"got {asked} for 'year': omit the others.*models.Filter"
    with pytest.raises(click.UsageError, match=reason):
        parse_filters(given)


@pytest.mark.parametrize(
    "value",
    [
        *("1_000", "+1", "01", "007", " 1", "1 ", "1.", ".5", "nan", "inf", "-Infinity", "1e"),
        *("0x10", "\u0661\u0662", "1" * 5000, "", "1,000", "--1", "1e999"),
    ],
)
def test_r19_only_numbers_of_json_are_numbers(value: str) -> None:
    """Other texts match as text only."""
    assert {"code": [value]} == parse_filters([f"code={value}"])


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ('"a.b"=1', '"a.b"'),
        ('"a=b".c=1', '"a=b".c'),
        ('x."<>!="=1', 'x."<>!="'),
        ("wow!=1", "wow"),
        ('"a[0]"=1', '"a[0]"'),
        ("authors[].name=1", "authors[].name"),
    ],
)
def test_s5_names_in_quotation_marks(given: str, field: str) -> None:
    """Operators, dots and brackets inside are part of the name."""
    parsed: Any = parse_filters([given])
    assert [field] == [*parsed]
    check_filter(parsed)
    assert {'"a=b"': Not(Exists())} == parse_filters(['!"a=b"'])


@pytest.mark.parametrize("given", ['"a=1', 'a"b=1', '"a"b=1'])
def test_s5_broken_quotation_marks_are_refused(given: str) -> None:
    """With the valid form."""
    with pytest.raises(click.UsageError, match="quotation marks around a whole name"):
        parse_filters([given])
