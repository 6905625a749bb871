"""One ranking over several collections, on every engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest

from msmarco_qdrant import (
    AsyncSearchClient,
    Example,
    Fusion,
    Hit,
    Passage,
    SearchClient,
    SearchDefaults,
    ingest_passages,
    save_search_defaults,
    set_tenant_field,
)
from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    ModelMismatchError,
    PassageNotFoundError,
    UsageError,
)
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.search.cursor import parse_cursor
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.engines import ENGINES_AND_SERVER, new_store
from tests.search.support import run

_WORDS = ("whale", "ship", "sea", "storm", "harbor", "sail", "old", "new")
_QUERIES = ("whale ship sea", "old harbor", "nothing of it")
_SIZES = (25, 40, 15)
_MODES: tuple[SearchMode, ...] = ("dense", "hybrid")
_OTHER = 128  # dimensions of the other model


def _passages() -> list[Passage]:
    """Passages of few words, so that many of different collections have equal scores."""
    texts = Random(5)
    return [
        Passage(
            str(n) if n % 3 else f"p{n}",
            " ".join(texts.choices(_WORDS, k=texts.randint(1, 6))),
            {"even": n % 2 == 0, "group": n % 19, "customer": ("acme", "beta")[n % 2]},
        )
        for n in range(sum(_SIZES))
    ]


class Places:
    """A store with three collections, and one with the passages of all of them."""

    def __init__(self, store: Store) -> None:
        start = uuid.uuid4().hex[:12]
        self.store = store
        self.names = [f"several-{start}-{letter}" for letter in "abc"]
        self.union = f"several-{start}-all"
        self.encoder = HashingEncoder()
        rest = Random(3).sample(_passages(), sum(_SIZES))
        self.home: dict[str, str] = {}
        for name, size in zip(self.names, _SIZES, strict=True):
            own, rest = rest[:size], rest[size:]
            self.home |= {passage.pid: name for passage in own}
            self._ingest(own, name)
        self._ingest(_passages(), self.union)

    def _ingest(self, passages: Sequence[Passage], name: str) -> None:
        ingest_passages(passages, self.store, encoder=self.encoder, collection=name, optimize=False)

    def client(self, name: str | None = None, **options: Any) -> SearchClient:
        """A client of the first collection, or of another."""
        options = {"encoder": self.encoder, "reranker": WordOverlapReranker(), **options}
        return SearchClient.open(self.store, collection=name or self.names[0], **options)

    def drop(self) -> None:
        """Remove all."""
        for name in (*self.names, self.union):
            drop_collection(self.store, name)


@pytest.fixture(scope="module", params=ENGINES_AND_SERVER)
def places(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Places]:
    """The collections, on each engine in turn."""
    with new_store(request.param, tmp_path_factory.mktemp("several")) as store:
        made = Places(store)
        yield made
        made.drop()


def _shown(hits: Sequence[Hit]) -> list[tuple[int, str, Any]]:
    return [(hit.rank, hit.pid, pytest.approx(hit.score, abs=1e-6)) for hit in hits]


_DENSE: dict[str, dict[str, Any]] = {
    "plain": {},
    "long": {"limit": 60},
    "exact": {"exact": True},
    "offset": {"offset": 13, "limit": 20},
    "threshold": {"score_threshold": 0.3, "limit": 80},
    "filter": {"meta_filter": {"even": True}, "limit": 30},
    "group": {"group_by": "group", "limit": 12},
    "rerank": {"rerank_depth": 30},
    "rerank_group": {"rerank_depth": 80, "group_by": "group", "rerank_sigmoid": True},
    "rerank_threshold": {"rerank_depth": 80, "score_threshold": 0.5},
    "diverse": {"diversity": 0.5},
    "diverse_page": {"diversity": 0.5, "offset": 5},
    "content": {"with_vectors": True, "with_meta": ["even"], "with_text": False, "snippets": 1},
    "group_content": {"group_by": "group", "with_meta": False, "with_text": False},
}


@pytest.mark.slow_over("loopback")
@pytest.mark.parametrize("name", _DENSE)
def test_by_vectors_they_are_as_one_collection(places: Places, name: str) -> None:
    """The same hits in the same order, each with the name of its collection."""
    options = _DENSE[name]
    several = places.client().search_many(_QUERIES, collections=places.names, **options)
    one = places.client(places.union).search_many(_QUERIES, **options)
    for found, expected in zip(several, one, strict=True):
        assert _shown(expected) == [(hit.rank, hit.pid, hit.score) for hit in found]
        assert [places.home[hit.pid] for hit in found] == [hit.collection for hit in found]
        for hit, other in zip(found, expected, strict=True):
            assert (other.text, other.meta, other.snippets) == (hit.text, hit.meta, hit.snippets)
            assert other.vector == (hit.vector and pytest.approx(hit.vector))
        assert all(hit.collection is None for hit in expected)


_LIKE: list[dict[str, Any]] = [
    {},
    {"offset": 7, "limit": 20, "meta_filter": {"even": True}},
    {"diversity": 0.5, "with_vectors": True, "with_text": False},
    {"group_by": "group", "limit": 12, "score_threshold": 0.1},
]


@pytest.mark.slow_over("loopback")
def test_passages_like_one_are_as_of_one_collection(places: Places) -> None:
    """The examples are the own collection's, also if it is not searched; both clients agree."""
    first, *others = places.names
    pids = sorted(pid for pid, name in places.home.items() if name == first)
    client, union = places.client(), places.client(places.union)
    examples: list[dict[str, Any]] = [
        {"pid": pids[0]},
        {"pid": pids[1], "positive": [Example(text="old sea")], "negative": [pids[2]]},
    ]

    async def main() -> None:
        async with await AsyncSearchClient.open(
            places.store, collection=first, encoder=places.encoder
        ) as other:
            for given, options in product(examples, _LIKE):
                found = client.similar(**given, collections=places.names, **options)
                expected = union.similar(**given, **options)
                assert _shown(expected) == [(hit.rank, hit.pid, hit.score) for hit in found]
                assert [places.home[hit.pid] for hit in found] == [hit.collection for hit in found]
                same = await other.similar(**given, collections=places.names, **options)
                assert _shown(found) == [(hit.rank, hit.pid, hit.score) for hit in same]

    run(main)
    page = client.similar(pids[0], collections=places.names, limit=4, offset=0)
    rest = client.similar(pids[0], collections=places.names, limit=4, cursor=page.cursor)
    assert [*page, *rest] == client.similar(pids[0], collections=places.names, limit=8)
    alone = client.similar(pids[0], collections=others, merge="rrf")
    assert {*others} == {hit.collection for hit in alone}
    physical = places.store.aliases()[first]
    by_physical = client.similar(pids[0], collections=[physical, *others], limit=8)
    assert client.similar(pids[0], collections=places.names, limit=8) == [
        replace(hit, collection=first) if hit.collection == physical else hit for hit in by_physical
    ]
    stranger = next(pid for pid, name in places.home.items() if name != first)
    with pytest.raises(PassageNotFoundError, match=f"no passage '{stranger}' in collection"):
        client.similar(stranger, collections=places.names)


