"""Filters through lists, on odd names and on values of other types, over each engine."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np
import pytest
from qdrant_client import models

from msmarco_qdrant import AsyncSearchClient, Passage, SearchClient, ingest_passages
from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.limits import RequestLimits
from msmarco_qdrant.core.search_types import Hit, PointQuery, ScoredPoint
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import Exists, MetaFilter, Not, Range
from msmarco_qdrant.migrate.indexes import add_index, list_indexes
from msmarco_qdrant.search import driver
from msmarco_qdrant.search.driver import execute_step
from msmarco_qdrant.search.filter_checks import FilterChecks
from msmarco_qdrant.search.session import SearchSession
from msmarco_qdrant.search.step import CountPoints, GetPayloadIndexes, Query, Step
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.filters import to_qdrant
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import ENGINES, new_store

NAME = "films"
INDEXES: Mapping[str, PayloadIndex] = {
    "seen": "datetime",
    "authors.name": "keyword",
    "year": "integer",
    "code": "keyword",
    "live": "bool",
    "score": "float",
}
PASSAGES = [
    Passage(
        "a",
        "Whales sing.",
        {
            "authors": [{"name": "Ada"}, {"name": "Cy", "born": [1950, 1951]}],
            "year": 2001,
            "when": datetime(2024, 5, 1),
            "seen": "2024-05-01",
            "a.b": 1,
            "code": 1000,
            "live": True,
            "score": 1.0,
        },
    ),
    Passage(
        "b",
        "Whales swim.",
        {
            "authors": {"name": "Bob", "born": 1960},
            "year": 2002,
            "when": np.datetime64("2025-05-01"),
            "seen": "2025-05-01T00:00:00Z",
            "code": "1000",
            "live": 1,
            "score": 1.5,
        },
    ),
    Passage("c", "Whales dive.", {"x y": {"[0]": "z"}, "tags[0]": "t", "live": False}),
]


class Place(NamedTuple):
    """A store with the passages, and a client."""

    store: Store
    client: SearchClient


@pytest.fixture(scope="module", params=ENGINES)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """The passages on each engine."""
    encoder = HashingEncoder()
    with new_store(request.param, tmp_path_factory.mktemp("films")) as store:
        ingest_passages(PASSAGES, store, encoder=encoder, collection=NAME, payload_indexes=INDEXES)
        with SearchClient(store, NAME, encoder) as client:
            yield Place(store, client)


def found(place: Place, wanted: Any, **options: Any) -> list[str]:
    """The pids that a filter finds, in order."""
    return sorted(hit.pid for hit in place.client.search("whales", meta_filter=wanted, **options))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"authors.name": "Ada"}, ["a"]),
        ({"authors.name": Not("Ada")}, ["b", "c"]),
        ({"authors.name": ["Cy", "Bob"]}, ["a", "b"]),
        ({"authors.name": Exists()}, ["a", "b"]),
        ({"authors.name": Not(Exists())}, ["c"]),
        ({"authors[].name": Exists()}, ["a"]),
        ({"authors[1].name": "Cy"}, ["a"]),
        ({"authors.born": Range(gte=1951, lt=1960)}, ["a"]),
        ({"authors.born": Range(gte=1951)}, ["a", "b"]),
        ({'"a.b"': 1}, ["a"]),
        ({'"a.b"': Not(1)}, ["b", "c"]),
        ({'x y."[0]"': "z"}, ["c"]),
        ({'"tags[0]"': "t"}, ["c"]),
    ],
)
def test_s5_dots_go_through_lists(place: Place, wanted: MetaFilter, expected: list[str]) -> None:
    """And names with dots or brackets are written in quotation marks."""
    assert expected == found(place, wanted)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"when": datetime(2024, 5, 1)}, ["a"]),
        ({"when": date(2025, 5, 1)}, ["b"]),
        ({"when": np.datetime64("2025-05-01T00:00:00")}, ["b"]),
        ({"seen": date(2025, 5, 1)}, ["b"]),
        ({"seen": Not(date(2025, 5, 1))}, ["a", "c"]),
        ({"seen": Range(gte=date(2025, 1, 1))}, ["b"]),
        ({"when": Range(lt=date(2025, 1, 1))}, ["a"]),
        ({"year": np.int64(2001)}, ["a"]),
        ({"year": {2001, 2002}}, ["a", "b"]),
        ({"year": (2001,)}, ["a"]),
        ({"code": 1000}, ["a"]),
        ({"code": "1000"}, ["b"]),
        ({"code": [1000, "1000"]}, ["a", "b"]),
        ({"live": True}, ["a"]),
        ({"live": 1}, ["b"]),
        ({"live": Range(gte=1)}, ["b"]),
        ({"live": False}, ["c"]),
        ({"score": 1.5}, ["b"]),
        ({"score": Range(gt=1, lte=1.5)}, ["b"]),
        ({"year": 2001.0}, ["a"]),
    ],
)
def test_s6_values_over_indexes(place: Place, wanted: MetaFilter, expected: list[str]) -> None:
    """The same with and without payload indexes; types differ."""
    assert expected == found(place, wanted)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (
            {"seen": Range(gte=2025)},
            "'seen' has a payload index of kind datetime: compare it ",
        ),
        ({"seen": Range(gte=20250101)}, "with dates such as 2024-05-01, not with numbers"),
        ({"seen": 2025}, "not with numbers"),
        ({"seen": Not(2025.0)}, "not with numbers"),
        ({"year": Range(lt=date(2024, 1, 1))}, "kind integer: compare it with numbers, not with"),
        ({"year": date(2024, 1, 1)}, "not with dates, or index it as datetime"),
        ({"score": Range(lt=date(2024, 1, 1))}, "kind float: compare it with numbers, not with"),
        ({"year": Not(1.5)}, "kind integer: it finds no fractions; index it as float"),
    ],
)
def test_s6_what_an_index_compares_wrongly_is_refused(
    place: Place, wanted: MetaFilter, reason: str
) -> None:
    """An engine without indexes warns of the types."""
    if place.store.capabilities.payload_indexes:
        for _ in range(2):
            with pytest.raises(UsageError, match=reason):
                found(place, wanted)
    elif not any(isinstance(condition, Not) for condition in wanted.values()):
        assert [] == found(place, wanted)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"nope": "x"}, "no passage has the field 'nope' in meta"),
        ({"nope2": Not("x")}, "no passage has the field 'nope2' in meta"),
        ({"nope3": Not(Exists())}, "no passage has the field 'nope3' in meta"),
        ({"pid": "a"}, "field 'pid' in meta: the pid of a passage is not in meta"),
        ({"text": "a"}, "field 'text' in meta: the text of a passage is not in meta: search for"),
        ({"meta.year": 2001}, "field 'meta.year' in meta: write year"),
        ({"lang:de": Exists()}, "field 'lang:de' in meta: for a value write lang=de"),
        ({"a.b": 1}, 'are part of the name, write "a.b" with quotation marks'),
        ({"tags[0]": "t"}, 'are part of the name, write "tags.0." with quotation marks'),
        (models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="year"))]),
         "no passage has the payload key 'year': the key of a field of meta is meta.year"),
        ({"when": Range(gte=2024)}, "'when' has values such as .*the filter compares numbers"),
        ({"when": Not(2024)}, "and the filter compares numbers; write a date as 2024-05-01"),
        ({"year": "2001"}, "'year' has values such as 200., and the filter compares strings"),
        ({"authors.name": 7}, "'authors.name' has values such as .*, and the filter compares numb"),
        ({"x y": "z"}, "'x y' has values such as {.*, and the filter compares strings"),
    ],
)  # fmt: skip
def test_s5_s6_a_filter_that_cannot_match_says_so(
    place: Place, wanted: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each client, by the blocking and the asyncio client."""
    with SearchClient(place.store, NAME, place.client.encoder) as client:
        for expected in (1, 0):
            caplog.clear()
            client.search("whales", meta_filter=wanted)
            assert expected == len([r for r in caplog.records if _is_note(r.getMessage())])
            assert expected == 0 or re.search(reason, caplog.text)


