"""Drawn filters over drawn passages: each engine finds what plain Python finds.

What is not drawn here is in the table of differences in `docs/filters.md`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Any

import numpy as np
import pytest

from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.field_path import payload_keys
from msmarco_qdrant.core.meta_values import plain_meta
from msmarco_qdrant.core.search_types import PointQuery
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import (
    All,
    Exists,
    GeoRadius,
    Not,
    Range,
    SearchFilter,
    Text,
    check_filter,
)
from msmarco_qdrant.filters import Any as Either
from msmarco_qdrant.stores import Collection
from tests.contract.test_store import make_batch, make_spec
from tests.engines import ENGINES, new_store

PASSAGES = 8
FILTERS = 20
NAMES = ("a", "b", "a.b", "x y", "größe", "a[0]", "", "0", "meta")
NOON = datetime(2024, 5, 1, 12, 30)
BERLIN = timezone(timedelta(hours=2))
MOMENTS: Mapping[str, datetime] = {
    "2024-05-01": datetime(2024, 5, 1),
    "2024-05-01 12:30": NOON,
    "2024-05-01T12:30:00": NOON,
    "2024-05-01T12:30:00Z": NOON,
    "2024-05-01T12:30:00+00:00": NOON,
    "2024-05-01T14:30:00+02:00": NOON,
    "2024-05-01T12:30:00.000001": NOON.replace(microsecond=1),
    "2024-05-02T00:00:00+0000": datetime(2024, 5, 2),
    "9999-12-31": datetime(9999, 12, 31),
}
"""The moment of each string that is one."""
WORDS = ("sea music", "Music of the SEA!", "the sea-side", "Größe", "e\u0301t\u00e9 x_y", "हिन्दी")
PLACES = (
    *({"lat": 52.52, "lon": 13.405}, {"lat": 48.86, "lon": 2.35}, {"lat": -33, "lon": 151.2}),
    *({"lat": 0.0, "lon": 179.9}, {"lat": 0, "lon": -179.9}),
    *({"lat": "1", "lon": 2}, {"lat": True, "lon": 2}, {"lat": 52.52}, {"latitude": 1, "lon": 2}),
)
"""Places, and values that are none. At the poles an index differs."""
OTHERS = ("", "en", "1", "True", "20240501", "2024-05", "2024-05-01T12:30Z", "12:30:00", "soon")


@dataclass(frozen=True, slots=True)
class Path:
    """A field: names, and their explicit places in lists."""

    steps: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """The field as a user writes it; quotation marks only where they are needed."""
        return ".".join(_quoted(name) + places for name, places in self.steps)


def _quoted(name: str) -> str:
    return f'"{name}"' if name in ("a.b", "a[0]", "") else name


PATHS: dict[str, Path] = {}
"""The drawn paths by the field that a user writes."""


def remembered(path: Path) -> Path:
    """Note a path, for the plain evaluation of its field."""
    return PATHS.setdefault(str(path), path)


# ---- what is drawn ---------------------------------------------------------------------------

_SCALARS: Sequence[Any] = [
    *(*MOMENTS, *OTHERS, *WORDS, 0, 1, 2, -1, 2024, 2**53, 0.0, 1.0, 0.5, -1.5, 1e300),
    *(True, False, NOON, NOON.replace(tzinfo=UTC), date(2024, 5, 1), Decimal("0.5"), Decimal(1)),
    *(np.int64(2), np.bool_(True), np.float32(0.5), np.datetime64("2024-05-01T12:30")),
]
_BOUNDS: Sequence[Sequence[Any]] = [
    [-1, 0, 1, 0.5, 2024, 2**53, Decimal("0.5"), np.int64(1)],
    [date(2024, 5, 1), date(2024, 5, 2), NOON, NOON.replace(tzinfo=BERLIN)],
]
_TEXTS = (*WORDS[3:], "sea", "sea", "SEA music", "größe", "x", "side,sea", "2024")


class Draw:
    """Passages and filters by a seed; most conditions are on a field and value of a passage."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._found: list[tuple[str, Any]] = []

    def metas(self) -> list[dict[str, Any]]:
        """Draw the `meta` of each passage."""
        drawn = [self._object(3) for _ in range(PASSAGES)]
        self._found = [found for meta in drawn for found in _places(meta, ())]
        return drawn

    def filters(self) -> list[SearchFilter]:
        """Draw filters that are valid."""
        found: list[SearchFilter] = []
        while len(found) < FILTERS:
            one = self._filter(2)
            try:
                check_filter(one)
            except UsageError:  # too many dots, a number after `[]`, no needed field in an object
                continue
            found.append(one)
        return found

    def _object(self, depth: int) -> dict[str, Any]:
        return {self._name(): self._value(depth) for _ in range(self._random.randint(1, 5))}

    def _value(self, depth: int) -> Any:
        kind = self._random.randint(0, 9) if depth else 9
        if kind < 2:
            return [self._value(depth - 1) for _ in range(self._random.randint(0, 3))]
        if kind == 2:
            return tuple(self._value(depth - 1) for _ in range(self._random.randint(0, 2)))
        if kind < 6:
            return self._object(depth - 1)
        return self._choice([self._choice(PLACES), None, *[self._choice(_SCALARS)] * 6])

    def _filter(self, depth: int) -> Any:
        if depth and self._random.random() < 0.4:
            return self._combined(lambda: self._filter(depth - 1))
        return dict(self._on_field(2) for _ in range(self._choice([1, 1, 2])))

    def _on_field(self, depth: int) -> tuple[str, Any]:
        """Draw a field and a condition on it."""
        if self._random.random() < 0.3:
            return self._path(), self._condition(depth)
        field, value = self._choice(self._found)
        if self._random.random() < 0.3:
            return field, self._combined(lambda: self._near(value, depth))
        return field, self._near(value, depth)

    def _near(self, value: Any, depth: int) -> Any:
        """Draw a condition that a value meets, or one that is alike."""
        forms: list[Any] = [self._condition(depth), Exists()]
        if isinstance(value, dict) and {"lat", "lon"} <= {*value}:
            forms += [self._circle() for _ in range(6)]
        elif isinstance(value, dict):
            inner = [
                (field, Exists() if one is None or isinstance(one, dict) else one)
                for field, one in _places(value, ())
            ]
            forms += [dict([self._choice(inner)]) for _ in range(6 if inner else 0)]
        elif value is not None:
            forms += [value, value, [value, self._scalar()]]
            forms += [Text(value)] * 3 if value in WORDS else []
            forms += [self._range()] * 3 if not isinstance(value, bool) else []
        return self._choice(forms)

    def _condition(self, depth: int) -> Any:
        kind = self._random.random()
        if depth and kind < 0.2:
            return self._combined(lambda: self._condition(depth - 1))
        if depth and kind < 0.4:
            return {self._path(): self._condition(depth - 1) for _ in range(self._choice([1, 2]))}
        forms: Sequence[Callable[[], Any]] = [
            *[self._scalar] * 3,
            lambda: [self._scalar() for _ in range(self._random.randint(1, 4))],
            lambda: {self._choice(["en", 1, "2024-05-01", 0.5]), "sea"},
            *[self._range] * 2,
            Exists,
            *[lambda: Text(self._choice(_TEXTS))] * 2,
            *[self._circle] * 2,
        ]
        return self._choice(forms)()

    def _combined(self, draw: Callable[[], Any]) -> Any:
        kind = self._choice([Not, Either, All])
        parts = [draw() for _ in range(self._choice([1, 2, 3]))]
        return Not(parts[0]) if kind is Not else kind(parts)

    def _scalar(self) -> Any:
        return self._choice(_SCALARS)

    def _range(self) -> Range:
        bounds = self._choice(_BOUNDS)
        lower, upper = self._choice(["gt", "gte"]), self._choice(["lt", "lte"])
        names = self._choice([[lower], [upper], [lower, upper]])
        return Range(**{name: self._choice(bounds) for name in names})

    def _circle(self) -> GeoRadius:
        center, radius_m = self._choice(PLACES[:5]), self._choice([1, 5e4, 1e6, 1.7e7, 1e8])
        return GeoRadius(lat=center["lat"], lon=center["lon"], radius_m=radius_m)

    def _path(self) -> str:
        steps = self._choice([1, 1, 1, 2, 2, 3])
        places = ["", "", "", "", "", "[]", "[0]", "[1]", "[][]"]
        drawn = Path(tuple((self._name(), self._choice(places)) for _ in range(steps)))
        return str(remembered(drawn))

    def _name(self) -> str:
        names: Sequence[str] = NAMES
        return self._random.choice([*names, *["a", "b", "x y", "größe"] * 3])

    def _choice(self, given: Sequence[Any]) -> Any:
        return self._random.choice(given)


