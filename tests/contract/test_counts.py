"""Counts, facets and scrolls, over every engine, by both clients, compared with plain Python."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Any

import pytest

from msmarco_qdrant.collection import scroll
from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.collection.facets import count_facets
from msmarco_qdrant.collection.passages import count_passages
from msmarco_qdrant.collection.scroll import scroll_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Facet
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import MetaFilter, Not, Range
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import ENGINES_AND_SERVER, new_store

_LANGS = ("en", "de", "fr", "sv")
_INDEXES: Any = {
    "lang": "keyword",
    "year": "integer",
    "live": "bool",
    "price": "float",
    "author.name": "keyword",
    "when": "datetime",
    "author.age": "integer",
    "many": "integer",
}


def _passages() -> list[Passage]:
    """Eighty passages with fields of each kind; some are missing, some are lists."""
    random = Random(7)
    made = []
    for number in range(80):
        meta: dict[str, Any] = {
            "lang": random.sample(_LANGS, 2) if number % 9 == 0 else random.choice(_LANGS),
            "live": random.random() < 0.3,
            "price": number / 4,
            "size": number,
            "plain": random.choice(["a", "b", 1, True, 2.5, None]),
            "deep": [{"a": [{"b": "x"}, {"b": random.choice("xy")}]}, {"a": {"b": "x"}}],
        }
        if number % 3:
            meta["year"] = 2000 + random.randrange(6)
        if number % 4:
            day = datetime(2024, 5, 1 + random.randrange(4), tzinfo=UTC)
            meta["when"] = day.isoformat()
            meta["many"] = random.choices(range(9), k=1 + number % 3)
        author = {"name": random.choice(["ann", "bob", "cem"]), "age": random.randrange(20, 25)}
        meta["author"] = author if number % 2 else [author, {"name": "dee"}]
        made.append(Passage(str(number), f"passage {number}", meta))
    return made


PASSAGES = _passages()


@pytest.fixture(scope="module", params=ENGINES_AND_SERVER)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SearchClient]:
    """A client on the passages, of each engine in turn, with indexes where it has them."""
    name = f"counts-{uuid.uuid4().hex[:12]}"
    with new_store(request.param, tmp_path_factory.mktemp("counts")) as store:
        indexes = _INDEXES if store.capabilities.payload_indexes else {}
        ingest_passages(
            PASSAGES, store, collection=name, encoder=HashingEncoder(), payload_indexes=indexes
        )
        with SearchClient.open(store, collection=name, encoder=HashingEncoder()) as opened:
            yield opened
        drop_collection(store, name)


def _values(meta: Mapping[str, Any], field: str) -> list[Any]:
    """The values of a field, also inside of lists."""
    found: list[Any] = [meta]
    for name in field.split("."):
        objects = [
            one for value in found for one in (value if isinstance(value, list) else [value])
        ]
        found = [one[name] for one in objects if isinstance(one, dict) and name in one]
    return [one for value in found for one in (value if isinstance(value, list) else [value])]


def _expected(passages: Sequence[Passage], field: str) -> Counter[tuple[str, Any]]:
    """The number of passages of each value and its type."""
    kinds = (str, int, bool)
    each = [
        {(type(v).__name__, v) for v in _values(passage.meta, field) if type(v) in kinds}
        for passage in passages
    ]
    return Counter(value for values in each for value in values)


def _all_facets(client: SearchClient, field: str, **options: Any) -> list[Facet]:
    """The facets by the client, which are those of the async client and of the function."""

    async def by_async() -> list[Facet]:
        opened = await AsyncSearchClient.open(
            client.store, collection=client.collection, encoder=HashingEncoder()
        )
        async with opened:
            return await opened.facets(field, **options)

    found = client.facets(field, **options)
    assert found == asyncio.run(by_async())
    assert found == count_facets(client.store, field, collection=client.collection, **options)
    return found


_EARLY: MetaFilter = {"year": Range(lt=2003)}


@pytest.mark.slow_over("edge")
@pytest.mark.parametrize("field", ["lang", "year", "live", "author.name", "plain", "deep.a.b"])
@pytest.mark.parametrize("chosen", [None, _EARLY, {"lang": Not("en")}])
def test_facets_are_those_of_plain_python(
    client: SearchClient, field: str, chosen: MetaFilter | None
) -> None:
    """Every value with its number of passages, by an index or without, also with a filter."""
    kept = PASSAGES
    if chosen is _EARLY:
        kept = [one for one in PASSAGES if one.meta.get("year", 9999) < 2003]
    elif chosen is not None:
        kept = [one for one in PASSAGES if "en" not in _values(one.meta, "lang")]
    found = _all_facets(client, field, limit=100, meta_filter=chosen)
    counted = Counter({(type(one.value).__name__, one.value): one.count for one in found})
    assert _expected(kept, field) == counted
    assert len(found) == len(counted)


def test_a_limit_cuts_the_rarest(client: SearchClient) -> None:
    """The most frequent come first; of equal ones the lower."""
    for field in ("lang", "year", "author.name", "plain"):
        everything = client.facets(field, limit=100)
        assert everything == sorted(everything, key=lambda one: -one.count)
        for limit in (1, 2, 3):
            assert everything[:limit] == client.facets(field, limit=limit)


def test_counts_are_those_of_plain_python(client: SearchClient) -> None:
    """Of all, and of those that match; an estimate is a number of passages, too."""
    early = [one for one in PASSAGES if one.meta.get("year", 9999) < 2003]
    for exact in (True, False):
        assert len(PASSAGES) == client.count(exact=exact)
    assert len(early) == client.count(meta_filter=_EARLY)
    assert 0 <= client.count(meta_filter=_EARLY, exact=False) <= len(PASSAGES)
    assert len(early) == count_passages(
        client.store, collection=client.collection, meta_filter=_EARLY
    )


def test_an_estimate_has_the_same_values(client: SearchClient) -> None:
    """Of an index; without one they are counted."""
    exact, estimated = (client.facets("lang", exact=exact) for exact in (True, False))
    assert {one.value for one in exact} == {one.value for one in estimated}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"field": ""}, "field must be the name of a field of meta, got ''"),
        ({"field": 7}, "field must be the name of a field of meta, got 7"),
        ({"limit": 0}, "limit must be 1 to 10,000, got 0"),
        ({"limit": True}, "limit must be 1 to 10,000, got True"),
        ({"limit": 10_001}, "limit must be 1 to 10,000, got 10001"),
        ({"exact": 1}, "exact must be True or False, got 1"),
        (
            {"field": "price"},
            "the field must have strings, integers or booleans.*'price'.* [0-9.]+",
        ),
    ],
)
def test_invalid_requests_are_refused(
    client: SearchClient, arguments: dict[str, Any], reason: str
) -> None:
    """With the rule, and the value."""
    with pytest.raises(UsageError, match=reason):
        client.facets(**{"field": "lang", **arguments})


def test_a_field_of_no_passage_is_explained(
    client: SearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelled one has no values."""
    with caplog.at_level(logging.WARNING):
        assert [] == client.facets("language")
    assert ["no passage has the field 'language' in meta"] == caplog.messages


