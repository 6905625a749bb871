"""What `info`, the sidecar and its metrics tell of the servers behind a collection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Literal

import grpc as grpcio  # type: ignore[import-untyped]
import pytest
from qdrant_client import models

from msmarco_qdrant import describe_store, ingest_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.server_state import ServerState, ShardReplica
from msmarco_qdrant.errors import StoreError, StoreUnavailableError
from msmarco_qdrant.migrate.status import migration_status
from msmarco_qdrant.service.interfaces import Backlog, Check
from msmarco_qdrant.service.metrics import Metrics
from msmarco_qdrant.service.readiness import PassageCount, ReplicaWatch, _check_replicas, _place_of
from msmarco_qdrant.service.worker.apply import BatchWriter
from msmarco_qdrant.stores import Connection, Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.loopback import LoopbackCluster, LoopbackServer, Refused
from tests.loopback.conftest import client_of
from tests.loopback.rest_routes import ROUTES, RestAnswer

_DENIED = grpcio.StatusCode.PERMISSION_DENIED
REST = ["--transport", "rest"]
STRICT = models.StrictModeConfig(enabled=True, max_query_limit=500, search_allow_exact=True)


def _state(store: Store) -> ServerState:
    found = store.server_state("msmarco")
    assert found is not None
    return found


def test_a_single_server_has_no_replicas(
    server: LoopbackServer, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Optimizer, pending updates and strict mode are told; shards are left out."""
    with closing(open_store(server.url)) as store, closing(client_of(server)) as client:
        ingest_passages(passages, store, encoder=encoder, optimize=False)
        assert ServerState("ok", 0, 1, 1, 1) == _state(store)
        client.update_collection("msmarco__0001", strict_mode_config=STRICT)
        server.set_status("msmarco", "red", optimizer_error="no space")
        found = _state(store)
    assert ("no space", {"max_query_limit": 500, "search_allow_exact": True}, ()) == (
        found.optimizer,
        found.strict_mode,
        found.replicas,
    )
    done = command("info", "--store", server.url)
    assert "\noptimizer   no space, pending updates: 0\n" in done.out
    assert "\nstrict mode max_query_limit=500, search_allow_exact=true\n" in done.out
    assert "replicas" not in done.out


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_cluster_shows_the_replica_that_missed_a_write(
    passages: Sequence[Passage], encoder: HashingEncoder, transport: Literal["grpc", "rest"]
) -> None:
    """By `info` as text and JSON, in Python, and at `/readyz`."""
    with LoopbackCluster(2) as cluster:
        node = cluster.nodes[0]
        url, options = (node.url, []) if transport == "grpc" else (node.rest_url, REST)
        connection = Connection(transport=transport, retry_s=0)
        with (
            closing(open_store(url, connection=connection)) as store,
            closing(client_of(node)) as client,
        ):
            ingest_passages(passages, store, encoder=encoder, optimize=False)
            assert (2, 0) == (len(_state(store).replicas), len(_state(store).away))
            cluster.take_away(1)
            client.delete("msmarco__0001", [1])  # a write that the node misses
            away = ShardReplica(0, 1, "Dead")
            (entry,) = describe_store(store).collections
            assert entry.server is not None
            assert ([away], []) == (entry.server.away, entry.server.lost_shards)
            (check,) = ReplicaWatch(store, "msmarco").checks()
            assert Check("replicas", note="shard 0 on peer 1 is Dead") == check
        done = command("info", "--store", url, *options)
        assert "\nreplicas    2 on 2 peers: shard 0 on peer 1 is Dead\n" in done.out
        document = json.loads(command("info", "--store", url, *options, "--json").out)
        (shown,) = document["collections"]
        assert {"shard": 0, "peer": 1, "state": "Dead"} in shown["server"]["replicas"]


