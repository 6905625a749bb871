"""What the adapters to LangChain do beyond its conformance suites."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, index
from qdrant_client import models

from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    ModelMismatchError,
    MsmarcoQdrantError,
    UsageError,
)
from msmarco_qdrant.filters import Not, Range
from msmarco_qdrant.integrations.langchain import (
    MsmarcoEmbeddings,
    MsmarcoRetriever,
    MsmarcoVectorStore,
)
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker

DOCUMENTS = [
    Document("london is a big city", metadata={"lang": "en", "year": 2001}, id="1"),
    Document("london is a big old city", metadata={"lang": "en", "year": 2002}, id="2"),
    Document("paris is a city in france", metadata={"lang": "fr", "year": 2003}, id="3"),
]
FAKE = DeterministicFakeEmbedding(size=6)


@pytest.fixture
def store() -> Iterator[Store]:
    """A store without collections."""
    with open_store(":memory:", create=True) as opened:
        yield opened


@contextmanager
def open_cities(store: Store) -> Iterator[MsmarcoVectorStore]:
    """A vector store with the documents, whose encoder compares words."""
    embedding = MsmarcoEmbeddings(HashingEncoder())
    with MsmarcoVectorStore.open(
        store, embedding=embedding, reranker=WordOverlapReranker(), create=True
    ) as opened:
        opened.add_documents(DOCUMENTS)
        yield opened


@pytest.fixture(scope="module")
def cities() -> Iterator[MsmarcoVectorStore]:
    """A vector store with the documents, which no test changes."""
    with open_store(":memory:", create=True) as store, open_cities(store) as opened:
        yield opened


@pytest.fixture
def own_cities(store: Store) -> Iterator[MsmarcoVectorStore]:
    """A vector store with the documents, for one test."""
    with open_cities(store) as opened:
        yield opened


def ids_of(documents: list[Document]) -> list[str | None]:
    """The ids, in order."""
    return [document.id for document in documents]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"lang": "fr"}, ["3"]),
        ({"year": Range(gte=2002)}, ["2", "3"]),
        (Not({"lang": "en"}), ["3"]),
        (
            models.Filter(
                must=[models.FieldCondition(key="meta.year", match=models.MatchValue(value=2001))]
            ),
            ["1"],
        ),
    ],
    ids=["equal", "range", "not", "qdrant"],
)
def test_filters_are_ours_and_those_of_qdrant(
    own_cities: MsmarcoVectorStore, given: Any, expected: list[str]
) -> None:
    """Blocking and asynchronous, in searches and deletions."""
    assert expected == sorted(ids_of(own_cities.similarity_search("city", filter=given)))  # type: ignore[type-var]
    found = asyncio.run(own_cities.asimilarity_search("city", meta_filter=given))
    assert expected == sorted(ids_of(found))  # type: ignore[type-var]
    own_cities.delete(filter=given)
    assert [] == own_cities.similarity_search("city", filter=given)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mode": "bm25"}, ["3"]),
        ({"mode": "hybrid"}, ["3", "1"]),
        ({"rerank_depth": 3}, ["3", "1"]),
        ({"score_threshold": 0.5}, ["3"]),
        ({"offset": 1}, ["1", "2"]),
        ({"group_by": "lang"}, ["3", "1"]),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_searches_take_the_options_of_the_client(
    cities: MsmarcoVectorStore, options: dict[str, Any], expected: list[str]
) -> None:
    """As keywords of a call, and as those of every search."""
    query = "paris in france is a city" if "score_threshold" not in options else "paris in france"
    if options == {"mode": "bm25"}:
        query = "france"
    client = cities.client
    found = ids_of(cities.similarity_search(query, 2, **options))
    assert expected == found
    of_every = MsmarcoVectorStore(client, search_options=options)
    assert found == ids_of(of_every.similarity_search(query, 2))
    assert found == ids_of(asyncio.run(of_every.asimilarity_search(query, 2)))
    retriever = MsmarcoRetriever(client=client, k=2, search_options=options)
    assert found == ids_of(retriever.invoke(query))


def test_mmr_prefers_documents_that_differ(cities: MsmarcoVectorStore) -> None:
    """The second document about London is like the first; with a `lambda_mult` of 1 it may be."""
    query = "london is a big city"
    vector = cities.embeddings.embed_query(query)

    async def found_async(weight: float) -> list[list[Document]]:
        return [
            await cities.amax_marginal_relevance_search(query, 2, lambda_mult=weight),
            await cities.amax_marginal_relevance_search_by_vector(vector, 2, lambda_mult=weight),
        ]

    for weight, expected in ((1.0, ["1", "2"]), (0.0, ["1", "3"])):
        found = [
            cities.max_marginal_relevance_search(query, 2, lambda_mult=weight),
            cities.max_marginal_relevance_search_by_vector(vector, 2, lambda_mult=weight),
            *asyncio.run(found_async(weight)),
        ]
        assert [expected] * 4 == [*map(ids_of, found)]
    assert ["1", "2"] == ids_of(
        cities.max_marginal_relevance_search(query, 2, fetch_k=2, lambda_mult=0.0)
    )


def test_documents_without_an_id_are_added_once(own_cities: MsmarcoVectorStore) -> None:
    """Their id is made from text and metadata, in any order of the fields."""
    first = own_cities.add_documents(
        [Document("rome", metadata={"a": 1, "b": [2]}), Document("oslo")]
    )
    again = asyncio.run(
        own_cities.aadd_documents([Document("rome", metadata={"b": [2], "a": 1}), Document("oslo")])
    )
    other = own_cities.add_documents([Document("rome", metadata={"a": 2})])
    assert first == again
    assert other[0] not in first
    assert 6 == own_cities.client.count()


def test_unchanged_documents_are_not_embedded_again(store: Store) -> None:
    """An ingest of LangChain's `index` that changes one of two documents embeds that one."""
    encoder = HashingEncoder()
    with MsmarcoVectorStore.open(
        store, embedding=MsmarcoEmbeddings(encoder), create=True
    ) as opened:
        opened.add_documents(DOCUMENTS)
        opened.add_documents([*DOCUMENTS[:2], Document("paris", id="3")])
        assert 4 == encoder.encoded


