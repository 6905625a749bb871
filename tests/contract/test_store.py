"""What every store promises, whichever engine is behind it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    CollectionSpec,
    HnswSettings,
    PointBatch,
    PointId,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.core.encoder_types import EncoderInfo, Int8Loss, Prompts, Similarity
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.search_types import Nearest, PointQuery, SearchEffort
from msmarco_qdrant.errors import CollectionNotFoundError, SchemaError, StoreError, UnsupportedError
from msmarco_qdrant.filters import Exists, Not, Range, SearchFilter
from msmarco_qdrant.stores import Collection, Store
from tests.contract.conftest import OpenStore

DIMENSION = 4
BY_TOKENS = Nearest(SparseVector([1, 5], [1.0, 1.0]), "bm25")
_WHEN = "2024-05-01T12:30:00+02:00"
UUID_ID = uuid.UUID("6ba7b810-9dad-51d1-80b4-00c04fd430c8")


def make_spec(
    store: Store, similarity: Similarity = "cosine", dimension: int = DIMENSION
) -> CollectionSpec:
    """A small collection's plan, quantized where the engine can."""
    return CollectionSpec(
        dense="dense-0a1b2c3d",
        dimension=dimension,
        similarity=similarity,
        sparse="bm25",
        hnsw=HnswSettings(m=8, ef_construct=32),
        payload_indexes={"seq": "integer"},
        storage=StorageSettings(
            on_disk=True, quantization="int8" if store.capabilities.quantization else "none"
        ),
    )


def make_batch(
    ids: Sequence[PointId], vectors: Sequence[Sequence[float]], **payload: Any
) -> PointBatch:
    """Points whose payload tells their id, and what else is given."""
    return PointBatch(
        using="dense-0a1b2c3d",
        ids=ids,
        dense=np.asarray(vectors, np.float32),
        sparse=[SparseVector([1, 5], [0.5, 1.5]) for _ in ids],
        payloads=[
            {"pid": str(point), "text": f"text {point}", "meta": {}, "seq": 1, **payload}
            for point in ids
        ],
    )


def ask(
    vector: Sequence[float],
    limit: int = 10,
    *,
    exact: bool = False,
    meta_filter: SearchFilter | None = None,
) -> PointQuery:
    """A query with defaults."""
    return PointQuery(
        Nearest(np.asarray(vector, np.float32), "dense-0a1b2c3d"),
        limit,
        SearchEffort(ef=32, exact=exact),
        meta_filter,
    )


def make_metadata(model: str = "some-model") -> CollectionMetadata:
    """Metadata with every field away from its default."""
    return CollectionMetadata(
        schema_version=1,
        package_version="9.9",
        encoder=EncoderInfo(
            model=model,
            fingerprint="0a1b2c3d" * 8,
            dimension=DIMENSION,
            similarity="dot",
            prompts=Prompts("[QRY] ", "[DOC] "),
            max_seq_length=350,
        ),
        bm25=Bm25Settings(k=1.2, b=0.5, avg_len=20.0, language="german"),
        migrations=("0001_create_passages",),
        int8_loss=Int8Loss(0.96, 0.99, 256),
    )


@pytest.fixture
def collection(store: Store, things: str) -> Collection:
    """An empty collection behind the alias `things`."""
    store.create_collection(f"{things}__0001", make_spec(store))
    store.put_metadata(f"{things}__0001", make_metadata())
    store.set_alias(things, f"{things}__0001")
    return store.collection(things)


def test_a_new_collection_is_empty(collection: Collection, things: str) -> None:
    """No points, no seq, no answers, and ready."""
    info = collection.info()
    assert (f"{things}__0001", 0) == (info.name, info.points)
    assert ("ready", 0) == (info.state, info.last_seq)
    assert list(collection.scan(["pid"])) == []
    assert collection.query([ask([1, 0, 0, 0])]) == [[]]
    assert collection.retrieve([1], ["pid"]) == {}


