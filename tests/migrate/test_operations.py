"""What can be changed in a collection that is being searched, over every engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.collection.migration import CollectionPlan, Operation, Target
from msmarco_qdrant.collection.passages import delete_passages, get_passages
from msmarco_qdrant.core.records import (
    Bm25Settings,
    CollectionInfo,
    HnswSettings,
    Passage,
    PointBatch,
    PointId,
    SparseVector,
    StorageSettings,
)
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
from tests.engines import ENGINES, new_store

ENCODER = HashingEncoder()
MODES: Sequence[tuple[str, SearchMode]] = (("7", "dense"), ("39", "bm25"))


def films(count: int = 40) -> Sequence[Passage]:
    """Short passages of unequal lengths, with a year."""
    return [
        Passage(str(n), " ".join(["planet", f"word{n}", *["cinema"] * (n % 7)]), {"year": 1900 + n})
        for n in range(count)
    ]


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each engine with forty films."""
    with new_store(request.param, tmp_path) as opened:
        ingest_passages(films(), opened, collection="films", encoder=ENCODER)
        yield opened


def target_of(store: Store, on_progress: Callable[[int, int], None] | None = None) -> Target:
    """What an operation is given."""
    metadata = store.metadata("films")
    storage = store.collection("films").info().spec.storage
    plan = CollectionPlan("films__0001", metadata.encoder, metadata.bm25, storage)
    return Target(store, plan) if on_progress is None else Target(store, plan, on_progress)


def info(store: Store) -> CollectionInfo:
    """The collection's state."""
    return store.collection("films").info()


def applied(store: Store, operation: Operation) -> str:
    """Apply an operation twice, which is no other than once; its cost before."""
    cost = operation.cost(target_of(store))
    operation.apply(target_of(store))
    state = replace(info(store), segments=0)
    operation.apply(target_of(store))
    assert state == replace(info(store), segments=0)
    return cost


def unchanged(store: Store) -> None:
    """Every passage is there as it was, and found by its words."""
    expected = {passage.pid: passage for passage in films()}
    assert expected == get_passages(store, [*expected], collection="films")
    with SearchClient.open(store, collection="films", encoder=ENCODER) as client:
        assert ["7", "39"] == [
            client.search(f"planet word{pid}", mode=mode, limit=1)[0].pid for pid, mode in MODES
        ]


# ---- settings of the dense vectors ---------------------------------------------------------


def test_the_graph_is_changed(store: Store) -> None:
    """Its cost says from what to what, over how many vectors, and what searches do meanwhile."""
    cost = applied(store, SetHnsw(m=24))
    if not store.capabilities.ann:
        assert "nothing: Memory has no graph" == cost
    else:
        assert HnswSettings(24, 256) == info(store).spec.hnsw
        assert cost.startswith("m=16 ef_construct=256 -> m=24 ef_construct=256: the graph of 40 ")
        meanwhile = "searches continue" if store.capabilities.multi_process else "searches of this"
        assert meanwhile in cost
        assert "nothing changes" in SetHnsw(m=24).cost(target_of(store))
        assert HnswSettings(24, 256) == info(store).spec.hnsw
        assert "ef_construct=300" in applied(store, SetHnsw(ef_construct=300))
        assert HnswSettings(24, 300) == info(store).spec.hnsw
    unchanged(store)


STORAGE = (
    (SetStorage(True, "int8"), StorageSettings(True, "int8"), "nothing changes"),
    (SetStorage(quantization="none"), StorageSettings(True, "none"), "int8 -> on disk, "),
    (SetStorage(quantization="turbo4"), StorageSettings(True, "turbo4"), "turbo4: 40 vectors"),
    (SetStorage(on_disk=False), StorageSettings(False, "turbo4"), "-> in memory"),
)


def test_storage_is_changed(store: Store) -> None:
    """One change after the other; a store in memory refuses quantization."""
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
    unchanged(store)


def test_memory_in_megabytes() -> None:
    """Of a million vectors of 768: 3,072 MB of float32, 768 of int8, 384 of 4 bits."""
    target = _Pretended(points=1_000_000, dimension=768)
    message = SetStorage(on_disk=False, quantization="turbo4").cost(target)  # type: ignore[arg-type]
    assert "use about 3,456 MB of memory instead of 768 MB" in message


class _Pretended:
    """A target whose collection says what a test wants."""

    def __init__(self, points: int, dimension: int) -> None:
        from tests.contract.test_store import make_spec

        self.store = self.collection = self.capabilities = self
        self.ann = self.quantization = self.multi_process = True
        spec = replace(make_spec(self, dimension=dimension), storage=StorageSettings())  # type: ignore[arg-type]
        self._info = CollectionInfo("films__0001", points, 0, 1, "ready", 0, spec)

    def info(self) -> CollectionInfo:
        """What was wanted."""
        return self._info