@pytest.mark.slow_over("loopback")
@pytest.mark.parametrize("options", [{}, {"rerank_depth": 20}, {"group_by": "group"}], ids=str)
@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_by_ranks_the_first_of_each_come_first(
    places: Places, mode: Any, options: dict[str, Any]
) -> None:
    """In the order of the collections; reranked hits by the cross-encoder."""
    client, names = places.client(), places.names[::-1]
    found = client.search(
        _QUERIES[0], collections=names, merge="rrf", mode=mode, limit=20, **options
    )
    own = {name: places.client(name) for name in names}
    expected = sorted(
        (1 / (60 + hit.rank), -place, hit.pid)
        for place, name in enumerate(names)
        for hit in own[name].search(_QUERIES[0], mode=mode, limit=80)
    )[::-1]
    if not options:
        assert [pid for _, _, pid in expected[:20]] == [hit.pid for hit in found]
        assert [score for score, _, _ in expected[:20]] == [hit.score for hit in found]
    if "rerank_depth" in options:
        assert {pid for _, _, pid in expected[:20]} == {hit.pid for hit in found}
        assert sorted((hit.score for hit in found), reverse=True) == [hit.score for hit in found]
    if "group_by" in options:
        groups = [hit.meta["group"] for hit in found]
        assert len({*groups}) == len(groups) >= 15
        assert expected[0][2] == found[0].pid


