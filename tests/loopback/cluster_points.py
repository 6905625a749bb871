"""The Points service of one node of a cluster: it spreads writes and resolves reads."""
# ruff: noqa: N802, ARG002  # the names and the arguments are those of the protobuf service

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from tests.loopback.engine import Engine
from tests.loopback.points_service import PointsService
from tests.loopback.statuses import Mistake, RefusalError

if TYPE_CHECKING:
    from tests.loopback.cluster import Peers, Replica

_TYPES = {
    grpc.ReadConsistencyType.All: "all",
    grpc.ReadConsistencyType.Majority: "majority",
    grpc.ReadConsistencyType.Quorum: "quorum",
}


class NodePoints(PointsService):
    """Writes and reads of a node; a batch of writes is that of a single server."""

    def __init__(self, peers: Peers, engine: Engine, node: int) -> None:
        self._engine = engine
        self._peers, self._node = peers, node

    # ---- writes ----------------------------------------------------------------------------

    def Upsert(self, request: grpc.UpsertPoints, context: Any) -> grpc.PointsOperationResponse:
        """Write points to the shards of their ids."""
        return self._write_points("Upsert", request)

    def UpdateVectors(
        self, request: grpc.UpdatePointVectors, context: Any
    ) -> grpc.PointsOperationResponse:
        """Replace vectors in the shards of their ids."""
        return self._write_points("UpdateVectors", request)

    def Delete(self, request: grpc.DeletePoints, context: Any) -> grpc.PointsOperationResponse:
        """Remove points in every shard; ids of other shards are not there."""
        return self._write_everywhere("Delete", request)

    def OverwritePayload(
        self, request: grpc.SetPayloadPoints, context: Any
    ) -> grpc.PointsOperationResponse:
        """Replace payloads in the shards of their ids."""
        chosen = request.points_selector
        if chosen.WhichOneof("points_selector_one_of") != "points":
            return self._write_everywhere("OverwritePayload", request)
        parts = {}
        for shard, ids in self._by_shard(chosen.points.ids, lambda one: one).items():
            part = grpc.SetPayloadPoints()
            part.CopyFrom(request)
            part.points_selector.points.ids.clear()
            part.points_selector.points.ids.extend(ids)
            parts[shard] = part
        return self._write_parts("OverwritePayload", request, parts)

    def _write_points(self, rpc: str, request: Any) -> grpc.PointsOperationResponse:
        parts = {}
        for shard, points in self._by_shard(request.points, lambda one: one.id).items():
            part = type(request)()
            part.CopyFrom(request)
            del part.points[:]
            part.points.extend(points)
            parts[shard] = part
        return self._write_parts(rpc, request, parts or {0: request})

    def _write_everywhere(self, rpc: str, request: Any) -> grpc.PointsOperationResponse:
        shards = range(len(self._peers.shards))
        return self._write_parts(rpc, request, dict.fromkeys(shards, request))

    def _write_parts(
        self, rpc: str, request: Any, parts: Mapping[int, Any]
    ) -> grpc.PointsOperationResponse:
        """Write to shards. Some may have applied their part when the call fails."""
        name = self._engine.resolve(request.collection_name)
        strong = request.ordering.type == grpc.WriteOrderingType.Strong
        answers: list[grpc.PointsOperationResponse] = []
        errors: list[RefusalError] = []
        for shard, part in parts.items():

            def apply(replica: Replica, part: Any = part) -> Any:
                return getattr(replica.service, rpc)(part, None)

            try:
                answers.append(self._peers.write(shard, name, self._node, apply, strong=strong))
            except RefusalError as error:
                errors.append(error)
        if not errors:
            return answers[0]
        first = errors[0]
        if len(parts) == 1 or first.code is not Mistake.SHARDS_FAILED.code:
            raise first
        raise Mistake.SHARDS_FAILED.refusal(
            failed=len(errors), total=len(parts), first=first.message
        )

    def _write(self, name: str, request: Any, apply: Any) -> grpc.PointsOperationResponse:
        """Answer a change of an index, which consensus has spread."""
        status = grpc.UpdateStatus.Completed
        return grpc.PointsOperationResponse(result=grpc.UpdateResult(status=status))

    def _by_shard(self, items: Iterable[Any], id_of: Callable[[Any], Any]) -> dict[int, list[Any]]:
        """Items by the shard of their ids."""
        found: dict[int, list[Any]] = defaultdict(list)
        for item in items:
            point = id_of(item)
            number = point.num if point.WhichOneof("point_id_options") == "num" else None
            value = uuid.UUID(point.uuid).int if number is None else number
            found[value % len(self._peers.shards)].append(item)
        return found

    # ---- reads -----------------------------------------------------------------------------

    def Get(self, request: grpc.GetPoints, context: Any) -> grpc.GetResponse:
        """Answer the points by id that the replicas asked agree on."""
        answer = grpc.GetResponse()
        for shard, ids in self._by_shard(request.ids, lambda one: one).items():
            part = grpc.GetPoints()
            part.CopyFrom(request)
            part.ids.clear()
            part.ids.extend(ids)

            def read(one: PointsService, part: grpc.GetPoints = part) -> Any:
                return one.Get(part, None).result

            found = self._ask(shard, request, read)
            answer.result.extend(_resolve_records(*found))
        return answer

    def Scroll(self, request: grpc.ScrollPoints, context: Any) -> grpc.ScrollResponse:
        """Answer a page; the next one begins at the point behind it.

        As on the real server, a page that lost points because their replicas differ may look like
        the last one.
        """
        limit = request.limit if request.HasField("limit") else 10
        more = grpc.ScrollPoints()
        more.CopyFrom(request)
        ordered = request.HasField("order_by")
        if limit:
            more.limit = limit if ordered else limit + 1
        found: list[grpc.RetrievedPoint] = []
        for shard in range(len(self._peers.shards)):
            pages = self._ask(shard, request, lambda one: one.Scroll(more, None).result)
            found += _resolve_records(*pages)
        if ordered:
            return grpc.ScrollResponse(result=_ordered(found, request.order_by)[:limit])
        found.sort(key=lambda one: _sort_key(one.id))
        answer = grpc.ScrollResponse(result=found[:limit])
        if len(found) > limit:
            answer.next_page_offset.CopyFrom(found[limit].id)
        return answer

    def Count(self, request: grpc.CountPoints, context: Any) -> grpc.CountResponse:
        """Count points as the replicas asked agree."""
        total = 0
        for shard in range(len(self._peers.shards)):
            counts, most = self._ask(
                shard, request, lambda one: one.Count(request, None).result.count
            )
            total += sorted(counts)[len(counts) // 2] if most else min(counts)
        return grpc.CountResponse(result=grpc.CountResult(count=total))

    def count(self, name: str, count_filter: models.Filter | None) -> int:
        """Count points by one replica of each shard."""
        request = grpc.CountPoints(collection_name=name)
        if count_filter is not None:
            request.filter.CopyFrom(RestToGrpc.convert_filter(count_filter))
        return int(self.Count(request, None).result.count)

    def Query(self, request: grpc.QueryPoints, context: Any) -> grpc.QueryResponse:
        """Answer the best of every shard."""
        hits: list[grpc.ScoredPoint] = []
        for shard in range(len(self._peers.shards)):
            (found,), _ = self._ask(
                shard,
                grpc.CountPoints(collection_name=request.collection_name),
                lambda one: one.Query(request, None).result,
            )
            hits += found
        hits.sort(key=lambda hit: -hit.score)
        limit = request.limit if request.HasField("limit") else 10
        return grpc.QueryResponse(result=hits[:limit])

    def QueryBatch(self, request: grpc.QueryBatchPoints, context: Any) -> grpc.QueryBatchResponse:
        """Answer several queries of one collection."""
        results = []
        for query in request.query_points:
            one = grpc.QueryPoints()
            one.CopyFrom(query)
            one.collection_name = request.collection_name
            results.append(grpc.BatchResult(result=self.Query(one, context).result))
        return grpc.QueryBatchResponse(result=results)

    def _ask(
        self, shard: int, request: Any, read: Callable[[PointsService], Any]
    ) -> tuple[list[Any], bool]:
        """Ask as many replicas of a shard as the consistency wants, this node's own first.

        Returns:
            Their answers, and whether the majority of them decides; else all of them must agree.

        Raises:
            RefusalError: too few are active or answer.
        """
        name = self._engine.resolve(request.collection_name)
        active = self._peers.active(shard, name)
        needed, most = self._needed(request, len(active), len(self._peers.shards[shard]))
        if len(active) < needed:
            raise Mistake.FEW_REPLICAS.refusal(shard=shard, peer=self._node)
        answers: list[Any] = []
        failed = 0
        for replica in sorted(active, key=lambda one: one.node != self._node):
            if not self._peers.up[replica.node]:
                failed += 1
            elif len(answers) < needed:
                answers.append(read(replica.service))
        if len(answers) < needed:
            raise Mistake.READS_FAILED.refusal(
                failed=failed, asked=failed + len(answers), first=Mistake.PEER_AWAY.message()
            )
        return answers, most

    @staticmethod
    def _needed(request: Any, active: int, total: int) -> tuple[int, bool]:
        """How many answers a read needs, and whether the majority of them decides."""
        if not request.HasField("read_consistency"):
            return 1, False
        consistency = request.read_consistency
        if consistency.WhichOneof("value") == "factor":
            return max(1, min(int(consistency.factor), total)), False
        kind = _TYPES[consistency.type]
        if kind == "quorum":
            return total // 2 + 1, False
        return max(1, active), kind == "majority"


def _resolve_records(
    answers: Sequence[Sequence[grpc.RetrievedPoint]], most: bool
) -> list[grpc.RetrievedPoint]:
    """The points that all of the answers, or most of them, hold with the same values."""
    needed = len(answers) // 2 + 1 if most else len(answers)
    found: dict[bytes, int] = defaultdict(int)
    kept: dict[bytes, grpc.RetrievedPoint] = {}
    for answer in answers:
        for point in answer:
            key = point.SerializeToString(deterministic=True)
            found[key] += 1
            kept.setdefault(key, point)
    return [kept[key] for key, count in found.items() if count >= needed]


def _ordered(
    points: Iterable[grpc.RetrievedPoint], order_by: grpc.OrderBy
) -> list[grpc.RetrievedPoint]:
    """Points in the order of a whole number in their payloads."""
    newest_first = order_by.direction == grpc.Direction.Desc
    key = order_by.key
    return sorted(points, key=lambda one: one.payload[key].integer_value, reverse=newest_first)


def _sort_key(point: grpc.PointId) -> tuple[int, int]:
    """Numbers come before UUIDs."""
    if point.WhichOneof("point_id_options") == "num":
        return 0, point.num
    return 1, uuid.UUID(point.uuid).int