def test_points_are_found_by_cosine(collection: Collection) -> None:
    """Nearest first, with the cosine as the score, integer and UUID ids alike."""
    collection.upsert(make_batch([1, UUID_ID], [[1, 0, 0, 0], [0.6, 0.8, 0, 0]]))
    (points,) = collection.query([ask([1, 0, 0, 0])])
    assert [point.id for point in points] == [1, UUID_ID]
    assert [point.score for point in points] == pytest.approx([1.0, 0.6], abs=1e-6)
    assert points[0].payload == {"pid": "1", "text": "text 1", "meta": {}}


def test_points_are_found_by_dot_product(store: Store, things: str) -> None:
    """A collection of a dot model compares lengths too."""
    store.create_collection(f"{things}__0001", make_spec(store, "dot"))
    collection = store.collection(f"{things}__0001")
    collection.upsert(make_batch([1, 2], [[1, 0, 0, 0], [3, 4, 0, 0]]))
    (points,) = collection.query([ask([1, 0, 0, 0])])
    assert [(point.id, point.score) for point in points] == [(2, 3.0), (1, 1.0)]


def test_a_batch_of_queries_is_answered_in_order(collection: Collection) -> None:
    """One answer a query, each with its own limit."""
    collection.upsert(make_batch([1, 2], [[1, 0, 0, 0], [0, 1, 0, 0]]))
    first, second = collection.query([ask([0, 1, 0, 0], limit=1), ask([1, 0, 0, 0], exact=True)])
    assert [point.id for point in first] == [2]
    assert [point.id for point in second] == [1, 2]


def test_writing_again_replaces(collection: Collection) -> None:
    """The same ids twice are the same points, with the later vectors and payloads."""
    collection.upsert(make_batch([1], [[1, 0, 0, 0]]))
    collection.upsert(make_batch([1], [[0, 1, 0, 0]], text="new"))
    assert collection.info().points == 1
    (points,) = collection.query([ask([0, 1, 0, 0])])
    assert [(point.id, point.payload["text"]) for point in points] == [(1, "new")]
    assert points[0].score == pytest.approx(1.0)


def test_payloads_are_replaced_whole_and_vectors_stay(collection: Collection) -> None:
    """A new payload leaves nothing of the old one and does not touch the vector."""
    collection.upsert(make_batch([1, UUID_ID], [[1, 0, 0, 0], [0, 1, 0, 0]], extra="old"))
    collection.replace_payloads([1, UUID_ID], [{"pid": "one"}, {"pid": "two", "seq": 7}])
    stored = collection.retrieve([1, UUID_ID, 99], ["pid", "extra", "text"])
    assert stored == {1: {"pid": "one"}, UUID_ID: {"pid": "two"}}
    (points,) = collection.query([ask([0, 1, 0, 0], limit=1)])
    assert [point.id for point in points] == [UUID_ID]


def test_retrieve_gives_the_named_fields_of_what_exists(collection: Collection) -> None:
    """Ids that do not exist are left out, and fields that were not asked for, too."""
    collection.upsert(make_batch([5], [[1, 0, 0, 0]]))
    assert collection.retrieve([5, 6], ["pid", "nothing"]) == {5: {"pid": "5"}}


def test_last_seq_is_the_highest(collection: Collection) -> None:
    """Whatever order they were written in, nanoseconds included."""
    for point, seq in ((1, 1_700_000_000_000_000_007), (2, 1_700_000_000_000_000_009), (3, 5)):
        collection.upsert(make_batch([point], [[1, 0, 0, 0]], seq=seq))
    assert collection.info().last_seq == 1_700_000_000_000_000_009


def test_info_tells_what_it_was_made_of(store: Store, collection: Collection) -> None:
    """Every setting comes back as the engine has it; payload indexes where it has them."""
    spec = make_spec(store)
    indexes = spec.payload_indexes if store.capabilities.payload_indexes else {}
    assert replace(spec, payload_indexes=indexes) == collection.info().spec