@pytest.mark.parametrize("fusion", [None, "rrf", "dbsf"])
def test_hybrid_fuses_the_candidates_of_all(places: Places, fusion: Any) -> None:
    """The query's best BM25 score and the ranks are those of all collections together."""
    client, names = places.client(), places.names
    hits = client.search(_QUERIES[0], collections=names, mode="hybrid", fusion=fusion, limit=80)
    dense = client.search(_QUERIES[0], collections=names, limit=80)
    bm25 = client.search(_QUERIES[0], collections=names, mode="bm25", limit=80)
    assert len(hits) == len(dense) == 80
    cosine = {hit.pid: hit.score for hit in dense}
    words = {hit.pid: hit.score / bm25[0].score for hit in bm25}
    if fusion is None:
        for hit in hits:
            expected = 0.8 * cosine[hit.pid] + 0.2 * words.get(hit.pid, 0.0)
            assert pytest.approx(expected, abs=1e-5) == hit.score
    ordered = [(-hit.score, hit.pid) for hit in hits]
    assert [score for score, _ in ordered] == sorted(score for score, _ in ordered)
    by_rank = client.search(_QUERIES[0], collections=names, mode="hybrid", merge="rrf", limit=3)
    assert {*names} == {str(hit.collection) for hit in by_rank}


_PAGES: dict[str, dict[str, Any]] = {
    "dense": {},
    "bm25": {"mode": "bm25"},
    "hybrid": {"mode": "hybrid"},
    "hybrid_group": {"mode": "hybrid", "group_by": "group"},
    "ranks": {"merge": "rrf"},
    "ranks_hybrid": {"merge": "rrf", "mode": "hybrid"},
    "group": {"group_by": "group"},
    "rerank": {"rerank_depth": 60},
    "diverse": {"diversity": 0.4},
}


@pytest.mark.slow_over("loopback")
@pytest.mark.parametrize("name", _PAGES)
def test_pages_are_parts_of_the_single_answer(places: Places, name: str) -> None:
    """By offset and by cursor."""
    client, options = places.client(), {**_PAGES[name], "collections": places.names}
    whole = client.search(_QUERIES[0], limit=60, **options)
    shown = [(hit.rank, hit.pid) for hit in whole]
    by_offset = [
        hit
        for start in range(0, 60, 12)
        for hit in client.search(_QUERIES[0], limit=12, offset=start, **options)
    ]
    assert shown == [(hit.rank, hit.pid) for hit in by_offset]
    page = client.search(_QUERIES[0], limit=7, **options)
    walked = [*page]
    while page.cursor is not None and len(walked) < 60:
        page = client.search(_QUERIES[0], limit=7, cursor=page.cursor, **options)
        walked += page
    assert shown == [(hit.rank, hit.pid) for hit in walked][:60]


def test_a_cursor_goes_on_after_writes(places: Places) -> None:
    """New passages before the page show none twice, in whatever collection they are."""
    client, names = places.client(), places.names
    first, second = (
        places.client().search(_QUERIES[0], collections=names, limit=5, offset=start)
        for start in (0, 5)
    )
    writer = places.client(names[1])
    writer.upsert([Passage(f"new{n}", _QUERIES[0]) for n in range(7)])
    try:
        after = client.search(_QUERIES[0], collections=names, limit=5, cursor=first.cursor)
        assert [hit.pid for hit in second] == [hit.pid for hit in after]
    finally:
        writer.delete([f"new{n}" for n in range(7)])
    cursor = parse_cursor(first.cursor)
    for last in ("x", "9" * 5000 + " 1", "²  1", "7 1", ""):
        changed = type(cursor)(cursor.position, [(0.5, last)], cursor.search, cursor.model)
        assert client.search(_QUERIES[0], collections=names, limit=5, cursor=str(changed))
    with pytest.raises(UsageError, match="cursor is of another search"):
        client.search(_QUERIES[0], collections=names[:2], limit=5, cursor=first.cursor)


