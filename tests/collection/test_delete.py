"""Deletes reach every physical collection of a name, also new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from grpc import StatusCode  # type: ignore[import-untyped]

from msmarco_qdrant.collection import delete
from msmarco_qdrant.collection.delete import delete_pids, delete_points
from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.collection_types import PointBatch, SparseVector
from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.errors import PidCollisionError, StoreError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Connection, Store, open_store
from msmarco_qdrant.stores.payload import payload_of, point_id
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import ENGINES_MEMORY_FIRST, new_store
from tests.generations import physical
from tests.loopback import LoopbackServer, Refused

OLD, NEW = HashingEncoder(), HashingEncoder(32, salt="new")
LIVE, SHADOW, THIRD = "msmarco__0001", "msmarco__0002", "msmarco__0003"


@pytest.fixture(params=ENGINES_MEMORY_FIRST)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each engine in turn, with the passages 0 to 9 in the collection 'msmarco'."""
    with new_store(request.param, tmp_path) as opened:
        ingest_passages(numbered(range(10)), opened, encoder=OLD, optimize=False)
        yield opened


def numbered(numbers: Iterable[int]) -> list[Passage]:
    """A passage for each number."""
    return [Passage(str(number), f"text {number}") for number in numbers]


def held(store: Store, name: str = "msmarco") -> set[int]:
    """The numbers of a collection's passages."""
    return {int(payload["pid"]) for _, payload in store.collection(name).scan(["pid"])}


def copy(store: Store, target: str = SHADOW) -> None:
    """Copy what is live as a re-embedding would, with the same `seq`."""
    physical(store, NEW, target, copied_from=LIVE)
    fields = ("pid", "text", "meta", "text_digest", "meta_digest", "seq")
    points = [*store.collection(LIVE).scan(fields)]
    write(store, target, [payload for _, payload in points])


def write(store: Store, name: str, payloads: Sequence[dict[str, Any]]) -> None:
    """Write points with some vectors."""
    if not payloads:
        return
    spec = store.collection(name).info().spec
    store.collection(name).upsert(
        PointBatch(
            spec.dense,
            [point_id(payload["pid"]) for payload in payloads],
            np.full((len(payloads), spec.dimension), 0.125, np.float32),
            [SparseVector([1], [1.0])] * len(payloads),
            payloads,
        )
    )


class ActingStore:
    """A store on which other clients act while its physical collections are listed.

    Args:
        store: The store that it wraps.
        acts: The action during each listing, counted from 1; the listing has the state before it.
    """

    def __init__(self, store: Store, acts: dict[int, Callable[[], object]]) -> None:
        self._store = store
        self._acts = acts
        self._listings = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def physical_names(self) -> Sequence[str]:
        """List the physical collections, then act."""
        self._listings += 1
        found = cast(Any, self._store).physical_names()
        self._acts.get(self._listings, lambda: None)()
        return cast(Sequence[str], found)


def acting(store: Store, acts: dict[int, Callable[[], object]]) -> Store:
    """Wrap a store in `ActingStore`."""
    return cast(Store, ActingStore(store, acts))


# ---- all of them ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "found"), [("msmarco", 2), (LIVE, 2), (SHADOW, 3)])
def test_a_delete_reaches_all_physical_collections(store: Store, name: str, found: int) -> None:
    """It counts the passages of the named one: the live one, or a physical one."""
    copy(store)
    write(store, SHADOW, [payload_of(Passage("77", "only there"), 1)])

    pids = ["2", "3", "77", "99"]
    assert [found, 0] == [delete_passages(store, pids, collection=name) for _ in range(2)]

    assert {0, 1, 4, 5, 6, 7, 8, 9} == held(store, LIVE) == held(store, SHADOW)


def test_other_collections_are_left_alone(store: Store) -> None:
    """Also those whose names begin alike."""
    for name in ("films", "msmarco__x", "msmarco__0001x"):
        ingest_passages(numbered([2]), store, collection=name, encoder=OLD, optimize=False)

    delete_passages(store, ["2"])

    for name in ("films", "msmarco__x", "msmarco__0001x"):
        assert {2} == held(store, name)


def test_prune_reaches_the_shadow(store: Store) -> None:
    """A pruned passage is deleted from both."""
    copy(store)

    report = ingest_passages(
        numbered(range(9)), store, encoder=OLD, prune=PrunePolicy(), optimize=False
    )

    assert 1 == report.pruned
    assert set(range(9)) == held(store, LIVE) == held(store, SHADOW)