def _places(value: Any, steps: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of an object, also inside of others and of lists, each with its value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places(inner, (*steps, (name, "")))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _places(item, steps)
    if steps and len(steps) <= 3 and not isinstance(value, list | tuple):
        yield str(remembered(Path(steps))), value


# ---- plain Python ----------------------------------------------------------------------------


def matches(meta: Any, given: Any) -> bool:
    """True if a passage, or an object in it, meets a filter."""
    if isinstance(given, Not | Either | All):
        return _combines(given, lambda part: matches(meta, part))
    return all(holds(meta, path, condition) for path, condition in given.items())


def _combines(given: Not | Either | All, check: Callable[[Any], bool]) -> bool:
    if isinstance(given, Not):
        return not check(given.condition)
    return (any if isinstance(given, Either) else all)(map(check, given.conditions))


def holds(meta: Any, path: str, condition: Any) -> bool:
    """True if a passage, or an object in it, meets a condition."""
    if isinstance(condition, Not | Either | All):
        return _combines(condition, lambda part: holds(meta, path, part))
    found = [*_walk(meta, PATHS[path].steps)]
    if isinstance(condition, Exists):
        return any(value is not None and value != [] for value in found)
    values = [item for value in found for item in (value if isinstance(value, list) else [value])]
    if isinstance(condition, Text):
        has = {word for value in values if isinstance(value, str) for word in _words(value)}
        return has.issuperset(_words(condition.words))
    return any(_meets(value, condition) for value in values)


def _meets(value: Any, condition: Any) -> bool:
    """True if one value meets a condition."""
    if isinstance(condition, Mapping):
        return isinstance(value, dict) and matches(value, condition)
    if isinstance(condition, GeoRadius):
        return isinstance(value, dict) and _is_near(value, condition)
    if isinstance(condition, Range):
        return _between(value, condition)
    asked = [*condition] if isinstance(condition, list | set) else [condition]
    return any(_same(value, one) for one in asked)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _is_near(stored: Mapping[str, Any], circle: GeoRadius) -> bool:
    lat: Any = stored.get("lat")
    lon: Any = stored.get("lon")
    if type(lat) not in (int, float) or type(lon) not in (int, float):
        return False
    a, b = _direction(lat, lon), _direction(circle.lat, circle.lon)
    angle = math.atan2(math.dist((0, 0, 0), np.cross(a, b)), float(np.dot(a, b)))
    return angle * 6_371_008.8 < circle.radius_m


def _direction(lat: float, lon: float) -> tuple[float, float, float]:
    lat, lon = math.radians(lat), math.radians(lon)
    return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)