def test_v10_what_only_describes_needs_no_node_that_is_away(
    passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Its replica is still active, as no write has failed there."""
    with (
        LoopbackCluster(3, replication=2, shards=1, write_consistency_factor=2) as cluster,
        closing(open_store(cluster.url, connection=Connection(retry_s=0))) as store,
    ):
        ingest_passages(passages, store, encoder=encoder, optimize=False)
        cluster.take_away(1)
        assert 0 == cluster.dead("msmarco__0001")
        (entry,) = describe_store(store).collections
        count = PassageCount(store, "msmarco")
        count.refresh()
        assert (len(passages), len(passages)) == (entry.info.points, count.passages)
        assert migration_status(store, "msmarco").locked_by is None
        BatchWriter(store, "msmarco", encoder).check_store()
        with pytest.raises(StoreUnavailableError):
            store.collection("msmarco").info()


def test_a_key_without_the_right_leaves_replicas_out(
    server: LoopbackServer, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """A gateway may refuse the call; the rest is told."""
    server.faults.inject(Refused(_DENIED), "CollectionClusterInfo", times=None)
    with closing(open_store(server.url)) as store:
        ingest_passages(passages, store, encoder=encoder, optimize=False)
        assert ServerState("ok", 0, 1, 1, 1) == _state(store)


@pytest.mark.parametrize("status", [404, 405])
def test_a_gateway_without_the_path_leaves_replicas_out(
    passages: Sequence[Passage],
    encoder: HashingEncoder,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """Its own answer is a page; `collections` does not ask."""
    page = RestAnswer(b"<html><title>Not here</title></html>", "text/html", status)
    routes = [
        route._replace(encode=lambda _: page) if route.pattern.endswith("/cluster") else route
        for route in ROUTES
    ]
    assert routes != list(ROUTES)
    monkeypatch.setattr("tests.loopback.server.ROUTES", routes)
    with LoopbackServer(serve_grpc=False) as server:
        with closing(open_store(server.rest_url, connection=Connection(transport="rest"))) as store:
            ingest_passages(passages, store, encoder=encoder, optimize=False)
            assert () == ReplicaWatch(store, "msmarco").checks()
        server.requests.clear()
        assert 0 == command("collections", "--store", server.rest_url, *REST).status
        assert 0 == server.requests.count("CollectionClusterInfo")
        done = command("info", "--store", server.rest_url, *REST)
        assert (0, 1) == (done.status, server.requests.count("CollectionClusterInfo"))
        assert "replicas" not in done.out


def test_an_engine_in_this_process_has_no_server() -> None:
    """Nor failed requests."""
    with closing(open_store(":memory:", create=True)) as store:
        assert (None, {}) == (store.server_state("msmarco"), store.request_failures())


def test_replicas_are_asked_for_once_in_a_while(
    server: LoopbackServer, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """`/readyz` is asked every second; ten seconds later the state is read again."""
    now = [100.0]
    with closing(open_store(server.url)) as store:
        ingest_passages(passages, store, encoder=encoder, optimize=False)
        watch = ReplicaWatch(store, "msmarco", clock=lambda: now[0])
        for seconds, asked in ((0, 1), (1, 1), (8, 1), (1, 2)):
            now[0] += seconds
            watch.checks()
            assert asked == server.requests.count("CollectionClusterInfo")


def test_only_a_shard_without_a_replica_is_not_ready() -> None:
    """A replica that is away is a note; searches do without it."""
    replicas = (ShardReplica(0, 1, "Active"), ShardReplica(0, 2, "Dead"))
    state = ServerState("ok", 0, 1, 2, 1, replicas=replicas)
    assert (Check("replicas", note="shard 0 on peer 2 is Dead"),) == _check_replicas(state)
    lost = ServerState("ok", 0, 1, 2, 1, replicas=(*replicas[1:], ShardReplica(0, 3, "Partial")))
    problem = "shard 0 on peer 2 is Dead, shard 0 on peer 3 is Partial"
    assert (Check("replicas", problem),) == _check_replicas(lost)


def test_the_shard_in_the_servers_words_is_told() -> None:
    """And nothing else of them: they may contain a name or an address."""
    words = "The replica set for shard 4 on peer 190 at http://a:1 does not have enough replicas"
    assert ": shard 4 on peer 190" == _place_of(StoreError(words))
    assert "" == _place_of(StoreError("nothing listens at secret-host"))


def test_retried_and_raised_requests_are_counted(server: LoopbackServer) -> None:
    """By status, over blocking calls; and in the metrics of the sidecar."""
    with closing(open_store(server.url)) as store:
        server.faults.inject(Refused(grpcio.StatusCode.UNAVAILABLE), "Collections.List", times=2)
        store.physical_names()
        server.faults.inject(Refused(_DENIED), "Collections.List")
        with pytest.raises(StoreError):
            store.physical_names()
        counts = {("retried", "UNAVAILABLE"): 2, ("raised", "PERMISSION_DENIED"): 1}
        assert counts == store.request_failures()
        metrics = Metrics(lambda: Backlog(0, 0.0), request_failures=store.request_failures)
    lines = metrics.text().decode().splitlines()
    assert 'msmarco_qdrant_server_retries_total{status="UNAVAILABLE"} 2.0' in lines
    assert 'msmarco_qdrant_server_errors_total{status="PERMISSION_DENIED"} 1.0' in lines
