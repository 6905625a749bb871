"""Searches over HTTP when the store or the model is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    EncodingError,
    MsmarcoQdrantError,
    StoreAccessError,
    StoreUnavailableError,
)

from .driving import Driver, RaisingSearcher, WaitingSearcher, drive, told
from .real_parts import real_parts


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
            answer = await client.post("/search", json={"phrase": "city"})
            assert (503, "store-unavailable", "5") == (
                *told(answer),
                answer.headers["retry-after"],
            )
            assert "comes back with the next passages" in answer.json()["detail"]
            row = [{"pid": "7", "text": "a city again"}]
            assert 200 == (await client.post("/passages?wait=true", json=row)).status_code
            found = await client.post("/search", json={"phrase": "city"})
            assert ["7"] == [hit["pid"] for hit in found.json()["hits"]]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreUnavailableError("http://inside:6333 is away"), (503, "store-unavailable")),
        (StoreAccessError("the key sesame is wrong"), (503, "store-unavailable")),
        (CollectionNotFoundError("no 'inside'"), (503, "store-unavailable")),
        (EncodingError("no vector"), (422, "invalid")),
    ],
)
def test_what_is_away_is_told_without_its_name(
    error: MsmarcoQdrantError, expected: tuple[int, str]
) -> None:
    """503 says when to come back, and neither where the store is nor what it said."""

    async def use(driver: Driver) -> None:
        answer = await driver.client.post("/search", json={"phrase": "a"})
        assert expected == told(answer)
        assert (expected[0] == 503) == ("retry-after" in answer.headers)
        assert not any(word in answer.text for word in ("inside", "sesame"))
        text = driver.metrics.text().decode()
        assert f'route="/search",status="{expected[0]}"}} 1.0' in text
        assert 'search_seconds_count{mode="dense"} 0.0' in text

    drive(use, searcher=lambda: RaisingSearcher(error))


def test_before_the_model_is_there() -> None:
    """503, not 500; a wrong search is told as such even then."""

    async def use(driver: Driver) -> None:
        answer = await driver.client.post("/search", json={"phrase": "a"})
        assert (503, "not-ready", "5") == (*told(answer), answer.headers["retry-after"])
        assert (422, "invalid") == told(await driver.client.post("/search", json={}))

    drive(use)


def test_a_caller_who_goes_leaves_no_search_counted() -> None:
    """The place of a search that is cancelled is free again."""

    async def use(driver: Driver) -> None:
        asked = asyncio.create_task(driver.client.post("/search", json={"phrase": "a"}))
        await searcher[0].asked.wait()
        asked.cancel()
        await asyncio.wait([asked])
        assert b"searches_in_flight 0.0" in driver.metrics.text()

    searcher: list[WaitingSearcher] = []

    async def made(driver: Driver) -> None:
        searcher.append(WaitingSearcher())
        await use(driver)

    drive(made, searcher=lambda: searcher[0])


def test_a_filter_of_no_form_is_told_once_a_field() -> None:
    """What it may be instead; what is wrong in one way alone is told so."""

    async def use(driver: Driver) -> None:
        filter_ = {"year": {"from": 2001}, "tags": [], "lang": {"exists": 1}}
        answer = await driver.client.post("/search", json={"phrase": "a", "filter": filter_})
        assert (422, "invalid") == told(answer)
        errors = {one["where"]: one["reason"] for one in answer.json()["errors"]}
        assert {"filter.year", "filter.tags", "filter.lang"} == set(errors)
        assert 'a range such as {"gte": 2001}' in errors["filter.year"]
        assert "function-before" not in answer.text

    drive(use)
