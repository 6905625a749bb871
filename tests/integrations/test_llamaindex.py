"""The vector store, the retriever and the embedding model of LlamaIndex."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import IndexNode, NodeRelationship, QueryBundle, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.types import VectorStoreQueryMode as Mode

from msmarco_qdrant.errors import ModelMismatchError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.integrations.llamaindex import (
    MsmarcoEmbedding,
    MsmarcoRetriever,
    MsmarcoVectorStore,
)
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.engines import ENGINES, new_store

ENCODER = HashingEncoder()
MODEL = MsmarcoEmbedding(ENCODER)
META: list[dict[str, Any]] = [
    {"lang": "en", "year": 2001, "tags": ["a", "b"], "day": "2024-05-01"},
    {"lang": "en", "year": 2002, "tags": ["b"], "day": "2024-06-01"},
    {"lang": "fr", "year": 2003, "score": 1.5},
]
TEXTS = ["london is a big city", "london is a big old city", "paris is a city in france"]


def make_nodes() -> list[TextNode]:
    """Three nodes of two documents, of which the text alone is embedded."""
    nodes = []
    for number, (text, meta) in enumerate(zip(TEXTS, META, strict=True), start=1):
        node = TextNode(
            id_=str(number), text=text, metadata=meta, excluded_embed_metadata_keys=[*meta]
        )
        source = Document(id_=f"doc-{meta['lang']}", text="").as_related_node_info()
        node.relationships[NodeRelationship.SOURCE] = source
        nodes.append(node)
    return nodes


@pytest.fixture
def store() -> Iterator[Store]:
    """A store without collections."""
    with open_store(":memory:", create=True) as opened:
        yield opened


def open_cities(store: Store) -> MsmarcoVectorStore:
    """A vector store with the nodes."""
    opened = MsmarcoVectorStore.open(
        store, embed_model=MODEL, reranker=WordOverlapReranker(), create=True
    )
    assert ["1", "2", "3"] == opened.add(make_nodes())
    return opened


@pytest.fixture(scope="module")
def cities() -> Iterator[MsmarcoVectorStore]:
    """A vector store with the nodes, which no test changes."""
    with open_store(":memory:", create=True) as store, open_cities(store) as opened:
        yield opened


def only(key: str, operator: FilterOperator, value: Any) -> MetadataFilters:
    """One filter."""
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


@pytest.mark.parametrize("engine", ENGINES)
def test_every_method_on_each_store(engine: str, tmp_path: Path) -> None:
    """Blocking and asynchronous calls do the same; nodes come back as they were."""
    with new_store(engine, tmp_path) as store, open_cities(store) as opened:
        nodes = make_nodes()
        assert nodes == opened.get_nodes(["1", "2", "3", "4"])
        query = VectorStoreQuery(query_str="paris in france", similarity_top_k=2)
        found = opened.query(query)
        assert ["3", "1"] == found.ids
        assert nodes[2] == found.nodes[0]
        assert found.similarities[0] > found.similarities[1]

        async def methods() -> None:
            assert found == await opened.aquery(query)
            assert ["4"] == await opened.async_add([TextNode(id_="4", text="rome")])
            assert ["rome"] == [node.text for node in await opened.aget_nodes(["4"])]
            await opened.adelete_nodes(["4", "5"])
            await opened.adelete("doc-fr")
            await opened.adelete("doc-unknown")

        asyncio.run(methods())
        assert ["1", "2"] == sorted(node.node_id for node in opened.get_nodes())
        opened.delete_nodes(["1", "2"], only("year", FilterOperator.EQ, 2002))
        opened.delete_nodes(["9"])
        opened.delete_nodes([], only("year", FilterOperator.EQ, 2001))  # none of none
        assert [] == opened.get_nodes([], only("year", FilterOperator.EQ, 2001))
        opened.delete("doc-fr")
        assert ["1"] == [node.node_id for node in opened.get_nodes()]
        opened.clear()
        assert [] == opened.get_nodes()
        opened.add(nodes)
        asyncio.run(opened.aclear())
        assert 0 == opened.client.count()


@pytest.mark.parametrize(
    ("query", "options", "expected"),
    [
        ({"mode": Mode.DEFAULT}, {}, ["1", "2"]),
        ({"mode": Mode.DEFAULT}, {"rerank_depth": 3}, ["1", "2"]),
        ({"mode": Mode.DEFAULT}, {"meta_filter": {"lang": "fr"}}, ["3"]),
        ({"mode": Mode.SPARSE, "sparse_top_k": 1}, {}, ["1"]),
        ({"mode": Mode.TEXT_SEARCH}, {}, ["1", "2"]),
        (
            {"mode": Mode.HYBRID, "alpha": 0.0, "hybrid_top_k": 3},
            {},
            ["1", "2", "3"],
        ),
        ({"mode": Mode.HYBRID, "alpha": 1.0}, {}, ["1", "2"]),
        ({"mode": Mode.SEMANTIC_HYBRID}, {}, ["1", "2"]),
        ({"mode": Mode.MMR, "mmr_threshold": 1.0}, {}, ["1", "2"]),
        ({"mode": Mode.MMR}, {"mmr_threshold": 0.0}, ["1", "3"]),
        (
            {"mode": Mode.MMR},
            {"mmr_threshold": 0.0, "mmr_prefetch_k": 2},
            ["1", "2"],
        ),
    ],
    ids=str,
)
def test_query_modes(
    cities: MsmarcoVectorStore,
    query: dict[str, Any],
    options: dict[str, Any],
    expected: list[str],
) -> None:
    """By the text, by an embedding, or by both, as LlamaIndex passes them."""
    text = "london is a big city"
    needs_text = query["mode"] not in {Mode.DEFAULT, Mode.MMR}
    vector = MODEL.get_query_embedding(text)
    given: list[dict[str, Any]] = [
        {"query_str": text},
        {"query_str": text, "query_embedding": vector},
    ]
    if not needs_text and "rerank_depth" not in options:
        given.append({"query_embedding": vector})
    for one in given:
        whole = VectorStoreQuery(**one, similarity_top_k=2, **query)
        assert expected == cities.query(whole, **options).ids
        assert expected == asyncio.run(cities.aquery(whole, **options)).ids


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (only("lang", FilterOperator.EQ, "fr"), "3"),
        (only("score", FilterOperator.EQ, 1.5), "3"),
        (only("lang", FilterOperator.NE, "fr"), "12"),
        (only("year", FilterOperator.GT, 2002), "3"),
        (only("year", FilterOperator.GTE, 2002), "23"),
        (only("year", FilterOperator.LT, 2002), "1"),
        (only("year", FilterOperator.LTE, 2002), "12"),
        (only("day", FilterOperator.GT, "2024-05-15"), "2"),
        (only("year", FilterOperator.IN, [2001, 2003]), "13"),
        (only("lang", FilterOperator.NIN, ["en"]), "3"),
        (only("tags", FilterOperator.ANY, ["a", "c"]), "1"),
        (only("tags", FilterOperator.ALL, ["a", "b"]), "1"),
        (only("tags", FilterOperator.CONTAINS, "b"), "12"),
        (only("lang", FilterOperator.TEXT_MATCH, "EN"), "12"),
        (only("lang", FilterOperator.TEXT_MATCH_INSENSITIVE, "FR"), "3"),
        (only("tags", FilterOperator.IS_EMPTY, None), "3"),
        (
            MetadataFilters(
                filters=[
                    only("year", FilterOperator.EQ, 2001),
                    MetadataFilter(key="lang", value="fr"),
                    MetadataFilters(filters=[]),
                ],
                condition=FilterCondition.OR,
            ),
            "13",
        ),
        (
            MetadataFilters(
                filters=[
                    MetadataFilter(key="year", value=2001),
                    MetadataFilter(key="lang", value="fr"),
                ],
                condition=FilterCondition.NOT,
            ),
            "2",
        ),
        (MetadataFilters(filters=[]), "123"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_filters(cities: MsmarcoVectorStore, filters: MetadataFilters, expected: str) -> None:
    """Every operator and every condition, in reads and queries."""
    assert expected == "".join(sorted(node.node_id for node in cities.get_nodes(filters=filters)))
    query = VectorStoreQuery(query_str="city", similarity_top_k=3, filters=filters)
    assert expected == "".join(sorted(cities.query(query).ids))


def test_queries_of_some_nodes_or_documents(cities: MsmarcoVectorStore) -> None:
    """`node_ids` and `doc_ids` leave out others; LlamaIndex passes an empty list for all."""
    for options, expected in (
        ({"node_ids": ["2", "3"]}, {"2", "3"}),
        ({"node_ids": ["2", "3"], "doc_ids": ["doc-en"]}, {"2"}),
        ({"node_ids": [], "doc_ids": []}, {"1", "2", "3"}),
    ):
        query = VectorStoreQuery(query_str="city", similarity_top_k=3, **options)
        assert expected == {*cities.query(query).ids}


def test_an_index_of_documents(store: Store) -> None:
    """It splits, embeds and stores them, finds them, refreshes and deletes them."""
    encoder = HashingEncoder()
    opened = MsmarcoVectorStore.open(store, embed_model=MsmarcoEmbedding(encoder), create=True)
    documents = [
        Document(id_=str(number), text=text, metadata=meta)
        for number, (text, meta) in enumerate(zip(TEXTS, META, strict=True))
    ]
    index = VectorStoreIndex.from_documents(
        documents,
        storage_context=StorageContext.from_defaults(vector_store=opened),
        embed_model=opened.embed_model,
    )
    found = index.as_retriever(similarity_top_k=1).retrieve("lang fr paris in france")
    assert [(TEXTS[2], META[2])] == [(one.node.text, one.node.metadata) for one in found]
    assert found == asyncio.run(
        index.as_retriever(similarity_top_k=1).aretrieve("lang fr paris in france")
    )
    index.delete_ref_doc("2")
    again = VectorStoreIndex.from_vector_store(opened, embed_model=opened.embed_model)
    retriever = again.as_retriever(
        similarity_top_k=3, vector_store_query_mode="hybrid", vector_store_kwargs={"tenant": None}
    )
    assert {TEXTS[0], TEXTS[1]} == {one.node.text for one in retriever.retrieve("city")}
    encoded = encoder.encoded
    opened.add([*opened.get_nodes()])  # unchanged, and without embeddings
    assert encoded == encoder.encoded


def test_other_kinds_of_nodes_and_passages_of_others(store: Store) -> None:
    """An `IndexNode` stays one; a passage of an ingest is a node whose text alone is embedded."""
    ingest_passages([("7", "berlin is a city", {"lang": "de"})], store, encoder=ENCODER)
    with MsmarcoVectorStore.open(store, embed_model=MODEL) as opened:
        opened.add([IndexNode(id_="8", text="an index", index_id="films")])
        (passage, other) = opened.get_nodes(["7", "8"])
        assert ("berlin is a city", {"lang": "de"}) == (passage.text, passage.metadata)
        bare = TextNode(id_="9", text="", metadata={"topic": "owls"})
        opened.add([bare])
        assert [bare] == opened.get_nodes(["9"])
        assert isinstance(other, IndexNode)
        assert "films" == other.index_id
        passage.embedding = MODEL.get_text_embedding(passage.get_content("embed"))
        opened.add([passage])
        assert "berlin is a city" == opened.client.get(["7"])["7"].text


def test_a_retriever_of_a_client(cities: MsmarcoVectorStore) -> None:
    """It searches with the client's options, by text or by an embedding."""
    client: SearchClient = cities.client
    retriever = MsmarcoRetriever(client, similarity_top_k=1, search_options={"mode": "hybrid"})
    query = "paris in france"
    assert ["3"] == [one.node_id for one in retriever.retrieve(query)]
    assert ["3"] == [one.node_id for one in asyncio.run(retriever.aretrieve(query))]
    store = MsmarcoVectorStore(client, search_options={"filter": {"lang": "en"}})
    for options, expected in (({}, ["1"]), ({"filter": {"lang": "fr"}}, ["3"])):
        found = store.query(VectorStoreQuery(query_str=query, similarity_top_k=1), **options)
        assert expected == found.ids
    plain = MsmarcoRetriever(client, search_options={"filter": {"lang": "en"}})
    bundle = QueryBundle("ignored", embedding=MODEL.get_query_embedding(query))
    assert ["1", "2"] == [one.node_id for one in plain.retrieve(bundle)]
    assert ["1", "2"] == [one.node_id for one in asyncio.run(plain.aretrieve(bundle))]