def test_the_same_pid_in_two_collections_is_two_hits(places: Places) -> None:
    """Equal scores in the order of the collections."""
    first, second = places.names[:2]
    for name in (first, second):
        places.client(name).upsert([Passage("twin", "whale ship sea")])
    try:
        for names in ([first, second], [second, first]):
            for mode in _MODES:
                hits = places.client().search(_QUERIES[0], collections=names, limit=80, mode=mode)
                twins = [str(hit.collection) for hit in hits if hit.pid == "twin"]
                assert sorted(names) == sorted(twins)
                assert mode == "hybrid" or names == twins
    finally:
        for name in (first, second):
            places.client(name).delete(["twin"])


_ASYNC: list[dict[str, Any]] = [
    {"offset": 13, "limit": 20, "meta_filter": {"even": True}},
    {"rerank_depth": 30, "group_by": "group"},
    {"diversity": 0.5, "with_vectors": True, "snippets": 1},
    {"mode": "hybrid"},
    {"mode": "bm25", "merge": "rrf"},
]


def test_the_asyncio_client_answers_alike(places: Places) -> None:
    """It queries all collections at once, encodes once, and closes what it opened."""

    async def main() -> None:
        async with await AsyncSearchClient.open(
            places.store,
            collection=places.names[0],
            encoder=places.encoder,
            reranker=WordOverlapReranker(),
        ) as client:
            for options in _ASYNC:
                found = await client.search_many(_QUERIES, collections=places.names, **options)
                expected = places.client().search_many(
                    _QUERIES, collections=places.names, **options
                )
                for hits, others in zip(found, expected, strict=True):
                    assert _shown(others) == [(hit.rank, hit.pid, hit.score) for hit in hits]
            with pytest.raises(CollectionNotFoundError):
                await client.search("whale", collections=[places.names[0], "none"])

    run(main)


_RANKINGS: list[dict[str, Any]] = [{}, {"rerank": True}, {"rerank": True, "rerank_sigmoid": True}]


@pytest.mark.parametrize("options", _RANKINGS, ids=str)
def test_given_passages_are_ranked_as_of_one_collection(
    places: Places, options: dict[str, Any]
) -> None:
    """Each is looked up in every collection, those that none has are omitted; clients agree."""
    pids = [*places.home, "none"]
    given = [pids[::2], pids[::-1], ["none"]]
    expected = places.client(places.union).rank_many(_QUERIES, given, **options)
    found = places.client().rank_many(_QUERIES, given, collections=places.names, **options)
    assert [len(given[0]) - ("none" in given[0]), len(places.home), 0] == [*map(len, found)]
    for hits, others in zip(found, expected, strict=True):
        assert _shown(others) == [(hit.rank, hit.pid, hit.score) for hit in hits]
        assert [places.home[hit.pid] for hit in hits] == [hit.collection for hit in hits]

    async def main() -> None:
        async with await AsyncSearchClient.open(
            places.store,
            collection=places.names[0],
            encoder=places.encoder,
            reranker=WordOverlapReranker(),
        ) as client:
            same = await client.rank_many(_QUERIES, given, collections=places.names, **options)
            for hits, others in zip(same, found, strict=True):
                assert _shown(others) == [(hit.rank, hit.pid, hit.score) for hit in hits]

    run(main)


def test_given_passages_by_words_and_by_ranks(places: Places) -> None:
    """A collection's own BM25 scores, fused with the best of all; or the ranks of each."""
    client, names, pids = places.client(), places.names, [*places.home]
    own = [places.client(name) for name in names]
    words = client.rank(_QUERIES[0], pids, collections=names, mode="bm25")
    scores = {hit.pid: hit.score for one in own for hit in one.rank(_QUERIES[0], pids, mode="bm25")}
    assert scores == pytest.approx({hit.pid: hit.score for hit in words})
    assert 0.0 == words[-1].score
    cosines = {h.pid: h.score for h in client.rank(_QUERIES[0], pids, collections=names)}
    fused = client.rank(_QUERIES[0], pids, collections=names, mode="hybrid")
    assert len(pids) == len(fused)
    for hit in fused:
        expected = 0.8 * cosines[hit.pid] + 0.2 * scores[hit.pid] / words[0].score
        assert pytest.approx(expected, abs=1e-5) == hit.score
    for mode in ("dense", "bm25", "hybrid"):
        found = client.rank(_QUERIES[0], pids, collections=names, mode=mode, merge="rrf")
        expected_pids = sorted(
            (-1 / (60 + hit.rank), place, hit.rank, hit.pid)
            for place, one in enumerate(own)
            for hit in one.rank(_QUERIES[0], pids, mode=mode)
        )
        assert [pid for *_, pid in expected_pids] == [hit.pid for hit in found]
        assert {*names} == {str(hit.collection) for hit in found[:3]}


