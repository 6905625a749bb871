"""Refusals as RFC 9457 problems."""

from __future__ import annotations

import asyncio
import json

import pytest

from msmarco_qdrant.errors import SpoolError, SpoolFullError
from msmarco_qdrant.service.interfaces import BatchState, Check, ShuttingDownError
from msmarco_qdrant.service.logs import JsonFormatter
from tests.service.http.driver import Driver, RaisingSearcher, drive, problem_of


def test_what_the_router_refuses_is_a_problem() -> None:
    """A path that is not there, a method that is not, a parameter that is wrong."""

    async def use(driver: Driver) -> None:
        assert 404 == problem_of(await driver.client.get("/nothing"))[0]
        wrong = await driver.client.put("/search")
        assert (405, "POST") == (problem_of(wrong)[0], wrong.headers["allow"])
        wrong = await driver.client.patch("/passages/1")
        assert (405, "DELETE, GET, HEAD") == (problem_of(wrong)[0], wrong.headers["allow"])
        wrong = await driver.client.post("/healthz")
        assert (405, "GET, HEAD") == (problem_of(wrong)[0], wrong.headers["allow"])
        assert (422, "invalid") == problem_of(await driver.client.post("/passages?wait=perhaps"))

    drive(use)


def test_an_error_inside_is_logged_under_its_instance(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets where to look, the log gets the trace, as one field of one line."""

    async def use(driver: Driver) -> str:
        answer = await driver.client.post("/search", json={"query": "a"})
        return str(answer.json()["instance"])

    instance = drive(use, searcher=lambda: RaisingSearcher(RuntimeError("of inside")))
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    (line,) = [line for line in lines if "exception" in line]
    assert (instance, "error") == (f"urn:uuid:{line['id']}", line["level"])
    assert "RuntimeError: of inside" in line["exception"]


def test_a_full_closed_or_broken_spool_says_when_to_come_back() -> None:
    """429 and 503, each with Retry-After; what the disk said stays inside."""

    async def use(driver: Driver) -> None:
        for error, expected in (
            (SpoolFullError("full"), (429, "spool-full", "5")),
            (SpoolError("/inside is full"), (503, "spool-unavailable", "30")),
            (ShuttingDownError("closing"), (503, "closing", "5")),
        ):
            driver.ingester.error = error
            answer = await driver.client.delete("/passages/1")
            assert expected == (*problem_of(answer), answer.headers["retry-after"])
            assert not any(word in answer.text for word in ("inside", "nothing was accepted"))

    drive(use)


def test_waiting_for_a_batch_that_fails() -> None:
    """A 200 would say that it is searchable: it is a problem, which names the batch."""

    async def use(driver: Driver) -> None:
        driver.ingester.waited = BatchState("b-1", "failed", 0.0, 1.0, reason="no room")
        answer = await driver.client.delete("/passages/1?wait=true")
        assert (422, "batch-failed") == problem_of(answer)
        assert ("b-1", "/batches/b-1") == (answer.json()["batch"], answer.headers["location"])
        assert "no room" in answer.json()["detail"]

    drive(use)


@pytest.mark.parametrize(
    "error", [ShuttingDownError("closing"), SpoolError("gone"), asyncio.CancelledError()]
)
def test_waiting_that_ends_early(error: BaseException) -> None:
    """The batch is on disk, and that is what is told."""

    async def use(driver: Driver) -> None:
        driver.ingester.waited = error
        answer = await driver.client.delete("/passages/1?wait=true")
        assert (202, {"batch": "b-1", "accepted": 1}) == (answer.status_code, answer.json())

    drive(use)


def test_not_ready_names_the_check() -> None:
    """503 with every check; 200 when all are well."""

    async def use(driver: Driver) -> None:
        assert 200 == (await driver.client.get("/readyz")).status_code
        driver.checks.given = (Check("model"), Check("store", "unreachable"))
        answer = await driver.client.get("/readyz")
        assert (503, "not-ready") == problem_of(answer)
        assert {"model": "ok", "store": "unreachable"} == answer.json()["checks"]

    drive(use)
