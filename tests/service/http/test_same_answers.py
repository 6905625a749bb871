"""One call, three ways: the blocking client, the asyncio client and HTTP answer alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from msmarco_qdrant import AsyncSearchClient, Example, Fusion, Passage, SearchClient, SearchOptions
from msmarco_qdrant.filters import All, GeoRadius, Not, Range, Text
from msmarco_qdrant.filters import Any as Either
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.search.options import RankOptions, SimilarOptions
from msmarco_qdrant.service.http.app import create_app
from msmarco_qdrant.service.http.dependencies import AppDependencies
from msmarco_qdrant.service.http.schemas_search import RankIn, SearchIn
from msmarco_qdrant.service.http.schemas_similar import SimilarIn
from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.service.http.driver import (
    GivenChecks,
    KeepingIngester,
    NoSearcher,
    exchange,
    problem_of,
)

_WORDS = ("london", "city", "river", "sea", "music", "old", "new", "bridge", "the", "of")


def _passages() -> list[Passage]:
    """Forty texts of some words each, with fields."""
    random = Random(7)
    return [
        Passage(
            str(number),
            " ".join(random.choices(_WORDS, k=random.randint(4, 24))),
            {
                "lang": ("en", "de", "fr")[number % 3],
                "year": 2000 + number % 7,
                "place": {"lat": 52 + number % 4, "lon": 13},
                "authors": [{"name": ("Ada", "Bo")[number % 2], "born": 1810 + number % 9}],
            },
        )
        for number in range(40)
    ]


@dataclass(frozen=True, slots=True)
class Ways:
    """The three ways to one collection."""

    blocking: SearchClient
    asyncio: AsyncSearchClient
    http: httpx.AsyncClient

    async def posted(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer by HTTP."""
        answer = await self.http.post(path, json=body)
        assert 200 == answer.status_code, answer.text
        return answer.json()


@asynccontextmanager
async def _ways(place: Path, tenant_field: str | None = None) -> AsyncIterator[Ways]:
    encoder, reranker = HashingEncoder(), WordOverlapReranker()
    with closing(open_store(place, create=True)) as store:
        ingest_passages(_passages(), store, encoder=encoder, payload_indexes={"year": "integer"})
        more = [("1", "the old music of london", {"lang": "en"}), ("f2", "a film of the sea", {})]
        ingest_passages(more, store, encoder=encoder, collection="films")
        if tenant_field is not None:
            set_tenant_field(store, "msmarco", tenant_field)
        blocking = SearchClient(store, "msmarco", encoder, reranker=reranker)
        async with await AsyncSearchClient.open(
            store, encoder=encoder, reranker=reranker
        ) as client:
            ingester = KeepingIngester()
            metrics = Metrics(ingester.backlog)
            app = create_app(
                AppDependencies(
                    ingester,
                    lambda: client,
                    GivenChecks(),
                    metrics,
                    collections=("msmarco", "films"),
                )
            )
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                yield Ways(blocking, client, http)


