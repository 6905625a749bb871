"""Passages with equal scores: pages of different limits fit together, and cosines are clipped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest

from msmarco_qdrant import Fusion, Passage, SearchClient, ingest_passages
from msmarco_qdrant.core.search_types import FusionMethod, Hit, ScoredPoint, SearchMode
from msmarco_qdrant.search import driver
from msmarco_qdrant.search.driver import execute_step
from msmarco_qdrant.search.session import SearchSession
from msmarco_qdrant.search.step import Query, Step
from msmarco_qdrant.search.ties import (
    clip_cosines,
    has_choice,
    merge_rounded,
    sort_by_pid,
    wider_limits,
)
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.engines import ENGINES, new_store

PIDS = [*map(str, range(30)), "007", "a", "b", "ä", *(f"p{n}" for n in range(26))]
"""In the order of ties: numbers by value, then other pids as text."""
MODES = [
    *(pytest.param({"mode": mode}, id=mode) for mode in get_args(SearchMode)),
    *(
        pytest.param({"mode": "hybrid", "fusion": Fusion(method)}, id=method)
        for method in get_args(FusionMethod)
    ),
    pytest.param({"exact": True}, id="exact"),
    pytest.param({"rerank_depth": 60}, id="rerank"),
    pytest.param({"group_by": "n"}, id="group_by"),
    pytest.param({"meta_filter": {"even": True}}, id="filter"),
]


@pytest.fixture(scope="module", params=ENGINES)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SearchClient]:
    """Passages of two texts, in a random order of writing."""
    rows = [
        Passage(pid, "a whale sings" if n % 3 else "a whale", {"n": n, "even": n % 2 == 0})
        for n, pid in enumerate(PIDS)
    ]
    random.Random(1).shuffle(rows)
    encoder = HashingEncoder()
    with new_store(request.param, tmp_path_factory.mktemp("ties")) as store:
        ingest_passages(rows, store, encoder=encoder, collection="ties", window=16)
        reranker = WordOverlapReranker()
        with SearchClient(store, "ties", encoder, reranker=reranker) as opened:
            yield opened


@pytest.mark.slow
@pytest.mark.parametrize("options", MODES)
def test_s9_pages_fit_together(client: SearchClient, options: dict[str, Any]) -> None:
    """Any limit gives the first of all; equal scores are in the order of pids."""
    place = {pid: number for number, pid in enumerate(sorted(PIDS, key=_order))}
    whole = client.search("whale", limit=60, **options)
    assert len(whole) == (30 if "meta_filter" in options else 60)
    if options.get("fusion") is None or options["fusion"].method == "convex":
        assert sorted(whole, key=lambda hit: (-hit.score, place[hit.pid])) == whole
    for limit in (1, 2, 10, 19, 20, 21, 39, 40, 41, 59):
        page = client.search("whale", limit=limit, **options)
        assert [hit.pid for hit in whole[:limit]] == [hit.pid for hit in page]
        assert [hit.score for hit in page] == pytest.approx([h.score for h in whole[:limit]])


def _order(pid: str) -> tuple[bool, int, str]:
    is_number = isinstance(point_id(pid), int)
    return not is_number, int(pid) if is_number else 0, pid


def test_s9_given_passages_are_in_the_order_of_pids(client: SearchClient) -> None:
    """In each mode, however the pids were given."""
    given = ["p1", "7", "29", "a", "10"]
    for mode in get_args(SearchMode):
        ranked = client.rank("whale", given, mode=mode)
        again = client.rank("whale", given[::-1], mode=mode, rerank=mode == "dense")
        assert [hit.pid for hit in ranked] == [hit.pid for hit in again]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Query]:
    """The queries that the client sends to the engine."""
    sent: list[Query] = []

    def count(session: SearchSession, step: Step) -> Any:
        sent.extend([step] if isinstance(step, Query) else [])
        return execute_step(session, step)

    monkeypatch.setattr(driver, "execute_step", count)
    return sent


def test_s9_more_is_asked_for_only_if_scores_tie(client: SearchClient, asked: list[Query]) -> None:
    """One query and one passage more, else."""
    client.search("whale", limit=20)  # the shorter text is nearer, 20 of these
    assert [21] == [query.limit for step in asked for query in step.queries]
    asked.clear()
    client.search("whale", limit=10)
    limits = [(query.limit, query.fields) for step in asked for query in step.queries]
    texts = ("pid", "text", "meta")
    assert [(11, texts), (128, ("pid",)), (10, texts)] == limits


def test_r16_groups_are_chosen_without_texts(client: SearchClient, asked: list[Query]) -> None:
    """Only the group's field is retrieved of four times the limit, and texts of the best."""
    hits = client.search("whale", limit=5, group_by="n")
    assert ["a whale"] * 5 == [hit.text for hit in hits]
    with_text = [query.limit for step in asked for query in step.queries if "text" in query.fields]
    assert [5] == with_text
    assert ("pid", "meta.n") == asked[0].queries[0].fields


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, [128, 1024]),
        (100, [256, 1024]),
        (512, [1024, 1024]),
        (513, [2048, 2048]),
        (9000, [10_000, 10_000]),
    ],
)
def test_s9_the_bound_is_the_same_for_small_limits(limit: int, expected: list[int]) -> None:
    """So that their pages agree even if more points tie."""
    assert expected == wider_limits(limit, 10_000)


