"""The same filters give the same points on every engine.

Here each engine is asked itself, with what our two adapters make of a filter; `test_store.py` asks
through the stores.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import qdrant_edge
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.filter_values import to_utc
from msmarco_qdrant.core.records import Meta
from msmarco_qdrant.filters import Exists, MetaFilter, Not, Range, check_filter
from msmarco_qdrant.stores.edge.convert import payload_schema
from msmarco_qdrant.stores.edge.filters import edge_filter
from msmarco_qdrant.stores.filters import meta_key, to_qdrant

UUID_ID = uuid.UUID("6ba7b810-9dad-51d1-80b4-00c04fd430c8")


class Shelf(Protocol):
    """Points with nothing but `meta`, on one engine."""

    def put(self, metas: Sequence[Meta], ids: Sequence[Any] = ()) -> None:
        """Make the points 0, 1, 2, ... what is given."""

    def found(self, wanted: models.Filter) -> set[Any]:
        """The ids of all points that a filter lets through."""


class EdgeShelf:
    """In a shard of Qdrant Edge, with payload indexes if need be."""

    def __init__(self, place: Path, indexes: Mapping[str, PayloadIndex] | None = None) -> None:
        vector = qdrant_edge.EdgeVectorParams(size=2, distance=qdrant_edge.Distance.Dot)
        place.mkdir(exist_ok=True)
        config = qdrant_edge.EdgeConfig(vectors={"dense": vector})
        self._shard = qdrant_edge.EdgeShard.create(str(place), config)
        for key, kind in (indexes or {}).items():
            schema = payload_schema(kind)
            self._shard.update(qdrant_edge.UpdateOperation.create_field_index(key, schema))

    def put(self, metas: Sequence[Meta], ids: Sequence[Any] = ()) -> None:
        """See `Shelf`."""
        row: Any = np.ones(2, np.float32)
        points = [
            qdrant_edge.Point(id=point, vector={"dense": row}, payload={"meta": meta})
            for point, meta in zip(ids or range(len(metas)), metas, strict=True)
        ]
        self._shard.update(qdrant_edge.UpdateOperation.upsert_points(points))

    def found(self, wanted: models.Filter) -> set[Any]:
        """See `Shelf`."""
        request = qdrant_edge.ScrollRequest(limit=1000, filter=edge_filter(wanted))
        records, _ = self._shard.scroll(request)
        return {record.id for record in records}


class LocalShelf:
    """In qdrant-client's local mode."""

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")
        vector = models.VectorParams(size=2, distance=models.Distance.DOT)
        self._client.create_collection("shelf", {"dense": vector})

    def put(self, metas: Sequence[Meta], ids: Sequence[Any] = ()) -> None:
        """See `Shelf`."""
        points = [
            models.PointStruct(id=point, vector={"dense": [1.0, 1.0]}, payload={"meta": meta})
            for point, meta in zip(ids or range(len(metas)), metas, strict=True)
        ]
        self._client.upsert("shelf", points)

    def found(self, wanted: models.Filter) -> set[Any]:
        """See `Shelf`."""
        records, _ = self._client.scroll("shelf", scroll_filter=wanted, limit=1000)
        return {r.id if isinstance(r.id, int) else uuid.UUID(str(r.id)) for r in records}


@pytest.fixture(scope="module", params=["edge", "memory"])
def new_shelf(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Shelf]:
    """A function that makes an empty shelf, on each engine."""

    def make() -> Shelf:
        is_edge = request.param == "edge"
        return EdgeShelf(tmp_path_factory.mktemp("shard")) if is_edge else LocalShelf()

    return make


@pytest.fixture
def shelf(new_shelf: Callable[[], Shelf]) -> Shelf:
    """An empty shelf."""
    return new_shelf()


@pytest.fixture(scope="module")
def metas_shelf(new_shelf: Callable[[], Shelf]) -> Shelf:
    """A shelf with METAS."""
    made = new_shelf()
    made.put(METAS)
    return made


@pytest.fixture(scope="module")
def own_shelf(new_shelf: Callable[[], Shelf]) -> Shelf:
    """A shelf with OWN_METAS and a UUID."""
    made = new_shelf()
    made.put([*OWN_METAS, {}], [*range(len(OWN_METAS)), UUID_ID])
    return made