def with_embedding(vector: list[float]) -> TextNode:
    """A node with an embedding."""
    return TextNode(id_="9", text="london", embedding=vector)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.add([TextNode(text="")]), "node 1 cannot be added.*none was added"),
        (lambda s: s.add([TextNode(text="!!")]), "node 1: .*no finite"),
        (lambda s: s.add(["a"]), "must be a list of nodes, got a str"),
        (lambda s: s.delete(""), "ref_doc_id must be"),
        (lambda s: s.delete_nodes(), "clear\\(\\) deletes every node"),
        (lambda s: s.delete_nodes(filters=MetadataFilters(filters=[])), "clear\\(\\) deletes"),
        (lambda s: s.query(VectorStoreQuery()), "must have query_str"),
        (lambda s: s.query(VectorStoreQuery(query_str="a", similarity_top_k=0)), "got 0"),
        (
            lambda s: s.query(VectorStoreQuery(query_str="a", mode=Mode.SVM)),
            "must be one of default, mmr, sparse, text_search, hybrid, semantic_hybrid, got svm",
        ),
        (
            lambda s: s.query(VectorStoreQuery(query_embedding=[1.0] * 64, mode=Mode.HYBRID)),
            "mode hybrid must have query_str",
        ),
        (lambda s: s.query(VectorStoreQuery(query_str="a"), mod="bm25"), "unknown search option"),
        (
            lambda s: s.query(VectorStoreQuery(query_str="a", mode=Mode.MMR), mmr_threshold=2),
            "must be 0 to 1, got 2",
        ),
        (
            lambda s: s.query(VectorStoreQuery(query_str="a", mode=Mode.MMR), mmr_prefetch_k=0),
            "got 0",
        ),
        (lambda s: s.get_nodes(filters={"a": 1}), "must be MetadataFilters of LlamaIndex"),
        (lambda s: s.get_nodes(filters=only("a", FilterOperator.EQ, None)), "operator '=='"),
        (lambda s: s.get_nodes(filters=only("a", FilterOperator.GT, "x")), "takes a number"),
        (lambda s: s.get_nodes(filters=only("a", FilterOperator.IN, [])), "one value or more"),
        (lambda s: s.get_nodes(filters=only("a", FilterOperator.TEXT_MATCH, 1)), "a Text must"),
        (lambda s: MsmarcoVectorStore(s.client, search_options={"k": 1}), "unknown search option"),
        (lambda s: MsmarcoRetriever(s.client, similarity_top_k=0), "similarity_top_k must be"),
        (lambda s: MsmarcoVectorStore.open(s.client.store, embed_model="x"), "got a str"),
    ],
)
def test_bad_input_is_refused(
    cities: MsmarcoVectorStore, call: Callable[[MsmarcoVectorStore], object], message: str
) -> None:
    """Each with the rule and the value; nothing is written or deleted."""
    with pytest.raises(UsageError, match=message):
        call(cities)
    assert 3 == cities.client.count()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.add([with_embedding([1.0, *[0.0] * 63])]), "differs from that of costless"),
        (lambda s: s.add([with_embedding([1.0])]), "1 instead of 64 numbers"),
        (
            lambda s: MsmarcoVectorStore.open(s.client.store, embed_model=MockEmbedding(64)),
            "costless-64",
        ),
    ],
    ids=["another model", "dimension", "embed_model"],
)
def test_embeddings_of_another_model_are_refused(
    cities: MsmarcoVectorStore, call: Callable[[MsmarcoVectorStore], object], message: str
) -> None:
    """Before anything is written."""
    with pytest.raises(ModelMismatchError, match=message):
        call(cities)
    assert 3 == cities.client.count()


def test_any_embedding_model_makes_a_collection(store: Store) -> None:
    """Its class and model name are stored, and it searches."""
    mock = MockEmbedding(embed_dim=4)
    with MsmarcoVectorStore.open(store, embed_model=mock, create=True) as opened:
        opened.add(make_nodes())
        assert opened.client.metadata.encoder.model.startswith("llamaindex:MockEmbedding")
        assert 3 == len(opened.query(VectorStoreQuery(query_str="a", similarity_top_k=3)).ids)
    with pytest.raises(UsageError, match="an embedder of that framework"):
        MsmarcoVectorStore.open(store)


def test_clear_leaves_other_tenants(store: Store) -> None:
    """With a tenant in the search options; without one it is refused."""
    open_cities(store).close()
    set_tenant_field(store, "msmarco", "lang")
    with MsmarcoVectorStore.open(store, embed_model=MODEL) as opened:
        with pytest.raises(UsageError, match="tenant"):
            opened.clear()
        MsmarcoVectorStore(opened.client, search_options={"tenant": "en"}).clear()
        assert (0, 1) == tuple(opened.client.count(tenant=one) for one in ("en", "fr"))
