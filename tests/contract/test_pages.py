"""Pages fit together, cursors go on after writes, and score thresholds cut, on every engine."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from msmarco_qdrant import Fusion, Hits, Passage, SearchClient, ingest_passages
from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.cursor import parse_cursor
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.engines import ENGINES_AND_SERVER, new_store

_WORDS = ("whale", "ship", "sea", "storm", "harbor", "sail")
_COUNT = 120
_QUERY = "whale ship sea"
_SEARCHES: dict[str, dict[str, Any]] = {
    "dense": {},
    "exact": {"exact": True},
    "bm25": {"mode": "bm25"},
    "convex": {"mode": "hybrid"},
    "rrf": {"mode": "hybrid", "fusion": Fusion("rrf", depth=200)},
    "dbsf": {"mode": "hybrid", "fusion": Fusion("dbsf", depth=200)},
    "filter": {"meta_filter": {"even": True}},
    "group": {"group_by": "group"},
    "group_hybrid": {"group_by": "group", "mode": "hybrid"},
    "rerank": {"rerank_depth": 100},
    "rerank_group": {"rerank_depth": 100, "group_by": "group", "rerank_sigmoid": True},
}


def _passages() -> list[Passage]:
    """Passages of few different texts, so that many have equal scores."""
    texts = random.Random(5)
    return [
        Passage(
            str(n) if n % 3 else f"p{n}",
            " ".join(texts.choices(_WORDS, k=texts.randint(1, 3))),
            {"even": n % 2 == 0, "group": n % 37},
        )
        for n in range(_COUNT)
    ]


@pytest.fixture(scope="module", params=ENGINES_AND_SERVER)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SearchClient]:
    """A client on these passages, of each engine in turn."""
    name, encoder = f"pages-{uuid.uuid4().hex[:12]}", HashingEncoder()
    with new_store(request.param, tmp_path_factory.mktemp("pages")) as store:
        ingest_passages(_passages(), store, encoder=encoder, collection=name, optimize=False)
        yield SearchClient(store, name, encoder, reranker=WordOverlapReranker())
        drop_collection(store, name)


def _walk(client: SearchClient, options: dict[str, Any], limit: int) -> list[Hits]:
    """All pages, from cursor to cursor."""
    pages = [client.search(_QUERY, limit=limit, **options)]
    while (cursor := pages[-1].cursor) is not None:
        pages.append(client.search(_QUERY, limit=limit, cursor=cursor, **options))
    return pages


@pytest.mark.slow_over("loopback")
@pytest.mark.parametrize("name", _SEARCHES)
def test_pages_are_parts_of_the_single_answer(client: SearchClient, name: str) -> None:
    """By offset and by cursor, with ranks, whatever the size of a page."""
    options = _SEARCHES[name]
    whole = client.search(_QUERY, limit=100, **options)
    assert len(whole) == {"filter": 60, "bm25": len(whole)}.get(name, min(len(whole), 100))
    shown: list[Any] = [(hit.rank, hit.pid, pytest.approx(hit.score, abs=1e-6)) for hit in whole]
    assert [*range(1, len(whole) + 1)] == [hit.rank for hit in whole]
    for size in (13, 50):
        pages = [
            client.search(_QUERY, limit=size, offset=start, **options)
            for start in range(0, 100 - size + 1, size)
        ]
        hits = [(hit.rank, hit.pid, hit.score) for page in pages for hit in page]
        assert shown[: len(pages) * size] == hits
    walked = [hit for page in _walk(client, options, 9) for hit in page]
    assert shown == [(hit.rank, hit.pid, hit.score) for hit in walked][:100]
    assert len({hit.pid for hit in walked}) == len(walked)


def test_the_last_page_has_no_cursor(client: SearchClient) -> None:
    """Nor has a page behind it, nor one that reranking ends."""
    assert client.search(_QUERY, limit=_COUNT).cursor is not None
    assert client.search(_QUERY, limit=_COUNT + 1).cursor is None
    behind = client.search(_QUERY, offset=_COUNT + 30)
    assert [] == behind
    assert behind.cursor is None
    assert [30, 10] == [len(page) for page in _walk(client, {"rerank_depth": 40}, 30)]


@pytest.mark.slow_over("edge")
@pytest.mark.parametrize("options", [{}, {"mode": "bm25"}, {"mode": "hybrid"}], ids=str)
def test_a_cursor_goes_on_after_writes(client: SearchClient, options: dict[str, Any]) -> None:
    """New passages before the page do not show any twice; the last hit may be deleted."""
    pages = _walk(client, options, 10)
    first, second = pages[0], [hit.pid for hit in pages[1]]
    new = [Passage(f"new{n}", _QUERY) for n in range(12)]
    assert first.cursor is not None
    client.upsert(new)
    try:
        after = client.search(_QUERY, limit=10, cursor=first.cursor, **options)
        seen = {hit.pid for hit in first}
        assert 10 == len(after)
        assert not seen & {hit.pid for hit in after}
        if not options:  # cosines of other passages stay as they are
            assert second == [hit.pid for hit in after]
    finally:
        client.delete([passage.pid for passage in new])
    last = client.get([first[-1].pid])
    client.delete(last)
    try:
        after = client.search(_QUERY, limit=10, cursor=first.cursor, **options)
        assert not {hit.pid for hit in first} & {hit.pid for hit in after}
        if not options:
            assert second == [hit.pid for hit in after]
    finally:
        client.upsert(last.values())


@pytest.mark.parametrize("name", _SEARCHES)
def test_a_threshold_cuts_the_single_answer(client: SearchClient, name: str) -> None:
    """At a score of a hit this one is the last, with those of the same score."""
    options = _SEARCHES[name]
    whole = client.search(_QUERY, limit=60, **options)
    least = whole[len(whole) // 3].score
    expected = [hit.pid for hit in whole if hit.score >= least - 1e-7]
    # by less than scores differ with the place of a vector in memory
    hits = client.search(_QUERY, limit=60, score_threshold=least - 1e-7, **options)
    assert expected == [hit.pid for hit in hits]
    assert hits.cursor is None
    page = client.search(_QUERY, limit=3, offset=3, score_threshold=least - 1e-7, **options)
    assert expected[3:6] == [hit.pid for hit in page]


def test_a_sigmoid_keeps_the_order(client: SearchClient) -> None:
    """And gives scores of 0 to 1, to which the threshold applies."""
    own = client.search(_QUERY, limit=20, rerank_depth=50)
    hits = client.search(_QUERY, limit=20, rerank_depth=50, rerank_sigmoid=True)
    assert [hit.pid for hit in own] == [hit.pid for hit in hits]
    assert all(0 < hit.score < 1 for hit in hits)
    least = hits[4].score
    best = client.search(
        _QUERY, limit=20, rerank_depth=50, rerank_sigmoid=True, score_threshold=least
    )
    assert [hit.pid for hit in hits if hit.score >= least] == [hit.pid for hit in best]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": -1}, "offset must be 0 to 9,999, got -1"),
        ({"offset": True}, "offset must be 0 to 9,999, got True"),
        ({"offset": 1.0}, "offset must be 0 to 9,999, got 1.0"),
        ({"offset": 9_995}, r"offset \+ limit must be at most 10,000, got 9,995 \+ 10"),
        ({"offset": 95, "rerank_depth": 100}, r"offset \+ limit \(95 \+ 10\) or more, .*, got 100"),
        ({"cursor": "abc"}, "cursor must be the cursor of a page of hits, unchanged, got 'abc'"),
        ({"cursor": 3}, "cursor must be the cursor of a page of hits, unchanged, got 3"),
        ({"cursor": "W10"}, "cursor must be .*, got 'W10'"),
        ({"score_threshold": "0.5"}, "score_threshold must be a finite number, got '0.5'"),
        ({"score_threshold": float("nan")}, "score_threshold must be a finite number, got nan"),
        ({"score_threshold": 1.5}, "must be -1 to 1, the range of cosines, got 1.5"),
        ({"score_threshold": -1, "mode": "bm25"}, "must be 0 or more, the range of BM25 scores"),
        ({"score_threshold": 1.5, "mode": "hybrid"}, "-1 to 1, the range of .* 'convex', got 1.5"),
        (
            {"score_threshold": 0.5, "mode": "hybrid", "fusion": Fusion("rrf")},
            "must be 0 to 0.03279, the range of scores of the fusion 'rrf' with k=60, got 0.5",
        ),
        (
            {"offset": 95, "mode": "hybrid", "fusion": "rrf"},
            r"at most 100, the depth of the fusion 'rrf', got 105: .* Fusion\('rrf', depth=...\)",
        ),
        (
            {"score_threshold": 2, "rerank_depth": 10, "rerank_sigmoid": True},
            "must be 0 to 1, the range of reranked scores, got 2",
        ),
        ({"rerank_sigmoid": True}, "rerank_sigmoid converts reranked scores: pass rerank_depth"),
        ({"rerank_sigmoid": 1, "rerank_depth": 10}, "rerank_sigmoid must be True or False, got 1"),
    ],
)
def test_what_cannot_be_asked(client: SearchClient, options: Any, message: str) -> None:
    """Each with what would do."""
    with pytest.raises(UsageError, match=message):
        client.search(_QUERY, **options)


def test_a_cursor_belongs_to_its_search(client: SearchClient) -> None:
    """Query, options and model; the effort, the threshold and the limit may differ."""
    options: dict[str, Any] = {"meta_filter": {"even": True, "group": [1, 2, 3, 4, 5, 6]}}
    cursor = client.search(_QUERY, limit=2, **options).cursor
    assert cursor is not None
    same: dict[str, Any] = {"meta_filter": {"group": [1, 2, 3, 4, 5, 6], "even": True}}
    expected = client.search(_QUERY, limit=5, cursor=cursor, **options)
    again = client.search(_QUERY, limit=5, cursor=cursor, ef=200, **same)
    assert [hit.pid for hit in expected] == [hit.pid for hit in again]
    for query, others in [("whale", options), (_QUERY, {}), (_QUERY, {**options, "mode": "bm25"})]:
        with pytest.raises(UsageError, match="of another search: repeat the collection, the query"):
            client.search(query, cursor=cursor, **others)
    with pytest.raises(UsageError, match="the search of one query, got 2 queries: call search"):
        client.search_many([_QUERY, _QUERY], cursor=cursor, **options)
    with pytest.raises(UsageError, match="pass either offset or cursor, not both"):
        client.search(_QUERY, cursor=cursor, offset=1, **options)
    elsewhere = f"{client.collection}-other"
    ingest_passages(_passages(), client.store, encoder=HashingEncoder(), collection=elsewhere)
    with (
        SearchClient.open(client.store, collection=elsewhere, encoder=HashingEncoder()) as opened,
        pytest.raises(UsageError, match="of another search"),
    ):
        opened.search(_QUERY, cursor=cursor, **options)
    drop_collection(client.store, elsewhere)
    other = str(_with_model(cursor, "00000000"))
    with pytest.raises(UsageError, match="of another model than the collection has now"):
        client.search(_QUERY, cursor=other, **options)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("diversity", (1, 1.0, np.float32(1))),
        ("rerank_depth", (20, np.int64(20))),
        ("offset", (0, np.int64(0))),
        ("group_by", ("group", np.str_("group"))),
    ],
)
def test_equal_options_have_equal_cursors(
    client: SearchClient, option: str, values: tuple[Any, ...]
) -> None:
    """Another caller may have the same number from NumPy, or an integer where a float is meant."""
    cursors = [client.search(_QUERY, limit=2, **{option: value}).cursor for value in values]
    assert 1 == len({parse_cursor(cursor).search for cursor in cursors})


def _with_model(cursor: str, model: str) -> Any:
    from dataclasses import replace

    return replace(parse_cursor(cursor), model=model)


def test_the_engines_bound(client: SearchClient) -> None:
    """A cursor behind the 10,000th hit is refused with what to do."""
    from dataclasses import replace

    cursor = client.search(_QUERY, limit=5).cursor
    assert cursor is not None
    near = replace(parse_cursor(cursor), position=9_995)
    assert len(client.search(_QUERY, limit=10, cursor=str(near))) <= 10
    with pytest.raises(UsageError, match=r"its 10,000 best hits at most, .* meta_filter"):
        client.search(_QUERY, cursor=str(replace(near, position=10_000)))
