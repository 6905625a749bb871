"""What every store promises of a collection whose settings are changed while it holds points."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from msmarco_qdrant.core.collection_types import (
    CollectionSpec,
    HnswSettings,
    PayloadIndex,
    PointBatch,
    PointId,
    Quantization,
    SettingsChange,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.core.search_types import Nearest, PointQuery
from msmarco_qdrant.errors import StoreError, UnsupportedError
from msmarco_qdrant.stores import Store
from tests.contract.conftest import OpenStore
from tests.contract.test_store import UUID_ID, make_metadata, make_spec

pytestmark = pytest.mark.slow_over("edge")  # each of these opens a new directory

COUNT, DIMENSION = 300, 64  # 75 kilobytes of vectors


def vectors() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The vectors of the points, the same every time."""
    return np.random.default_rng(6).standard_normal((COUNT, DIMENSION)).astype(np.float32)


@pytest.fixture
def filled(store: Store, things: str) -> str:
    """The physical name of a collection of 300 points with increasing `seq`."""
    name = f"{things}__0001"
    store.create_collection(name, make_spec(store, dimension=DIMENSION))
    store.put_metadata(name, make_metadata())
    store.set_alias(things, name)
    collection = store.collection(name)
    collection.upsert(
        PointBatch(
            using="dense-0a1b2c3d",
            ids=range(COUNT),
            dense=vectors(),
            sparse=[SparseVector([1, 5], [0.5, 1.5])] * COUNT,
            payloads=[{"pid": str(n), "meta": {"year": n}, "seq": n + 1} for n in range(COUNT)],
        )
    )
    collection.flush()
    collection.optimize()
    return name


def found(store: Store, name: str) -> list[object]:
    """The exact best of some of the points' own vectors."""
    queries = [
        PointQuery(Nearest(row, "dense-0a1b2c3d"), 3, fields=("pid", "meta", "seq"))
        for row in vectors()[:5]
    ]
    return [[(p.id, p.payload) for p in points] for points in store.collection(name).query(queries)]


def spec_after(store: Store, name: str, change: SettingsChange) -> CollectionSpec:
    """Change a collection, build its index, and read what it is made of."""
    store.admin_collection(name).alter(change)
    store.admin_collection(name).alter(change)  # once more is no other
    store.collection(name).optimize()
    return store.collection(name).info().spec


ALTERATIONS: Sequence[tuple[SettingsChange, HnswSettings, StorageSettings]] = (
    (SettingsChange(m=12), HnswSettings(12, 32), StorageSettings()),
    (SettingsChange(ef_construct=64), HnswSettings(8, 64), StorageSettings()),
    (SettingsChange(m=24, ef_construct=96), HnswSettings(24, 96), StorageSettings()),
    (SettingsChange(on_disk=False), HnswSettings(8, 32), StorageSettings(on_disk=False)),
    (
        SettingsChange(quantization="none"),
        HnswSettings(8, 32),
        StorageSettings(quantization="none"),
    ),
    (
        SettingsChange(quantization="turbo4", on_disk=False),
        HnswSettings(8, 32),
        StorageSettings(on_disk=False, quantization="turbo4"),
    ),
    (SettingsChange(max_segment_size_kb=200_000), HnswSettings(8, 32), StorageSettings()),
)


@pytest.mark.parametrize(("change", "hnsw", "storage"), ALTERATIONS)
def test_a_setting_changes_in_place(
    store: Store, filled: str, change: SettingsChange, hnsw: HnswSettings, storage: StorageSettings
) -> None:
    """The engine tells the new one, the others stay, and so do points, indexes and metadata."""
    before, spec = found(store, filled), store.collection(filled).info().spec
    if not store.capabilities.ann:
        with pytest.raises(UnsupportedError, match=r"no settings of an index|cannot quantize"):
            store.admin_collection(filled).alter(change)
        return
    assert replace(spec, hnsw=hnsw, storage=storage) == spec_after(store, filled, change)
    assert before == found(store, filled)
    assert COUNT == store.collection(filled).info().points
    assert make_metadata() == store.metadata(filled)


def test_a_change_outlasts_its_handle(store: Store, filled: str) -> None:
    """Settings that were changed one after the other are all kept, and can be taken back."""
    if not store.capabilities.ann:
        return
    spec = store.collection(filled).info().spec
    for change in (SettingsChange(m=12), SettingsChange(quantization="none")):
        store.admin_collection(filled).alter(change)
    kept = store.collection(filled).info().spec
    assert (HnswSettings(12, 32), "none") == (kept.hnsw, kept.storage.quantization)
    back = SettingsChange(m=8, quantization="int8")
    assert spec == spec_after(store, filled, back)