# ---- our own conditions --------------------------------------------------------------------

METAS: Sequence[Meta] = [
    {},
    {"x": None},
    {"x": []},
    {"x": [None]},
    {"x": {}},
    {"x": ""},
    {"x": "en"},
    {"x": "1"},
    {"x": 0},
    {"x": 1},
    {"x": 1.0},
    {"x": 1.5},
    {"x": True},
    {"x": False},
    {"x": [1, "en", 7]},
    {"x": {"y": 1}},
    {"x": 2**63 - 1},
    {"x": "2024-05-01"},
    {"x": "2024-05-01T12:30:00"},
    {"x": "2024-05-01T14:30:00.000+02:00"},
    {"x": "2024-05-02T00:00:00Z"},
    {"y": "en"},
]
NOTHING: Sequence[Meta] = ({}, {"x": None}, {"x": []}, {"y": "en"})
HALF_PAST = datetime(2024, 5, 1, 12, 30)
IN_BERLIN = datetime(2024, 5, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("en", ["en", [1, "en", 7]]),
        (1, [1, [1, "en", 7]]),
        (1.0, [1, 1.0, [1, "en", 7]]),
        (True, [True]),
        (False, [False]),
        (["en", "1", 1.5, True], ["en", "1", 1.5, True, [1, "en", 7]]),
        ([0, 1], [0, 1, [1, "en", 7]]),
        ("", [""]),
        (2**63 - 1, [2**63 - 1]),
        (Range(gt=1), [1.5, [1, "en", 7], 2**63 - 1]),
        (Range(gte=1, lt=1.5), [1, 1.0, [1, "en", 7]]),
        (Range(lte=0), [0]),
        (Range(gt=5, lt=0), []),
        (
            Range(gte=date(2024, 5, 1), lt=date(2024, 5, 2)),
            ["2024-05-01", "2024-05-01T12:30:00", "2024-05-01T14:30:00.000+02:00"],
        ),
        (
            Range(gte=HALF_PAST, lte=IN_BERLIN),
            ["2024-05-01T12:30:00", "2024-05-01T14:30:00.000+02:00"],
        ),
        (Range(gt=HALF_PAST.replace(tzinfo=UTC)), ["2024-05-02T00:00:00Z"]),
        (Not(Exists()), [None, [], "missing", "missing"]),
    ],
)
def test_conditions(metas_shelf: Shelf, condition: Any, expected: list[Any]) -> None:
    """Types are told apart but for 1 and 1.0 in a range, and a `Not` finds all the others."""
    found = metas_shelf.found(to_qdrant({"x": condition}))
    told = [METAS[point].get("x", "missing") for point in sorted(found)]
    assert sorted(map(repr, expected)) == sorted(map(repr, told))
    others = metas_shelf.found(to_qdrant({"x": Not(condition)}))
    assert ({*range(len(METAS))}, set()) == (found | others, found & others)
    assert found == metas_shelf.found(to_qdrant({"x": Not(Not(condition))}))


def test_being_there(metas_shelf: Shelf) -> None:
    """An empty string and an empty object are something; null and an empty list are not."""
    there = {point for point, meta in enumerate(METAS) if meta not in NOTHING}
    assert there == metas_shelf.found(to_qdrant({"x": Exists()}))


def test_all_fields_hold(shelf: Shelf) -> None:
    """Some with, some without; no field at all holds everywhere."""
    shelf.put([{"a": 1, "b": 1}, {"a": 1}, {"b": 1}, {"a b": {"ä": 1}}])
    assert {0} == shelf.found(to_qdrant({"a": 1, "b": Range(gt=0)}))
    assert {1} == shelf.found(to_qdrant({"a": Exists(), "b": Not(1)}))
    assert {3} == shelf.found(to_qdrant({"a b.ä": 1}))
    assert {0, 1, 2, 3} == shelf.found(to_qdrant({}))


# ---- every engine and plain Python, at random ----------------------------------------------

