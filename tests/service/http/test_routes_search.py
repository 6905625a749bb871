"""Searches over HTTP when the store or the model is not there."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import httpx
import pytest

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    EncodingError,
    StoreAccessError,
    StoreUnavailableError,
    UsageError,
)
from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.interfaces import About
from tests.service.http.driver import (
    Driver,
    GivenHits,
    RaisingSearcher,
    WaitingSearcher,
    drive,
    exchange,
    problem_of,
)
from tests.service.real_parts import real_parts


def test_a_collection_that_was_dropped_comes_back(tmp_path: Path) -> None:
    """Meanwhile a search is 503 with Retry-After; the next passages make it again."""

    async def main() -> None:
        async with (
            real_parts(tmp_path) as real,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(real.app), base_url="http://localhost"
            ) as client,
        ):
            real.store.drop_collection(real.store.aliases()["msmarco"])
            answer = await client.post("/search", json={"query": "city"})
            assert (503, "store-unavailable", "5") == (
                *problem_of(answer),
                answer.headers["retry-after"],
            )
            assert "the next passages create it" in answer.json()["detail"]
            row = [{"pid": "7", "text": "a city again"}]
            assert 200 == (await client.post("/passages?wait=true", json=row)).status_code
            found = await client.post("/search", json={"query": "city"})
            assert ["7"] == [hit["pid"] for hit in found.json()["hits"]]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreUnavailableError("http://inside:6333 is away"), (503, "store-unavailable")),
        (StoreAccessError("the key sesame is wrong"), (503, "store-unavailable")),
        (CollectionNotFoundError("no 'inside'"), (503, "store-unavailable")),
        (EncodingError("no vector"), (422, "invalid")),
        (UsageError("no such mode"), (422, "invalid")),
        (RuntimeError("sesame"), (500, "internal")),
    ],
)
def test_an_error_of_a_search_shows_nothing_internal(
    error: Exception, expected: tuple[int, str]
) -> None:
    """503 has Retry-After; neither the store's place nor the error's own text is in the answer."""

    async def use(driver: Driver) -> None:
        answer = await driver.client.post("/search", json={"query": "a"})
        assert expected == problem_of(answer)
        assert (expected[0] == 503) == ("retry-after" in answer.headers)
        assert not any(word in answer.text for word in ("inside", "sesame"))
        assert answer.json()["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
        text = driver.metrics.text().decode()
        assert f'route="/search",status="{expected[0]}"}} 1.0' in text
        assert 'search_seconds_count{mode="dense"} 0.0' in text

    drive(use, searcher=lambda: RaisingSearcher(error))


def test_before_the_model_is_there() -> None:
    """503, not 500; a wrong search is told as such even then."""

    async def use(driver: Driver) -> None:
        answer = await driver.client.post("/search", json={"query": "a"})
        assert (503, "not-ready", "5") == (*problem_of(answer), answer.headers["retry-after"])
        assert (422, "invalid") == problem_of(await driver.client.post("/search", json={}))
        several = {"query": "a", "collections": ["films"]}
        assert (503, "not-ready") == problem_of(await driver.client.post("/search", json=several))

    drive(use)


@pytest.mark.parametrize(("hits", "texts"), [(3, 1), (200, 1), (2, 3)])
def test_hits_of_any_number_become_json_in_their_order(hits: int, texts: int) -> None:
    """Few at once, many in a thread: the same form, for a query or several."""
    searcher = GivenHits([Hit(n + 1, str(n), 0.5, "a", {"n": n}) for n in range(hits)])
    queries = [f"p{number}" for number in range(texts)]

    async def use(driver: Driver) -> None:
        answer = (await driver.client.post("/search", json={"queries": queries})).json()
        assert [hits] * texts == [len(one["hits"]) for one in answer]
        alone = (await driver.client.post("/search", json={"query": "p"})).json()
        assert [*range(hits)] == [hit["meta"]["n"] for hit in alone["hits"]]

    drive(use, searcher=lambda: searcher)


@pytest.mark.parametrize("hits", [2, 200])
def test_an_answer_of_too_many_bytes(hits: int) -> None:
    """It is refused as soon as it has them, with what to do."""
    searcher = GivenHits([Hit(n + 1, str(n), 0.5, "a" * 300, {}) for n in range(hits)])

    parts = {"searcher": lambda: searcher, "limits": Limits(answer_bytes=500)}
    answer = exchange("POST", "/search", json={"query": "a"}, app=parts)
    assert (422, "invalid") == problem_of(answer)
    assert "at most 500 bytes: ask for fewer" in answer.json()["detail"]


def test_reranking_without_a_reranker_says_how_to_start_with_one() -> None:
    """In the words of who started the sidecar, not of Python; with one it is done."""
    for rerank, expected in ((False, 422), (True, 200)):
        about = About("msmarco", "m", 8, ["dense"], rerank=rerank)
        parts = {"searcher": lambda: GivenHits([]), "about": partial(lambda one: one, about)}
        answer = exchange("POST", "/search", json={"query": "a", "rerank": True}, app=parts)
        assert expected == answer.status_code
        assert (expected == 422) == ("--reranker ms-marco-MiniLM-L6-v2" in answer.text)


_MANY = {"queries": ["a"] * 64, "mode": "hybrid"}


@pytest.mark.parametrize(
    ("path", "body", "where", "reason"),
    [
        ("/search", {"phrase": "a"}, "phrase", "unknown field: must be one of query, queries"),
        ("/passages", [{"pid": "1", "text": "a", "year": 1}], "0.year", "unknown field: put it "),
        ("/passages", [{"a": 1, "b": 2, "c": 3, "d": 4}], "0", "must have at most 3 fields (pid,"),
        (
            "/search",
            {**_MANY, "offset": 200},
            "body",
            "offset and limit together times queries must",
        ),
        (
            "/search",
            {**_MANY, "fusion": {"depth": 200}},
            "body",
            "fusion.depth times queries must be",
        ),
        ("/search", {"query": "a", "limit": 0}, "limit", "must be greater than or equal to 1, got"),
    ],
)
def test_an_error_names_field_and_rule(path: str, body: object, where: str, reason: str) -> None:
    """Of a search the known fields, of a passage the place for others."""
    (error,) = exchange("POST", path, json=body).json()["errors"]
    assert where == error["where"]
    assert error["reason"].startswith(reason)


def test_a_caller_who_goes_leaves_no_search_counted() -> None:
    """The place of a search that is cancelled is free again."""

    async def use(driver: Driver) -> None:
        asked = asyncio.create_task(driver.client.post("/search", json={"query": "a"}))
        await searcher.asked.wait()
        asked.cancel()
        await asyncio.wait([asked])
        assert b"searches_in_flight 0.0" in driver.metrics.text()

    searcher = WaitingSearcher()
    drive(use, searcher=lambda: searcher)


def test_a_filter_of_no_form_is_told_once_a_field() -> None:
    """What it may be instead; what is wrong in one way alone is told so."""
    filter_ = {"year": {"from": 2001}, "tags": [], "lang": {"exists": 1}}
    answer = exchange("POST", "/search", json={"query": "a", "filter": filter_})
    assert (422, "invalid") == problem_of(answer)
    errors = {one["where"]: one["reason"] for one in answer.json()["errors"]}
    assert {"filter.year", "filter.tags", "filter.lang"} == set(errors)
    assert 'a range such as {"gte": 2001}' in errors["filter.year"]
    assert "function-before" not in answer.text


def test_s5_a_filter_on_a_missing_field_says_so(tmp_path: Path) -> None:
    """In each answer, as no client reads the sidecar's log; other answers have no warnings."""

    async def main() -> None:
        async with (
            real_parts(tmp_path) as real,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(real.app), base_url="http://localhost"
            ) as client,
        ):
            row = [{"pid": "7", "text": "a city", "meta": {"authors": [{"name": "Ada"}]}}]
            assert 200 == (await client.post("/passages?wait=true", json=row)).status_code
            found = {}
            for field in ("pid", "authors.name", "authors.name.x"):
                body = {"query": "city", "filter": {field: {"not": "Bob"}}}
                found[field] = (await client.post("/search", json=body)).json()
            assert "7" in [hit["pid"] for hit in found["authors.name"]["hits"]]
            assert "warnings" not in found["authors.name"]
            (warning,) = found["pid"]["warnings"]
            assert "no passage has the field 'pid' in meta: the pid of a passage" in warning
            body = {"queries": ["city", "a"], "filter": {"pid": "7"}}
            assert [{"hits": [], "warnings": [warning]}] * 2 == (
                await client.post("/search", json=body)
            ).json()

    asyncio.run(main())
