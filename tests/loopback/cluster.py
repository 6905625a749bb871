"""A cluster of loopback servers in one process: each node has its port, each replica its points.

Collections, aliases, settings and payload indexes are common to all nodes, as by consensus. The
points of a collection are spread over shards, and a shard has a replica on several nodes. A write
goes to every active replica. When too few take it, it fails in the server's own words, and stays on
those that took it; when enough did, a replica that missed it is dead: it is neither read nor
written until its node is back and it was copied from an active one.

Read from the server's own sources: lib/collection/src/shards/replica_set/update.rs and
execute_read_operation.rs, lib/collection/src/shards/resolve.rs. `all` asks every active replica, as
Qdrant 1.18 does; earlier servers refuse it while a replica is dead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from qdrant_client import grpc, models

from tests.loopback.cluster_points import NodePoints
from tests.loopback.collections_service import CollectionsService
from tests.loopback.engine import Engine, Shelf
from tests.loopback.points_service import PointsService
from tests.loopback.server import LoopbackServer
from tests.loopback.statuses import Mistake, RefusalError

_CONSENSUS = frozenset({"Create", "Update", "Delete", "UpdateAliases"})
_INDEXES = frozenset({"CreateFieldIndex", "DeleteFieldIndex"})


@dataclass(slots=True)
class Replica:
    """The points of one shard on one node.

    Attributes:
        node: where it is.
        engine: its points.
        service: writes and reads of them.
        dead: collections of which it missed a write.
    """

    node: int
    engine: Engine
    service: PointsService
    dead: set[str] = field(default_factory=set)


class Peers:
    """What the nodes have in common. Nothing here locks: servers call it under their one lock."""

    def __init__(self, nodes: int, replication: int, factor: int, shards: int) -> None:
        self.replication = replication
        self.factor = factor
        self.up = [True] * nodes
        self.mute = [False] * nodes
        self.shelves: dict[str, Shelf] = {}
        self.aliases: dict[str, str] = {}
        self.shards = [
            [self._replica((shard + step) % nodes) for step in range(replication)]
            for shard in range(shards)
        ]

    def _replica(self, node: int) -> Replica:
        engine = Engine()
        engine.shelves, engine.aliases = self.shelves, self.aliases
        return Replica(node, engine, PointsService(engine))

    @property
    def replicas(self) -> Iterator[Replica]:
        """Every replica of every shard."""
        return (replica for shard in self.shards for replica in shard)

    def check_up(self, node: int) -> None:
        """Refuse a call to a node that is away."""
        if not self.up[node]:
            raise Mistake.NODE_AWAY.refusal()

    def check_consensus(self) -> None:
        """Refuse a change that needs most nodes."""
        if 2 * sum(self.up) <= len(self.up):
            raise Mistake.NO_CONSENSUS.refusal()

    def active(self, shard: int, name: str) -> list[Replica]:
        """The replicas of a shard that are read and written."""
        return [replica for replica in self.shards[shard] if name not in replica.dead]

    def leader(self, shard: int) -> Replica:
        """The replica that orders strong writes, dead or alive."""
        return max(self.shards[shard], key=lambda replica: replica.node)

    def write(
        self, shard: int, name: str, node: int, apply: Callable[[Replica], Any], *, strong: bool
    ) -> Any:
        """Let every active replica of a shard apply a write; returns one of their answers.

        A mute node applies it, and its answer is lost.

        Raises:
            RefusalError: too few replicas took it; it stays on those that did.
        """
        if strong and not self.up[(leader := self.leader(shard)).node]:
            away = Mistake.PEER_AWAY.message()
            raise Mistake.LEADER_AWAY.refusal(peer=leader.node, first=away)
        active = self.active(shard, name)
        if not active:
            raise Mistake.NO_REPLICA.refusal(shard=shard, peer=node)
        answers, failed, errors = [], [], []
        for replica in active:
            reached = self.up[replica.node]
            try:
                answer = apply(replica) if reached else None
                if not reached or (self.mute[replica.node] and replica.node != node):
                    failed.append(replica)
                    errors.append(Mistake.PEER_AWAY.refusal())
                else:
                    answers.append(answer)
            except RefusalError as error:
                errors.append(error)
            except KeyError as error:
                errors.append(Mistake.NO_POINT.refusal(id=error.args[0]))
        params = self.shelves[name].config.params
        if len(answers) < min(params.write_consistency_factor, len(self.shards[shard])):
            raise errors[0]
        for replica in failed:
            replica.dead.add(name)
        return answers[0]

    def repair(self) -> None:
        """Copy dead replicas whose node is up from an active one that can be reached."""
        for shard, replicas in enumerate(self.shards):
            for replica in replicas:
                for name in [name for name in replica.dead if self.up[replica.node]]:
                    sources = [one for one in self.active(shard, name) if self.up[one.node]]
                    if sources and name in self.shelves:
                        _copy(name, sources[0].engine, replica.engine)
                        replica.dead.discard(name)


def _copy(name: str, source: Engine, target: Engine) -> None:
    """Replace all points of a collection by those of another replica."""
    kept, _ = target.client.scroll(name, limit=2**31)
    if kept:
        target.client.delete(name, [record.id for record in kept])
    records, _ = source.client.scroll(name, limit=2**31, with_payload=True, with_vectors=True)
    vectors: list[Any] = [one.vector or {} for one in records]  # those read are of other types
    points = [
        models.PointStruct(id=one.id, vector=vector, payload=one.payload)
        for one, vector in zip(records, vectors, strict=True)
    ]
    if points:
        target.client.upsert(name, points)


def _is_same(first: Mapping[Any, models.Record], second: Mapping[Any, models.Record]) -> bool:
    """Whether two replicas hold the same."""
    return first.keys() == second.keys() and all(
        record.payload == second[id_].payload
        and _is_close(record.vector or {}, second[id_].vector or {})
        for id_, record in first.items()
    )


def _is_close(first: Any, second: Any) -> bool:
    """Whether the named vectors of two records are the same, but for the last bits."""
    return first.keys() == second.keys() and all(
        vector == second[name]
        if isinstance(vector, models.SparseVector)
        else np.allclose(vector, second[name], atol=1e-6)
        for name, vector in first.items()
    )


class _NodeEngine(Engine):
    """What a node knows of collections; points are those of all shards."""

    def __init__(self, peers: Peers) -> None:
        self.shelves, self.aliases = peers.shelves, peers.aliases
        self._peers = peers
        self.points: NodePoints | None = None

    def complete(self, config: grpc.CollectionConfig, request: grpc.CreateCollection) -> None:
        """Use the cluster's own defaults for what a creation does not say."""
        params = config.params
        params.shard_number = len(self._peers.shards)
        if not request.HasField("replication_factor"):
            params.replication_factor = self._peers.replication
        if not request.HasField("write_consistency_factor"):
            params.write_consistency_factor = self._peers.factor

    def create_points(self, name: str, params: models.CreateCollection) -> None:
        """Make a collection's place on every replica."""
        for replica in self._peers.replicas:
            replica.engine.create_points(name, params)
            replica.dead.discard(name)

    def delete_points(self, name: str) -> None:
        """Remove a collection's points on every replica."""
        for replica in self._peers.replicas:
            replica.engine.delete_points(name)

    def count(self, name: str, count_filter: models.Filter | None = None) -> int:
        """How many points the shards hold, by one replica of each."""
        assert self.points is not None
        return self.points.count(name, count_filter)