# Each parameter of `search`: values of the library, each with its form over HTTP.
_CONVEX = {"method": "convex", "dense_weight": 0.3, "depth": 20, "k": 10}
SEARCHES: Mapping[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "limit": [({"limit": 3}, {"limit": 3})],
    "offset": [
        ({"limit": 4, "offset": 3, "mode": mode}, {"limit": 4, "offset": 3, "mode": mode})
        for mode in ("dense", "hybrid")
    ],
    "cursor": [],  # see test_pages_by_cursor
    "mode": [({"mode": mode}, {"mode": mode}) for mode in ("dense", "bm25", "hybrid")],
    "fusion": [
        ({"mode": "hybrid", "fusion": "rrf"}, {"mode": "hybrid", "fusion": "rrf"}),
        ({"mode": "hybrid", "fusion": "dbsf"}, {"mode": "hybrid", "fusion": "dbsf"}),
        (
            {"mode": "hybrid", "fusion": Fusion("convex", 0.3, 20, 10)},
            {"mode": "hybrid", "fusion": _CONVEX},
        ),
    ],
    "score_threshold": [({"score_threshold": 0.2}, {"score_threshold": 0.2})],
    "rerank_depth": [
        ({"limit": 5, "rerank_depth": 20}, {"limit": 5, "rerank_depth": 20}),
        ({"rerank_depth": 100}, {"rerank": True}),
    ],
    "rerank_sigmoid": [
        ({"rerank_depth": 100, "rerank_sigmoid": True}, {"rerank": True, "rerank_sigmoid": True}),
    ],
    "meta_filter": [
        (
            {"meta_filter": {"lang": ["en", "de"], "year": Range(gte=2003)}},
            {"filter": {"lang": ["en", "de"], "year": {"gte": 2003}}},
        ),
        ({"meta_filter": {"lang": Not("en")}}, {"filter": {"lang": {"not": "en"}}}),
        (
            {"meta_filter": Either([{"lang": "en"}, Not({"year": Range(gte=2003)})])},
            {"filter": {"$any": [{"lang": "en"}, {"$not": {"year": {"gte": 2003}}}]}},
        ),
        (
            {"meta_filter": All([{"year": Either([2001, Range(gt=2004)])}, {"lang": Text("EN")}])},
            {
                "filter": {
                    "$all": [{"year": {"any": [2001, {"gt": 2004}]}}, {"lang": {"text": "EN"}}]
                }
            },
        ),
        (
            {
                "meta_filter": {
                    "place": GeoRadius(lat=52.0, lon=13.0, radius_m=100_000),
                    "authors": {"name": "Ada", "born": All([Range(gt=1800), Not(1815)])},
                }
            },
            {
                "filter": {
                    "place": {"geo_radius": {"lat": 52, "lon": 13, "radius_m": 100_000}},
                    "authors": {
                        "object": {"name": "Ada", "born": {"all": [{"gt": 1800}, {"not": 1815}]}}
                    },
                }
            },
        ),
    ],
    "tenant": [],  # see test_tenants
    "group_by": [({"group_by": "lang"}, {"group_by": "lang"})],
    "diversity": [({"diversity": 0.5}, {"diversity": 0.5})],
    "exact": [({"exact": True}, {"exact": True})],
    "ef": [({"ef": 16}, {"ef": 16})],
    "oversampling": [({"oversampling": 3.0}, {"oversampling": 3.0})],
    "rescore": [({"rescore": False}, {"rescore": False})],
    "collections": [
        ({"collections": names, **more}, {"collections": names, **more})
        for names in (["msmarco", "films"], ["films"])
        for more in ({}, {"mode": "hybrid", "limit": 50}, {"mode": "bm25"})
    ],
    "merge": [
        (
            {"collections": ["films", "msmarco"], "merge": "rrf"},
            {"collections": ["films", "msmarco"], "merge": "rrf"},
        )
    ],
    "with_vectors": [({"with_vectors": True}, {"with_vectors": True})],
    "with_meta": [
        ({"with_meta": wanted}, {"with_meta": wanted}) for wanted in (False, ["lang", "none"])
    ],
    "with_text": [({"with_text": False}, {"with_text": False})],
    "snippets": [({"snippets": 1}, {"snippets": 1})],
}
# Each parameter of `rank`.
RANKINGS: Mapping[str, list[dict[str, Any]]] = {
    "mode": [{"mode": mode} for mode in ("dense", "bm25", "hybrid")],
    "fusion": [{"mode": "hybrid", "fusion": "rrf"}],
    "tenant": [],  # see test_tenants
    "rerank": [{"rerank": True}],
    "rerank_sigmoid": [{"rerank": True, "rerank_sigmoid": True}],
    "collections": [
        {"collections": ["msmarco", "films"], "mode": mode} for mode in ("dense", "bm25", "hybrid")
    ],
    "merge": [{"collections": ["films", "msmarco"], "merge": "rrf"}],
}
SIMILAR = {
    *("limit", "offset", "cursor", "score_threshold", "meta_filter", "tenant", "group_by"),
    *("diversity", "exact", "ef", "oversampling", "rescore"),
    *("with_vectors", "with_meta", "with_text", "collections", "merge"),
}
# Each argument of `similar`, with its form over HTTP: the examples, then the options of a search.
_VECTOR = [1.0, *[0.0] * 63]
EXAMPLES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"pid": "7"}, {"pid": 7}),
    ({"text": "old london bridge"}, {"text": "old london bridge"}),
    ({"vector": _VECTOR}, {"vector": _VECTOR}),
    (
        {"pid": "7", "positive": ["8", Example(text="the sea")], "negative": ["9"]},
        {"pid": "7", "positive": ["8", {"text": "the sea"}], "negative": [{"pid": 9}]},
    ),
]
_QUERIES = ["old london bridge", "music of the sea"]


def test_every_parameter_of_a_search(tmp_path: Path) -> None:
    """Of one query and of several; the answers differ between parameters, not between the ways."""

    async def main() -> None:
        async with _ways(tmp_path) as ways:
            for name, cases in SEARCHES.items():
                for options, body in cases:
                    await _check_search(ways, name, options, body)

    asyncio.run(main())