def test_given_passages_of_one_pid_keep_their_collections(places: Places) -> None:
    """They are two hits, of equal scores in the order of the collections."""
    first, second = places.names[:2]
    for name in (first, second):
        places.client(name).upsert([Passage("twin", "whale ship sea")])
    try:
        for names in ([first, second], [second, first]):
            for mode in ("dense", "bm25", "hybrid"):
                hits = places.client().rank(_QUERIES[0], ["twin"], collections=names, mode=mode)
                assert sorted(names) == sorted(str(hit.collection) for hit in hits)
                assert mode != "dense" or names == [hit.collection for hit in hits]
    finally:
        for name in (first, second):
            places.client(name).delete(["twin"])


def test_words_alone_need_no_model(places: Places) -> None:
    """A client without an encoder searches all collections by words."""
    client = places.client(encoder=None, bm25_only=True, reranker=None)
    hits = client.search(_QUERIES[0], collections=places.names, mode="bm25", limit=80)
    assert {str(hit.collection) for hit in hits} == {*places.names}
    pids = [*places.home]
    assert len(pids) == len(client.rank("ship", pids, mode="bm25", collections=places.names))
    with pytest.raises(UsageError, match="it cannot search by dense"):
        client.search(_QUERIES[0], collections=places.names)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"collections": []}, r"collections must be 1 to 100 names, got \[\]"),
        ({"collections": "a"}, "collections must be a list of names, also for one, got 'a'"),
        ({"collections": ["a", 1]}, "must be a list of names, also for one"),
        ({"collections": ["a", ""]}, "must be a list of names, also for one"),
        ({"collections": ["a", "a"]}, r"collections must differ, got \['a', 'a'\]"),
        ({"collections": 3}, "must be a list of names, also for one, got 3"),
        ({"merge": "rrf"}, "merge is for several collections: pass collections as well"),
        ({"collections": ["a"], "merge": "max"}, "merge must be one of scores, rrf, got 'max'"),
        (
            {"collections": ["a"], "merge": "rrf", "score_threshold": 0.1},
            "score_threshold has no meaning with merge='rrf'",
        ),
    ],
)
def test_invalid_collections(places: Places, options: dict[str, Any], reason: str) -> None:
    """Refused before anything is read."""
    with pytest.raises(UsageError, match=reason):
        places.client().search("whale", **options)
    if "score_threshold" not in options:
        with pytest.raises(UsageError, match=reason):
            places.client().rank("whale", ["1"], **options)


def test_different_models_are_refused_with_both_names(places: Places) -> None:
    """Whichever is the client's own, and after one of them was re-embedded, until both are."""
    first, second, other = (f"{places.names[0]}-{end}" for end in ("m1", "m2", "m3"))
    old, new = places.encoder, HashingEncoder(_OTHER)
    for name, encoder in ((first, old), (second, old), (other, new)):
        rows = _passages()[:8]
        ingest_passages(rows, places.store, encoder=encoder, collection=name, optimize=False)
    try:
        client = SearchClient(
            *(places.store, first, old),
            load_encoder=lambda info: new if info.dimension == _OTHER else old,
        )
        for names in ([first, other], [other, first], [other]):
            with pytest.raises(ModelMismatchError) as refusal:
                client.search("whale", collections=names)
            with pytest.raises(ModelMismatchError, match="one ranking needs"):
                client.rank("whale", ["1"], collections=names)
            for word in (first, other, "costless-64 (64, cosine", "costless-128 (128, cosine"):
                assert word in str(refusal.value)
        assert client.search("whale", collections=[first, second])
        reembed_collection(places.store, first, encoder=new, load_old=lambda _: old)
        with pytest.raises(ModelMismatchError, match=f"one ranking needs .*{first}.*{second}"):
            client.search("whale", collections=[first, second])
        reembed_collection(places.store, second, encoder=new, load_old=lambda _: old)
        found = client.search("whale", collections=[first, second, other])
        assert {first, second, other} == {str(hit.collection) for hit in found}
    finally:
        for name in (first, second, other):
            drop_collection(places.store, name)


