"""One physical collection of a Qdrant server, or of qdrant-client's local mode.

Writes go through the public gRPC stub with messages of our own (`wire`); everything else is
qdrant-client's own methods. The local mode is the same code but for writing and waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import CollectionInfo, PointBatch, PointId
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint
from msmarco_qdrant.errors import StoreCorruptError, StoreError
from msmarco_qdrant.stores.connection import Connection
from msmarco_qdrant.stores.filters import from_id
from msmarco_qdrant.stores.payload import page_size
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.client import ServerClient
from msmarco_qdrant.stores.server.wire import payload_bytes, split_sizes, upsert_requests

if TYPE_CHECKING:
    from qdrant_client import grpc, models

_INDEX_POLL_S = (0.05, 2.0)


class ServerCollection:
    """A physical collection; see `Collection` for what its methods promise.

    Every write waits until the server has synced it, so `flush` has nothing left to do.
    """

    def __init__(
        self, server: ServerClient, name: str, senders: ThreadPoolExecutor, connection: Connection
    ) -> None:
        self._server = server
        self._client = server.client
        self._name = name
        self._senders = senders
        self._connection = connection

    @property
    def name(self) -> str:
        """The physical name."""
        return self._name

    def info(self) -> CollectionInfo:
        """Counts, index state and settings."""
        told = self._told()
        try:
            spec = convert.to_spec(told)
        except ValueError as exc:
            raise StoreCorruptError(
                f"collection '{self._name}' was not made by msmarco-qdrant: {exc}"
            ) from exc
        count = partial(self._client.count, self._name, exact=True)
        return convert.to_info(
            self._name,
            told,
            spec,
            points=self._server.call("counting points", count).count,
            last_seq=self._last_seq(told),
        )

    def upsert(self, batch: PointBatch) -> None:
        """Write points: several requests at once, each durable when it is answered."""
        if not batch.ids:
            return
        if self._server.is_remote:
            count, size = self._connection.batch_points, self._connection.batch_bytes
            self.send(upsert_requests(self._name, batch, max_points=count, max_bytes=size))
            return
        points = convert.point_structs(batch)
        self._server.call("writing points", partial(self._client.upsert, self._name, points))

    def replace_payloads(self, ids: Sequence[PointId], payloads: Sequence[dict[str, Any]]) -> None:
        """Replace payloads and leave vectors."""
        from qdrant_client import models

        operations: list[models.UpdateOperation] = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload=payload, points=[from_id(id_)])
            )
            for id_, payload in zip(ids, payloads, strict=True)
        ]
        sizes = map(payload_bytes, payloads)
        for start, stop in split_sizes(
            sizes, self._connection.batch_points, self._connection.batch_bytes
        ):
            part = operations[start:stop]
            update = partial(self._client.batch_update_points, self._name, part, wait=True)
            self._server.call("writing payloads", update)

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Payload fields of those ids that exist."""
        found: dict[PointId, dict[str, Any]] = {}
        for page in in_batches(map(from_id, ids), page_size(fields)):
            read = partial(self._client.retrieve, self._name, page, with_payload=list(fields))
            found.update(convert.to_payloads(self._server.call("reading points", read)))
        return found

    def delete(self, ids: Sequence[PointId], *, up_to_seq: int) -> None:
        """Remove points, if they are not newer."""
        for page in in_batches(ids, page_size(())):
            chosen = convert.select_old_points(page, up_to_seq)
            remove = partial(self._client.delete, self._name, chosen, wait=True)
            self._server.call("removing points", remove)

    def scan(self, fields: Sequence[str]) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Every point's id and payload fields."""
        offset: models.ExtendedPointId | None = None
        while True:
            scroll = partial(
                self._client.scroll,
                self._name,
                limit=page_size(fields),
                offset=offset,
                with_payload=list(fields),
            )
            records, offset = self._server.call("reading points", scroll)
            for record in records:
                yield convert.to_id(record.id), record.payload or {}
            if offset is None:
                return

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        asked = [convert.query_request(query, ann=self._server.is_remote) for query in queries]
        search = partial(self._client.query_batch_points, self._name, asked)
        answers = self._server.call("searching", search)
        return [convert.to_scored(answer.points) for answer in answers]

    def flush(self) -> None:
        """Nothing is left to sync: every write has waited for it."""
        self._server.check_open()

    def optimize(self) -> None:
        """Wait until the server has built the indexes."""
        if not self._server.is_remote:
            return
        if self._told().status == "grey":  # it waits for a change of settings, even an empty one
            self._wake_optimizer()
        self._wait_for_indexes()

    def send(self, to_send: Iterable[grpc.UpsertPoints]) -> None:
        """Send a server writes, some at once; all are answered or failed when this returns."""
        self._server.check_open()  # the senders would wait for ever in a forked child
        under_way: list[Future[None]] = []
        errors: list[BaseException | None] = []
        try:
            for request in to_send:
                if len(under_way) >= self._connection.in_flight:
                    under_way.pop(0).result()
                under_way.append(self._submit(request))
        except Exception as exc:  # noqa: BLE001  # raised below, when nothing is under way any more
            errors.append(exc)
        errors += [future.exception() for future in under_way]
        for error in errors:
            if error is not None:
                raise error

    def _submit(self, request: grpc.UpsertPoints) -> Future[None]:
        try:
            return self._senders.submit(self._send_one, request)
        except RuntimeError:  # the store was closed meanwhile
            self._server.check_open()
            raise

    def _send_one(self, request: grpc.UpsertPoints) -> None:
        write = partial(
            self._client.grpc_points.Upsert, request, timeout=self._connection.timeout_s
        )
        self._server.call("writing points", write)

    def _last_seq(self, told: models.CollectionInfo) -> int:
        from qdrant_client import models

        if self._server.is_remote and "seq" not in told.payload_schema:
            return 0  # its creation was interrupted before the index: nothing was written
        newest_first = models.OrderBy(key="seq", direction=models.Direction.DESC)
        scroll = partial(
            self._client.scroll, self._name, limit=1, order_by=newest_first, with_payload=["seq"]
        )
        records, _ = self._server.call("reading the last seq", scroll)
        return int(records[0].payload["seq"]) if records and records[0].payload else 0

    def _told(self) -> models.CollectionInfo:
        read = partial(self._client.get_collection, self._name)
        return self._server.call("reading its state", read)

    def _wake_optimizer(self) -> None:
        from qdrant_client import models

        wake = partial(
            self._client.update_collection,
            self._name,
            optimizers_config=models.OptimizersConfigDiff(),
        )
        self._server.call("starting the optimizers", wake)

    def _wait_for_indexes(self) -> None:
        """Ask until the server says that it is done: it has no call that waits for it."""
        from tenacity import Retrying, retry_if_result, wait_exponential

        first, longest = _INDEX_POLL_S
        tries = Retrying(
            retry=retry_if_result(lambda told: told.status in ("yellow", "grey")),
            wait=wait_exponential(multiplier=first, max=longest),
            sleep=self._server.retries.sleep,
        )
        told = tries(self._told)
        if told.status == "red":
            raise StoreError(
                f"building the index of {self._name} failed: {told.optimizer_status}; every "
                "passage is there, run optimize again"
            )