_MOMENTS = (
    "2024-05-01",
    "2024-05-01T12:30:00",
    "2024-05-01T14:30:00+02:00",
    "2024-05-02T00:00:00Z",
)
_SCALARS = st.sampled_from(
    ["", "en", "1", *_MOMENTS, 0, 1, 2, -1, 0.0, 1.0, 0.5, -1.5, True, False]
)
_LISTS = st.lists(_SCALARS | st.none(), max_size=3)
_METAS = st.fixed_dictionaries(
    {},
    optional={
        "a": _SCALARS | st.none() | _LISTS,
        "o": st.fixed_dictionaries({}, optional={"x": _SCALARS | _LISTS}) | _SCALARS,
    },
)


def _ranges(bounds: st.SearchStrategy[Any]) -> st.SearchStrategy[Range]:
    lower = st.dictionaries(st.sampled_from(["gt", "gte"]), bounds, max_size=1)
    upper = st.dictionaries(st.sampled_from(["lt", "lte"]), bounds, max_size=1)
    both = st.tuples(lower, upper).filter(any)
    return both.map(lambda given: Range(**given[0], **given[1]))


_CONDITIONS = st.recursive(
    _SCALARS
    | st.lists(_SCALARS, min_size=1, max_size=4)
    | _ranges(st.sampled_from([-1, 0, 1, 0.5, -2.5, 2**53]))
    | _ranges(st.sampled_from([date(2024, 5, 1), date(2024, 5, 2), HALF_PAST, IN_BERLIN]))
    | st.just(Exists()),
    lambda inner: inner.map(Not),
    max_leaves=2,
)
_FILTERS = st.dictionaries(st.sampled_from(["a", "o.x", "o", "b"]), _CONDITIONS, max_size=3)


def holds(meta: Meta, field: str, condition: Any) -> bool:
    """What a condition means, in plain Python."""
    if isinstance(condition, Not):
        return not holds(meta, field, condition.condition)
    stored: Any = meta
    for name in field.split("."):
        stored = stored.get(name) if isinstance(stored, dict) else None
    if isinstance(condition, Exists):
        return stored is not None and stored != []
    values = stored if isinstance(stored, list) else [stored]
    if isinstance(condition, Range):
        return any(_between(value, condition) for value in values)
    asked = condition if isinstance(condition, list) else [condition]
    return any(_same(value, one) for value in values for one in asked)


def _same(stored: Any, asked: Any) -> bool:
    """Of one type; a float that is asked for is found as an integer, too."""
    if isinstance(asked, float):
        return type(stored) in (int, float) and stored == asked
    return type(stored) is type(asked) and stored == asked


def _between(stored: Any, bounds: Range) -> bool:
    numeric = not any(isinstance(b, date) for b in (bounds.gt, bounds.gte, bounds.lt, bounds.lte))
    if type(stored) not in ((int, float) if numeric else (str,)):
        return False
    try:
        compared = stored if numeric else to_utc(datetime.fromisoformat(stored))
    except ValueError:
        return False
    ends: list[tuple[Any, Callable[[Any, Any], bool]]] = [
        (bounds.gt, lambda value, end: value > end),
        (bounds.gte, lambda value, end: value >= end),
        (bounds.lt, lambda value, end: value < end),
        (bounds.lte, lambda value, end: value <= end),
    ]
    return all(
        inside(compared, to_utc(end) if isinstance(end, date) else end)
        for end, inside in ends
        if end is not None
    )


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Shelf]:
    """One of each, made once."""
    return {"edge": EdgeShelf(tmp_path_factory.mktemp("shard")), "memory": LocalShelf()}


@pytest.mark.slow
@given(metas=st.lists(_METAS, min_size=5, max_size=5), wanted=_FILTERS)
@settings(deadline=None, max_examples=300)
def test_engines_and_plain_python_agree_often(
    shelves: Mapping[str, Shelf], metas: list[Meta], wanted: MetaFilter
) -> None:
    """Small filters over small metas."""
    agree(shelves, metas, wanted)


@given(metas=st.lists(_METAS, min_size=5, max_size=5), wanted=_FILTERS)
@settings(deadline=None, max_examples=40)
def test_engines_and_plain_python_agree(
    shelves: Mapping[str, Shelf], metas: list[Meta], wanted: MetaFilter
) -> None:
    """The same with fewer examples."""
    agree(shelves, metas, wanted)