async def _check_search(
    ways: Ways, name: str, options: dict[str, Any], body: dict[str, Any]
) -> None:
    expected = [hits.to_dicts() for hits in ways.blocking.search_many(_QUERIES, **options)]
    assert all(expected), name
    found = await ways.asyncio.search_many(_QUERIES, **options)
    assert expected == [hits.to_dicts() for hits in found], (name, options)
    posted = await ways.posted("/search", {"queries": _QUERIES, **body})
    assert expected == [answer["hits"] for answer in posted], (name, options)
    one = await ways.posted("/search", {"query": _QUERIES[0], **body})
    assert expected[0] == one["hits"], (name, options)
    assert expected[0] == (await ways.asyncio.search(_QUERIES[0], **options)).to_dicts()


def test_other_collections_than_the_permitted_are_refused(tmp_path: Path) -> None:
    """With the names of those that a search may have; its work counts for each of them."""

    async def main() -> None:
        async with _ways(tmp_path) as ways:
            for names, reason in (
                (["films", "secret"], "'collections' may name msmarco, films here, got 'secret'"),
                ([], "at least 1 item"),
                (["films", "films"], "collections must differ"),
            ):
                one = {"query": "sea", "collections": names}
                answer = await ways.http.post("/search", json=one)
                assert (422, "invalid") == problem_of(answer)
                assert reason in answer.text
                ranking = {"query": "sea", "pids": ["1"], "collections": names}
                assert reason in (await ways.http.post("/rank", json=ranking)).text
            given: dict[str, Any] = {
                "query": "sea",
                "pids": [*map(str, range(1_000))],
                "collections": [f"c{number}" for number in range(11)],
            }
            answer = await ways.http.post("/rank", json=given)
            assert "pids times collections must be at most 10,000, got 11,000" in answer.text
            body: dict[str, Any] = {
                "queries": ["sea"] * 10,
                "limit": 600,
                "collections": ["films", "msmarco"],
            }
            answer = await ways.http.post("/search", json=body)
            assert "times queries and collections must be at most 10,000, got 12,000" in answer.text

    asyncio.run(main())


def test_pages_by_cursor(tmp_path: Path) -> None:
    """Each way from one page to the next, to the end; the pages are the whole ranking."""

    async def main() -> None:
        async with _ways(tmp_path) as ways:
            query = _QUERIES[0]
            options: dict[str, Any] = {"mode": "hybrid", "limit": 15}
            whole = ways.blocking.search(query, mode="hybrid", limit=40).to_dicts()
            cursor, pages = None, []
            for _ in range(9):
                expected = ways.blocking.search(query, cursor=cursor, **options)
                found = await ways.asyncio.search(query, cursor=cursor, **options)
                body = {"query": query, "cursor": cursor, **options}
                posted = await ways.posted("/search", body)
                assert expected.to_dicts() == found.to_dicts() == posted["hits"]
                assert expected.cursor == found.cursor == posted.get("cursor")
                pages += posted["hits"]
                cursor = posted.get("cursor")
                if cursor is None:
                    break
            assert whole == pages
            answer = await ways.http.post("/search", json={"query": query, "cursor": "abc"})
            assert (422, "invalid") == problem_of(answer)

    asyncio.run(main())


def test_similar_passages(tmp_path: Path) -> None:
    """By each kind of example, and with each option; a passage that is missing is a 404."""

    async def main() -> None:
        async with _ways(tmp_path) as ways:
            cases = [case for name in SIMILAR for case in SEARCHES[name]]
            options = [({**EXAMPLES[0][0], **a}, {**EXAMPLES[0][1], **b}) for a, b in cases]
            for arguments, body in [*EXAMPLES, *options]:
                if "mode" in arguments:
                    continue
                expected = ways.blocking.similar(**arguments)
                found = await ways.asyncio.similar(**arguments)
                posted = await ways.posted("/similar", body)
                assert expected.to_dicts() == found.to_dicts() == posted["hits"], body
                assert expected.cursor == posted.get("cursor")
                assert expected
            answer = await ways.http.post("/similar", json={"pid": "none"})
            assert (404, "no-such-passage") == problem_of(answer)

    asyncio.run(main())


