"""Parameters of the search clients: written out, the same in both, completed, names checked."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from math import exp
from pathlib import Path
from typing import Any, get_type_hints

import jedi
import pytest

from msmarco_qdrant import AsyncSearchClient, Fusion, Hits, Passage, SearchClient, SearchOptions
from msmarco_qdrant.errors import UnknownArgumentError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.options import RankOptions, SimilarOptions
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.search.support import run

_PASSAGES = [
    Passage("1", "london is a big city"),
    Passage("2", "paris is a city in france"),
    Passage("3", "a spy is rich"),
]


def public_methods(client: type) -> dict[str, Any]:
    """The methods that both kinds of client are compared by."""
    return {
        name: value
        for name, value in inspect.getmembers(client, callable)
        if not name.startswith("_")
    }


def parameters(function: Any, *, without: Collection[str] = ()) -> dict[str, tuple[Any, Any, Any]]:
    """Kind, default and type of each parameter, by name."""
    hints = get_type_hints(inspect.unwrap(getattr(function, "__func__", function)))
    return {
        name: (parameter.kind, parameter.default, hints.get(name))
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in without
    }


@pytest.mark.parametrize("name", sorted(public_methods(SearchClient)))
def test_both_clients_have_the_same_parameters(name: str) -> None:
    """Of every method: names, kinds, defaults and types, none behind `**`."""
    blocking, asyncio_ = getattr(SearchClient, name), getattr(AsyncSearchClient, name)
    assert parameters(blocking) == parameters(asyncio_)
    kinds = {kind for kind, _, _ in parameters(asyncio_).values()}
    assert set() == kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    assert inspect.iscoroutinefunction(asyncio_) or name == "scroll"  # an async iterator


def test_the_asyncio_client_has_no_other_methods() -> None:
    """What one client can do, the other can."""
    assert public_methods(SearchClient).keys() == public_methods(AsyncSearchClient).keys()


@pytest.mark.parametrize("name", ["search", "search_many"])
def test_parameters_are_the_search_options(name: str) -> None:
    """Names and types are those of `SearchOptions`, defaults those of a request."""
    found = parameters(getattr(SearchClient, name), without={"self", "query", "queries"})
    assert {n: hint for n, (_, _, hint) in found.items()} == get_type_hints(SearchOptions)
    fields = SearchRequest.__dataclass_fields__
    of_collection = {"fusion": None, "ef": None}  # a request has the chosen ones
    assert {n: default for n, (_, default, _) in found.items()} == {
        n: fields[n].default for n in found
    } | of_collection


def test_parameters_of_a_search_by_examples() -> None:
    """Besides its examples they are `SimilarOptions`, with the types and defaults of a search."""
    ours = {"self", "pid", "text", "vector", "positive", "negative"}
    found = parameters(SearchClient.similar, without=ours)
    assert {n: hint for n, (_, _, hint) in found.items()} == get_type_hints(SimilarOptions)
    assert found.items() <= parameters(SearchClient.search).items()


@pytest.mark.parametrize("name", ["rank", "rank_many"])
def test_parameters_of_a_ranking(name: str) -> None:
    """They are `RankOptions`, with the types and defaults of a search."""
    ours = {"self", "query", "queries", "pids"}
    found = parameters(getattr(SearchClient, name), without=ours)
    assert {n: hint for n, (_, _, hint) in found.items()} == get_type_hints(RankOptions)
    del found["rerank"]
    assert found.items() <= parameters(SearchClient.search).items()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rerank_sigmoid": True}, "converts reranked scores: pass rerank=True as well"),
        ({"rerank": True, "rerank_sigmoid": 1}, "rerank_sigmoid must be True or False, got 1"),
        ({"rerank": "yes"}, "rerank must be True or False, got 'yes'"),
        ({"tenant": ""}, "tenant must be a non-empty string, got ''"),
    ],
)
def test_invalid_options_of_a_ranking(options: dict[str, Any], reason: str) -> None:
    """Refused with the rule, then the value."""
    with open_store(":memory:", create=True) as store:
        ingest_passages([("1", "a city")], store, encoder=HashingEncoder(), optimize=False)
        client = SearchClient.open(store, encoder=HashingEncoder(), reranker=WordOverlapReranker())
        with pytest.raises(UsageError, match=reason):
            client.rank("city", ["1"], **options)


def test_reranked_scores_of_given_passages_from_0_to_1() -> None:
    """The same order, by the logistic function of the cross-encoder's scores."""
    with open_store(":memory:", create=True) as store:
        rows = [("1", "a city by the sea"), ("2", "a mountain")]
        ingest_passages(rows, store, encoder=HashingEncoder(), optimize=False)
        client = SearchClient.open(store, encoder=HashingEncoder(), reranker=WordOverlapReranker())
        plain = client.rank("city sea", ["1", "2"], rerank=True)
        scaled = client.rank("city sea", ["1", "2"], rerank=True, rerank_sigmoid=True)
        assert [hit.pid for hit in plain] == [hit.pid for hit in scaled]
        assert [1 / (1 + exp(-hit.score)) for hit in plain] == pytest.approx(
            [hit.score for hit in scaled]
        )


