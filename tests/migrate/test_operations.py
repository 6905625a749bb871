"""Operations that change a collection in use, on every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msmarco_qdrant.collection.migration import CollectionPlan, Operation, Target
from msmarco_qdrant.collection.passages import delete_passages, get_passages
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    CollectionInfo,
    CollectionSpec,
    HnswSettings,
    PointBatch,
    PointId,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding import Bm25Encoder
from msmarco_qdrant.errors import StoreError, StoreInUseError, UnsupportedError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.bm25 import rewrite_sparse
from msmarco_qdrant.migrate.operations import (
    AddPayloadIndex,
    RemovePayloadIndex,
    SetBm25,
    SetHnsw,
    SetOptimizers,
    SetStorage,
)
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.payload import payload_of, point_id, sort_tokens
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import ENGINES_MEMORY_FIRST, new_store
from tests.reembed.concurrent.call_hooks import hooked

ENCODER = HashingEncoder()
MODES: Sequence[tuple[str, SearchMode]] = (("7", "dense"), ("39", "bm25"))


def films(count: int = 40) -> Sequence[Passage]:
    """Short passages of unequal lengths, with a year."""
    return [
        Passage(str(n), " ".join(["planet", f"word{n}", *["cinema"] * (n % 7)]), {"year": 1900 + n})
        for n in range(count)
    ]


@pytest.fixture(params=ENGINES_MEMORY_FIRST)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each engine with forty films."""
    with new_store(request.param, tmp_path) as opened:
        ingest_passages(films(), opened, collection="films", encoder=ENCODER)
        yield opened


def target_of(store: Store, on_progress: Callable[[int, int], None] | None = None) -> Target:
    """The target of an operation."""
    metadata = store.metadata("films")
    storage = store.collection("films").info().spec.storage
    plan = CollectionPlan("films__0001", metadata.encoder, metadata.bm25, storage)
    return Target(store, plan) if on_progress is None else Target(store, plan, on_progress)


def info(store: Store) -> CollectionInfo:
    """The collection's state."""
    return store.collection("films").info()


def applied(store: Store, operation: Operation) -> str:
    """Apply an operation; a repetition must change nothing. Returns its cost before."""
    cost = operation.cost(target_of(store))
    operation.apply(target_of(store))
    state = replace(info(store), segments=0)
    operation.apply(target_of(store))
    assert state == replace(info(store), segments=0)
    return cost


def check_passages(store: Store) -> None:
    """Check that every passage is unchanged, and is found by its words."""
    expected = {passage.pid: passage for passage in films()}
    assert expected == get_passages(store, [*expected], collection="films")
    with SearchClient.open(store, collection="films", encoder=ENCODER) as client:
        assert ["7", "39"] == [
            client.search(f"planet word{pid}", mode=mode, limit=1)[0].pid for pid, mode in MODES
        ]


# ---- settings of the dense vectors ---------------------------------------------------------


def test_the_graph_is_changed(store: Store) -> None:
    """Its cost names both settings, the number of vectors, and the effect on searches."""
    cost = applied(store, SetHnsw(m=24))
    if not store.capabilities.ann:
        assert "nothing: Memory has no graph" == cost
    else:
        assert HnswSettings(24, 256) == info(store).spec.hnsw
        assert cost.startswith("m=16 ef_construct=256 -> m=24 ef_construct=256: the graph of 40 ")
        is_server = store.capabilities.multi_process
        assert ("searches continue" if is_server else "searches of this") in cost
        assert "nothing changes" in SetHnsw(m=24).cost(target_of(store))
        assert "ef_construct=300" in applied(store, SetHnsw(ef_construct=300))
        assert HnswSettings(24, 300) == info(store).spec.hnsw
    check_passages(store)