def _walk(value: Any, steps: Sequence[tuple[str, str]]) -> Iterator[Any]:
    """Yield the values at a path."""
    (name, places), *others = steps
    if not isinstance(value, dict) or name not in value:
        return
    found = [value[name]]
    for place in places.replace("]", "").split("[")[1:]:
        lists = [one for one in found if isinstance(one, list)]
        found = [item for one in lists for item in (one if place == "" else one[int(place) :][:1])]
    for one in found:
        if not others:
            yield one
        else:
            through = one if isinstance(one, list) and not places else [one]
            for item in through:
                yield from _walk(item, others)


def _same(stored: Any, asked: Any) -> bool:
    """Of one type; a float that is asked for is found as an integer, too."""
    if isinstance(asked, np.datetime64):
        asked = asked.item()
    if isinstance(asked, date):
        return isinstance(stored, str) and MOMENTS.get(stored) == _naive(asked)
    if isinstance(asked, np.generic):
        asked = asked.item()
    if isinstance(asked, Decimal):
        asked = int(asked) if asked == int(asked) else float(asked)
    if isinstance(asked, float):
        return type(stored) in (int, float) and stored == asked
    return type(stored) is type(asked) and bool(stored == asked)


def _naive(moment: date) -> datetime:
    if not isinstance(moment, datetime):
        return datetime(moment.year, moment.month, moment.day)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _between(stored: Any, bounds: Range) -> bool:
    ends = {name: getattr(bounds, name) for name in ("gt", "gte", "lt", "lte")}
    given = {name: end for name, end in ends.items() if end is not None}
    if any(isinstance(end, date) for end in given.values()):
        stored = MOMENTS.get(stored) if isinstance(stored, str) else None
        given = {name: _naive(end) for name, end in given.items()}
    elif type(stored) not in (int, float):
        return False
    compare = {
        "gt": lambda end: stored > end,
        "gte": lambda end: stored >= end,
        "lt": lambda end: stored < end,
        "lte": lambda end: stored <= end,
    }
    return stored is not None and all(compare[name](end) for name, end in given.items())