def test_s9_points_of_other_programs_are_last() -> None:
    """They have no pid to compare."""
    points = [ScoredPoint(n, 1.0, {"pid": pid}) for n, pid in enumerate([None, "b", 7, "10", "9"])]
    assert ["9", "10", "b", None, 7] == [p.payload["pid"] for p in sort_by_pid(points)]


def test_s9_scores_that_differ_by_rounding_are_equal() -> None:
    """Groups begin at the best score, so that they do not drift."""
    scores = [0.5773503, 0.57735026, 0.5773501, 0.5773498, 0.1]
    merged = merge_rounded([ScoredPoint(n, score, {}) for n, score in enumerate(scores)])
    assert [0.5773503] * 3 + [0.5773498, 0.1] == [point.score for point in merged]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([1.0000003, 0.5], [1.0, 0.5]), ([-1.0000001], [-1.0]), ([0.25, -0.5], [0.25, -0.5])],
)
def test_s12_cosines_are_clipped(scores: list[float], expected: list[float]) -> None:
    """Rounding of float32 leads out of [-1, 1]."""
    clipped = clip_cosines([ScoredPoint(n, score, {}) for n, score in enumerate(scores)])
    assert expected == [point.score for point in clipped]


def test_s12_the_own_text_has_a_cosine_of_at_most_one(
    client: SearchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each way of searching, also if the engine answers more."""

    def enlarge(session: SearchSession, step: Step) -> Any:
        answer = execute_step(session, step)
        if not isinstance(step, Query):
            return answer
        return [[ScoredPoint(p.id, p.score * 1.5, p.payload) for p in points] for points in answer]

    monkeypatch.setattr(driver, "execute_step", enlarge)
    found: list[list[Hit]] = [
        client.search("a whale sings"),
        client.search("a whale sings", exact=True, limit=3),
        client.search("a whale sings", group_by="n"),
        client.rank("a whale sings", PIDS),
    ]
    assert all(-1 <= hit.score <= 1 for hits in found for hit in hits)
    bm25 = client.search("a whale sings", mode="bm25")
    assert np.isfinite([hit.score for hit in bm25]).all()


def test_r15_records_with_fields_are_hashable() -> None:
    """Equal ones have equal hashes; `meta` does not count."""
    hit = Hit(1, "a", 0.5, "x", {"tags": ["b"]})
    assert {hit} == {Hit(1, "a", 0.5, "x", {"tags": ["b"]})}
    assert hit != Hit(1, "a", 0.5, "x", {})
    assert 2 == len({Passage("a", "x", {"n": 1}), Passage("a", "x", {"n": 2})})
    assert hash(ScoredPoint(1, 0.5, {"pid": "a"})) == hash(ScoredPoint(1, 0.5, {}))


@pytest.mark.parametrize(
    ("scores", "chosen", "has"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 3], False),
        ([0.9, 0.8, 0.8, 0.6], [0, 3], False),  # the tied ones were not chosen
        ([0.9, 0.8, 0.8, 0.6], [0, 1], True),
        ([0.9, 0.8, 0.6, 0.6], [0], True),  # either of the last two may be a candidate
        ([0.9, 0.8, 0.8], [0], False),
    ],
)
def test_tied_candidates_matter_only_if_one_is_chosen(
    scores: list[float], chosen: list[int], has: bool
) -> None:
    """Three of four candidates count; with a tie at the third, the engine may take either."""
    points = [ScoredPoint(id_, score, {}) for id_, score in enumerate(scores)]
    assert has_choice([points[place] for place in chosen], points, 3) is has