def test_thresholds_can_be_given_to_a_copy(store: Store, filled: str, things: str) -> None:
    """They are told as they were set, one after the other; nothing else is told with them."""
    target = store.admin_collection(filled)
    default = target.optimizers()
    if not store.capabilities.ann:
        assert SettingsChange() == default
        return
    assert replace(default, indexing_threshold_kb=None) == SettingsChange()
    target.alter(SettingsChange(max_segment_size_kb=200_000, m=12))
    assert replace(default, max_segment_size_kb=200_000) == target.optimizers()
    target.alter(SettingsChange(indexing_threshold_kb=10))
    changed = SettingsChange(indexing_threshold_kb=10, max_segment_size_kb=200_000)
    assert changed == target.optimizers()
    store.create_collection(f"{things}__0002", make_spec(store))
    store.admin_collection(f"{things}__0002").alter(changed)
    assert changed == store.admin_collection(f"{things}__0002").optimizers()


def test_a_threshold_decides_what_is_indexed(store: Store, filled: str) -> None:
    """Below it vectors are compared one by one; the next build sees the new one."""
    if not store.capabilities.ann:
        return
    before = store.collection(filled).info().indexed
    spec_after(store, filled, SettingsChange(indexing_threshold_kb=10))
    assert before + COUNT == store.collection(filled).info().indexed
    spec_after(store, filled, SettingsChange(m=12))  # and another change leaves it
    assert before + COUNT == store.collection(filled).info().indexed


@pytest.mark.parametrize("kind", ["int8", "turbo4", "none"])
def test_a_quantized_copy_is_searched_with_rescoring(
    store: Store, filled: str, kind: Quantization
) -> None:
    """Each point is its own nearest, whatever is searched in, with its cosine as the score."""
    if not store.capabilities.quantization:
        return
    spec_after(store, filled, SettingsChange(indexing_threshold_kb=10, quantization=kind))
    rows = vectors()
    queries = [PointQuery(Nearest(row, "dense-0a1b2c3d"), 1) for row in rows[:20]]
    answers = store.collection(filled).query(queries)
    assert list(range(20)) == [points[0].id for points in answers]
    assert [1.0] * 20 == pytest.approx([points[0].score for points in answers], abs=1e-5)


def test_an_index_is_made_changed_and_removed(store: Store, filled: str) -> None:
    """Beside those that are there; removing what is not there is no error."""
    target = store.admin_collection(filled)
    if not store.capabilities.payload_indexes:
        with pytest.raises(UnsupportedError, match="no payload indexes"):
            target.create_payload_index("meta.year", "integer")
        with pytest.raises(UnsupportedError, match="no payload indexes"):
            target.drop_payload_index("meta.year")
        return

    def indexes() -> dict[str, str]:
        return dict(store.collection(filled).info().spec.payload_indexes)

    target.create_payload_index("meta.year", "integer")
    target.create_payload_index("meta.year", "integer")
    assert {"seq": "integer", "meta.year": "integer"} == indexes()
    for kind in get_args(PayloadIndex):
        target.create_payload_index("meta.year", kind)
        assert {"seq": "integer", "meta.year": kind} == indexes()
    target.drop_payload_index("meta.year")
    target.drop_payload_index("meta.year")
    assert {"seq": "integer"} == indexes()


def test_sparse_vectors_are_replaced_alone(store: Store, filled: str) -> None:
    """Dense vectors and payloads stay; tokens come back in ascending order."""
    before, target = found(store, filled), store.admin_collection(filled)
    assert SparseVector([1, 5], [0.5, 1.5]) == target.sparse_vectors([7])[7]
    target.replace_sparse(
        [7, 8],
        [SparseVector([9, 2**32 - 1], [2.0, 0.25]), SparseVector([], [])],
        up_to_seq=COUNT,
    )
    store.collection(filled).flush()
    assert SparseVector([9, 2**32 - 1], [2.0, 0.25]) == target.sparse_vectors([7, 8, 999])[7]
    assert SparseVector([], []) == target.sparse_vectors([8]).get(8, SparseVector([], []))
    assert SparseVector([1, 5], [0.5, 1.5]) == target.sparse_vectors([9])[9]
    assert before == found(store, filled)
    query = PointQuery(Nearest(SparseVector([9], [1.0]), "bm25"), 3)
    assert [[7]] == [[p.id for p in points] for points in store.collection(filled).query([query])]