STORAGE = (
    (SetStorage(True, "int8"), StorageSettings(True, "int8"), "nothing changes"),
    (SetStorage(quantization="none"), StorageSettings(True, "none"), "int8 -> on disk, "),
    (SetStorage(quantization="turbo4"), StorageSettings(True, "turbo4"), "turbo4: 40 vectors"),
    (SetStorage(on_disk=False), StorageSettings(False, "turbo4"), "-> in memory"),
)


def test_storage_is_changed(store: Store) -> None:
    """Several changes in a row; a store in memory refuses quantization."""
    for operation, expected, text in STORAGE:
        if store.capabilities.quantization:
            assert text in applied(store, operation)
            assert expected == info(store).spec.storage
        elif operation.quantization in ("int8", "turbo4"):
            assert "it will be refused: Memory" in operation.cost(target_of(store))
            with pytest.raises(UnsupportedError, match="cannot quantize"):
                operation.apply(target_of(store))
        else:
            assert applied(store, operation).startswith("nothing: Memory has no")
    check_passages(store)


def test_memory_in_megabytes() -> None:
    """A million vectors of 768: 3,072 MB as float32, 768 MB as int8, 384 MB with 4 bits."""
    spec = CollectionSpec("dense", 768, "cosine", "bm25", HnswSettings(), {}, StorageSettings())
    state = CollectionInfo("films__0001", 1_000_000, 0, 1, "ready", 0, spec)
    target: Any = SimpleNamespace(
        store=SimpleNamespace(
            capabilities=SimpleNamespace(quantization=True, ann=True, multi_process=True)
        ),
        collection=SimpleNamespace(info=lambda: state),
    )
    cost = SetStorage(on_disk=False, quantization="turbo4").cost(target)
    assert "use about 3,456 MB of memory instead of 768 MB" in cost


def test_thresholds_are_changed(store: Store) -> None:
    """Larger segments are indexed; a later change of another setting keeps the threshold."""
    before = info(store).indexed
    cost = applied(store, SetOptimizers(indexing_threshold_kb=1, max_segment_size_kb=100_000))
    if store.capabilities.ann:
        assert before < (indexed := info(store).indexed)
        assert "segments of 40 vectors" in cost
        SetHnsw(m=20).apply(target_of(store))
        assert indexed == info(store).indexed
    else:
        assert "nothing: Memory has no optimizer" == cost
    check_passages(store)


NOTHING_GIVEN = "at least one value must be given"
INVALID: list[tuple[Any, dict[str, Any], str]] = [
    (SetHnsw, {}, NOTHING_GIVEN),
    (SetStorage, {}, NOTHING_GIVEN),
    (SetOptimizers, {}, NOTHING_GIVEN),
    (SetBm25, {}, NOTHING_GIVEN),
    (SetHnsw, {"m": 1}, "m must be at least 2, got 1"),
    (SetHnsw, {"m": True}, "m must be an integer, got True"),
    (SetHnsw, {"m": 16.0}, "m must be an integer, got 16.0"),
    (SetHnsw, {"ef_construct": 3}, "ef_construct must be at least 4, got 3"),
    (SetStorage, {"on_disk": 0}, "on_disk must be True or False, got 0"),
    (SetStorage, {"quantization": "int4"}, "must be one of none, int8, turbo4, got 'int4'"),
    (SetStorage, {"quantization": ["int8"]}, "quantization must be one of none, int8"),
    (SetOptimizers, {"indexing_threshold_kb": 0}, "_threshold_kb must be at least 1, got 0"),
    (SetOptimizers, {"max_segment_size_kb": 1e5}, "_kb must be an integer, got 100000.0"),
    (SetBm25, {"k": "1"}, "k must be a number, got '1'"),
    (SetBm25, {"b": True}, "b must be a number, got True"),
    (SetBm25, {"b": 1.5}, "invalid BM25 settings"),
    (SetBm25, {"avg_len": float("nan")}, "invalid BM25 settings"),
    (SetBm25, {"language": 7}, "language must be a string, got 7"),
    (SetBm25, {"language": "klingon"}, "invalid BM25 settings"),
    (AddPayloadIndex, {"field": 7, "kind": "integer"}, "must be a string without"),
    (AddPayloadIndex, {"field": 'a"b', "kind": "integer"}, "quotation marks around a whole"),
    (AddPayloadIndex, {"field": "year", "kind": "words"}, "of 'year' must be one of keyword"),
    (RemovePayloadIndex, {"field": 'a"b'}, "quotation marks around a whole"),
]


