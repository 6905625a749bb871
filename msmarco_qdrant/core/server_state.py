"""State of a server behind a collection: shards, replicas, optimizers and strict mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ACTIVE = frozenset({"Active", "ActiveRead"})
"""States of a replica that answers searches, in Qdrant's words."""


@dataclass(frozen=True, slots=True)
class ShardReplica:
    """A replica of a shard: the node that holds it, by its peer id, and its state."""

    shard: int
    peer: int
    state: str

    def __str__(self) -> str:
        return f"shard {self.shard} on peer {self.peer} is {self.state}"


@dataclass(frozen=True, slots=True)
class ServerState:
    """State of a server behind a collection.

    Attributes:
        optimizer: "ok", or the error of the optimizers.
        pending_updates: Updates that are accepted and not applied yet; None if not reported.
        shards: Number of shards.
        replication_factor: Replicas that each shard should have.
        write_consistency_factor: Replicas that must accept a write.
        strict_mode: The settings of the strict mode that are in force, by their names.
        replicas: The replicas of a cluster; none on a single server, or without the right to ask.
        transfers: Shards that are being copied between nodes.
        bulk_threshold_kb: The indexing threshold to restore after a bulk ingest; None without one.
    """

    optimizer: str
    pending_updates: int | None
    shards: int
    replication_factor: int
    write_consistency_factor: int
    strict_mode: Mapping[str, Any] = field(default_factory=dict)
    replicas: Sequence[ShardReplica] = ()
    transfers: int = 0
    bulk_threshold_kb: int | None = None

    @property
    def away(self) -> Sequence[ShardReplica]:
        """The replicas that do not answer searches."""
        return [replica for replica in self.replicas if replica.state not in ACTIVE]

    @property
    def lost_shards(self) -> Sequence[int]:
        """The shards without a replica that answers searches."""
        found = {replica.shard for replica in self.replicas if replica.state in ACTIVE}
        return sorted({replica.shard for replica in self.replicas} - found)


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """The replicas of a physical collection and their points.

    Attributes:
        factor: Replicas of each shard.
        fewest: Points of the active replicas that hold the fewest of each shard.
        most: The same for the most; of three or more replicas possibly fewer.
    """

    factor: int
    fewest: int
    most: int