class _NodeCollections(CollectionsService):
    """The Collections service of a node, which knows the replicas of the others."""

    def __init__(self, engine: Engine, peers: Peers, number: int) -> None:
        super().__init__(engine)
        self._peers, self._number = peers, number

    def CollectionClusterInfo(  # noqa: N802  # the protobuf's name
        self,
        request: grpc.CollectionClusterInfoRequest,
        context: Any,  # noqa: ARG002
    ) -> grpc.CollectionClusterInfoResponse:
        """Answer every replica with its state; the number of a node is its peer id."""
        name = self._engine.resolve(request.collection_name)
        answer = grpc.CollectionClusterInfoResponse(
            peer_id=self._number, shard_count=len(self._peers.shards)
        )
        for shard, replicas in enumerate(self._peers.shards):
            for replica in replicas:
                is_dead = name in replica.dead
                state = grpc.ReplicaState.Dead if is_dead else grpc.ReplicaState.Active
                if replica.node == self._number:
                    answer.local_shards.add(shard_id=shard, state=state)
                else:
                    answer.remote_shards.add(shard_id=shard, peer_id=replica.node, state=state)
        return answer


class _Node(LoopbackServer):
    """One node: a server whose services ask the others."""

    def __init__(self, peers: Peers, number: int, lock: threading.Lock, **options: Any) -> None:
        super().__init__(**options)
        self._peers, self._number, self._lock = peers, number, lock
        self._engine = engine = _NodeEngine(peers)
        engine.points = self._points = NodePoints(peers, engine, number)

    def _services(self) -> Mapping[str, Any]:
        services = super()._services()
        return {
            "Qdrant": _Guarded(services["Qdrant"], self._check),
            "Collections": _Guarded(
                _NodeCollections(self._engine, self._peers, self._number), self._check_collections
            ),
            "Points": _Guarded(services["Points"], self._check_points),
        }

    def _points_service(self) -> PointsService:
        return self._points

    def _check(self, rpc: str) -> None:  # noqa: ARG002
        self._peers.check_up(self._number)

    def _check_collections(self, rpc: str) -> None:
        self._check(rpc)
        if rpc in _CONSENSUS:
            self._peers.check_consensus()

    def _check_points(self, rpc: str) -> None:
        self._check(rpc)
        if rpc in _INDEXES:
            self._peers.check_consensus()