def test_quantization_is_there_or_refused(store: Store, things: str) -> None:
    """An engine without it says so, instead of doing without."""
    spec = replace(make_spec(store), storage=StorageSettings(quantization="int8"))
    if store.capabilities.quantization:
        store.create_collection(f"{things}__0001", spec)
        quantized = store.collection(f"{things}__0001").info().spec.storage
        assert StorageSettings(quantization="int8") == quantized
    else:
        with pytest.raises(UnsupportedError, match="quantization"):
            store.create_collection(f"{things}__0001", spec)


def test_points_are_removed(collection: Collection) -> None:
    """Those that exist; they are neither found nor seen any more."""
    collection.upsert(make_batch([1, 2, UUID_ID], [[1, 0, 0, 0]] * 3))
    collection.delete([2, UUID_ID, 99], up_to_seq=2**62)
    collection.flush()
    assert collection.info().points == 1
    assert list(collection.retrieve([1, 2, UUID_ID], ["pid"])) == [1]
    (points,) = collection.query([ask([1, 0, 0, 0])])
    assert [point.id for point in points] == [1]


def test_what_is_newer_is_not_removed(collection: Collection) -> None:
    """However often it is repeated; a seq is told from the next by the nearest float64."""
    seq = 1_700_000_000_000_000_000
    collection.upsert(make_batch([1, 2], [[1, 0, 0, 0]] * 2, seq=seq))
    collection.upsert(make_batch([2], [[1, 0, 0, 0]], seq=seq + 1000))
    for _ in range(2):
        collection.delete([1, 2], up_to_seq=seq)
        collection.flush()
        assert [2] == [point for point, _ in collection.scan(["pid"])]


def test_a_scan_sees_every_point_once(collection: Collection) -> None:
    """In pages, integer ids before UUIDs, with the named fields only."""
    ids: list[PointId] = [*range(2500), UUID_ID]
    collection.upsert(make_batch(ids, [[1, 0, 0, 0]] * len(ids)))
    seen = list(collection.scan(["pid"]))
    assert ids == [point for point, _ in seen]
    assert seen[7] == (7, {"pid": "7"})
    assert seen[-1] == (UUID_ID, {"pid": str(UUID_ID)})


def test_a_scan_may_remove_what_it_saw(collection: Collection) -> None:
    """Removing behind it hides nothing that is still to come."""
    collection.upsert(make_batch(range(2500), [[1, 0, 0, 0]] * 2500))
    for point, _ in collection.scan(["pid"]):
        if isinstance(point, int) and point % 500 == 0:
            collection.delete([point], up_to_seq=2**62)
    assert collection.info().points == 2495