def test_thresholds_are_changed(store: Store) -> None:
    """What lies above the new one is indexed, and a later change keeps it."""
    before = info(store).indexed
    cost = applied(store, SetOptimizers(indexing_threshold_kb=1, max_segment_size_kb=100_000))
    if store.capabilities.ann:
        assert before + 40 == info(store).indexed
        assert "segments of 40 vectors" in cost
        SetHnsw(m=20).apply(target_of(store))
        assert before + 40 == info(store).indexed
    else:
        assert "nothing: Memory has no optimizer" == cost
    unchanged(store)


def test_edge_rebuilds_its_segments(tmp_path: Path) -> None:
    """Those that the new settings concern: what lies on disk is of the new graph and copy."""
    with new_store("edge", tmp_path) as store:
        ingest_passages(films(), store, collection="films", encoder=ENCODER)
        SetOptimizers(indexing_threshold_kb=1).apply(target_of(store))
        SetHnsw(m=12, ef_construct=48).apply(target_of(store))
        SetStorage(on_disk=False, quantization="turbo4").apply(target_of(store))
        store.collection("films").flush()
    shard = tmp_path / "store" / "collections" / "films__0001"
    built = [
        json.loads(path.read_text())["config"]["vector_data"][ENCODER.info.vector_name]
        for path in shard.glob("segments/*/segment.json")
    ]
    (graph,) = [one for one in built if one["index"]["type"] == "hnsw" and _is_turbo(one)]
    assert (12, 48) == (graph["index"]["options"]["m"], graph["index"]["options"]["ef_construct"])
    assert graph["storage_type"].startswith("InRam")


def _is_turbo(segment: Mapping[str, Any]) -> bool:
    return "turbo" in (segment["quantization_config"] or {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (SetHnsw, "at least one value must be given"),
        (lambda: SetHnsw(m=1), "m must be at least 2, got 1"),
        (lambda: SetHnsw(ef_construct=3), "ef_construct must be at least 4, got 3"),
        (SetStorage, "at least one value must be given"),
        (lambda: SetStorage(quantization="int4"), "must be one of none, int8, turbo4, got 'int4'"),  # type: ignore[arg-type]
        (SetOptimizers, "at least one value must be given"),
        (
            lambda: SetOptimizers(indexing_threshold_kb=0),
            "indexing_threshold_kb must be at least 1, got 0",
        ),
        (lambda: SetHnsw(m=16.0), "m must be an integer, got 16.0"),  # type: ignore[arg-type]
        (lambda: SetHnsw(m=True), "m must be an integer, got True"),
        (lambda: SetHnsw(ef_construct="64"), "ef_construct must be an integer, got '64'"),  # type: ignore[arg-type]
        (lambda: SetStorage(on_disk="no"), "on_disk must be True or False, got 'no'"),  # type: ignore[arg-type]
        (lambda: SetStorage(on_disk=0), "on_disk must be True or False, got 0"),  # type: ignore[arg-type]
        (lambda: SetStorage(quantization=["int8"]), "quantization must be one of none, int8"),  # type: ignore[arg-type]
        (lambda: SetOptimizers(max_segment_size_kb=1e5), "_kb must be an integer, got 100000.0"),  # type: ignore[arg-type]
        (lambda: SetBm25(k="1"), "k must be a number, got '1'"),  # type: ignore[arg-type]
        (lambda: SetBm25(b=True), "b must be a number, got True"),
        (lambda: SetBm25(language=7), "language must be a string, got 7"),  # type: ignore[arg-type]
        (lambda: SetBm25(avg_len=float("nan")), "invalid BM25 settings"),
        (lambda: AddPayloadIndex(7, "integer"), "must be a string without"),  # type: ignore[arg-type]
        (SetBm25, "at least one value must be given"),
        (lambda: SetBm25(b=1.5), "invalid BM25 settings"),
        (lambda: SetBm25(language="klingon"), "invalid BM25 settings"),
        (lambda: AddPayloadIndex('a"b', "integer"), "must be a string without"),
        (lambda: AddPayloadIndex("year", "text"), "of 'year' must be one of keyword"),  # type: ignore[arg-type]
        (lambda: RemovePayloadIndex('a"b'), "must be a string without"),
    ],
)
def test_an_invalid_operation_is_refused(make: Callable[[], object], message: str) -> None:
    """Is refused when it is written, not when it runs."""
    with pytest.raises(UsageError, match=message):
        make()