def _is_note(message: str) -> bool:
    return message.startswith(("no passage has", "the field '"))


def test_s5_a_client_for_asyncio_says_so(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Through its own collection."""

    async def main() -> list[Hit]:
        encoder = place.client.encoder
        async with await AsyncSearchClient.open(
            place.store, collection=NAME, encoder=encoder
        ) as client:
            return await client.search("whales", meta_filter={"nope": Not(1)})

    assert 3 == len(asyncio.run(main()))
    assert "no passage has the field 'nope' in meta" in caplog.text


def test_s5_filters_that_match_ask_for_nothing_more(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The usual search costs no request; no warning of its fields is logged."""
    asked = []

    def count(session: SearchSession, step: Step) -> Any:
        asked.append(step)
        return execute_step(session, step)

    monkeypatch.setattr(driver, "execute_step", count)
    for wanted in ({"year": 2001}, {"year": Not(2001)}, {"year": Range(gte=2001)}):
        found(place, wanted)
        asked.clear()
        found(place, wanted)
        assert 1 == len([step for step in asked if isinstance(step, Query)])
    assert not any(map(_is_note, caplog.messages))


def test_s5_groups_go_through_lists(place: Place) -> None:
    """As filters do."""
    hits = place.client.search("whales", group_by="authors.name")
    assert ["a", "b"] == sorted(hit.pid for hit in hits)
    assert ["a"] == [hit.pid for hit in place.client.search("whales", group_by='"a.b"')]
    with pytest.raises(UsageError, match="quotation marks"):
        place.client.search("whales", group_by='a"b')


def test_s5_indexes_go_through_lists(place: Place) -> None:
    """A field with a dot has two payload keys, so that a filter on it is served."""
    if place.store.capabilities.payload_indexes:
        indexes = place.store.collection(NAME).spec().payload_indexes
        assert {"meta.authors.name", "meta.authors[].name"} < {*indexes}


@pytest.mark.parametrize(("points", "warnings"), [(9_999, 0), (10_000, 1)])
def test_s5_a_scan_is_warned_of_where_it_takes_time(
    points: int, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It asks once for each field, and not for the size if an index serves the filter."""
    checks = FilterChecks("films", None, indexed=True)
    answers: dict[type, Any] = {GetPayloadIndexes: {"meta.lang": "keyword"}, CountPoints: points}

    def asked(wanted: MetaFilter) -> list[type]:
        steps = checks.check_indexes(to_qdrant(wanted), RequestLimits())
        kinds: list[type] = []
        try:
            kinds.append(type(next(steps)))
            while True:
                kinds.append(type(steps.send(answers[kinds[-1]])))
        except StopIteration:
            return kinds

    assert [GetPayloadIndexes] == asked({"lang": "de"})
    assert [GetPayloadIndexes, CountPoints] == asked({"year": Range(gte=2001)})
    assert [] == asked({"year": Range(gte=2002)})
    assert warnings == caplog.text.count("has no payload index")


def test_s5_a_small_collection_is_filtered_without_advice(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """By both clients."""

    async def main() -> list[Hit]:
        async with await AsyncSearchClient.open(
            place.store, collection=NAME, encoder=place.client.encoder
        ) as client:
            return await client.search("whales", meta_filter={"when": date(2025, 5, 1)})

    assert ["b"] == [hit.pid for hit in asyncio.run(main())]
    with SearchClient(place.store, NAME, place.client.encoder) as client:
        assert 1 == len(client.search("whales", meta_filter={"when": date(2025, 5, 1)}))
    assert not caplog.messages


def test_s5_a_missing_field_is_looked_up_again_after_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An ingest may have added it."""
    caplog.set_level(logging.WARNING)
    now = 0.0
    checks = FilterChecks("films", None, indexed=True, clock=lambda: now)
    hit = Hit(1, "a", 1.0, "x", {})

    def asked() -> int:
        steps = checks.check_fields({"x": Not(1)}, [[hit]])
        queries = 0
        try:
            step: Any = next(steps)
            while True:
                queries += 1
                (query,) = step.queries
                assert isinstance(query, PointQuery)
                points: list[ScoredPoint] = []
                step = steps.send([points])
        except StopIteration:
            return queries

    assert [1, 0] == [asked(), asked()]
    now = 60.0
    assert [1, 0] == [asked(), asked()]


def test_s5_an_index_of_an_earlier_version_gets_its_second_key(place: Place) -> None:
    """`index add` indexes lists, too; the list of indexes has one entry for a field."""
    if not place.store.capabilities.payload_indexes:
        return
    admin = place.store.admin_collection(f"{NAME}__0001")
    admin.drop_payload_index("meta.authors[].name")
    assert "keyword" == list_indexes(place.store, NAME)["authors.name"]
    add_index(place.store, NAME, "authors.name", "keyword")
    assert "meta.authors[].name" in place.store.collection(NAME).spec().payload_indexes
    assert INDEXES == list_indexes(place.store, NAME)
