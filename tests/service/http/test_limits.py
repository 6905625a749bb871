"""Bounds of requests: sizes, counts, times, and how many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.schemas import MAX_META_BYTES, MAX_PID_CHARS, MAX_TEXT_CHARS
from msmarco_qdrant.service.interfaces import Operation
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES
from tests.service.http.driver import (
    Driver,
    KeepingIngester,
    WaitingSearcher,
    drive,
    exchange,
    problem_of,
)

_JSON = {"content-type": "application/json"}
_SMALL = Limits(body_bytes=1000)


def test_a_body_is_not_read_beyond_its_bound() -> None:
    """Without a length, 413 comes before all of it was sent; with one, before any of it."""
    sent: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        for number in range(100):
            sent.append(number)
            yield b" " * 400

    async def use(driver: Driver) -> None:
        answer = await driver.client.post("/passages", content=endless(), headers=_JSON)
        assert (413, "body-too-large") == problem_of(answer)

    drive(use, limits=_SMALL)
    assert len(sent) < 100


def test_forms_that_are_not_taken() -> None:
    """Another type, another charset, another coding."""
    for headers in (
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {**_JSON, "content-encoding": "br"},
    ):
        answer = exchange("POST", "/passages", content=b"[]", headers=headers)
        assert (415, "unsupported-media") == problem_of(answer)


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'"[{",'])
def test_a_body_of_nothing_but_brackets(unit: bytes) -> None:
    """It is refused before it is parsed, however it comes; with as many as may be it is taken."""

    async def use(driver: Driver) -> None:
        for path, form in (("/passages", "json"), ("/passages", "x-ndjson"), ("/search", "json")):
            headers = {"content-type": f"application/{form}"}
            answer = await driver.client.post(path, content=unit * 5, headers=headers)
            assert (422, "invalid") == problem_of(answer)
            assert "brackets ('[' and '{', in strings too)" in answer.json()["detail"]
        row = b'[{"pid": "1", "text": "[["}]'
        assert (
            202 == (await driver.client.post("/passages", content=row, headers=_JSON)).status_code
        )

    drive(use, limits=Limits(brackets=4, query_brackets=3))


def test_too_many_searches_are_turned_away() -> None:
    """503 with Retry-After while as many as may be are under way; none is left counted."""

    async def use(driver: Driver) -> None:
        first = asyncio.create_task(driver.client.post("/search", json={"query": "a"}))
        await searcher.asked.wait()
        assert b"searches_in_flight 1.0" in driver.metrics.text()
        second = await driver.client.post("/search", json={"query": "b"})
        assert (503, "too-many-searches", "1") == (
            *problem_of(second),
            second.headers["retry-after"],
        )
        searcher.let.set()
        assert {"hits": []} == (await first).json()
        assert b"searches_in_flight 0.0" in driver.metrics.text()

    searcher = WaitingSearcher()
    drive(use, searcher=lambda: searcher, limits=Limits(searches=1))


def test_waits_end() -> None:
    """A search that takes too long is 504, a batch 202; any request has a bound, too: 504."""

    async def use(driver: Driver) -> None:
        assert (504, "too-slow") == problem_of(
            await driver.client.post("/search", json={"query": "a"})
        )
        driver.ingester.ends = False
        answer = await driver.client.delete("/passages/1?wait=true")
        assert (202, {"batch": "b-1", "accepted": 1}) == (answer.status_code, answer.json())

    waiting = Limits(search_s=0.01, wait_s=0.01)
    drive(use, searcher=WaitingSearcher, limits=waiting)
    parts = {"ingester": KeepingIngester(ends=False), "limits": Limits(request_s=0.05)}
    answer = exchange("DELETE", "/passages/1?wait=true", app=parts)
    assert (504, "too-slow") == problem_of(answer)
    assert "x-request-id" in answer.headers


class _SlowDisk(KeepingIngester):
    """Accepts once it is let; knows how many are being accepted, and how many were at most."""

    def __init__(self) -> None:
        super().__init__()
        self.let, self.begun = threading.Event(), threading.Semaphore(0)
        self.inside = self.most = 0

    def accept(self, operations: Sequence[Operation]) -> str:
        """Wait, and keep a batch."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.begun.release()
        self.let.wait()
        self.inside -= 1
        return super().accept(operations)


def test_so_many_are_written_at_once_and_others_are_answered_meanwhile() -> None:
    """A slow disk does not take the threads that tell how far a batch is."""

    async def use(driver: Driver) -> None:
        deletes = [asyncio.create_task(driver.client.delete(f"/passages/{n}")) for n in range(12)]
        for _ in range(2):
            await asyncio.to_thread(disk.begun.acquire)
        assert 404 == (await driver.client.get("/batches/b-1")).status_code
        disk.let.set()
        assert {202} == {answer.status_code for answer in await asyncio.gather(*deletes)}

    disk = _SlowDisk()
    drive(use, limits=Limits(writes=2), ingester=disk)
    assert 2 == disk.most


def test_a_filter_of_too_many_conditions() -> None:
    """Values, bounds and fields count alike, before any of them is checked."""

    async def use(driver: Driver) -> None:
        values, bounds = list(range(997)), {"gte": 1, "lt": 2}
        for conditions in ({"a": values, "b": 2, "c": 3, "d": bounds}, {"a": [*values, *range(4)]}):
            search = {"query": "a", "filter": conditions}
            answer = await driver.client.post("/search", json=search)
            assert (422, "invalid") == problem_of(answer)
            (error,) = answer.json()["errors"]
            assert "filter" == error["where"]
            assert error["reason"].endswith("at most 1,000 values and bounds, got 1,001")

    drive(use, searcher=WaitingSearcher)


def test_the_largest_passage_fits_into_a_line_of_the_spool() -> None:
    """Text, pid and meta of the greatest sizes, however JSON writes them, stay below its bound."""
    most = 6 * (MAX_TEXT_CHARS + MAX_PID_CHARS) + 3 * MAX_META_BYTES // 2
    assert most + 100 <= MAX_LINE_BYTES


def test_a_bound_of_nothing_is_refused() -> None:
    """It would let nothing through."""
    with pytest.raises(UsageError, match="searches must be more than 0, got 0"):
        Limits(searches=0)