@pytest.mark.parametrize(("operation", "values", "message"), INVALID)
def test_an_invalid_operation_is_refused(
    operation: Any, values: dict[str, Any], message: str
) -> None:
    """When it is constructed, not when it runs."""
    with pytest.raises(UsageError, match=message):
        operation(**values)


# ---- payload indexes -----------------------------------------------------------------------


@pytest.mark.parametrize("store", ["edge", "memory", "loopback"], indirect=True)
def test_a_payload_index_is_added_changed_and_removed(store: Store) -> None:
    """By the field's name as in a filter; the package's own index stays."""
    cost = applied(store, AddPayloadIndex("year", "integer"))
    if not store.capabilities.payload_indexes:
        assert "nothing: Memory has no payload index" == cost
        assert "nothing: Memory has no payload index" == applied(store, RemovePayloadIndex("year"))
        return check_passages(store)
    assert cost.startswith("no index -> integer: 40 payloads are read")
    assert {"seq": "integer", "meta.year": "integer"} == info(store).spec.payload_indexes
    again = AddPayloadIndex("year", "integer").cost(target_of(store))
    assert "nothing changes: it has that index" == again
    assert applied(store, AddPayloadIndex("year", "float")).startswith("integer -> float: ")
    assert {"seq": "integer", "meta.year": "float"} == info(store).spec.payload_indexes
    applied(store, AddPayloadIndex("first name", "keyword"))
    assert "up to 40 payloads" in applied(store, RemovePayloadIndex("year"))
    assert "nothing changes: it has no index" == RemovePayloadIndex("year").cost(target_of(store))
    assert 2 == len(info(store).spec.payload_indexes)
    assert "seq" in info(store).spec.payload_indexes
    return check_passages(store)


# ---- BM25 ----------------------------------------------------------------------------------


def expected_sparse(settings: Bm25Settings, passages: Sequence[Passage]) -> dict[PointId, Any]:
    """The correct sparse vectors, to the precision of float32."""
    bm25 = Bm25Encoder(settings)
    return {point_id(one.pid): close(bm25.encode_passage(one.text)) for one in passages}


def close(vector: SparseVector) -> tuple[list[int], Any]:
    """A sparse vector that is compared with the precision of float32."""
    ordered = sort_tokens(vector.indices, vector.values)
    return ordered.indices, pytest.approx(ordered.values, rel=1e-6)


def sparse(store: Store, passages: Sequence[Passage]) -> dict[PointId, Any]:
    """The stored sparse vectors."""
    found = store.admin_collection("films").sparse_vectors([point_id(one.pid) for one in passages])
    return {id_: (vector.indices, vector.values) for id_, vector in found.items()}


def test_bm25_settings_rewrite_the_sparse_vectors(store: Store) -> None:
    """The settings are stored, and later ingests use them; nothing else changes."""
    new = Bm25Settings(k=1.4, b=0.7, avg_len=5.0)
    cost = applied(store, SetBm25(k=1.4, b=0.7, avg_len=5))
    assert "k=0.9 b=0.4 avg_len=36.6 english -> k=1.4 b=0.7 avg_len=5.0 english: 40 texts" in cost
    assert new == store.metadata("films").bm25
    assert expected_sparse(new, films()) == sparse(store, films())
    ingest_passages(films(45), store, collection="films", encoder=ENCODER)
    assert expected_sparse(new, films(45)) == sparse(store, films(45))
    check_passages(store)