def test_the_defaults_of_each_collection(places: Places) -> None:
    """Scores of different fusions do not compare; ranks do."""
    first, second = places.names[:2]
    saved = SearchDefaults(Fusion("rrf"), rerank_depth=20)
    save_search_defaults(places.store, saved, collection=second)
    try:
        client = places.client()
        with pytest.raises(UsageError, match=f"'{first}' and '{second}'.*pass fusion="):
            client.search("whale", collections=[first, second], mode="hybrid")
        with pytest.raises(UsageError, match=f"'{first}' and '{second}'.*pass fusion="):
            client.rank("whale", ["1"], collections=[first, second], mode="hybrid")
        chosen: list[dict[str, Any]] = [{"fusion": "convex"}, {"merge": "rrf"}]
        for options in chosen:
            found = client.search("whale", collections=[first, second], mode="hybrid", **options)
            assert {first, second} == {str(hit.collection) for hit in found}
    finally:
        save_search_defaults(places.store, SearchDefaults(), collection=second)


def test_the_defaults_of_a_collection_that_is_not_searched(places: Places) -> None:
    """Those of the client's own collection do not limit the pages of others."""
    first, second = places.names[:2]
    save_search_defaults(places.store, SearchDefaults(Fusion("rrf", depth=5)), collection=first)
    try:
        options: dict[str, Any] = {"mode": "hybrid", "offset": 5, "limit": 3}
        client = places.client()
        with pytest.raises(UsageError, match="offset \\+ limit must be at most 5"):
            client.search("whale", **options)
        assert 3 == len(client.search("whale", collections=[second], **options))
    finally:
        save_search_defaults(places.store, SearchDefaults(), collection=first)


def test_a_field_that_no_collection_has_is_named(
    places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    """One that some collection has is not."""
    client, names = places.client(), places.names
    writer = places.client(names[2])
    writer.upsert([Passage("only", "whale", {"year": 1990})])
    try:
        assert [] == client.search("whale", collections=names, meta_filter={"year": 1800})
        assert "no passage has the field" not in caplog.text
        assert [] == client.search("whale", collections=names, meta_filter={"years": 1800})
        assert "no passage has the field 'years' in meta" in caplog.text
    finally:
        writer.delete(["only"])


def test_a_tenant_of_all_collections(places: Places) -> None:
    """Each collection must have tenants; only the tenant's passages are found."""
    client, names = places.client(), places.names[:2]
    set_tenant_field(places.store, names[0], "customer")
    try:
        with pytest.raises(UsageError, match=f"'{names[0]}' is read by one tenant at a time"):
            places.client().search("whale", collections=names)
        with pytest.raises(UsageError, match=f"collection '{names[1]}' has no tenant field"):
            places.client().search("whale", collections=names, tenant="acme")
        set_tenant_field(places.store, names[1], "customer")
        client = places.client()
        for mode in ("dense", "bm25", "hybrid"):
            hits = client.search(_QUERIES[0], collections=names, tenant="acme", mode=mode, limit=80)
            pids = [*places.home]
            ranked = client.rank(_QUERIES[0], pids, collections=names, tenant="acme", mode=mode)
            for found in (hits, ranked):
                assert {"acme"} == {hit.meta["customer"] for hit in found}
                assert {*names} == {str(hit.collection) for hit in found}
    finally:
        for name in names:
            set_tenant_field(places.store, name, None)


def test_hits_show_their_collection(places: Places) -> None:
    """As text, as a dictionary, and as a table."""
    hits = places.client().search("whale", collections=places.names, limit=2)
    assert hits[0].collection == hits.to_dicts()[0]["collection"]
    assert f"collection={hits[0].collection!r}" in repr(hits[0])
    assert f"{hits[0].collection}: {hits[0].pid}" in hits._repr_html_()
    assert "collection" in hits.to_pandas().columns
    alone = places.client().search("whale", limit=1)
    assert "collection" not in alone.to_dicts()[0]