def agree(shelves: Mapping[str, Shelf], metas: list[Meta], wanted: MetaFilter) -> None:
    """Compare every engine's answer with that of `holds`."""
    check_filter(wanted)
    expected = {
        point
        for point, meta in enumerate(metas)
        if all(holds(meta, field, condition) for field, condition in wanted.items())
    }
    for shelf in shelves.values():
        shelf.put(metas)
    asked = to_qdrant(wanted)
    answers = {engine: shelf.found(asked) for engine, shelf in shelves.items()}
    assert dict.fromkeys(answers, expected) == answers


# ---- with an index -------------------------------------------------------------------------

_OF_A_KIND: Mapping[PayloadIndex, tuple[Sequence[Any], Sequence[Any]]] = {
    "keyword": (("en", "de", "", "1"), ("en", ["en", "1"], "fr")),
    "integer": ((0, 1, 7, -(2**63)), (1, [0, 7], Range(gt=0.5, lte=7), 1.0)),
    "float": ((0.5, 1.5, -2.0, 1e300), (0.5, Range(gte=0.5, lt=1.5), [1.5, -2.0])),
    "bool": ((True, False), (True, False, [True, False])),
    "datetime": (_MOMENTS, (Range(gt=HALF_PAST), Range(gte=date(2024, 5, 1), lte=IN_BERLIN))),
    "tenant": (("en", "de", "", "1"), ("en", ["en", "1"], "fr")),
    "text": (("en", "de", "", "a b"), ("en", ["a b", "1"], "a")),
    "geo": (({"lat": 1.0, "lon": 2.0},), ()),
}


@pytest.mark.parametrize("kind", list(_OF_A_KIND))
def test_an_index_changes_no_answer(tmp_path: Path, kind: PayloadIndex) -> None:
    """Of values of its kind, lists of them, and what is not there."""
    stored, asked = _OF_A_KIND[kind]
    metas: list[Meta] = [{"x": value} for value in (*stored, [*stored], None, [])] + [{}]
    plain, indexed = EdgeShelf(tmp_path / "a"), EdgeShelf(tmp_path / "b", {meta_key("x"): kind})
    for shelf in (plain, indexed):
        shelf.put(metas)
    for condition in (*asked, Exists()):
        for wanted in ({"x": condition}, {"x": Not(condition)}):
            assert plain.found(to_qdrant(wanted)) == indexed.found(to_qdrant(wanted))
            expected = {p for p, m in enumerate(metas) if holds(m, "x", wanted["x"])}
            assert expected == indexed.found(to_qdrant(wanted))


# ---- Qdrant's own conditions ---------------------------------------------------------------


def _on(key: str = "meta.x", **condition: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, **condition)


def _value(wanted: Any) -> models.FieldCondition:
    return _on(match=models.MatchValue(value=wanted))


def _nested(**clauses: Any) -> models.NestedCondition:
    inner = models.Filter(**clauses)
    return models.NestedCondition(nested=models.Nested(key="meta.offers", filter=inner))


def _ring(*points: tuple[float, float]) -> models.GeoLineString:
    return models.GeoLineString(points=[models.GeoPoint(lon=x, lat=y) for x, y in points])