# ---- payload indexes -----------------------------------------------------------------------


def test_a_payload_index_is_added_changed_and_removed(store: Store) -> None:
    """By the field's name as a filter has it; the package's own index stays."""
    cost = applied(store, AddPayloadIndex("year", "integer"))
    if not store.capabilities.payload_indexes:
        assert "nothing: Memory has no payload index" == cost
        assert "nothing: Memory has no payload index" == applied(store, RemovePayloadIndex("year"))
        return unchanged(store)
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
    return unchanged(store)


# ---- BM25 ----------------------------------------------------------------------------------


def expected_sparse(settings: Bm25Settings, passages: Sequence[Passage]) -> dict[PointId, Any]:
    """What the sparse vectors should be, to float32."""
    bm25 = Bm25Encoder(settings)
    return {point_id(one.pid): close(bm25.encode_passage(one.text)) for one in passages}


def close(vector: SparseVector) -> tuple[list[int], Any]:
    """A sparse vector that is compared to float32's exactness."""
    ordered = sort_tokens(vector.indices, vector.values)
    return ordered.indices, pytest.approx(ordered.values, rel=1e-6)


def sparse(store: Store, passages: Sequence[Passage]) -> dict[PointId, Any]:
    """What the sparse vectors are."""
    found = store.admin_collection("films").sparse_vectors([point_id(one.pid) for one in passages])
    return {id_: (vector.indices, vector.values) for id_, vector in found.items()}


def test_bm25_settings_rewrite_the_sparse_vectors(store: Store) -> None:
    """Those alone; the settings are kept, and what is ingested later follows them."""
    new = Bm25Settings(k=1.4, b=0.7, avg_len=5.0)
    cost = applied(store, SetBm25(k=1.4, b=0.7, avg_len=5))
    assert "k=0.9 b=0.4 avg_len=36.6 english -> k=1.4 b=0.7 avg_len=5.0 english: 40 texts" in cost
    assert new == store.metadata("films").bm25
    assert expected_sparse(new, films()) == sparse(store, films())
    ingest_passages(films(45), store, collection="films", encoder=ENCODER)
    assert expected_sparse(new, films(45)) == sparse(store, films(45))
    unchanged(store)


def test_the_graph_is_there_after_the_sparse_vectors(tmp_path: Path) -> None:
    """A rewrite moves the points to where no graph is: it is built anew, and that was said.

    By a run that finds every sparse vector right, too, as the one before it may have been killed.
    """
    with new_store("edge", tmp_path) as store:
        ingest_passages(films(), store, collection="films", encoder=ENCODER)
        SetOptimizers(indexing_threshold_kb=1).apply(target_of(store))
        assert 2 * 40 == info(store).indexed
        message = SetBm25(avg_len=5).cost(target_of(store))
        assert "then the graph of 40 vectors is rebuilt: searches of this process wait" in message
        SetBm25(avg_len=5).apply(target_of(store))
        assert 2 * 40 == info(store).indexed
        rewrite_sparse(target_of(store), Bm25Encoder(Bm25Settings(avg_len=7)))
        rewrite_sparse(target_of(store), Bm25Encoder(Bm25Settings(avg_len=5)))
        assert 2 * 40 < info(store).indexed  # the replaced ones are counted, too
        assert "an incomplete index" in SetBm25(avg_len=5).cost(target_of(store))
        SetBm25(avg_len=5).apply(target_of(store))
        assert 2 * 40 == info(store).indexed


def test_another_language_is_said_to_need_new_clients(store: Store) -> None:
    """As those that are open make tokens of the old one."""
    cost = applied(store, SetBm25(language="german"))
    assert "open clients again afterwards" in cost
    new = Bm25Settings(language="german")
    assert (new, expected_sparse(new, films())) == (
        store.metadata("films").bm25,
        sparse(store, films()),
    )