class _Guarded:
    """A service whose calls are checked first."""

    def __init__(self, service: Any, check: Callable[[str], None]) -> None:
        self._service, self._check = service, check

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._service, name)

        def call(message: Any, context: Any) -> Any:
            self._check(name)
            return method(message, context)

        return call


class LoopbackCluster:
    """Two or three nodes that clients reach at `nodes[i].url`; a context manager.

    Args:
        nodes: how many.
        replication: how many replicas a shard has; None for one on each node.
        write_consistency_factor: how many of them must take a write.
        shards: of each collection; None for one, or one a node where not all hold every shard.
        options: those of `LoopbackServer`, for every node.

    Attributes:
        nodes: the servers, each with its faults and its record of requests.
    """

    def __init__(
        self,
        nodes: int = 2,
        *,
        replication: int | None = None,
        write_consistency_factor: int = 1,
        shards: int | None = None,
        **options: Any,
    ) -> None:
        copies = nodes if replication is None else replication
        count = shards or (1 if copies == nodes else nodes)
        self._peers = Peers(nodes, copies, write_consistency_factor, count)
        self._lock = threading.Lock()
        self.nodes: Sequence[LoopbackServer] = [
            _Node(self._peers, number, self._lock, **options) for number in range(nodes)
        ]
        self._started = ExitStack()

    def __enter__(self) -> LoopbackCluster:
        for node in self.nodes:
            self._started.enter_context(node)
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    @property
    def url(self) -> str:
        """The address of the first node."""
        return self.nodes[0].url

    def take_away(self, node: int) -> None:
        """Let a node answer nobody, neither clients nor other nodes; its points stay."""
        with self._lock:
            self._peers.up[node] = False

    def bring_back(self, node: int | None = None) -> None:
        """Let a node answer again (None: every node); its dead replicas are copied anew."""
        with self._lock:
            for number in range(len(self.nodes)) if node is None else (node,):
                self._peers.up[number], self._peers.mute[number] = True, False
            self._peers.repair()

    def lose_answers(self, node: int) -> None:
        """Let a node apply the writes of other nodes, which never hear of it, until it is back."""
        with self._lock:
            self._peers.mute[node] = True

    def settle(self) -> None:
        """Wait until no call is being handled by any node."""
        for node in self.nodes:
            node.settle()

    def dead(self, name: str) -> int:
        """How many replicas of a collection are neither read nor written."""
        with self._lock:
            return sum(name in replica.dead for replica in self._peers.replicas)

    def stored(self, name: str, shard: int = 0) -> list[dict[Any, models.Record]]:
        """The points of each replica of a shard by id, whatever its state; no fault touches it."""
        with self._lock:
            return [
                {
                    record.id: record
                    for record in replica.engine.client.scroll(
                        name, limit=2**31, with_payload=True, with_vectors=True
                    )[0]
                }
                for replica in self._peers.shards[shard]
            ]

    def is_equal(self, name: str) -> bool:
        """Whether all replicas of each shard hold the same points, payloads and vectors.

        Vectors may differ in their last bits: local mode normalizes them each time it writes them.
        """
        return all(
            _is_same(first, other) for first, *others in self.all_stored(name) for other in others
        )

    def all_stored(self, name: str) -> list[list[dict[Any, models.Record]]]:
        """The same for every shard."""
        return [self.stored(name, shard) for shard in range(len(self._peers.shards))]