_PLACE = models.GeoPoint(lon=13.4, lat=52.5)
_HOLED = models.GeoPolygon(
    exterior=_ring((0, 0), (0, 60), (60, 60), (60, 0), (0, 0)),
    interiors=[_ring((13, 52), (13, 53), (14, 53), (14, 52), (13, 52))],
)
OWN_METAS: Sequence[Meta] = [
    {"x": "a quick brown fox"},
    {"x": "Brown, quick"},
    {"x": 5},
    {"x": True},
    {"x": ["a", "b", "c"]},
    {"x": None},
    {"place": {"lon": 13.41, "lat": 52.52}},
    {"place": {"lon": 2.35, "lat": 48.86}},
    {"offers": [{"price": 1, "kind": "new"}, {"price": 9, "kind": "old"}]},
    {"offers": [{"price": 1, "kind": "old"}]},
    {"x": "2024-05-01"},
]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"must": _value(True)}, {3}),
        ({"must": [_value(5)]}, {2}),
        ({"should": [_value(5), _value(True)]}, {2, 3}),
        ({"must": _on(match=models.MatchAny(any=["b", "z"]))}, {4}),
        ({"must": _on(match=models.MatchAny(any=[5, 6]))}, {2}),
        ({"must": _on(match=models.MatchExcept(**{"except": ["a", "b", "c"]}))}, {0, 1, 2, 3, 10}),
        ({"must": _on(match=models.MatchText(text="quick brown"))}, {0, 1}),
        ({"must": _on(match=models.MatchTextAny(text_any="fox cat"))}, {0}),
        ({"must": _on(match=models.MatchPhrase(phrase="quick brown"))}, {0}),
        ({"must": _on(match=models.MatchPrefix(prefix="a q"))}, {0}),
        ({"must": _on(match=models.MatchSubstring(substring="quick"))}, {0, 1}),
        ({"must": _on(range=models.Range(gt=4, lt=6))}, {2}),
        ({"must": _on(range=models.DatetimeRange(gte=date(2024, 5, 1), lt=HALF_PAST))}, {10}),
        ({"must": _on(range=models.DatetimeRange(gt=date(2024, 5, 1)))}, set()),
        ({"must": _on(values_count=models.ValuesCount(gt=1, lte=3))}, {4}),
        ({"must": _on(is_empty=False)}, {0, 1, 2, 3, 4, 10}),
        ({"must": _on(is_null=True)}, {5}),
        (
            {"must": models.IsNullCondition(is_null=models.PayloadField(key="meta.x"))},
            {5},
        ),
        (
            {"must_not": models.IsEmptyCondition(is_empty=models.PayloadField(key="meta.x"))},
            {0, 1, 2, 3, 4, 10},
        ),
        ({"must": models.HasIdCondition(has_id=[1, 3, str(UUID_ID), 99])}, {1, 3, UUID_ID}),
        ({"must": models.HasIdCondition(has_id=[UUID_ID])}, {UUID_ID}),
        ({"must_not": models.HasVectorCondition(has_vector="dense")}, set()),
        ({"must": models.HasVectorCondition(has_vector="sparse")}, set()),
        (
            {"must": _on("meta.place", geo_radius=models.GeoRadius(center=_PLACE, radius=5000))},
            {6},
        ),
        (
            {
                "must": _on(
                    "meta.place",
                    geo_bounding_box=models.GeoBoundingBox(
                        top_left=models.GeoPoint(lon=0, lat=50),
                        bottom_right=models.GeoPoint(lon=5, lat=40),
                    ),
                )
            },
            {7},
        ),
        ({"must": _on("meta.place", geo_polygon=_HOLED)}, {7}),
        (
            {
                "must": _nested(
                    must=[
                        _on("price", range=models.Range(lt=5)),
                        _on("kind", match=models.MatchValue(value="old")),
                    ]
                )
            },
            {9},
        ),
        ({"must": _on("meta.offers[].price", range=models.Range(gt=5))}, {8}),
        ({"must": models.Filter(must_not=[models.Filter(should=_value(5))])}, None),
        (
            {
                "min_should": models.MinShould(
                    conditions=[
                        _on(match=models.MatchAny(any=["a"])),
                        _on(match=models.MatchAny(any=["b"])),
                        _value(5),
                    ],
                    min_count=2,
                )
            },
            {4},
        ),
    ],
    ids=repr,
)
def test_qdrants_own_conditions(
    own_shelf: Shelf, wanted: dict[str, Any], expected: set[Any] | None
) -> None:
    """Every kind of condition that both engines have, a single one in place of a list, too."""
    if expected is None:
        expected = {*range(len(OWN_METAS)), UUID_ID} - {2}
    assert expected == own_shelf.found(models.Filter(**wanted))


def test_a_bound_beyond_float64_is_rounded(shelf: Shelf) -> None:
    """As the engines' ranges have no integers; equality has them."""
    shelf.put([{"x": 2**53}, {"x": 2**53 + 1}])
    assert {0, 1} == shelf.found(to_qdrant({"x": Range(gte=2**53 + 1)}))
    assert {1} == shelf.found(to_qdrant({"x": 2**53 + 1}))
