"""What every store promises of a collection whose settings are changed while it holds points."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from msmarco_qdrant.errors import StoreError, UnsupportedError
from msmarco_qdrant.records import (
    CollectionSpec,
    HnswSettings,
    Nearest,
    PointBatch,
    PointQuery,
    Quantisation,
    SettingsChange,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.stores import Store, alterable

from .test_store import UUID_ID, make_metadata, make_spec

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
    alterable(store, name).alter(change)
    alterable(store, name).alter(change)  # once more is no other
    store.collection(name).optimize()
    return store.collection(name).info().spec


ALTERATIONS: Sequence[tuple[SettingsChange, HnswSettings, StorageSettings]] = (
    (SettingsChange(m=12), HnswSettings(12, 32), StorageSettings()),
    (SettingsChange(ef_construct=64), HnswSettings(8, 64), StorageSettings()),
    (SettingsChange(m=24, ef_construct=96), HnswSettings(24, 96), StorageSettings()),
    (SettingsChange(on_disk=False), HnswSettings(8, 32), StorageSettings(on_disk=False)),
    (
        SettingsChange(quantisation="none"),
        HnswSettings(8, 32),
        StorageSettings(quantisation="none"),
    ),
    (
        SettingsChange(quantisation="turbo4", on_disk=False),
        HnswSettings(8, 32),
        StorageSettings(on_disk=False, quantisation="turbo4"),
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
        with pytest.raises(UnsupportedError, match=r"no settings of an index|cannot quantise"):
            alterable(store, filled).alter(change)
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
    for change in (SettingsChange(m=12), SettingsChange(quantisation="none")):
        alterable(store, filled).alter(change)
    kept = store.collection(filled).info().spec
    assert (HnswSettings(12, 32), "none") == (kept.hnsw, kept.storage.quantisation)
    back = SettingsChange(m=8, quantisation="int8")
    assert spec == spec_after(store, filled, back)


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
def test_a_quantised_copy_is_searched_with_rescoring(
    store: Store, filled: str, kind: Quantisation
) -> None:
    """Each point is its own nearest, whatever is searched in, with its cosine as the score."""
    if not store.capabilities.quantisation:
        return
    spec_after(store, filled, SettingsChange(indexing_threshold_kb=10, quantisation=kind))
    rows = vectors()
    queries = [PointQuery(Nearest(row, "dense-0a1b2c3d"), 1) for row in rows[:20]]
    answers = store.collection(filled).query(queries)
    assert list(range(20)) == [points[0].id for points in answers]
    assert [1.0] * 20 == pytest.approx([points[0].score for points in answers], abs=1e-5)


def test_an_index_is_made_changed_and_removed(store: Store, filled: str) -> None:
    """Beside those that are there; removing what is not there is no error."""
    target = alterable(store, filled)
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
    target.create_payload_index("meta.year", "float")
    assert {"seq": "integer", "meta.year": "float"} == indexes()
    target.drop_payload_index("meta.year")
    target.drop_payload_index("meta.year")
    assert {"seq": "integer"} == indexes()


def test_sparse_vectors_are_replaced_alone(store: Store, filled: str) -> None:
    """Dense vectors and payloads stay; tokens come back in ascending order."""
    before, target = found(store, filled), alterable(store, filled)
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
    target, new = alterable(store, filled), SparseVector([9], [2.0])
    target.replace_sparse([7, 8], [new, new], up_to_seq=8)  # the `seq` of the point 7
    assert new == target.sparse_vectors([7])[7]
    assert SparseVector([1, 5], [0.5, 1.5]) == target.sparse_vectors([8])[8]


def test_the_sparse_vector_of_a_point_that_is_gone(store: Store, filled: str) -> None:
    """The caller is told; nothing is made of it, and no vectors is no error."""
    target, new = alterable(store, filled), SparseVector([9], [2.0])
    with pytest.raises(StoreError):
        target.replace_sparse([7, UUID_ID], [new, new], up_to_seq=COUNT)
    assert {} == target.sparse_vectors([UUID_ID])
    assert COUNT == store.collection(filled).info().points
    target.replace_sparse([], [], up_to_seq=COUNT)
    assert {} == target.sparse_vectors([])


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