def test_the_sparse_vector_of_a_newer_point_stays(store: Store, filled: str) -> None:
    """What was written after the caller looked is not overwritten."""
    target, new = store.admin_collection(filled), SparseVector([9], [2.0])
    target.replace_sparse([7, 8], [new, new], up_to_seq=8)  # the `seq` of the point 7
    assert new == target.sparse_vectors([7])[7]
    assert SparseVector([1, 5], [0.5, 1.5]) == target.sparse_vectors([8])[8]


def test_the_sparse_vector_of_a_point_that_is_gone(store: Store, filled: str) -> None:
    """The caller is told; nothing is made of it, and no vectors is no error."""
    target, new = store.admin_collection(filled), SparseVector([9], [2.0])
    with pytest.raises(StoreError):
        target.replace_sparse([7, UUID_ID], [new, new], up_to_seq=COUNT)
    assert {} == target.sparse_vectors([UUID_ID])
    assert COUNT == store.collection(filled).info().points
    target.replace_sparse([], [], up_to_seq=COUNT)
    assert {} == target.sparse_vectors([])


def newer(ids: Sequence[int], seqs: Sequence[int], text: str) -> PointBatch:
    """Points with other vectors than they had, dense and sparse, and a text."""
    rows = np.random.default_rng(len(text)).standard_normal((max(ids, default=0) + 1, DIMENSION))
    return PointBatch(
        using="dense-0a1b2c3d",
        ids=ids,
        dense=rows[list(ids)].astype(np.float32),
        sparse=[SparseVector([7, 1000 + id_], [1.0, 2.0]) for id_ in ids],
        payloads=[
            {"pid": str(id_), "text": text, "meta": {}, "seq": seq}
            for id_, seq in zip(ids, seqs, strict=True)
        ],
    )


def texts(store: Store, name: str) -> dict[object, tuple[object, object]]:
    """The text and the `seq` of every point."""
    return {
        id_: (payload.get("text"), payload["seq"])
        for id_, payload in store.collection(name).scan(["text", "seq"])
    }


def best(store: Store, name: str, batch: PointBatch) -> list[tuple[object, object]]:
    """What is nearest to each point of a batch, by its dense and by its sparse vector."""
    dense = [PointQuery(Nearest(row, batch.using), 1) for row in batch.dense]
    sparse = [
        PointQuery(Nearest(SparseVector(v.indices[1:], [1.0]), "bm25"), 1) for v in batch.sparse
    ]
    collection = store.collection(name)
    answers = zip(collection.query(dense), collection.query(sparse), strict=True)
    return [(one[0].id if one else None, two[0].id if two else None) for one, two in answers]


@pytest.mark.slow_over("loopback")
def test_points_are_written_over_what_was_seen(store: Store, filled: str) -> None:
    """Not over what is newer, what came meanwhile or what is gone; once more changes nothing."""
    collection, target = store.collection(filled), store.admin_collection(filled)
    seen: dict[int, int | None] = {n: n + 1 for n in range(300)} | dict.fromkeys(range(300, 600))
    for n in range(200, 250):
        seen[n] = None  # it looked so to somebody who read before they were written
    collection.upsert(newer(range(150, 200), range(1150, 1200), "another's"))
    collection.upsert(newer(range(550, 600), range(1550, 1600), "another's"))
    collection.delete(range(250, 300), up_to_seq=COUNT)
    expected: dict[object, tuple[object, object]] = {
        n: ("ours", 5000 + n) for n in (*range(150), *range(300, 550))
    }
    expected |= {n: ("another's", 1000 + n) for n in (*range(150, 200), *range(550, 600))}
    expected |= {n: (None, n + 1) for n in range(200, 250)}
    ids = sorted(seen, key=lambda n: n % 7)  # so that what was there and what was not are mixed
    ours = newer(ids, [5000 + n for n in ids], "ours")
    for _ in range(2):
        target.upsert_if_seq(ours, [seen[n] for n in ids])
        collection.flush()
        assert expected == texts(store, filled)
    written = newer(sorted((*range(150), *range(300, 550))), [0] * 400, "ours")
    assert [(id_, id_) for id_ in written.ids] == best(store, filled, written)
    assert SparseVector([7, 1003], [1.0, 2.0]) == target.sparse_vectors([3])[3]
    assert SparseVector([1, 5], [0.5, 1.5]) == target.sparse_vectors([220])[220]