def _field(key: str, value: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


_TWO_OF: list[models.Condition] = [_field("meta.lang", "en"), _field("meta.year", 2001)]


_FILTERS: list[tuple[SearchFilter, set[int]]] = [
    ({"lang": "en"}, {1, 3}),
    ({"lang": ["en", "fr"]}, {1, 2, 3}),
    ({"lang": "en", "year": 2001}, {1}),
    ({"year": [2001, 2002]}, {1, 2}),
    ({"year": 2001.0}, {1}),
    ({"year": "2001"}, set()),
    ({"score": 1.5}, {1}),
    ({"live": True}, {2}),
    ({"tags": "film"}, {3}),
    ({"deep.er": "x"}, {3}),
    ({"a b": 1}, {1}),
    ({"": "empty"}, {2}),
    ({"größe": 3}, {3}),
    ({"nothing": "x"}, set()),
    ({"year": Range(gte=2002)}, {2}),
    ({"score": Range(gt=1.0, lte=1.5)}, {1}),
    ({"when": Range(gt=date(2024, 1, 1), lt=date(2025, 1, 1))}, {1}),
    ({"when": Range(gte=date(2025, 1, 1))}, set()),
    ({"tags": Exists()}, {3}),
    ({"live": Not(Exists())}, {1, 3}),
    ({"lang": Not("en")}, {2}),
    ({"year": Not([2001, 2003])}, {2, 3}),
    ({"year": Not(Range(lt=2002)), "lang": "en"}, {3}),
    (models.Filter(must_not=[_field("meta.lang", "fr")]), {1, 3}),
    (models.Filter(should=[_field("meta.year", 2001), _field("meta.live", True)]), {1, 2}),
    (models.Filter(must=[models.HasIdCondition(has_id=[1, 3])]), {1, 3}),
    (models.Filter(min_should=models.MinShould(conditions=_TWO_OF, min_count=2)), {1}),
]


def test_filters(collection: Collection) -> None:
    """All fields hold, of several values any one; types are told apart; arrays match inside."""
    metas = [
        {"lang": "en", "year": 2001, "score": 1.5, "a b": 1, "when": _WHEN},
        {"lang": "fr", "year": 2002, "live": True, "": "empty"},
        {"lang": "en", "tags": ["film", "book"], "deep": {"er": "x"}, "größe": 3},
    ]
    for point, meta in enumerate(metas, start=1):
        collection.upsert(make_batch([point], [[1, 0, 0, point]], meta=meta))
    for exact in (False, True):
        plain = [ask([1, 0, 0, 0], exact=exact, meta_filter=wanted) for wanted, _ in _FILTERS]
        fused = [
            replace(one, candidates=(one.nearest, BY_TOKENS), depth=10)
            for one in plain
            if one.nearest
        ]
        for queries in (plain, fused):
            found = [{point.id for point in points} for points in collection.query(queries)]
            assert _FILTERS == [
                (wanted, ids) for (wanted, _), ids in zip(_FILTERS, found, strict=True)
            ]


@pytest.fixture
def weighed(collection: Collection) -> Collection:
    """Three points: the first holds token 1, the second tokens 1 and 5, the third none of them."""
    batch = make_batch([1, 2, 3], [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]])
    tokens = [SparseVector([1], [1.0]), SparseVector([1, 5], [1.0, 1.0]), SparseVector([7], [1.0])]
    collection.upsert(replace(batch, sparse=tokens))
    return collection


def test_points_are_found_by_their_tokens(weighed: Collection) -> None:
    """A rare token counts more, and what shares none is not found."""
    (points,) = weighed.query([PointQuery(BY_TOKENS, limit=10)])
    assert [2, 1] == [point.id for point in points]
    assert points[0].score > 2 * points[1].score > 0


def test_only_given_points_are_scored(weighed: Collection) -> None:
    """Those of the ids that exist, by either vector, whatever else is asked."""
    for nearest, expected in ((BY_TOKENS, [1]), (ask([0, 0, 1, 0]).nearest, [3, 1])):
        query = PointQuery(nearest, 10, SearchEffort(exact=True), ids=[1, 3, 99, UUID_ID])
        assert [expected] == [[p.id for p in points] for points in weighed.query([query])]
    one = PointQuery(BY_TOKENS, 10, meta_filter={"nothing": 1}, ids=[1, 2])
    assert [[]] == weighed.query([one])


def test_candidates_are_scored_by_another_vector(weighed: Collection) -> None:
    """The union of the best of each, all of them with their real score."""
    by_vector = ask([0, 0, 1, 0]).nearest
    assert by_vector is not None
    both = (by_vector, BY_TOKENS)
    (dense,) = weighed.query([PointQuery(by_vector, 10, candidates=both, depth=1)])
    assert [3, 2] == [point.id for point in dense]
    assert [1.0, 0.0] == pytest.approx([point.score for point in dense])
    (tokens,) = weighed.query([PointQuery(BY_TOKENS, 10, candidates=both, depth=1)])
    (alone,) = weighed.query([PointQuery(BY_TOKENS, 1)])
    assert [2] == [point.id for point in tokens]
    assert alone[0].score == pytest.approx(tokens[0].score)