class Counting:
    """An admin collection that counts the sparse vectors it writes, and may fail."""

    def __init__(self, store: Store, fail_after: int = 10**9) -> None:
        self._inner = store.admin_collection("films")
        self._left = fail_after
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Write as many as are left, and fail if that is not all."""
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


def test_a_rewrite_that_was_cut_goes_on_where_it_stood(store: Store) -> None:
    """The settings are changed when every vector is; what is right already is not written."""
    crashing = Counting(store, fail_after=15)
    with pytest.raises(StoreError, match="crash"):
        SetBm25(avg_len=5).apply(through(store, crashing))
    assert Bm25Settings() == store.metadata("films").bm25
    going_on = Counting(store)
    SetBm25(avg_len=5).apply(through(store, going_on))
    assert (15, 25) == (crashing.written, going_on.written)
    assert Bm25Settings(avg_len=5) == store.metadata("films").bm25
    assert expected_sparse(Bm25Settings(avg_len=5), films()) == sparse(store, films())


class Meddled(Counting):
    """One under which another writer works, before the first write and after it."""

    def __init__(self, store: Store, before: Callable[[], object]) -> None:
        super().__init__(store)
        self._before: Callable[[], object] = before

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Let the other work, then write."""
        before, self._before = self._before, lambda: None
        before()
        super().replace_sparse(ids, vectors, up_to_seq=up_to_seq)


def test_concurrent_writes_and_deletes_are_kept(store: Store) -> None:
    """A passage that is gone stays gone; a newer text has its own weights, not the old one's."""
    changed = [Passage("3", "planet of another text", {"year": 2000}), Passage("99", "a new one")]

    def meddle() -> None:
        delete_passages(store, ["5", "6"], collection="films")
        ingest_passages(changed, store, collection="films", encoder=ENCODER, optimize=False)

    SetBm25(avg_len=5).apply(through(store, Meddled(store, meddle)))
    left = [one for one in films() if one.pid not in ("3", "5", "6")] + changed
    assert expected_sparse(Bm25Settings(avg_len=5), left) == sparse(store, [*films(), *changed])


def test_a_newer_text_of_a_lower_number_than_its_neighbors(store: Store) -> None:
    """Another writer's clock is behind ours: its text has its own weights, not the older one's."""
    newer = Passage("3", "planet of another text", {"year": 2000})

    def meddle() -> None:
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

    meddled = Meddled(store, meddle)
    new = Bm25Settings(avg_len=5)
    assert 41 == rewrite_sparse(through(store, meddled), Bm25Encoder(new))
    left = [newer if one.pid == "3" else one for one in films()]
    assert expected_sparse(new, left) == sparse(store, left)


class LostAfter:
    """A check of a lock that is taken away after some calls."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self) -> None:
        """Count down, and refuse at the end."""
        self.left -= 1
        if self.left < 0:
            raise StoreInUseError("taken away")


def test_who_lost_the_lock_changes_nothing(tmp_path: Path) -> None:
    """No operation writes after its lock was taken away."""
    with new_store("edge", tmp_path) as store:
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


def test_who_lost_the_lock_does_not_write_the_settings(store: Store) -> None:
    """Every page of the rewrite asks, and so does the change of the metadata."""
    before = store.metadata("films")
    for left in (0, 1):
        with pytest.raises(StoreInUseError, match="taken away"):
            SetBm25(avg_len=5).apply(replace(target_of(store), check=LostAfter(left)))
        assert before == store.metadata("films")
    enough = LostAfter(3)
    SetBm25(avg_len=5).apply(replace(target_of(store), check=enough))
    assert (0, Bm25Settings(avg_len=5)) == (enough.left, store.metadata("films").bm25)


def test_a_concurrent_write_of_the_ledger_is_kept(store: Store) -> None:
    """Of the metadata, the BM25 settings alone are changed."""
    metadata = store.metadata("films")
    later = replace(metadata, migrations=(*metadata.migrations, "0001_meanwhile"))
    meddled = Meddled(store, lambda: store.put_metadata("films", later))
    SetBm25(avg_len=5).apply(through(store, meddled))
    assert replace(later, bm25=Bm25Settings(avg_len=5)) == store.metadata("films")


def test_progress_is_reported(store: Store) -> None:
    """The passages that are through, of how many."""
    reports: list[tuple[int, int]] = []
    target = target_of(store, lambda done, total: reports.append((done, total)))
    assert 40 == rewrite_sparse(target, Bm25Encoder(Bm25Settings(avg_len=5)))
    assert 0 == rewrite_sparse(target, Bm25Encoder(Bm25Settings(avg_len=5)))
    assert [(40, 40)] * 2 == reports


def test_an_empty_collection_costs_nothing(tmp_path: Path) -> None:
    """No index is built over nothing, and no text read."""
    with new_store("edge", tmp_path) as store:
        ingest_passages([], store, collection="films", encoder=ENCODER)
        for operation in (SetHnsw(m=24), SetBm25(avg_len=5), AddPayloadIndex("year", "integer")):
            assert " 0 " in operation.cost(target_of(store))
            operation.apply(target_of(store))
        assert 24 == info(store).spec.hnsw.m
