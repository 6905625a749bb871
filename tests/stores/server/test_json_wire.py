"""V11: points as JSON bodies: the same points as gRPC's messages, within the server's limit."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from qdrant_client import models

from msmarco_qdrant.core.collection_types import PointBatch, SparseVector
from msmarco_qdrant.stores import Connection, open_store
from msmarco_qdrant.stores.server import json_wire
from msmarco_qdrant.stores.server.json_wire import (
    MAX_BODY_BYTES,
    bound_bytes,
    shortest_doubles,
    split_queries,
    upsert_bodies,
)
from tests.contract.test_store import make_spec
from tests.loopback import LoopbackServer

_FLOATS = arrays(np.float32, 20, elements=st.floats(width=32, allow_nan=False))


@settings(deadline=None)
@given(_FLOATS)
def test_v11_a_float32_reads_back_as_itself(values: NDArray[np.float32]) -> None:
    """Zero, denormals, the largest and infinity, too."""
    assert np.array_equal(values, shortest_doubles(values).astype(np.float32))


def test_v11_usual_numbers_have_few_digits() -> None:
    """Nine or ten, where Python prints 17."""
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    shortest = shortest_doubles(values).tolist()
    digits = [len(repr(value).lstrip("-0.").replace(".", "")) for value in shortest]
    assert 10 >= max(digits)


def _batch(count: int, text: str = "text \x01 \u00e9 \U0001f600") -> PointBatch:
    rng = np.random.default_rng(2)
    return PointBatch(
        using="dense-0a1b2c3d",
        ids=list(range(count)),
        dense=rng.normal(size=(count, 4)).astype(np.float32),
        sparse=[SparseVector([1, 2**32 - 1], [0.1, float(row)]) for row in range(count)],
        payloads=[{"pid": str(row), "text": text, "seq": row} for row in range(count)],
    )


def _points(bodies: list[bytes]) -> list[dict[str, Any]]:
    return [point for body in bodies for point in json.loads(body)["points"]]


def test_v11_bodies_hold_every_point_in_order() -> None:
    """Ids, vectors of both kinds and payloads."""
    batch = _batch(10)
    bodies = list(upsert_bodies(batch, max_points=4, max_bytes=2**20))
    found = _points(bodies)
    assert ([4, 4, 2], batch.payloads) == (
        [len(json.loads(body)["points"]) for body in bodies],
        [point["payload"] for point in found],
    )
    dense = np.array([point["vector"]["dense-0a1b2c3d"] for point in found], dtype=np.float32)
    assert np.array_equal(batch.dense, dense)
    assert [1, 2**32 - 1] == found[3]["vector"]["bm25"]["indices"]
    assert np.float32(0.1) == np.float32(found[3]["vector"]["bm25"]["values"][0])


@pytest.mark.parametrize("seen", [None, [None] * 50, list(range(50))])
def test_v11_bodies_keep_to_the_server_s_limit(
    seen: list[int | None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the connection allows more, whatever the text becomes in JSON."""
    monkeypatch.setattr(json_wire, "MAX_BODY_BYTES", 20_000)
    batch = _batch(50, text="\x01" * 500)
    bodies = list(upsert_bodies(batch, max_points=256, max_bytes=2**30, seen=seen))
    assert max(map(len, bodies)) <= 20_000
    assert 50 == len(_points(bodies))


def test_v11_a_point_that_is_too_large_alone_is_a_body() -> None:
    """The server refuses it in its own words."""
    (body,) = upsert_bodies(_batch(1, text="x" * 5000), max_points=9, max_bytes=100)
    assert len(body) > 5000


def test_v11_the_client_s_bodies_stay_under_the_limit() -> None:
    """A text in JSON is at most six times as long."""
    assert 6 == len(json.dumps("\x01")) - 2
    assert MAX_BODY_BYTES // 6 == bound_bytes(2**40)
    assert 1000 == bound_bytes(1000)


def test_v11_queries_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their bytes; none is lost."""
    monkeypatch.setattr(json_wire, "MAX_BODY_BYTES", 60_000)
    requests = [models.QueryRequest(query=[0.123456789] * 100) for _ in range(40)]
    parts = list(split_queries(requests))
    assert len(parts) > 1
    assert requests == [request for part in parts for request in part]
    assert [] == list(split_queries([]))


def test_v11_rest_stores_what_grpc_stores() -> None:
    """Bit for bit, as the server returns it."""
    with LoopbackServer() as server:
        for name, url, transport in (
            ("by__0001", server.url, "auto"),
            ("by__0002", server.rest_url, "rest"),
        ):
            connection = Connection(transport=transport)  # type: ignore[arg-type]
            with closing(open_store(url, connection=connection)) as store:
                store.create_collection(name, make_spec(store))
                store.collection(name).upsert(_batch(30))
        with server.inspect() as engine:
            one, other = (
                engine.scroll(name, limit=99, with_vectors=True)[0]
                for name in ("by__0001", "by__0002")
            )
    assert 30 == len(one)
    assert one == other
