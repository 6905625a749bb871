"""The HTTP interface: shapes, searches over a real client, hostile bodies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.service.interfaces import Delete, Write
from tests.service.http.driver import (
    Driver,
    KeepingIngester,
    drive,
    drive_search,
    exchange,
    problem_of,
)

_JSON = {"content-type": "application/json"}
_NDJSON = {"content-type": "application/x-ndjson"}
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["pid", "text", "meta", "query", "queries", "limit", "mode", "filter", "rerank"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
_BODIES = st.binary(max_size=200) | _VALUES.map(
    lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
)


def test_an_array_and_lines_become_the_same_batch() -> None:
    """As JSON, as one passage a line, and compressed: 202, a batch id and the count."""
    rows = [{"pid": 7, "text": "seven", "meta": {"a": 1}}, {"pid": "x", "text": "an x"}]
    lines = "\n".join(json.dumps(row) for row in rows).encode()

    async def use(driver: Driver) -> None:
        post = driver.client.post
        one = await post("/passages", json=rows)
        await post("/passages", content=lines, headers=_NDJSON)
        packed = {**_NDJSON, "content-encoding": "gzip"}
        await post("/passages", content=gzip.compress(lines), headers=packed)
        assert (202, {"batch": "b-1", "accepted": 2}) == (one.status_code, one.json())
        assert "/batches/b-1" == one.headers["location"]
        expected = [Write("7", "seven", {"a": 1}), Write("x", "an x")]
        assert [expected] * 3 == driver.ingester.batches

    drive(use)


def test_waiting_answers_with_the_state() -> None:
    """With ?wait=true the answer is the batch's, in the shape of GET /batches/{id}."""

    async def use(driver: Driver) -> None:
        waited = await driver.client.post("/passages?wait=true", json=[{"pid": "1", "text": "a"}])
        state = await driver.client.get("/batches/b-1")
        assert (200, "done", 1) == (
            waited.status_code,
            waited.json()["state"],
            waited.json()["written"],
        )
        assert set(waited.json()) == set(state.json())
        assert (404, "no-such-batch") == problem_of(await driver.client.get("/batches/b-2"))
        assert (404, "no-such-batch") == problem_of(await driver.client.get("/batches/..%5Cetc"))

    drive(use)


def test_a_pid_of_any_form_is_deleted() -> None:
    """Slashes and dots belong to the pid; a path that is no UTF-8 is refused."""

    async def use(driver: Driver) -> None:
        answer = await driver.client.delete("/passages/a%2F..%2Fb")
        assert (202, {"batch": "b-1", "accepted": 1}) == (answer.status_code, answer.json())
        assert [[Delete("a/../b")]] == driver.ingester.batches
        assert (400, "malformed") == problem_of(await driver.client.delete("/passages/%ff"))
        assert (422, "invalid") == problem_of(await driver.client.delete("/passages/%00"))

    drive(use)


@pytest.mark.parametrize(
    "row", [{"pid": ""}, {"pid": "1", "text": " "}, {"pid": "1", "text": "a", "more": 1}, 7, None]
)
def test_a_wrong_passage_refuses_all(row: object) -> None:
    """Nothing of a batch is accepted if one of it cannot be."""
    ingester = KeepingIngester()
    rows = [{"pid": "1", "text": "a"}, row]
    answer = exchange("POST", "/passages", json=rows, app={"ingester": ingester})
    assert (422, "invalid") == problem_of(answer)
    assert answer.json()["errors"]
    assert [] == ingester.batches


def test_search_answers_in_the_promised_shape(passages: Sequence[Passage]) -> None:
    """One query, several, filtered, reranked, by words."""

    async def use(driver: Driver) -> None:
        post = driver.client.post
        one = (await post("/search", json={"query": "a city", "limit": 2})).json()
        assert ["hits", "cursor"] == list(one)
        assert ["rank", "pid", "score", "text", "meta"] == list(one["hits"][0])
        many = (await post("/search", json={"queries": ["a city", "spy"]})).json()
        assert ["hits", "hits"] == [key for answer in many for key in answer]
        conditions = {"year": {"gte": 2002}, "lang": {"not": ["en", "de"]}}
        for more in ({}, {"rerank": True}, {"mode": "bm25"}, {"mode": "hybrid"}):
            found = await post("/search", json={"query": "city", "filter": conditions, **more})
            assert ["2"] == [hit["pid"] for hit in found.json()["hits"]]
        assert (422, "invalid") == problem_of(await post("/search", json={"query": " "}))
        assert (422, "invalid") == problem_of(await post("/search", json={"query": "..."}))

    drive_search(use, passages)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_hostile_bodies_are_no_internal_error(passages: Sequence[Passage], examples: int) -> None:
    """Each body gets a status under 500, from every route that takes one."""

    async def use(driver: Driver, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            for path, headers in (
                ("/search", _JSON),
                ("/passages", _JSON),
                ("/passages", _NDJSON),
                ("/passages", {**_JSON, "content-encoding": "gzip"}),
            ):
                answer = await driver.client.post(path, content=body, headers=headers)
                assert answer.status_code < 500, body

    @settings(max_examples=examples, deadline=None)
    @given(st.lists(_BODIES, min_size=10, max_size=20))
    def check(bodies: Sequence[bytes]) -> None:
        drive_search(lambda driver: use(driver, bodies), passages)

    check()