def test_tenants(tmp_path: Path) -> None:
    """Every request names its tenant, and answers with that tenant's passages alone."""

    async def main() -> None:
        async with _ways(tmp_path, "lang") as ways:
            query, tenant = _QUERIES[0], {"tenant": "de"}
            own = {passage.pid for passage in _passages() if passage.meta["lang"] == "de"}
            hits = ways.blocking.search(query, limit=40, tenant="de").to_dicts()
            assert own == {hit["pid"] for hit in hits}
            requests: list[tuple[str, dict[str, Any], Any]] = [
                ("/search", {"query": query, "limit": 40}, {"hits": hits}),
                ("/rank", {"query": query, "pids": ["0", "1"]}, None),
                ("/similar", {"pid": "1", "limit": 40}, None),
                ("/count", {}, {"count": len(own)}),
                ("/scroll", {}, None),
                ("/facets", {"field": "lang"}, {"facets": [{"value": "de", "count": len(own)}]}),
            ]
            for path, body, expected in requests:
                answer = await ways.posted(path, {**body, **tenant})
                assert expected is None or expected == answer
                rows = answer.get("hits", answer.get("passages", []))
                assert {row["pid"] for row in rows} <= own, path
                refused = await ways.http.post(path, json=body)
                assert (422, "invalid") == problem_of(refused), path
            assert 200 == (await ways.http.get("/passages/1?tenant=de")).status_code
            assert 404 == (await ways.http.get("/passages/0?tenant=de")).status_code
            assert 422 == (await ways.http.get("/passages/1")).status_code

    asyncio.run(main())


def test_scrolls(tmp_path: Path) -> None:
    """Pages of passages, each way in the same order; by a field that has an index."""

    async def main() -> None:
        async with _ways(tmp_path) as ways:
            requests: list[tuple[dict[str, Any], dict[str, Any]]] = [
                ({}, {}),
                ({"meta_filter": {"lang": "en"}}, {"filter": {"lang": "en"}}),
                ({"order_by": "-year"}, {"order_by": "-year"}),
            ]
            for options, body in requests:
                expected = [passage.pid for passage in ways.blocking.scroll(**options)]
                found = [passage.pid async for passage in ways.asyncio.scroll(**options)]
                posted, after = [], None
                for _ in range(9):
                    page = await ways.posted("/scroll", {"limit": 7, "after": after, **body})
                    posted += [one["pid"] for one in page["passages"]]
                    after = page["next"]
                    if after is None:
                        break
                assert expected == found == posted
            unknown = await ways.posted("/scroll", {"filter": {"langs": "en"}})
            assert ([], None) == (unknown["passages"], unknown["next"])
            assert ["no passage has the field 'langs' in meta"] == [
                one.partition(";")[0] for one in unknown["warnings"]
            ]

    asyncio.run(main())


def test_every_parameter_of_a_ranking(tmp_path: Path) -> None:
    """Passages that the collection lacks are omitted, each way; a pid may be a number."""

    async def main() -> None:
        async with _ways(tmp_path) as ways:
            pids = ["3", "none", "7", "11", "30", "f2"]
            for options in [option for cases in RANKINGS.values() for option in cases]:
                expected = ways.blocking.rank(_QUERIES[0], pids, **options).to_dicts()
                assert (5 if "collections" in options else 4) == len(expected)
                assert (
                    expected == (await ways.asyncio.rank(_QUERIES[0], pids, **options)).to_dicts()
                )
                body = {"query": _QUERIES[0], "pids": [3, *pids[1:]], **options}
                assert expected == (await ways.posted("/rank", body))["hits"]

    asyncio.run(main())


def test_passages_and_counts(tmp_path: Path) -> None:
    """One passage by its pid, and the number of those that a filter matches."""

    async def main() -> None:
        async with _ways(tmp_path) as ways:
            expected = ways.blocking.get(["7"])["7"]
            assert {"7": expected} == await ways.asyncio.get(["7"])
            answer = await ways.http.get("/passages/7")
            assert {"pid": "7", "text": expected.text, "meta": expected.meta} == answer.json()
            filters: list[tuple[Any, dict[str, Any]]] = [
                (None, {}),
                ({"lang": "en"}, {"filter": {"lang": "en"}}),
                ({"year": Range(lt=2002)}, {"filter": {"year": {"lt": 2002}}}),
            ]
            for meta_filter, body in filters:
                for exact in (True, False):
                    options = {"meta_filter": meta_filter, "exact": exact}
                    count = ways.blocking.count(**options)
                    assert count == await ways.asyncio.count(**options)
                    posted = await ways.posted("/count", {"exact": exact, **body})
                    assert {"count": count} == posted

    asyncio.run(main())


