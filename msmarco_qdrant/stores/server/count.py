"""One count of points, by the protocol of the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from msmarco_qdrant.stores.server.client import ServerClient

_ACTION = "counting points"


@dataclass(frozen=True, slots=True)
class CountQuery:
    """A count of points.

    Attributes:
        name: The physical collection.
        chosen: Conditions on the points, None for all.
        consistency: The replicas to ask; None for one that answers.
        keys: The shard keys whose shards to ask; None for all shards.
    """

    name: str
    chosen: models.Filter | None
    consistency: models.ReadConsistencyType | None
    keys: list[int | str] | None = None


def count_points(
    server: ServerClient, request: CountQuery, *, exact: bool, timeout_s: float
) -> int:
    """Count points; `QdrantClient.count` has no consistency, so its stubs are called.

    Args:
        server: The client of the server, or of the local mode, which always counts exactly.
        request: The points to count.
        exact: False for an estimate.
        timeout_s: Most seconds for the answer by gRPC.

    Raises:
        StoreError: If the server fails.
    """
    client = server.client
    if not server.is_remote:
        counted = server.call(_ACTION, client.count, request.name, request.chosen, exact=True)
        return int(counted.count)
    if server.is_rest:
        return _count_by_rest(server, request, exact=exact)
    message = grpc.CountPoints(collection_name=request.name, exact=exact)
    if request.chosen is not None:
        message.filter.CopyFrom(RestToGrpc.convert_filter(request.chosen))
    if request.consistency is not None:
        consistency = RestToGrpc.convert_read_consistency(request.consistency)
        message.read_consistency.CopyFrom(consistency)
    for key in request.keys or ():
        message.shard_key_selector.shard_keys.add(keyword=str(key))
    count = client.grpc_points.Count
    return int(server.call(_ACTION, count, message, timeout=timeout_s).result.count)


def _count_by_rest(server: ServerClient, request: CountQuery, *, exact: bool) -> int:
    count = server.client.http.points_api.count_points
    options: dict[str, Any] = {
        "count_request": models.CountRequest(
            filter=request.chosen, exact=exact, shard_key=request.keys
        ),
        "consistency": request.consistency,
    }
    result = server.call(_ACTION, count, request.name, **options).result
    return 0 if result is None else result.count  # the client's model lets it be absent