@pytest.mark.parametrize("name", ["search", "similar", "rank", "open"])
@pytest.mark.parametrize("client", [SearchClient, AsyncSearchClient])
def test_every_parameter_is_documented(client: type, name: str) -> None:
    """In the docstring of its method, in both clients."""
    function = getattr(client, name)
    text = inspect.getdoc(function) or ""
    names = parameters(function, without={"self"})
    assert [] == [n for n in names if f"    {n}: " not in text]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("client.search(", {"query=", "limit=", "mode=", "fusion=", "meta_filter=", "rescore="}),
        ("client.search('q', rer", {"rerank_depth="}),
        ("client.rank_many(", {"queries=", "pids=", "rerank="}),
    ],
)
@pytest.mark.parametrize("client", ["SearchClient", "AsyncSearchClient"])
def test_an_editor_completes_the_parameters(client: str, code: str, expected: set[str]) -> None:
    """Jedi, which editors and notebooks use, on an annotated variable."""
    module = {"SearchClient": "client", "AsyncSearchClient": "async_client"}[client]
    program = (
        f"from msmarco_qdrant.search.{module} import {client}\n"
        f"def use(client: {client}):\n    {code}"
    )
    names = {completion.name for completion in jedi.Script(program).complete()}
    assert set() == expected - names


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three passages, which no test changes."""
    path = tmp_path_factory.mktemp("parameters") / "store"
    ingest_passages(_PASSAGES, path, encoder=HashingEncoder(), optimize=False)
    return path


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("limt", r"search\(\) has no argument 'limt': did you mean 'limit'\?"),
        ("filter", "did you mean 'meta_filter'"),
        ("top_k", "it takes collections, cursor, diversity, ef, exact, fusion"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(store: Path, given: str, message: str) -> None:
    """By both clients, as a `TypeError` and as an error of this package."""
    options: Any = {given: 3}

    async def search() -> None:
        async with await AsyncSearchClient.open(store, encoder=HashingEncoder()) as client:
            with pytest.raises(UnknownArgumentError, match=message):
                await client.search("city", **options)

    with SearchClient.open(store, encoder=HashingEncoder()) as client:
        for call in (client.search, client.search_many):
            with pytest.raises(TypeError, match=given):
                call("city", **options)
        with pytest.raises(UsageError, match=message):
            client.search("city", **options)
    run(search)


def test_an_unknown_name_of_open_is_refused(store: Path) -> None:
    """So is one of the class method, before the store is opened."""
    options: Any = {"colection": "msmarco"}
    with pytest.raises(UnknownArgumentError, match="did you mean 'collection'"):
        SearchClient.open(store, **options)


@pytest.mark.parametrize("method", ["convex", "rrf", "dbsf"])
def test_a_fusion_is_also_a_string(store: Path, method: Any) -> None:
    """The hits are those of the object, from search and rank; anything else is refused."""
    with SearchClient.open(store, encoder=HashingEncoder()) as client:
        given = client.search("a city", mode="hybrid", fusion=method)
        assert given == client.search("a city", mode="hybrid", fusion=Fusion(method))
        assert isinstance(given, Hits)
        ranked = client.rank("a city", ["1", "2"], mode="hybrid", fusion=method)
        assert ranked == client.rank("a city", ["1", "2"], mode="hybrid", fusion=Fusion(method))
        with pytest.raises(UsageError, match="must be one of convex, rrf, dbsf, got 'sum'"):
            client.search("a city", fusion="sum")  # type: ignore[arg-type]
        with pytest.raises(
            UsageError, match="fusion must be convex, rrf, dbsf, or a Fusion, got 1"
        ):
            client.search("a city", fusion=1)  # type: ignore[arg-type]