# ---- scroll --------------------------------------------------------------------------------


def _scrolled(client: SearchClient, **options: Any) -> list[str]:
    """The pids by the client, which are those of the async client and of the function."""

    async def by_async() -> list[str]:
        opened = await AsyncSearchClient.open(
            client.store, collection=client.collection, encoder=HashingEncoder()
        )
        async with opened:
            return [one.pid async for one in opened.scroll(**options)]

    found = [one.pid for one in client.scroll(**options)]
    assert found == asyncio.run(by_async())
    by_function = scroll_passages(client.store, collection=client.collection, **options)
    assert found == [one.pid for one in by_function]
    return found


def _ordered(field: str, *, descending: bool) -> list[str]:
    """The pids in the order of a field's first value; of equal ones by pid, which is the id."""
    first, sign = (max, -1) if descending else (min, 1)
    keyed: list[tuple[Any, int]] = []
    for one in PASSAGES:
        values = _values(one.meta, field)
        if values:
            value = first(values)
            number = datetime.fromisoformat(value).timestamp() if field == "when" else value
            keyed.append((sign * number, int(one.pid)))
    return [str(pid) for _, pid in sorted(keyed)]


def test_a_scroll_returns_all_once(client: SearchClient) -> None:
    """In the order of ids, or those that match; from a passage on."""
    everything = [str(number) for number in range(len(PASSAGES))]
    assert everything == _scrolled(client)
    assert everything[31:] == _scrolled(client, after="30")
    early = [one.pid for one in PASSAGES if one.meta.get("year", 9999) < 2003]
    assert early == _scrolled(client, meta_filter=_EARLY)


