"""Refusals as RFC 9457 problems."""

from __future__ import annotations

import pytest

from msmarco_qdrant.errors import EncodingError, SpoolFullError, StoreUnavailableError, UsageError
from msmarco_qdrant.service.ports import Check, DoorsClosedError

from .driving import Driver, RaisingSearcher, drive, told


def test_what_the_router_refuses_is_a_problem() -> None:
    """A path that is not there, a method that is not, a parameter that is wrong."""

    async def use(driver: Driver) -> None:
        assert 404 == told(await driver.client.get("/nothing"))[0]
        wrong = await driver.client.put("/search")
        assert (405, "POST") == (told(wrong)[0], wrong.headers["allow"])
        assert (422, "invalid") == told(await driver.client.post("/passages?wait=perhaps"))

    drive(use)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UsageError("no such mode"), (422, "invalid")),
        (EncodingError("no vector"), (422, "invalid")),
        (StoreUnavailableError("http://inside is away"), (503, "store-unavailable")),
        (RuntimeError("a secret"), (500, "internal")),
    ],
)
def test_an_error_of_a_search(error: Exception, expected: tuple[int, str]) -> None:
    """What the caller can mend is told; of what is inside nothing is."""

    async def use(driver: Driver) -> None:
        answer = await driver.client.post("/search", json={"phrase": "a"})
        assert expected == told(answer)
        assert answer.json()["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
        assert not any(word in answer.text for word in ("secret", "inside is away"))

    drive(use, searcher=lambda: RaisingSearcher(error))


def test_a_full_or_closed_spool_says_when_to_come_back() -> None:
    """429 and 503, both with Retry-After."""

    async def use(driver: Driver) -> None:
        for error, expected in (
            (SpoolFullError("full"), (429, "spool-full", "5")),
            (DoorsClosedError("closing"), (503, "closing", "5")),
        ):
            driver.ingester.error = error
            answer = await driver.client.delete("/passages/1")
            assert expected == (*told(answer), answer.headers["retry-after"])

    drive(use)


def test_not_ready_names_the_check() -> None:
    """503 with every check; 200 when all are well."""

    async def use(driver: Driver) -> None:
        assert 200 == (await driver.client.get("/readyz")).status_code
        driver.checks.given = (Check("model"), Check("store", "unreachable"))
        answer = await driver.client.get("/readyz")
        assert (503, "not-ready") == told(answer)
        assert {"model": "ok", "store": "unreachable"} == answer.json()["checks"]

    drive(use)