def test_a_seq_is_compared_in_full(store: Store, filled: str) -> None:
    """The clock counts nanoseconds: neighbors are the same number as float64."""
    collection, target, seq = store.collection(filled), store.admin_collection(filled), 2**62
    collection.upsert(newer([1, 2, 3], [seq - 1, seq, seq + 1], "another's"))
    target.upsert_if_seq(newer([1, 2, 3], [9, 9, 9], "ours"), [seq] * 3)
    found = collection.retrieve([1, 2, 3], ["text"])
    assert ["another's", "ours", "another's"] == [found[n]["text"] for n in (1, 2, 3)]


def test_any_id_is_written_over(store: Store, filled: str) -> None:
    """UUIDs and the largest integer, first as new points, then as known ones."""
    collection, target = store.collection(filled), store.admin_collection(filled)
    ids: list[PointId] = [UUID_ID, 2**64 - 1]
    for seen, seq in ((None, 7), (7, 8), (7, 9), (None, 10)):
        batch = replace(newer([0, 1], [seq, seq], "ours"), ids=ids)
        target.upsert_if_seq(batch, [seen, seen])
    assert {id_: {"seq": 8} for id_ in ids} == collection.retrieve(ids, ["seq"])


def test_what_has_no_seq_is_not_written_over(store: Store, filled: str) -> None:
    """Something else wrote it: to whoever saw nothing there, it came meanwhile."""
    collection, target = store.collection(filled), store.admin_collection(filled)
    collection.upsert(replace(newer([1], [1], "another's"), payloads=[{"text": "another's"}]))
    target.upsert_if_seq(newer([1], [9], "ours"), [None])
    target.upsert_if_seq(newer([1], [9], "ours"), [2])
    assert {1: {"text": "another's"}} == collection.retrieve([1], ["text"])


def test_nothing_may_be_written_over(store: Store, filled: str) -> None:
    """An empty batch is no error, one whose columns differ in length is."""
    before, target = texts(store, filled), store.admin_collection(filled)
    target.upsert_if_seq(newer([], [], "ours"), [])
    for seen in ([2], [2, 3, 4]):
        with pytest.raises(ValueError, match="argument"):
            target.upsert_if_seq(newer([1, 2], [9, 9], "ours"), seen)
    assert before == texts(store, filled)


def test_what_was_written_over_and_flushed_is_durable(
    store: Store, filled: str, open_again: OpenStore
) -> None:
    """Another handle finds it when the first one is closed."""
    if store.dsn == ":memory:":
        return
    store.admin_collection(filled).upsert_if_seq(newer([1, 999], [9, 9], "ours"), [2, None])
    store.collection(filled).flush()
    store.close()
    with closing(open_again()) as again:
        found = texts(again, filled)
    assert [("ours", 9)] * 2 + [(None, 3)] == [found[n] for n in (1, 999, 2)]


@pytest.mark.slow
def test_searches_go_on_while_settings_change(store: Store, filled: str) -> None:
    """Threads that search meanwhile meet no error."""
    if not store.capabilities.ann:
        return
    errors: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                assert 5 == len(found(store, filled))
        except BaseException as exc:  # noqa: BLE001  # asserted below
            errors.append(exc)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for m in (10, 14):
        spec_after(store, filled, SettingsChange(m=m))
    done.set()
    for thread in threads:
        thread.join()
    assert [] == errors


def test_v5_payloads_are_repaired_only_where_nobody_wrote_since(store: Store, filled: str) -> None:
    """Points with another `seq`, and points that got one, keep their payloads and stay."""
    collection, target = store.collection(filled), store.admin_collection(filled)
    collection.replace_payloads([1, 2, 3, 4], [{"a": 1}, {"seq": "x"}, {"seq": 9}, {}])
    payloads = [{"text": f"repaired {n}", "seq": 7} for n in range(6)]
    for _ in range(2):
        target.set_payloads_if_seq(range(6), payloads, [1, None, None, None, 5, 5])
    repaired = collection.retrieve(range(6), ["a", "seq"])
    assert {0: 7, 1: 7, 2: 7, 3: 9, 5: 6} == {
        id_: payload["seq"] for id_, payload in repaired.items() if payload
    }
    assert 1 == repaired[1]["a"]
    assert {0, 1} == set(target.dense_vectors([0, 1, 999], "dense-0a1b2c3d"))
    assert DIMENSION == len(target.dense_vectors([0], "dense-0a1b2c3d")[0])
    target.delete_if_seq([0, 1, 3, 4, 5], [8, 7, None, None, 6])
    target.delete_if_seq([], [])
    assert [0, 2, 3] == sorted(collection.retrieve(range(6), ["seq"]))