def test_index_of_langchain_adds_and_deletes(own_cities: MsmarcoVectorStore) -> None:
    """With its own ids and its clean-up."""
    records = InMemoryRecordManager(namespace="cities")
    records.create_schema()

    def index_of(texts: list[str]) -> Any:
        documents = [Document(text, metadata={"source": "a"}) for text in texts]
        options: dict[str, Any] = {"cleanup": "full", "source_id_key": "source"}
        return index(documents, records, own_cities, key_encoder="sha256", **options)

    assert 2 == index_of(["rome", "oslo"])["num_added"]
    assert 1 == index_of(["rome"])["num_deleted"]
    assert 4 == own_cities.client.count()


@pytest.mark.parametrize("mode", ["dense", "rerank"])
def test_relevance_scores_are_0_to_1(cities: MsmarcoVectorStore, mode: str) -> None:
    """The threshold of LangChain is on that scale."""
    options: dict[str, Any] = {}
    if mode == "rerank":
        options = {"rerank_depth": 9, "rerank_sigmoid": True}
    query = "london is a big city"
    found = cities.similarity_search_with_relevance_scores(query, k=3, **options)
    assert found == asyncio.run(
        cities.asimilarity_search_with_relevance_scores(query, k=3, **options)
    )
    assert [0 <= score <= 1 for _, score in found] == [True] * 3
    retriever = cities.as_retriever(
        search_type="similarity_score_threshold",
        search_kwargs={"score_threshold": found[1][1], **options},
    )
    assert ["1", "2"] == ids_of(retriever.invoke(query))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.similarity_search("a", 0), "k must be 1 to 10,000, got 0"),
        (lambda s: s.similarity_search("a", True), "k must be"),
        (lambda s: s.similarity_search(" "), "query must not be empty"),
        (lambda s: s.similarity_search("a", limit=3), "limit is set by"),
        (lambda s: s.similarity_search("a", snippets=3), "results of snippets have no field"),
        (lambda s: s.similarity_search("a", mod="bm25"), "unknown search option 'mod'"),
        (lambda s: s.similarity_search("a", filter={}, meta_filter={}), "either filter or"),
        (lambda s: s.similarity_search_by_vector([1.0] * 64, mode="bm25"), "no option 'mode'"),
        (lambda s: s.similarity_search_by_vector([1.0]), "64"),
        (lambda s: s.max_marginal_relevance_search("a", fetch_k=0), "fetch_k must be"),
        (lambda s: s.max_marginal_relevance_search("a", lambda_mult=2), "must be 0 to 1, got 2"),
        (
            lambda s: s.similarity_search_with_relevance_scores("a", mode="bm25"),
            "got mode='bm25'",
        ),
        (
            lambda s: s.similarity_search_with_relevance_scores(
                "a", collections=["msmarco", "other"], merge="rrf"
            ),
            "merge='rrf'",
        ),
        (
            lambda s: s.similarity_search_with_relevance_scores("a", rerank_depth=9),
            "rerank_sigmoid=True",
        ),
        (lambda s: s.add_documents([Document(" ")]), "document 1 cannot be added.*none was added"),
        (lambda s: s.add_documents([Document("!!")]), "document 1: .*no finite"),
        (lambda s: s.add_documents(["a"]), "must be a list of Document, got a str"),
        (lambda s: s.add_documents([Document("a")], ids=["1", "2"]), "got 2 for 1"),
        (lambda s: s.add_texts(["a"], ids=[""]), "document 1 cannot be added"),
        (lambda s: s.delete(), "pass either pids or meta_filter"),
        (lambda s: s.delete("1"), "must be a list"),
        (lambda s: MsmarcoVectorStore(s.client, search_options={"k": 3}), "unknown search option"),
        (lambda s: MsmarcoRetriever(client=s.client, search_options={"k": 3}), "search option"),
        (lambda s: MsmarcoRetriever(client=s.client, k=0).invoke("a"), "k must be"),
        (lambda _: MsmarcoVectorStore.from_texts(["a"], FAKE), "needs store"),
        (lambda s: MsmarcoVectorStore.open(s.client.store, embedding="x"), "got a str"),
        (lambda s: MsmarcoVectorStore.open(s.client.store, embedding=FAKE, model="m"), "either"),
    ],
)
def test_bad_input_is_refused(
    cities: MsmarcoVectorStore, call: Callable[[MsmarcoVectorStore], object], message: str
) -> None:
    """Each with the rule and the value."""
    with pytest.raises(UsageError, match=message):
        call(cities)
    assert 3 == cities.client.count()