def test_the_graph_is_rebuilt_after_the_sparse_vectors(store: Store) -> None:
    """An engine moves rewritten points to segments without a graph.

    It is also rebuilt if every vector is correct, because an earlier run may have been killed.
    """
    cost = SetBm25(avg_len=5).cost(target_of(store))
    rebuilt = "then the graph of 40 vectors is rebuilt: "
    assert store.capabilities.ann == (rebuilt in cost)
    for _ in range(2):
        calls: list[str] = []
        target = replace(target_of(store), store=hooked(store, calls.append))
        SetBm25(avg_len=5).apply(target)
        assert "optimize" == calls[-1]
    assert "an incomplete index" in SetBm25(avg_len=5).cost(target_of(store))


def test_another_language_needs_new_clients(store: Store) -> None:
    """The cost recommends it: open clients make tokens of the old language."""
    cost = applied(store, SetBm25(language="german"))
    assert "open clients again afterwards" in cost
    new = Bm25Settings(language="german")
    assert (new, expected_sparse(new, films())) == (
        store.metadata("films").bm25,
        sparse(store, films()),
    )


class Counting:
    """An admin collection that counts the sparse vectors that it writes, and may fail."""

    def __init__(self, store: Store, fail_after: int = 10**9) -> None:
        self._inner = store.admin_collection("films")
        self._left = fail_after
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Write vectors up to the limit, then fail."""
        count = min(self._left, len(ids))
        self._inner.replace_sparse(ids[:count], vectors[:count], up_to_seq=up_to_seq)
        self.written, self._left = self.written + count, self._left - count
        if count < len(ids):
            raise StoreError("crash")


def through(store: Store, admin: Counting) -> Target:
    """A target whose store returns another admin collection."""

    class Through:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def admin_collection(self, _name: str) -> Counting:
            return admin

    place: Any = Through()
    return replace(target_of(store), store=place)


def test_an_interrupted_rewrite_resumes(store: Store) -> None:
    """Correct vectors are not written again; the settings change after the last vector."""
    crashing = Counting(store, fail_after=15)
    with pytest.raises(StoreError, match="crash"):
        SetBm25(avg_len=5).apply(through(store, crashing))
    assert Bm25Settings() == store.metadata("films").bm25
    going_on = Counting(store)
    SetBm25(avg_len=5).apply(through(store, going_on))
    assert (15, 25) == (crashing.written, going_on.written)
    assert Bm25Settings(avg_len=5) == store.metadata("films").bm25
    assert expected_sparse(Bm25Settings(avg_len=5), films()) == sparse(store, films())


class ActingAdmin(Counting):
    """An admin collection that lets another client act before its first write."""

    def __init__(self, store: Store, before: Callable[[], object]) -> None:
        super().__init__(store)
        self._before: Callable[[], object] = before

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Let the other client act, then write."""
        before, self._before = self._before, lambda: None
        before()
        super().replace_sparse(ids, vectors, up_to_seq=up_to_seq)


def test_concurrent_writes_and_deletes_are_kept(store: Store) -> None:
    """A deleted passage stays deleted; a newer text gets its own weights."""
    changed = [Passage("3", "planet of another text", {"year": 2000}), Passage("99", "a new one")]

    def act() -> None:
        delete_passages(store, ["5", "6"], collection="films")
        ingest_passages(changed, store, collection="films", encoder=ENCODER, optimize=False)

    SetBm25(avg_len=5).apply(through(store, ActingAdmin(store, act)))
    left = [one for one in films() if one.pid not in ("3", "5", "6")] + changed
    assert expected_sparse(Bm25Settings(avg_len=5), left) == sparse(store, [*films(), *changed])