def test_the_source_of_any_copy_is_emptied_before_its_target() -> None:
    """All in turn, then all but the last once more."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ingest_passages(numbered(range(3)), store, encoder=OLD, optimize=False)
        for name in (SHADOW, THIRD):
            physical(store, NEW, name)
        server.requests.clear()

        delete_passages(store, ["1"])

        names = [one.collection_name for one in server.requests.of("Points.Delete")]
        assert [LIVE, SHADOW, THIRD, LIVE, SHADOW] == names


def test_a_point_of_another_pid_in_the_shadow_is_an_error(store: Store) -> None:
    """Nothing is deleted."""
    copy(store)
    payload = payload_of(Passage("3", "three"), 1)
    ids = [point_id("2")]
    store.collection(SHADOW).replace_payloads(ids, [payload])

    with pytest.raises(PidCollisionError, match="'2'"):
        delete_passages(store, ["2"])
    assert 2 in held(store, LIVE)


# ---- other clients during the delete -------------------------------------------------------


@pytest.mark.parametrize("listing", [1, 2])
def test_a_target_that_appears_is_reached(store: Store, listing: int) -> None:
    """It is copied after the listing, before anything is removed."""
    place = acting(store, {listing: lambda: copy(store)})

    assert 1 == delete_pids(place, "msmarco", ["2"])

    assert 2 not in held(store, LIVE) | held(store, SHADOW)
    assert {0, 1} <= held(store, SHADOW)


def test_several_targets_that_appear_are_reached(store: Store) -> None:
    """The collections are listed until the list stays the same."""
    place = acting(store, {2: lambda: copy(store), 3: lambda: copy(store, THIRD)})

    delete_pids(place, "msmarco", ["2"])

    assert 2 not in held(store, LIVE) | held(store, SHADOW) | held(store, THIRD)
    assert 3 in held(store, SHADOW)


@pytest.mark.parametrize("listing", [1, 2, 3])
def test_a_collection_pruned_during_the_delete(store: Store, listing: int) -> None:
    """A dropped collection contains nothing to delete."""
    copy(store)
    place = acting(store, {listing: lambda: store.drop_collection(SHADOW)})

    assert 1 == delete_pids(place, "msmarco", ["2"])

    assert 2 not in held(store)


@pytest.mark.parametrize("name", [LIVE, SHADOW])
def test_a_concurrent_write_stays(store: Store, name: str) -> None:
    """A passage that was written again after it was read, in either collection."""
    copy(store)

    def bring_back() -> None:
        if name == SHADOW:
            store.set_alias("msmarco", SHADOW)
        encoder = NEW if name == SHADOW else OLD
        ingest_passages([Passage("2", "brought back")], store, encoder=encoder, optimize=False)

    delete_pids(acting(store, {2: bring_back}), "msmarco", ["2", "3"])

    assert 2 in held(store, name)
    assert 3 not in held(store, LIVE) | held(store, SHADOW)


@pytest.mark.parametrize("code", [StatusCode.UNAVAILABLE, StatusCode.INVALID_ARGUMENT])
def test_an_error_of_an_existing_collection_is_raised(code: StatusCode) -> None:
    """Only errors of dropped collections are ignored."""
    with (
        LoopbackServer() as server,
        closing(open_store(server.url, connection=Connection(retry_s=0))) as store,
    ):
        ingest_passages(numbered(range(3)), store, encoder=OLD, optimize=False)
        server.faults.inject(Refused(code), "Points.Delete")

        with pytest.raises(StoreError, match="deleting points"):
            delete_passages(store, ["1"])
        assert 1 == delete_passages(store, ["1"])


# ---- any number, any number of times -------------------------------------------------------


def test_several_batches_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an iterator and durably; repeating it finds none."""
    monkeypatch.setattr(delete, "_BATCH", 20)
    with new_store("edge", tmp_path) as store:
        ingest_passages(numbered(range(60)), store, encoder=OLD, optimize=False)
        copy(store)
        pids = [str(number) for number in range(10, 60)]
        assert [50, 0] == [delete_passages(store, iter(pids)) for _ in range(2)]
    with new_store("edge", tmp_path) as store:
        assert set(range(10)) == held(store, LIVE) == held(store, SHADOW)


def test_newer_points_stay(store: Store) -> None:
    """In each physical collection; the result is the number of ids."""
    copy(store)
    write(store, SHADOW, [payload_of(Passage("2", "newer"), 2**62)])

    assert 2 == delete_points(store, "msmarco", [2, 3], up_to_seq=2**61)

    assert {2, 3}.isdisjoint(held(store, LIVE))
    assert {2} == {2, 3} & held(store, SHADOW)
