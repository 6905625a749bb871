"""The loopback cluster: who has a write, what a read says, and in which words it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc as grpcio  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient, grpc, models

from tests.loopback import LoopbackCluster
from tests.loopback.conftest import NAME, client_of, make_collection, point

ALL = models.ReadConsistencyType.ALL


@contextmanager
def clients(cluster: LoopbackCluster) -> Iterator[list[QdrantClient]]:
    """A client of each node, and a collection."""
    made = [client_of(node) for node in cluster.nodes]
    make_collection(made[0])
    yield made
    for client in made:
        client.close()


def ids(client: QdrantClient, consistency: models.ReadConsistencyType | None = None) -> set[object]:
    """The ids of the first twenty points that a node answers with."""
    found = client.retrieve(NAME, list(range(1, 21)), consistency=consistency)
    return {record.id for record in found}


def count(client: QdrantClient, kind: str) -> int:
    """The points that a node counts by a consistency."""
    wanted = grpc.ReadConsistency(type=grpc.ReadConsistencyType.Value(kind))
    request = grpc.CountPoints(collection_name=NAME, read_consistency=wanted)
    return int(client.grpc_points.Count(request).result.count)


def test_a_write_that_too_few_took_fails_and_stays_on_those_that_did() -> None:
    """Factor 2: the other replica stays active and lacks it, so its node answers without it."""
    with LoopbackCluster(2, write_consistency_factor=2) as cluster, clients(cluster) as (one, two):
        one.upsert(NAME, [point(1)])
        cluster.take_away(1)
        with pytest.raises(grpcio.RpcError, match="tcp connect error") as caught:
            one.upsert(NAME, [point(2)])
        assert grpcio.StatusCode.INTERNAL is caught.value.code()
        with pytest.raises(grpcio.RpcError, match="1 of 2 read operations failed:\n  Service"):
            ids(one, ALL)
        cluster.bring_back()
        assert ({1, 2}, {1}) == (ids(one), ids(two))
        assert ({1}, {1}) == (ids(one, ALL), ids(two, ALL))
        assert (1, 2) == (count(one, "All"), count(two, "Majority"))
        assert 0 == cluster.dead(NAME)


def test_a_replica_that_missed_a_write_is_dead_until_it_was_copied() -> None:
    """Factor 1: it is not read meanwhile, not even by its own node."""
    with LoopbackCluster(2) as cluster, clients(cluster) as (one, two):
        one.upsert(NAME, [point(1), point(2)])
        cluster.lose_answers(1)
        one.delete(NAME, [1])
        one.upsert(NAME, [point(3)])
        assert 1 == cluster.dead(NAME)
        assert [{2, 3}, {2}] == [set(replica) for replica in cluster.stored(NAME)]
        assert ({2, 3}, {2, 3}) == (ids(two), ids(two, ALL))
        cluster.bring_back()
        assert [{2, 3}, {2, 3}] == [set(replica) for replica in cluster.stored(NAME)]
        assert 0 == cluster.dead(NAME)


def test_shards_fail_one_by_one() -> None:
    """Two of three have a replica on the node that is away; the third takes its part."""
    three = LoopbackCluster(3, replication=2, write_consistency_factor=2)
    with three as cluster, clients(cluster) as (one, *_):
        cluster.take_away(2)
        with pytest.raises(grpcio.RpcError, match="2 out of 3 shards failed to apply"):
            one.upsert(NAME, [point(number) for number in range(1, 10)])
        assert set(range(1, 10)) == ids(one)
        cluster.bring_back()
        whole = [first == second for first, second in cluster.all_stored(NAME)]
        assert [True, False, False] == whole


def test_a_shard_without_another_replica_is_away_with_its_node() -> None:
    """Neither read nor written; the others are."""
    with LoopbackCluster(2, replication=1, shards=2) as cluster, clients(cluster) as (one, _):
        one.upsert(NAME, [point(2), point(3)])
        cluster.take_away(1)
        assert 1 == len(one.retrieve(NAME, [2]))
        with pytest.raises(grpcio.RpcError, match="1 of 1 read operations failed"):
            one.retrieve(NAME, [3])


@pytest.mark.parametrize(("nodes", "works"), [(2, False), (3, True)])
def test_changes_of_collections_need_most_nodes(nodes: int, works: bool) -> None:
    """One of two is not most of them; and a node that is away answers nothing."""
    with LoopbackCluster(nodes) as cluster, clients(cluster) as made:
        cluster.take_away(1)
        with pytest.raises(grpcio.RpcError, match="Connection refused"):
            made[1].get_collections()
        if works:
            make_collection(made[0], "others__0001")
        else:
            with pytest.raises(grpcio.RpcError, match="consensus operation commit failed"):
                make_collection(made[0], "others__0001")
        cluster.bring_back()
        names = {entry.name for entry in made[1].get_collections().collections}
        assert ({NAME, "others__0001"} if works else {NAME}) == names


def test_a_page_of_points_that_differ_may_look_like_the_last() -> None:
    """So nothing may be concluded from a scroll with a consistency that ends."""
    with LoopbackCluster(2, write_consistency_factor=2) as cluster, clients(cluster) as (one, _):
        one.upsert(NAME, [point(number) for number in range(1, 10)])
        cluster.take_away(1)
        with pytest.raises(grpcio.RpcError):
            one.upsert(NAME, [point(2, changed=True)])
        cluster.bring_back()
        found, following = one.scroll(NAME, limit=4, consistency=ALL)
        assert ([1, 3, 4, 5], None) == ([record.id for record in found], following)
        assert 5 == one.scroll(NAME, limit=4)[1]