@pytest.mark.slow_over("edge")
@pytest.mark.slow_over("loopback")
@pytest.mark.parametrize("page", [7, 100])
@pytest.mark.parametrize("field", ["year", "price", "when", "many", "author.age"])
def test_a_scroll_in_the_order_of_a_field(
    client: SearchClient, field: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each passage with a value once, ties by id, whatever the page; it continues anywhere."""
    monkeypatch.setattr(scroll, "page_size", lambda _: page)
    for descending in (False, True):
        order = f"-{field}" if descending else field
        expected = _ordered(field, descending=descending)
        assert expected == [one.pid for one in client.scroll(order_by=order)]
        middle = expected[len(expected) // 2]
        rest = expected[len(expected) // 2 + 1 :]
        assert rest == [one.pid for one in client.scroll(order_by=order, after=middle)]
    assert expected[:5] == [one.pid for one in islice(client.scroll(order_by=order), 5)]


def test_an_ordered_scroll_with_a_filter(client: SearchClient) -> None:
    """Both hold, by each way to call it."""
    chosen: MetaFilter = {"year": Range(gte=2000), "author.name": ["ann", "bob", "cem"]}
    expected = [pid for pid in _ordered("price", descending=True) if int(pid) % 3]
    assert expected == _scrolled(client, order_by="-price", meta_filter=chosen)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"order_by": ""}, "order_by must be the name of a field of meta, .* got ''"),
        ({"order_by": "-"}, "order_by must be the name of a field of meta, .* got '-'"),
        ({"order_by": "a.b.c"}, "order_by must have at most one dot, got 'a.b.c'"),
        ({"after": ""}, "after must be a non-empty pid, got ''"),
        ({"after": 7}, "after must be a non-empty pid, got 7"),
    ],
)
def test_invalid_scrolls_are_refused_at_once(
    client: SearchClient, arguments: dict[str, Any], reason: str
) -> None:
    """Before the first passage is asked for."""
    with pytest.raises(UsageError, match=reason):
        client.scroll(**arguments)


def test_an_order_needs_its_index_and_its_passage(client: SearchClient) -> None:
    """The error has the command; an engine without indexes orders by any field."""
    with pytest.raises(UsageError, match=r"after must be .* with a value of 'year', got '0'"):
        [*client.scroll(order_by="year", after="0")]
    if client.store.capabilities.payload_indexes:
        with pytest.raises(UsageError, match=r"'size' has none: .*`.*index add size=integer"):
            [*client.scroll(order_by="size")]
        with pytest.raises(UsageError, match=r"that some passages have, got 'absent'"):
            [*client.scroll(order_by="absent")]
        for field in ("plain", "lang"):
            with pytest.raises(UsageError, match=f"or moments, and '{field}' has values such as"):
                [*client.scroll(order_by=field)]