def test_only_the_fields_asked_for_come(weighed: Collection) -> None:
    """None, or some."""
    for fields in ((), ("pid",), ("pid", "text", "meta")):
        (points,) = weighed.query([PointQuery(BY_TOKENS, 1, fields=fields)])
        assert {*fields} == {*points[0].payload}


def test_a_vector_of_another_dimension_is_refused(collection: Collection) -> None:
    """On writing and on searching, and nothing is written."""
    with pytest.raises(SchemaError, match="3"):
        collection.upsert(make_batch([1], [[1, 0, 0]]))
    with pytest.raises(SchemaError, match="3"):
        collection.query([ask([1, 0, 0])])
    assert collection.info().points == 0


def test_a_vector_of_another_name_is_refused(collection: Collection) -> None:
    """Vectors of another model cannot be written or matched by accident."""
    own = ask([1, 0, 0, 0]).nearest
    assert own is not None
    foreign = PointQuery(replace(own, using="dense-ffffffff"), limit=1)
    with pytest.raises(SchemaError, match="dense-ffffffff"):
        collection.query([foreign])
    with pytest.raises(SchemaError, match="dense-ffffffff"):
        collection.upsert(replace(make_batch([1], [[1, 0, 0, 0]]), using="dense-ffffffff"))
    assert collection.info().points == 0


def test_what_was_flushed_is_there_after_reopening(
    open_again: OpenStore, store: Store, collection: Collection, things: str
) -> None:
    """Points, metadata and aliases survive the last handle's close, but for a store in memory."""
    collection.upsert(make_batch([1, UUID_ID], [[1, 0, 0, 0], [0, 1, 0, 0]]))
    collection.flush()
    store.close()
    with closing(open_again()) as reopened:
        if store.dsn == ":memory:":
            assert reopened.aliases() == {}
            return
        assert reopened.aliases()[things] == f"{things}__0001"
        assert reopened.metadata(things) == make_metadata()
        assert reopened.collection(things).info().points == 2
        (points,) = reopened.collection(things).query([ask([0, 1, 0, 0], limit=1)])
        assert [point.id for point in points] == [UUID_ID]


def test_optimize_keeps_every_point(collection: Collection) -> None:
    """Before and after, the same answers."""
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((500, DIMENSION))
    collection.upsert(make_batch(range(500), vectors.tolist()))
    before = collection.query([ask(vectors[3].tolist(), exact=True)])
    collection.optimize()
    assert collection.info().points == 500
    after = collection.query([ask(vectors[3].tolist(), exact=True)])
    assert [p.id for p in after[0]] == [p.id for p in before[0]]


@pytest.mark.usefixtures("collection")
def test_names(store: Store, things: str) -> None:
    """A collection is found by alias and by its own name; another name is told what there is."""
    assert store.collection(f"{things}__0001").info().name == f"{things}__0001"
    with pytest.raises(CollectionNotFoundError, match=f"'nope'.*{things}"):
        store.collection("nope")
    with pytest.raises(CollectionNotFoundError, match="nope"):
        store.metadata("nope")
    with pytest.raises(CollectionNotFoundError, match="nope"):
        store.set_alias(things, "nope")
    with pytest.raises(CollectionNotFoundError, match="nope"):
        store.drop_collection("nope")
    with pytest.raises(SchemaError, match=f"{things}__0001"):
        store.create_collection(f"{things}__0001", make_spec(store))


def test_what_a_crash_left_of_a_creation_is_no_obstacle(store: Store, things: str) -> None:
    """A physical collection that no alias stands for can be created again."""
    store.create_collection(f"{things}__0001", make_spec(store))
    store.create_collection(f"{things}__0001", make_spec(store))
    collection = store.collection(f"{things}__0001")
    collection.upsert(make_batch([1], [[1, 0, 0, 0]]))
    assert collection.info().points == 1