def test_a_newer_text_with_a_lower_seq_than_its_neighbors(store: Store) -> None:
    """The clock of another client is behind; its text gets its own weights."""
    newer = Passage("3", "planet of another text", {"year": 2000})

    def act() -> None:
        collection = store.collection("films")
        (payload,) = collection.retrieve([3], ["seq"]).values()
        encoder_info = store.metadata("films").encoder
        seq = int(payload["seq"]) + 1
        assert seq < collection.info().last_seq
        sparse = [Bm25Encoder(Bm25Settings()).encode_passage(newer.text)]
        dense = ENCODER.encode_queries([newer.text])
        collection.upsert(
            PointBatch(encoder_info.vector_name, [3], dense, sparse, [payload_of(newer, seq)])
        )

    new = Bm25Settings(avg_len=5)
    target = through(store, ActingAdmin(store, act))
    assert 41 == rewrite_sparse(target, Bm25Encoder(new))
    left = [newer if one.pid == "3" else one for one in films()]
    assert expected_sparse(new, left) == sparse(store, left)


class LostAfter:
    """A check of a lock that is lost after some calls."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self) -> None:
        """Count down, and raise at the end."""
        self.left -= 1
        if self.left < 0:
            raise StoreInUseError("taken away")


def test_no_operation_writes_without_the_lock(tmp_path: Path) -> None:
    """Each checks the lock before its write."""
    with new_store("loopback", tmp_path) as store:
        ingest_passages(
            films(), store, collection="films", encoder=ENCODER, payload_indexes={"lang": "keyword"}
        )
        before = (info(store), store.metadata("films"), sparse(store, films()))
        for operation in (
            SetHnsw(m=24),
            SetStorage(quantization="turbo4"),
            SetOptimizers(indexing_threshold_kb=1),
            AddPayloadIndex("year", "integer"),
            RemovePayloadIndex("lang"),
            SetBm25(avg_len=5),
        ):
            with pytest.raises(StoreInUseError, match="taken away"):
                operation.apply(replace(target_of(store), check=LostAfter(0)))
            assert before == (info(store), store.metadata("films"), sparse(store, films()))


def test_settings_are_not_written_without_the_lock(store: Store) -> None:
    """It is checked before each page of the rewrite, and before the metadata are written."""
    before = store.metadata("films")
    for left in (0, 1):
        with pytest.raises(StoreInUseError, match="taken away"):
            SetBm25(avg_len=5).apply(replace(target_of(store), check=LostAfter(left)))
        assert before == store.metadata("films")
    enough = LostAfter(3)
    SetBm25(avg_len=5).apply(replace(target_of(store), check=enough))
    assert (0, Bm25Settings(avg_len=5)) == (enough.left, store.metadata("films").bm25)


def test_a_concurrent_write_of_the_ledger_is_kept(store: Store) -> None:
    """Only the BM25 settings of the metadata are changed."""
    metadata = store.metadata("films")
    later = replace(metadata, migrations=(*metadata.migrations, "0001_concurrent"))
    admin = ActingAdmin(store, lambda: store.put_metadata("films", later))
    SetBm25(avg_len=5).apply(through(store, admin))
    assert replace(later, bm25=Bm25Settings(avg_len=5)) == store.metadata("films")


def test_progress_is_reported(store: Store) -> None:
    """The passages done, and their total."""
    reports: list[tuple[int, int]] = []
    target = target_of(store, lambda done, total: reports.append((done, total)))
    assert 40 == rewrite_sparse(target, Bm25Encoder(Bm25Settings(avg_len=5)))
    assert 0 == rewrite_sparse(target, Bm25Encoder(Bm25Settings(avg_len=5)))
    assert [(40, 40)] * 2 == reports


def test_an_empty_collection_costs_nothing(tmp_path: Path) -> None:
    """No index is built, and no text is read."""
    with new_store("loopback", tmp_path) as store:
        ingest_passages([], store, collection="films", encoder=ENCODER)
        for operation in (SetHnsw(m=24), SetBm25(avg_len=5), AddPayloadIndex("year", "integer")):
            assert " 0 " in operation.cost(target_of(store))
            operation.apply(target_of(store))
        assert 24 == info(store).spec.hnsw.m
