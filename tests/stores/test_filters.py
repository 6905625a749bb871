"""Filters in Qdrant's words, in Edge's, and which index serves them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pytest
import qdrant_edge
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.errors import UnsupportedError, UsageError
from msmarco_qdrant.filters import (
    All,
    Exists,
    GeoRadius,
    MetaFilter,
    Not,
    Range,
    SearchFilter,
    Text,
)
from msmarco_qdrant.filters import Any as Either
from msmarco_qdrant.stores.edge.filters import edge_filter
from msmarco_qdrant.stores.filter_indexes import first_unindexed, index_advice, unindexed_step
from msmarco_qdrant.stores.filters import (
    canonical_key,
    index_kind,
    is_fixed,
    list_conditions,
    meta_key,
    to_qdrant,
)

KEY = "meta.x"
EMPTY = models.IsEmptyCondition(is_empty=models.PayloadField(key=KEY))
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


def on(**condition: Any) -> models.FieldCondition:
    """A condition on the field under test."""
    return models.FieldCondition(key=KEY, **condition)


def value(wanted: str | int) -> models.FieldCondition:
    """A match of one value."""
    return on(match=models.MatchValue(value=wanted))


def any_of(wanted: Any) -> models.FieldCondition:
    """A match of any of several values."""
    return on(match=models.MatchAny(any=wanted))


def number(**bounds: float) -> models.FieldCondition:
    """A range of numbers."""
    return on(range=models.Range(**bounds))


# ---- ours as Qdrant's ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("en", value("en")),
        (1, value(1)),
        (True, value(True)),
        (["en"], value("en")),
        (["en", "de"], any_of(["en", "de"])),
        ((1, 2), any_of([1, 2])),
        (1.5, number(gte=1.5, lte=1.5)),
        (
            ["1", 1.0, True, 1, "x"],
            models.Filter(should=[any_of(["1", "x"]), value(1), number(gte=1, lte=1), value(True)]),
        ),
        ([True, False], models.Filter(should=[value(True), value(False)])),
        (Range(gte=1, lt=2.5), number(gte=1, lt=2.5)),
        (Range(gt=date(2024, 1, 1)), on(range=models.DatetimeRange(gt=NEW_YEAR))),
    ],
)
def test_a_condition_in_qdrants_words(condition: Any, expected: models.Condition) -> None:
    """It must hold; behind a `Not` it must not; behind two it must."""
    assert models.Filter(must=[expected]) == to_qdrant({"x": condition})
    assert models.Filter(must_not=[expected]) == to_qdrant({"x": Not(condition)})
    assert models.Filter(must=[expected]) == to_qdrant({"x": Not(Not(condition))})


def test_being_there_in_qdrants_words() -> None:
    """Not empty; and missing is empty."""
    assert models.Filter(must_not=[EMPTY]) == to_qdrant({"x": Exists()})
    assert models.Filter(must=[EMPTY]) == to_qdrant({"x": Not(Exists())})


def test_all_fields_hold() -> None:
    """Each is a condition of its own."""
    both = to_qdrant({"x": 1, '"a b.c"': Not("en")})
    quoted = models.FieldCondition(key='meta."a b.c"', match=models.MatchValue(value="en"))
    assert models.Filter(must=[value(1)], must_not=[quoted]) == both
    assert models.Filter() == to_qdrant({})


_X1, _X2 = ({"key": "meta.x", "match": {"value": number}} for number in (1, 2))


def _dumped(given: SearchFilter) -> dict[str, Any]:
    return to_qdrant(given).model_dump(exclude_none=True)


def _match(key: str, **match: Any) -> dict[str, Any]:
    return {"key": key, "match": match}


def _nested(key: str, *must: dict[str, Any]) -> dict[str, Any]:
    return {"nested": {"key": key, "filter": {"must": [*must]}}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Either([{"x": 1}, {"x": 2}]), {"should": [{"must": [_X1]}, {"must": [_X2]}]}),
        (All([{"x": 1}, {"x": 2}]), {"must": [{"must": [_X1]}, {"must": [_X2]}]}),
        (Not({"x": 1}), {"must_not": [{"must": [_X1]}]}),
        ({"x": Either([1, Not(2)])}, {"must": [{"should": [_X1, {"must_not": [_X2]}]}]}),
        ({"x": All([1, Not(2)])}, {"must": [{"must": [_X1, {"must_not": [_X2]}]}]}),
        ({"x": Not(Either([1, 2]))}, {"must_not": [{"should": [_X1, _X2]}]}),
        ({"x": Text("sea")}, {"must": [_match("meta.x", text="sea")]}),
        (
            {"x": Text("sea-music")},
            {"must": [{"must": [_match("meta.x", text="sea"), _match("meta.x", text="music")]}]},
        ),
        (
            {"a": {"b": 1}},
            {
                "must": [
                    {
                        "should": [
                            _nested("meta.a[]", _match("b", value=1)),
                            {"must": [_match("meta.a.b", value=1)]},
                        ]
                    }
                ]
            },
        ),
        (
            {'"a[]"[].c': {"b": 1}},
            {
                "must": [
                    {
                        "should": [
                            _nested('meta."a[]"[].c[]', _match("b", value=1)),
                            _nested('meta."a[]"[]', _match("c.b", value=1)),
                        ]
                    }
                ]
            },
        ),
    ],
)
def test_combinations_in_qdrants_words(given: SearchFilter, expected: dict[str, Any]) -> None:
    """An object is that of a list, or the only one; each word is a condition."""
    assert expected == _dumped(given)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"x": Text("sea music")}, "text"),
        ({"x": GeoRadius(lat=1, lon=2, radius_m=3)}, "geo"),
        ({"x": "en"}, "tenant"),
        ({"x": Either(["en", Not(["de"])])}, "keyword"),
    ],
)
def test_kinds_that_serve_words_and_places(given: SearchFilter, kind: PayloadIndex) -> None:
    """Without an index, the advice names the field; in strict mode, the command that adds it."""
    chosen = to_qdrant(given)
    assert [] == index_advice(chosen, {KEY: kind})
    assert index_advice(chosen, {KEY: "integer"})
    assert first_unindexed(chosen, {KEY: kind}) is None
    key, kinds = first_unindexed(chosen, {}) or ("", ())
    wanted = "keyword" if kind == "tenant" else kind
    assert f"index add x={wanted} " in unindexed_step("sea", key, kinds, None)


def test_qdrants_own_is_taken_as_it_is() -> None:
    """The very same object."""
    own = models.Filter(must=value(1))
    assert own is to_qdrant(own)


@pytest.mark.parametrize(
    "given",
    [
        {"x": ["1", 1, True, 1.5], "y": Not([1, 2])},
        {"x": Range(gt=1, lte=2), "y": Not(Range(gte=NEW_YEAR))},
        {"x": Exists(), "y": Not(Exists())},
        {"x": Text("sea music"), "y": GeoRadius(lat=1, lon=2, radius_m=3)},
        {"a.b": {"c.d": 1, "e": Not({"f": Exists()})}, "g": Either([1, All([2, Not(3)])])},
    ],
)
def test_grpc_carries_them(given: MetaFilter) -> None:
    """On the way to a server nothing is lost."""
    sent = RestToGrpc.convert_filter(to_qdrant(given))
    assert sent == RestToGrpc.convert_filter(GrpcToRest.convert_filter(sent))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ('meta."größe"', "meta.größe"),
        ('meta."a b"."c"', 'meta."a b".c'),
        ('meta."a.b"', 'meta."a.b"'),
        ('meta.""', 'meta.""'),
        ("meta.tags[].x", "meta.tags[].x"),
    ],
)
def test_keys_as_engines_tell_them(key: str, expected: str) -> None:
    """Without the quotation marks that they can do without."""
    assert expected == canonical_key(key)
    assert 'meta."a b".c' == meta_key("a b.c")


def test_the_kind_of_an_index_is_found_however_the_key_is_quoted() -> None:
    """Engines report keys without needless quotation marks."""
    assert "integer" == index_kind({"meta.größe": "integer"}, 'meta."größe"')
    assert "float" == index_kind({'meta."größe"': "float"}, "meta.größe")
    assert index_kind({"seq": "integer"}, "meta.seq") is None


# ---- which index serves them ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "kinds"),
    [
        ("en", {"keyword"}),
        (["en", "de"], {"keyword"}),
        (1, {"integer"}),
        ([1, 2], {"integer"}),
        (True, {"bool"}),
        (1.5, {"float"}),
        (Range(gt=1), {"integer", "float"}),
        (Range(gt=NEW_YEAR), {"datetime"}),
        (Exists(), {"keyword", "integer", "float", "bool", "datetime"}),
        ([1.0, 2], {"integer"}),
        (["2024", 2024.0, 2024], set()),
    ],
)
@pytest.mark.parametrize("negated", [False, True])
def test_kinds_that_serve(condition: Any, kinds: set[PayloadIndex], negated: bool) -> None:
    """By the type that is compared; alternatives of several types have none."""
    given = to_qdrant({"x": Not(condition) if negated else condition})
    every: tuple[PayloadIndex, ...] = ("keyword", "integer", "float", "bool", "datetime")
    assert kinds == {kind for kind in every if not index_advice(given, {KEY: kind})}
    (advice,) = index_advice(given, {"seq": "integer"})
    assert advice.startswith(f"the filter's field '{KEY}' has no payload index (")


COUNT = models.Filter(must=on(values_count=models.ValuesCount(gt=1)))
MIXED: list[tuple[list[Any], str]] = [
    (["2001", 2001, 2001.0], "keyword, integer or float"),
    (["true", True], "keyword or bool"),
    (["2001", 2001, True], "keyword, integer or bool"),
]
NONE = " has no payload index ({}): every passage is scanned"
WRONG = " has a payload index of kind datetime ({}): every passage is scanned"


@pytest.mark.parametrize(
    ("given", "kind", "advice"),
    [
        ({"x": Range(gt=1)}, "datetime", WRONG.format("a range of numbers needs integer or float")),
        ({"x": Range(gt=1)}, None, NONE.format("a range of numbers needs integer or float")),
        ({"x": Exists()}, None, NONE.format("a check for empty values needs any kind")),
        (COUNT, None, ": no payload index serves a count of values, so every passage is scanned"),
        (
            COUNT,
            "float",
            ": no payload index serves a count of values, so every passage is scanned",
        ),
        *[
            (
                {"x": Not(values) if negated else values},
                kind,
                message.format(f"index it as the type of its values: {kinds}"),
            )
            for values, kinds in MIXED
            for negated in (False, True)
            for kind, message in ((None, NONE), ("datetime", WRONG))
        ],
        *[
            (models.Filter(must=[*must]), None, NONE.format("a match of integers needs integer"))
            for other in (
                on(range=models.Range(gt=1)),
                on(is_empty=False),
                on(values_count=models.ValuesCount(gt=1)),
            )
            for must in ([value(1), other], [other, value(1)])
        ],
    ],
)
def test_the_advice_names_the_index_that_serves_all_conditions(
    given: Any, kind: PayloadIndex | None, advice: str
) -> None:
    """The strictest condition decides; for values of several types no kind is preferred."""
    chosen = given if isinstance(given, models.Filter) else to_qdrant(given)
    (found,) = index_advice(chosen, {KEY: kind} if kind else {})
    assert f"the filter's field 'meta.x'{advice}" == found


def field(key: str) -> models.FieldCondition:
    """A match on a payload key."""
    return models.FieldCondition(key=key, match=models.MatchValue(value=1))


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (models.Filter(), []),
        (models.Filter(must=field("a"), must_not=[field("b")], should=field("c")), ["a", "b", "c"]),
        (models.Filter(must=[field("a"), field("a"), field("seq")]), ["a"]),
        (models.Filter(must=[models.Filter(should=[field("a"), field("b")])]), ["a", "b"]),
        (
            models.Filter(min_should=models.MinShould(conditions=[field("a")], min_count=1)),
            ["a"],
        ),
        (
            models.Filter(
                must=models.NestedCondition(
                    nested=models.Nested(key="l[]", filter=models.Filter(must=field("a")))
                )
            ),
            ["l[].a"],
        ),
        (models.Filter(must=models.IsNullCondition(is_null=models.PayloadField(key="a"))), ["a"]),
        (
            models.Filter(
                must=[
                    models.HasIdCondition(has_id=[1]),
                    models.HasVectorCondition(has_vector="dense"),
                ]
            ),
            [],
        ),
        (models.Filter(must=field('"größe"')), ["größe"]),
    ],
)
def test_every_field_of_a_filter_is_looked_at(given: models.Filter, keys: list[str]) -> None:
    """Wherever it stands, each once; ids and vectors need no index."""
    indexes: Mapping[str, PayloadIndex] = {"seq": "integer"}
    assert keys == [canonical_key(advice.split("'")[2]) for advice in index_advice(given, indexes)]
    served: Mapping[str, PayloadIndex] = {**indexes, **dict.fromkeys(keys, "integer")}
    assert [] == index_advice(given, served)


@pytest.mark.parametrize(
    ("condition", "kinds"),
    [
        ({"match": models.MatchText(text="a")}, {"text"}),
        ({"match": models.MatchPrefix(prefix="a")}, {"keyword"}),
        ({"match": models.MatchAny(any=[])}, {"keyword"}),
        ({"match": models.MatchExcept(**{"except": [1]})}, {"integer"}),
        ({"geo_radius": models.GeoRadius(center=models.GeoPoint(lon=0, lat=0), radius=1)}, {"geo"}),
        ({"values_count": models.ValuesCount(gt=1)}, set()),
        ({"is_empty": True}, {"keyword", "integer", "text", "geo"}),
        ({}, {"keyword", "integer", "text", "geo"}),
        (
            {"match": models.MatchValue(value=1), "range": models.DatetimeRange(gt=NEW_YEAR)},
            set(),
        ),
    ],
)
def test_kinds_that_serve_qdrants_own(condition: dict[str, Any], kinds: set[Any]) -> None:
    """Kinds that others may have made, too."""
    given = models.Filter(must=on(**condition))
    every: tuple[Any, ...] = ("keyword", "integer", "text", "geo")
    assert kinds == {kind for kind in every if not index_advice(given, {KEY: kind})}


# ---- Qdrant's as Edge's --------------------------------------------------------------------


def test_what_edge_has_not_is_named() -> None:
    """Wherever it stands."""
    shard = models.SliceCondition(slice=models.Slice(total=2, index=0))
    for given in (models.Filter(must=shard), models.Filter(should=[models.Filter(must=[shard])])):
        with pytest.raises(UnsupportedError, match="Qdrant Edge has no SliceCondition"):
            edge_filter(given)


def test_a_match_that_edge_has_not_is_named() -> None:
    """As a later qdrant-client may bring one."""

    class MatchSound(models.MatchText):
        """Of a later version."""

    given = models.Filter(must=on(match=MatchSound(text="a")))
    with pytest.raises(UnsupportedError, match="Qdrant Edge has no MatchSound"):
        edge_filter(given)


@pytest.mark.parametrize(
    "condition",
    [
        field("a b"),
        models.HasIdCondition(has_id=["seven"]),
        models.HasIdCondition(has_id=[2**64]),
        on(values_count=models.ValuesCount(gt=-1)),
        on(geo_radius=models.GeoRadius(center=models.GeoPoint(lon=200, lat=0), radius=1)),
        value(2**63),
    ],
)
def test_what_edge_refuses_is_wrong_usage(condition: models.Condition) -> None:
    """Its reason is told."""
    with pytest.raises(UsageError, match=r"Qdrant Edge refuses the filter: .+"):
        edge_filter(models.Filter(must=condition))


def test_parts_that_are_not_given_stay_away() -> None:
    """None is not an empty list."""
    edge = edge_filter(models.Filter(must=value("x")))
    assert (1, None, None, None) == (
        len(edge.must or []),
        edge.should,
        edge.must_not,
        edge.min_should,
    )


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (models.Filter, {"must", "should", "must_not", "min_should"}),
        (
            models.FieldCondition,
            {"key", "match", "range", "geo_bounding_box", "geo_radius", "geo_polygon"}
            | {"values_count", "is_empty", "is_null"},
        ),
    ],
)
def test_there_is_no_field_that_we_do_not_convert(model: Any, known: set[str]) -> None:
    """A later qdrant-client that has more of them fails here, not silently in a search."""
    assert known == {*model.model_fields}


def test_every_match_of_qdrant_is_edges_too() -> None:
    """By the same name."""
    names = [name for name in dir(models) if name.startswith("Match") and name != "Match"]
    assert [] == [name for name in names if not hasattr(qdrant_edge, name)]


def test_a_filter_by_plain_values_is_converted_once() -> None:
    """It is hashable, so that engines remember what they made of it; 1 and True are two filters."""
    first, again = to_qdrant({"n": 1, "s": "a"}), to_qdrant({"n": 1, "s": "a"})
    assert first is again
    assert is_fixed(first)
    assert {first: 1}[again]
    assert models.Filter(must=[*list_conditions(first.must)]) == first
    others: list[SearchFilter] = [{"n": True}, {"n": 1}, {"n": "1"}, {"n": 1, "s": "b"}]
    assert len(others) == len({id(to_qdrant(one)) for one in others})
    changing: list[SearchFilter] = [{"n": [1]}, {"n": Not(1)}, models.Filter()]
    assert not any(is_fixed(to_qdrant(one)) for one in changing)
