"""Searching by examples, over every engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from msmarco_qdrant import Example
from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import PassageNotFoundError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.testing import HashingEncoder
from tests.contract.test_search_modes import PASSAGES as SIXTY
from tests.engines import ENGINES_AND_SERVER, new_store
from tests.search.support import near, run

ENCODER = HashingEncoder()
PASSAGES = [*SIXTY, Passage("a name", "castle garden bridge near", {"doc": "d1", "number": 60})]
VECTORS = dict(
    zip((p.pid for p in PASSAGES), ENCODER.encode([p.text for p in PASSAGES]), strict=True)
)


@pytest.fixture(scope="module", params=ENGINES_AND_SERVER)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SearchClient]:
    """A client on these passages, of each engine in turn."""
    name = f"similar-{uuid.uuid4().hex[:12]}"
    with new_store(request.param, tmp_path_factory.mktemp("similar")) as store:
        ingest_passages(PASSAGES, store, encoder=ENCODER, collection=name, optimize=False)
        yield SearchClient.open(store, collection=name, encoder=ENCODER)
        drop_collection(store, name)  # a real server goes on after the tests


def expected(target: Any, *without: str) -> dict[str, float]:
    """The cosine of each other passage with a target, the best first."""
    target = target / np.linalg.norm(target)
    scores = {pid: float(row @ target) for pid, row in VECTORS.items() if pid not in without}
    return dict(sorted(scores.items(), key=lambda one: -one[1]))


def scores(hits: Hits) -> dict[str, float]:
    """The score of each hit."""
    return {hit.pid: hit.score for hit in hits}


@pytest.mark.parametrize("pid", ["7", "a name"])
def test_the_most_similar_passages_to_one(client: SearchClient, pid: str) -> None:
    """Every other passage by its cosine with the vector of that one, which is no hit."""
    hits = client.similar(pid, limit=100)
    assert expected(VECTORS[pid], pid) == pytest.approx(scores(hits), abs=1e-5)
    assert sorted(scores(hits).values(), reverse=True) == [hit.score for hit in hits]
    assert [*range(1, len(PASSAGES))] == [hit.rank for hit in hits]
    assert near(hits[:5]) == client.similar(pid, limit=5)


@pytest.mark.parametrize(
    "form", ["pids", "examples", "first and positive", "numbers", "scaled vectors"]
)
def test_several_examples_and_some_to_avoid(client: SearchClient, form: str) -> None:
    """The mean of what is wanted, moved away from the mean of what is not, in every form."""
    forms: dict[str, dict[str, Any]] = {
        "pids": {"positive": ["1", "2"], "negative": ["3"]},
        "examples": {
            "positive": [Example(pid="1"), Example(pid="2")],
            "negative": [Example(pid="3")],
        },
        "first and positive": {"pid": "1", "positive": ["2"], "negative": ("3",)},
        "numbers": {
            "vector": VECTORS["1"].tolist(),
            "positive": [Example(vector=VECTORS["2"])],
            "negative": ["3"],
        },
        "scaled vectors": {
            "positive": [Example(vector=3 * VECTORS["1"]), Example(vector=VECTORS["2"] / 7)],
            "negative": [Example(vector=VECTORS["3"])],
        },
    }
    pids = [pid for pid in ("1", "2", "3") if "vector" not in form]
    known = {"numbers": ["3"], "scaled vectors": []}.get(form, pids)
    target = VECTORS["1"] + VECTORS["2"] - VECTORS["3"]
    hits = client.similar(**forms[form], limit=100)
    assert expected(target, *known) == pytest.approx(scores(hits), abs=1e-5)


def test_a_text_is_compared_as_a_passage(client: SearchClient) -> None:
    """A stored one of the same text is a hit, with the cosine 1."""
    hits = client.similar(text=PASSAGES[5].text)
    assert "5" == hits[0].pid
    assert pytest.approx(1.0) == hits[0].score
    away = client.similar("5", negative=[Example(text=PASSAGES[6].text)], limit=100)
    target = 2 * VECTORS["5"] - VECTORS["6"]
    assert expected(target, "5") == pytest.approx(scores(away), abs=1e-5)


def test_the_options_of_a_search_hold(client: SearchClient) -> None:
    """Filters, also one without a match, groups and exact comparison."""
    hits = client.similar("7", meta_filter={"doc": ["d1", "d2"]}, limit=100, exact=True)
    assert {p.pid for p in PASSAGES if p.meta["doc"] in ("d1", "d2")} - {"7"} == {*scores(hits)}
    assert [] == client.similar("7", meta_filter={"number": 7})
    first = client.similar("7", limit=4)
    pages = [
        client.similar("7", limit=4, offset=4),
        client.similar("7", limit=4, cursor=first.cursor),
    ]
    whole = client.similar("7", limit=8)
    assert [near(whole)] * 2 == [[*first, *page] for page in pages]
    with pytest.raises(UsageError, match="cursor is of another search"):
        client.similar("8", limit=4, cursor=first.cursor)
    best = whole[2].score - 1e-4
    assert [h.pid for h in whole if h.score >= best] == [
        h.pid for h in client.similar("7", score_threshold=best)
    ]
    groups = client.similar("7", group_by="doc", limit=3)
    assert 3 == len({hit.meta["doc"] for hit in groups})
    assert "7" not in scores(groups)


def test_no_model_is_needed_for_stored_vectors(client: SearchClient) -> None:
    """A client without an encoder finds the same by pids and vectors, and refuses texts."""
    with SearchClient.open(client.store, collection=client.collection, bm25_only=True) as plain:
        assert near(client.similar("7")) == plain.similar("7")
        vector = VECTORS["7"]
        assert near(client.similar(vector=vector)) == plain.similar(vector=vector)
        with pytest.raises(UsageError, match="cannot encode the text of an example"):
            plain.similar("7", negative=[Example(text="a castle")])


def test_the_same_from_an_event_loop(client: SearchClient) -> None:
    """Hits and errors."""
    calls: list[dict[str, Any]] = [
        {"pid": "7", "limit": 3},
        {"text": "a castle", "negative": ["8"]},
        {"positive": ["1", "a name"], "meta_filter": {"doc": "d1"}, "group_by": "doc"},
    ]

    async def ask() -> list[Hits]:
        async with await AsyncSearchClient.open(
            client.store, collection=client.collection, encoder=ENCODER
        ) as same:
            found = [await same.similar(**call) for call in calls]
            with pytest.raises(PassageNotFoundError, match="no passage 'x'"):
                await same.similar("x")
            return found

    assert near([client.similar(**call) for call in calls]) == run(ask)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({}, "pass an example: pid, text, vector"),
        ({"negative": ["1"]}, "pass an example"),
        ({"pid": ""}, "the pid of an example must be a non-empty string, got ''"),
        ({"pid": 7}, "the pid of an example must be a non-empty string, got 7"),
        ({"text": " "}, "the text of an example must be a non-empty string"),
        ({"text": "\ud800"}, "no lone surrogates"),
        ({"vector": [0.0] * 64}, "finite and not zero"),
        ({"vector": [float("nan")] * 64}, "finite and not zero"),
        ({"vector": [1.0, 2.0]}, "must have 64 numbers, .*, got 2"),
        ({"vector": [[1.0]]}, r"must be one row, got shape \(1, 1\)"),
        ({"vector": "12"}, "must be numbers, got '12'"),
        ({"vector": ["1"] * 64}, "must be numbers, got "),
        ({"vector": [True] * 64}, "must be numbers, got "),
        ({"vector": [1j] * 64}, "must be numbers, got "),
        ({"vector": [[1.0], [1.0, 2.0]]}, "must be numbers: "),
        ({"vector": [1e39] * 64}, "finite and not zero"),
        ({"positive": "12"}, "positive must be a list of pids or Example values"),
        ({"negative": ["1", 2], "pid": "1"}, "negative must be a list of pids .*, got 2 in it"),
        ({"positive": ["1"] * 1001}, "at most 1,000 examples, got 1,001"),
        ({"pid": "1", "limit": 0}, "limit must be 1 to 10,000, got 0"),
        ({"pid": "1", "mode": "bm25"}, r"similar\(\) has no argument 'mode'"),
        ({"positive": ["1", "1"], "negative": [Example(vector=2 * VECTORS["1"])]}, None),
        ({"vector": VECTORS["1"] - VECTORS["2"], "negative": ["x"]}, "no passage 'x' in"),
    ],
)
def test_examples_that_cannot_be_searched_by(
    client: SearchClient, call: Any, message: str | None
) -> None:
    """Refused with the rule and the value, except for what only looks wrong."""
    if message is None:
        assert "1" not in scores(client.similar(**call))
        return
    with pytest.raises(UsageError, match=message):
        client.similar(**call)


def test_examples_that_cancel_out(client: SearchClient) -> None:
    """Nothing is left to search for."""
    both = [Example(vector=VECTORS["1"]), Example(vector=-VECTORS["1"])]
    with pytest.raises(UsageError, match="the examples cancel out"):
        client.similar(positive=both)


def test_an_example_is_one_thing() -> None:
    """A pid, a text or a vector."""
    for given in ({}, {"pid": "1", "text": "a"}):
        with pytest.raises(UsageError, match="must be one of pid, text and vector"):
            Example(**given)