class _Reversed(DeterministicFakeEmbedding):
    """Another model of the same name and dimension."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[-number for number in row] for row in super().embed_documents(texts)]


_Reversed.__name__ = "DeterministicFakeEmbedding"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"embedding": DeterministicFakeEmbedding(size=7)}, ModelMismatchError, "7 numbers"),
        ({"embedding": _Reversed(size=6)}, ModelMismatchError, "a cosine of -1.000"),
        ({"embedding": MsmarcoEmbeddings(HashingEncoder())}, ModelMismatchError, "costless-64"),
        ({}, UsageError, "DeterministicFakeEmbedding 6, an embedder of that framework"),
        ({"collection": "other", "embedding": FAKE}, CollectionNotFoundError, "other"),
    ],
    ids=["dimension", "vectors", "model", "none", "collection"],
)
def test_other_embeddings_are_refused(
    store: Store, options: dict[str, Any], error: type[MsmarcoQdrantError], message: str
) -> None:
    """By the stored name, and by a vector of the collection."""
    MsmarcoVectorStore.from_texts(["london"], FAKE, store=store).close()
    with pytest.raises(error, match=message):
        MsmarcoVectorStore.open(store, **options)
    with MsmarcoVectorStore.open(store, embedding=FAKE) as opened:
        assert opened.embeddings is FAKE
        assert ["london"] == [one.page_content for one in opened.similarity_search("london")]


def test_one_object_serves_several_event_loops(own_cities: MsmarcoVectorStore) -> None:
    """Concurrent searches share a client; each ended loop has closed its own."""

    async def search() -> list[list[Document]]:
        searches = (
            own_cities.asimilarity_search(query, 1) for query in itertools.repeat("paris", 5)
        )
        return await asyncio.gather(*searches)

    for _ in range(2):
        assert [["3"]] * 5 == [*map(ids_of, asyncio.run(search()))]
        assert {} == own_cities._loops._opening

    async def close() -> None:
        async with own_cities:
            await own_cities.aget_by_ids(["1"])

    asyncio.run(close())
    with pytest.raises(MsmarcoQdrantError, match="closed"):
        own_cities.similarity_search("paris")


def test_a_path_is_opened_and_closed(tmp_path: Path) -> None:
    """Without embeddings the collection's own model is loaded, the default for a new one."""
    place = tmp_path / "store"
    MsmarcoVectorStore.from_texts(["london", "paris"], FAKE, [{"a": 1}, {}], store=place).close()
    with MsmarcoVectorStore.open(place, embedding=FAKE, search_options={"with_meta": False}) as one:
        assert [{}] == [document.metadata for document in one.similarity_search("london", 1)]
    with SearchClient.open(place, bm25_only=True) as client:
        assert 2 == client.count()


def test_a_tenant_of_the_search_options_is_that_of_every_method(
    own_cities: MsmarcoVectorStore,
) -> None:
    """Reads, searches and deletions."""
    store = own_cities.client.store
    set_tenant_field(store, "msmarco", "lang")
    french = MsmarcoVectorStore.open(
        store, embedding=MsmarcoEmbeddings(HashingEncoder()), search_options={"tenant": "fr"}
    )
    found = [
        french.similarity_search("city"),
        french.max_marginal_relevance_search("city"),
        french.similarity_search_by_vector([1.0] * 64),
        french.get_by_ids(["1", "2", "3"]),
    ]
    assert [["3"]] * 4 == [*map(ids_of, found)]
    french.delete(["1", "2", "3"])
    assert (2, 0) == tuple(french.client.count(tenant=one) for one in ("en", "fr"))