# ---- the engines -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Collection]]:
    """A collection of each engine; indexes of these two kinds change no answer."""
    kinds: Mapping[str, PayloadIndex] = {
        "a": "keyword",
        "b": "bool",
        "a.b": "keyword",
        "b.a": "tenant",
        "x y": "text",
        "a.x y": "text",
        "größe": "geo",
        "a.größe": "geo",
    }
    indexes = {key: kind for field, kind in kinds.items() for key in payload_keys(field)}
    with ExitStack() as stack:
        made = {}
        for engine in ENGINES:
            store = stack.enter_context(new_store(engine, tmp_path_factory.mktemp(engine)))
            spec = make_spec(store)
            store.create_collection(
                "drawn__0001", replace(spec, payload_indexes={**spec.payload_indexes, **indexes})
            )
            made[engine] = store.collection("drawn__0001")
        yield made


def agree(
    collections: Mapping[str, Collection],
    metas: Sequence[Mapping[str, Any]],
    wanted: Sequence[SearchFilter],
) -> int:
    """Compare each engine's answers with those of `matches`; count those that split passages."""
    plain = [plain_meta(meta) for meta in metas]
    batch = make_batch([*range(PASSAGES)], [[1.0, 0, 0, 0]] * PASSAGES)
    batch = replace(batch, payloads=[{"meta": meta, "seq": 1} for meta in plain])
    expected = [{n for n, meta in enumerate(plain) if matches(meta, one)} for one in wanted]
    for engine, collection in collections.items():
        collection.upsert(batch)
        queries = [PointQuery(None, 2 * PASSAGES, meta_filter=one, fields=()) for one in wanted]
        for one, points, pids in zip(wanted, collection.query(queries), expected, strict=True):
            found = {point.id for point in points}
            assert pids == found, f"{engine}: {one} over {json.dumps(plain)}"
    return sum(0 < len(pids) < PASSAGES for pids in expected)


def test_the_deepest_filter(collections: Mapping[str, Collection]) -> None:
    """A server's protocol bounds the depth of messages: nine objects inside of three others."""
    meta: Any = {"a": 1}
    wanted: Any = {"a": Either([1, 2])}
    for _ in range(8):
        meta, wanted = {"a": [meta]}, {"a": wanted}
    chosen = All([Not(Not(wanted))])
    check_filter(chosen)
    remembered(Path((("a", ""),)))
    agree(collections, [meta, *[{}] * (PASSAGES - 1)], [chosen])


@pytest.mark.parametrize("seed", range(3))
def test_s5_s6_engines_and_plain_python_agree(
    collections: Mapping[str, Collection], seed: int
) -> None:
    """Nested lists, odd names, and values of Python and NumPy: 60 filters."""
    draw = Draw(seed)
    agree(collections, draw.metas(), draw.filters())


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(3, 33), marks=pytest.mark.slow),
        pytest.param(range(33, 533), marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_s5_s6_engines_and_plain_python_agree_often(
    collections: Mapping[str, Collection], seeds: range
) -> None:
    """The same with 600 or 10,000 filters; a quarter match some passages and not others."""
    split = 0
    for seed in seeds:
        draw = Draw(seed)
        split += agree(collections, draw.metas(), draw.filters())
    assert split > len(seeds) * FILTERS / 4
