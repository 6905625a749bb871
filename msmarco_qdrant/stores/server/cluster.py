"""Reading the state of a server, or of a cluster, behind a collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qdrant_client import models

from msmarco_qdrant.core.metadata_types import bulk_threshold
from msmarco_qdrant.core.server_state import ServerState, ShardReplica
from msmarco_qdrant.errors import StoreError, StoreUnavailableError
from msmarco_qdrant.stores.server.client import ServerClient
from msmarco_qdrant.stores.server.convert import bulk_holders


def read_server_state(
    server: ServerClient, physical: str, info: models.CollectionInfo
) -> ServerState:
    """Return the state of the server behind a collection.

    Args:
        server: The client.
        physical: The collection's physical name.
        info: Its state, just read.

    Raises:
        StoreUnavailableError: If the server does not answer.
    """
    params, queue = info.config.params, info.update_queue
    cluster = _read_cluster(server, physical)
    return ServerState(
        optimizer="ok" if info.optimizer_status == "ok" else _error_of(info.optimizer_status),
        pending_updates=queue.length if queue is not None else None,
        shards=params.shard_number or 1,
        replication_factor=params.replication_factor or 1,
        write_consistency_factor=params.write_consistency_factor or 1,
        strict_mode=_strict_mode(info),
        replicas=tuple(_replicas(cluster)) if cluster is not None else (),
        transfers=len(cluster.shard_transfers) if cluster is not None else 0,
        bulk_threshold_kb=bulk_threshold(bulk_holders(info)),
    )


def _read_cluster(server: ServerClient, physical: str) -> models.CollectionClusterInfo | None:
    """Return the placement of shards; None if the key, a gateway or the server does not show it."""
    try:
        return server.call(
            "reading the cluster's state", server.client.collection_cluster_info, physical
        )
    except StoreUnavailableError:
        raise
    except StoreError:
        return None


def _replicas(cluster: models.CollectionClusterInfo) -> Iterator[ShardReplica]:
    """Yield the replicas by shard and peer; none if all are on one node."""
    found = [
        ShardReplica(one.shard_id, cluster.peer_id, one.state.value) for one in cluster.local_shards
    ]
    found += [
        ShardReplica(one.shard_id, one.peer_id, one.state.value) for one in cluster.remote_shards
    ]
    if len({one.peer for one in found}) > 1:
        yield from sorted(found, key=lambda one: (one.shard, one.peer))


def _strict_mode(info: models.CollectionInfo) -> Mapping[str, Any]:
    config = info.config.strict_mode_config
    if config is None or not config.enabled:
        return {}
    return config.model_dump(mode="json", exclude_none=True, exclude={"enabled"})


def _error_of(status: object) -> str:
    return str(getattr(status, "error", status))