def test_facets(tmp_path: Path) -> None:
    """The values of a field with their counts, with each parameter."""

    async def main() -> None:
        async with _ways(tmp_path) as ways:
            for field, options, body in (
                ("lang", {}, {}),
                ("year", {"limit": 2}, {"limit": 2}),
                ("lang", {"meta_filter": {"year": 2003}}, {"filter": {"year": 2003}}),
                ("lang", {"exact": False}, {"exact": False}),
            ):
                expected = ways.blocking.facets(field, **options)
                assert expected
                assert expected == await ways.asyncio.facets(field, **options)
                answer = await ways.posted("/facets", {"field": field, **body})
                assert [[one.value, one.count] for one in expected] == [
                    [one["value"], one["count"]] for one in answer["facets"]
                ]
            unknown = await ways.posted("/facets", {"field": "langs"})
            assert [] == unknown["facets"]
            assert ["no passage has the field 'langs' in meta"] == unknown["warnings"]

    asyncio.run(main())


def test_no_parameter_is_left_out() -> None:
    """A new one of the library has its form over HTTP, and its case in this module."""
    assert set(SearchOptions.__annotations__) == set(SEARCHES)
    assert set(RankOptions.__annotations__) == set(RANKINGS)
    other = {"query", "queries", "filter", "rerank"}
    assert {*SEARCHES, *other} - {"meta_filter"} == set(SearchIn.model_fields)
    assert {*RANKINGS, "query", "pids"} == set(RankIn.model_fields)
    assert set(SimilarOptions.__annotations__) == SIMILAR
    examples = {name for arguments, _ in EXAMPLES for name in arguments}
    assert examples | SIMILAR - {"meta_filter"} | {"filter"} == set(SimilarIn.model_fields)


@pytest.mark.parametrize(
    ("path", "body", "where", "reason"),
    [
        ("/search", {"fusion": "sum"}, "fusion", "must be convex, rrf, dbsf, or an object"),
        ("/search", {"fusion": {"k": 0}}, "fusion", "must be convex, rrf, dbsf, or an object"),
        ("/search", {"group_by": ""}, "group_by", "must have at least 1 character, got"),
        ("/search", {"ef": 0}, "ef", "must be greater than or equal to 1, got 0"),
        ("/search", {"ef": True}, "ef", "must be a valid integer, got True"),
        ("/search", {"oversampling": 0.5}, "oversampling", "must be greater than or equal to 1"),
        ("/search", {"offset": -1}, "offset", "must be greater than or equal to 0, got -1"),
        ("/search", {"cursor": 7}, "cursor", "must be a valid string, got 7"),
        ("/search", {"score_threshold": "1"}, "score_threshold", "must be a valid number"),
        ("/scroll", {"order_by": ""}, "order_by", "must have at least 1 character"),
        ("/scroll", {"limit": 1001}, "limit", "must be less than or equal to 1000, got 1001"),
        ("/search", {"exact": 1}, "exact", "must be a valid boolean, got 1"),
        ("/search", {"rerank_depth": 5, "limit": 6}, "body", "rerank_depth must be limit (6) or"),
        ("/rank", {"pids": "1"}, "pids", "must be a valid list"),
        ("/rank", {"pids": [""]}, "pids.0", "must be a string of 1 to 1,024 characters, or an"),
        ("/rank", {"pids": [True]}, "pids.0", "must be a string of 1 to 1,024 characters, or an"),
        ("/rank", {"limit": 1}, "limit", "unknown field: must be one of query, pids, mode, fusion"),
        ("/similar", {"vector": []}, "vector", "must have at least 1 item"),
        ("/similar", {"positive": [{}]}, "positive.0", "must be a pid, or an object with one of"),
        ("/similar", {"mode": "bm25"}, "mode", "unknown field: must be one of pid, text, vector"),
        ("/count", {"exact": "yes"}, "exact", "must be a valid boolean, got 'yes'"),
        ("/facets", {"limit": 0}, "limit", "must be greater than or equal to 1, got 0"),
        ("/facets", {"field": ""}, "field", "must have at least 1 character"),
        ("/count", {"query": None}, "query", "unknown field: must be one of filter"),
    ],
)
def test_a_wrong_parameter_is_refused(
    path: str, body: dict[str, Any], where: str, reason: str
) -> None:
    """Before anything is searched, with the field and the rule."""
    required: dict[str, dict[str, Any]] = {
        "/search": {"query": "a"},
        "/rank": {"query": "a", "pids": []},
        "/count": {},
        "/similar": {"pid": "1"},
        "/scroll": {},
        "/facets": {"field": "lang"},
    }
    app = {"searcher": NoSearcher}
    answer = exchange("POST", path, json={**required[path], **body}, app=app)
    assert (422, "invalid") == problem_of(answer)
    (error,) = answer.json()["errors"]
    assert where == error["where"]
    assert error["reason"].startswith(reason)
