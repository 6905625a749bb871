"""What changing a collection on a server adds of its own: old servers, requests of bounded size."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from msmarco_qdrant.core.collection_types import SettingsChange, SparseVector, StorageSettings
from msmarco_qdrant.errors import UnsupportedError
from msmarco_qdrant.stores import Connection, open_store
from tests.contract.test_store import make_spec
from tests.loopback import LoopbackServer, LostAnswer
from tests.stores.server.test_store import NAME, make_things, points


@pytest.mark.parametrize("version", ["1.16.3", "1.17.1"])
def test_an_old_server_has_no_turboquant(version: str) -> None:
    """It would overlook what it does not know: refused, at creation too, and nothing is sent."""
    with LoopbackServer(version=version) as server, closing(open_store(server.url)) as store:
        make_things(store)
        server.requests.clear()
        told = f"'turbo4' needs Qdrant 1.18 or later, got {version[:4]}"
        with pytest.raises(UnsupportedError, match=told):
            store.admin_collection("things").alter(SettingsChange(quantization="turbo4"))
        spec = replace(make_spec(store), storage=StorageSettings(quantization="turbo4"))
        with pytest.raises(UnsupportedError, match=told):
            store.create_collection("things__0002", spec)
        assert 0 == server.requests.count("Collections.Update")
        assert 0 == server.requests.count("Collections.Create")
        store.admin_collection("things").alter(SettingsChange(quantization="none"))
        assert "none" == store.collection("things").info().spec.storage.quantization


def test_sparse_vectors_are_written_in_bounded_requests() -> None:
    """By points and by bytes, as passages are."""
    with LoopbackServer() as server:
        by_points = Connection(batch_points=8)
        with closing(open_store(server.url, connection=by_points)) as store:
            make_things(store).upsert(points(20))
            sparse = [SparseVector([1], [1.0])] * 20
            store.admin_collection(NAME).replace_sparse(range(20), sparse, up_to_seq=9)
            sizes = [len(request.points) for request in server.requests.of("UpdateVectors")]
            assert [8, 8, 4] == sizes
        server.requests.clear()
        by_bytes = Connection(batch_bytes=20_000)
        with closing(open_store(server.url, connection=by_bytes)) as store:
            long = SparseVector(list(range(1000)), [1.0] * 1000)  # 9,512 bytes at most
            store.admin_collection(NAME).replace_sparse(range(5), [long] * 5, up_to_seq=9)
            sizes = [len(request.points) for request in server.requests.of("UpdateVectors")]
            assert [2, 2, 1] == sizes
            assert long == store.admin_collection(NAME).sparse_vectors([4])[4]


def test_points_are_written_over_in_bounded_requests() -> None:
    """What was there and what was not go in requests of their own, each made durable."""
    with LoopbackServer() as server:
        connection = Connection(batch_points=8, in_flight=1)
        with closing(open_store(server.url, connection=connection)) as store:
            make_things(store).upsert(points(10))
            server.requests.clear()
            seen = [1 if number < 10 else None for number in range(30)]
            store.admin_collection(NAME).upsert_if_seq(points(30), seen)
            assert 30 == store.collection(NAME).info().points
        requests = server.requests.of("Upsert")
        assert [8, 8, 4, 8, 2] == [len(request.points) for request in requests]
        assert [0, 0, 0, 2, 2] == [request.update_mode for request in requests]
        assert [True] * 5 == [request.wait for request in requests]


def test_a_write_whose_answer_was_lost_is_repeated() -> None:
    """It finds its own points there, which nobody saw, and leaves them."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        collection = make_things(store)
        server.faults.inject(LostAnswer(), "Upsert", times=2)
        store.admin_collection(NAME).upsert_if_seq(points(3), [None] * 3)
        assert 3 == server.requests.count("Upsert")
        assert 3 == collection.info().points