def test_what_a_crash_left_of_another_plan(store: Store, things: str) -> None:
    """It is replaced, unless another process may be making it just now."""
    store.create_collection(f"{things}__0001", make_spec(store))
    other = make_spec(store, dimension=3)
    if store.capabilities.multi_process:
        with pytest.raises(SchemaError, match=f"drop {things}__0001"):
            store.create_collection(f"{things}__0001", other)
        return
    store.create_collection(f"{things}__0001", other)
    store.collection(f"{things}__0001").upsert(make_batch([1], [[1, 0, 0]]))


@pytest.mark.usefixtures("collection")
def test_a_collection_is_dropped_with_its_aliases(store: Store, things: str) -> None:
    """It is gone under every name, and can be made again, empty."""
    store.collection(things).upsert(make_batch([1], [[1, 0, 0, 0]]))
    store.drop_collection(f"{things}__0001")
    assert things not in store.aliases()
    for name in (things, f"{things}__0001"):
        with pytest.raises(CollectionNotFoundError, match=name):
            store.collection(name)
    store.create_collection(f"{things}__0001", make_spec(store))
    assert store.collection(f"{things}__0001").info().points == 0


def test_a_dropped_collection_is_of_no_use(
    store: Store, collection: Collection, things: str
) -> None:
    """Whoever held it is told so, and nothing is made of it again."""
    store.drop_collection(f"{things}__0001")
    for use in (collection.info, partial(collection.query, [ask([1, 0, 0, 0])])):
        with pytest.raises(StoreError, match=f"{things}__0001"):
            use()
    with pytest.raises(StoreError, match=f"{things}__0001"):
        collection.upsert(make_batch([1], [[1, 0, 0, 0]]))


def test_an_empty_batch_is_no_error(collection: Collection) -> None:
    """Nothing to write, to read or to remove."""
    collection.upsert(make_batch([], np.empty((0, DIMENSION)).tolist()))
    collection.delete([], up_to_seq=2**62)
    collection.replace_payloads([], [])
    assert {} == collection.retrieve([], ["pid"])
    assert [] == collection.query([])


@pytest.mark.usefixtures("collection")
def test_an_alias_can_be_moved(store: Store, things: str) -> None:
    """From one physical collection to another."""
    store.create_collection(f"{things}__0002", make_spec(store))
    store.set_alias(things, f"{things}__0002")
    assert store.aliases()[things] == f"{things}__0002"
    assert store.collection(things).info().name == f"{things}__0002"


@pytest.mark.usefixtures("collection")
def test_metadata_are_replaced_whole(store: Store, things: str) -> None:
    """By either name, and the last put is what is read."""
    store.put_metadata(things, make_metadata("another"))
    assert store.metadata(f"{things}__0001") == make_metadata("another")


def test_handles_share_an_engine(open_again: OpenStore, store: Store, things: str) -> None:
    """A second handle sees the first one's writes, and closing it leaves the first one open."""
    store.create_collection(f"{things}__0001", make_spec(store))
    second = open_again()
    if store.dsn != ":memory:":  # each of which is a store of its own
        second.collection(f"{things}__0001").upsert(make_batch([1], [[1, 0, 0, 0]]))
        assert store.collection(f"{things}__0001").info().points == 1
    second.close()
    second.close()
    assert store.collection(f"{things}__0001").info().segments >= 0
    with pytest.raises(StoreError, match="closed"):
        second.aliases()


def test_threads_may_share_a_collection(collection: Collection) -> None:
    """Four writers, four readers and an optimizer at once: every write is there, no call fails."""
    errors: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001  # asserted below
            errors.append(exc)

    def write(start: int) -> None:
        for number in range(start, start + 50):
            collection.upsert(make_batch([number], [[1, 0, 0, number]]))

    def read() -> None:
        for _ in range(50):
            collection.query([ask([1, 0, 0, 0])])

    works: list[Any] = [lambda s=start: write(s) for start in range(0, 200, 50)]
    works += [read] * 4 + [collection.optimize]
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert collection.info().points == 200
