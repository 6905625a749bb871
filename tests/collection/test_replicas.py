"""Replicas that differ are found and made equal; what only another replica holds is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from msmarco_qdrant.collection import replicas
from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.collection.replicas import find_replica_differences, settle_replicas
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Connection, Store, open_store
from msmarco_qdrant.stores.server.collection import ServerCollection
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import new_store
from tests.loopback import Fault, LoopbackCluster, LoopbackServer

NAME = "msmarco__0001"
AT_ONCE = Connection(retry_s=0)
WRITES = ("Points.Upsert", "Points.UpdateVectors", "Points.UpdateBatch")


def some(*numbers: int, text: str = "passage") -> Sequence[Passage]:
    """Short passages; every third pid is no number."""
    return [Passage(f"{n}" if n % 3 else f"p{n}", f"{text} {n}") for n in numbers]


@pytest.fixture
def cluster() -> Iterator[LoopbackCluster]:
    """Two replicas on three nodes, which must both take a write, with thirty passages."""
    with LoopbackCluster(3, replication=2, shards=1, write_consistency_factor=2) as made:
        ingest(made, some(*range(30)))
        yield made


def ingest(cluster: LoopbackCluster, passages: Sequence[Passage], **options: object) -> None:
    """Ingest through the first node, without retries."""
    encoder, at = HashingEncoder(8), AT_ONCE
    ingest_passages(passages, cluster.url, encoder=encoder, connection=at, **options)  # type: ignore[arg-type]


def fail_without(
    cluster: LoopbackCluster, node: int, action: Callable[[], object], *, deletes: int = 1
) -> None:
    """Do something; a node falls before its first write, which stays on the other alone.

    A delete is a first write only after as many others: an ingest begins with one of nothing.
    """
    before = sum(one.requests.count("Points.Delete") for one in cluster.nodes)

    def fall(rpc: str, number: int) -> Fault | None:  # noqa: ARG001
        seen = sum(one.requests.count("Points.Delete") for one in cluster.nodes) - before
        if rpc in WRITES or (rpc == "Points.Delete" and seen >= deletes):
            cluster.take_away(node)
        return None

    for one in cluster.nodes:
        one.faults.use(fall)
    with pytest.raises(MsmarcoQdrantError):
        action()
    for one in cluster.nodes:
        one.faults.clear()
    cluster.bring_back()


def opened(cluster: LoopbackCluster, node: int = 0) -> closing[Store]:
    """A store that answers from a node."""
    return closing(open_store(cluster.nodes[node].url, connection=AT_ONCE))


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
def test_v1_replicas_that_differ_are_made_equal(cluster: LoopbackCluster, node: int) -> None:
    """Writes, changes and deletions of which one replica missed half, seen from either node."""
    fail_without(cluster, 1, lambda: ingest(cluster, some(40, 41, 42)))
    fail_without(cluster, 1, lambda: ingest(cluster, some(4, 5, 6, text="changed")))
    with opened(cluster) as store:
        fail_without(cluster, 1, lambda: delete_passages(store, ["7", "8", "p9"]), deletes=0)
    assert not cluster.is_equal(NAME)
    with opened(cluster, node) as store:
        found = find_replica_differences(store, NAME)
        assert (2, 30, 30) == (found.counts.factor, found.counts.fewest, found.counts.most)
        assert 6 == len(found.differing)
        left = settle_replicas(store, NAME, in_flight_s=0)
        assert (0 if node == 0 else 3) == len(left.differing)  # the other has newer writes
    with opened(cluster) as store:
        assert settle_replicas(store, NAME, in_flight_s=0).is_equal
    assert cluster.is_equal(NAME)
    assert 30 == len(cluster.stored(NAME)[0])
    assert "changed 4" == cluster.stored(NAME)[1][4].payload["text"]  # type: ignore[index]


@pytest.mark.parametrize("lost", [7, 30])
def test_v1_a_replica_that_lost_points_costs_no_others(
    cluster: LoopbackCluster, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    """More than a fifth is missing from the replica that answers: one line, and nothing is done."""
    pids = [passage.pid for passage in some(*range(lost))]
    with opened(cluster, 1) as store:
        fail_without(cluster, 0, lambda: delete_passages(store, pids), deletes=0)
        assert lost == settle_replicas(store, NAME, in_flight_s=0).hidden
    assert [30, 30 - lost] == [len(replica) for replica in cluster.stored(NAME)]
    assert [f"holds {30 - lost} of 30 passages" in line for line in caplog.messages] == [True]


def test_v1_nothing_is_settled_while_a_replica_is_not_active(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica that is being copied may lack anything."""
    with opened(cluster, 1) as store:
        fail_without(cluster, 0, lambda: delete_passages(store, ["7"]), deletes=0)
        state = store.server_state(NAME)
        assert state is not None
        monkeypatch.setattr(store, "server_state", lambda _: replace(state, transfers=1))
        assert 1 == settle_replicas(store, NAME, in_flight_s=0).hidden
    assert ["1 replicas are being copied"] == [one.split(": ")[1] for one in caplog.messages]


def test_v1_a_prune_that_failed_halfway_is_finished(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it removed from the replica that answers is removed from the other, too."""
    monkeypatch.setattr(replicas, "IN_FLIGHT_S", 0.0)
    kept = some(*range(3, 30))
    fail_without(cluster, 1, lambda: ingest(cluster, kept, prune=PrunePolicy()))
    assert [27, 30] == [len(replica) for replica in cluster.stored(NAME)]
    ingest(cluster, kept, prune=PrunePolicy())
    assert cluster.is_equal(NAME)
    assert 27 == len(cluster.stored(NAME)[0])


def test_v1_writes_in_flight_are_not_removed(cluster: LoopbackCluster) -> None:
    """Points that were written a moment ago stay, though one replica does not show them."""
    with opened(cluster, 1) as store:
        fail_without(cluster, 0, lambda: delete_passages(store, ["7"]), deletes=0)
        assert 1 == settle_replicas(store, NAME).hidden
    assert [30, 29] == [len(replica) for replica in cluster.stored(NAME)]


def test_v1_without_replicas_an_ingest_asks_once() -> None:
    """New passages are looked up once, and no write looks for replicas."""
    with LoopbackServer() as server:
        for numbers in (range(3), range(3, 6)):
            server.requests.clear()
            ingest_passages(some(*numbers), server.url, encoder=HashingEncoder(8))
        assert [0, 1] == [server.requests.count(rpc) for rpc in ("Points.Delete", "Points.Get")]


def test_v1_a_scan_of_all_replicas_is_in_the_order_of_ids(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order the server returns the payloads of a page."""
    retrieve = ServerCollection.retrieve

    def reverse(*args: Any, **options: Any) -> Mapping[PointId, dict[str, Any]]:
        return dict(reversed([*retrieve(*args, **options).items()]))

    monkeypatch.setattr(ServerCollection, "retrieve", reverse)
    with opened(cluster) as store:
        collection = store.collection(NAME)
        assert [*collection.scan(("pid",))] == [*collection.scan(("pid",), all_replicas=True)]


@pytest.mark.parametrize("engine", ["memory", "loopback"])
def test_a_single_replica_equals_itself(engine: str, tmp_path: object) -> None:
    """Nothing is compared."""
    with new_store(engine, tmp_path) as store:  # type: ignore[arg-type]
        ingest_passages(some(1, 2), store, encoder=HashingEncoder(8))
        assert find_replica_differences(store, NAME).is_equal
        assert settle_replicas(store, NAME).is_equal
