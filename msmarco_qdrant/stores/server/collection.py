"""One physical collection of a Qdrant server, or of qdrant-client's local mode.

Points are written by `PointWriter`; other calls are methods of qdrant-client. The local mode
differs only in writing and waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from qdrant_client import models

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import CollectionInfo, CollectionSpec, PointBatch, PointId
from msmarco_qdrant.core.limits import NO_LIMITS, RequestLimits, at_most
from msmarco_qdrant.core.search_types import (
    Facet,
    OrderedPoint,
    PointOrder,
    PointQuery,
    ScoredPoint,
)
from msmarco_qdrant.errors import StoreAccessError, StoreCorruptError, StoreError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.runtime.daemon_executor import DaemonExecutor
from msmarco_qdrant.stores.connection import Connection
from msmarco_qdrant.stores.error_mapping import (
    is_limit_error,
    lacks_facet_index,
    lacks_range_index,
)
from msmarco_qdrant.stores.filter_indexes import has_words, refuse_unindexed_words
from msmarco_qdrant.stores.filters import from_id, point_filter, to_qdrant
from msmarco_qdrant.stores.names import base_name
from msmarco_qdrant.stores.payload import page_size, to_ordered, to_payloads, to_scored
from msmarco_qdrant.stores.protocols import INDEX_STALL_S
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.client import ServerClient
from msmarco_qdrant.stores.server.count import CountQuery, count_points
from msmarco_qdrant.stores.server.index_wait import report_unfinished, wait_for_indexes
from msmarco_qdrant.stores.server.json_wire import split_queries
from msmarco_qdrant.stores.server.limits import (
    StoredLimits,
    explain_limit,
    fit_queries,
    merge_answers,
    outdated_requests,
)
from msmarco_qdrant.stores.server.point_writer import PointWriter
from msmarco_qdrant.stores.server.shard_keys import KnownKeys, ShardKeys, lacks_shard_key
from msmarco_qdrant.stores.server.wire import payload_bytes

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class ServerCollection:
    """A physical collection; see `Collection` for its methods.

    Every write waits until the server has synced it, so `flush` does nothing.
    """

    def __init__(
        self,
        server: ServerClient,
        name: str,
        senders: DaemonExecutor,
        connection: Connection,
        limits: StoredLimits,
    ) -> None:
        self._server = server
        self._limits = limits
        self._client = server.client
        self._name = name
        self._connection = connection
        self._keys = ShardKeys(self._client, self._call, limits.keys)
        self._writer = PointWriter(server, name, senders, connection, self._keys)

    def info(self, *, all_replicas: bool = True) -> CollectionInfo:
        """Return counts, index state and settings."""
        info = self.read_info()
        spec = self._spec(info)
        return CollectionInfo(
            name=self._name,
            points=self.count_replicas(models.ReadConsistencyType.ALL if all_replicas else None),
            is_exact=self.limits().exact,
            indexed=info.indexed_vectors_count or 0,
            segments=info.segments_count,
            state=convert.STATES[info.status.value],
            last_seq=self._last_seq(info),
            spec=spec,
        )

    def spec(self) -> CollectionSpec:
        """Return the settings alone."""
        return self._spec(self.read_info())

    def upsert(self, batch: PointBatch) -> None:
        """Write points in several concurrent requests; each is durable when it is answered."""
        if not batch.ids:
            return
        if self._server.is_remote:
            self.within_limits(partial(self._writer.upsert, batch))
        else:
            self._call("writing points", self._client.upsert, convert.point_structs(batch))

    def replace_payloads(self, ids: Sequence[PointId], payloads: Sequence[dict[str, Any]]) -> None:
        """Replace payloads; vectors stay."""

        def operations(limits: RequestLimits) -> list[models.UpdateOperation]:
            keys = self._keys.of_rows(payloads, limits.shard_key)
            return [
                models.OverwritePayloadOperation(
                    overwrite_payload=models.SetPayload(
                        payload=payload, points=[from_id(id_)], shard_key=key
                    )
                )
                for id_, payload, key in zip(ids, payloads, keys, strict=True)
            ]

        self._update(operations, payloads)

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str], *, all_replicas: bool = False
    ) -> Mapping[PointId, dict[str, Any]]:
        """Return payload fields of those ids that exist."""
        found: dict[PointId, dict[str, Any]] = {}
        for page in in_batches(map(from_id, ids), page_size(fields)):
            options = self._read_options(fields, all_replicas=all_replicas)
            records = self._call("reading points", self._client.retrieve, page, **options)
            found.update(to_payloads(records))
        return found

    def delete(self, ids: Sequence[PointId], *, up_to_seq: int) -> None:
        """Delete points with no higher `seq`."""

        def delete(limits: RequestLimits) -> None:
            for page in in_batches(ids, at_most(page_size(()), limits.condition_size)):
                self._delete(convert.select_old_points(page, up_to_seq), limits)

        self.within_limits(delete)

    def scan(
        self,
        fields: Sequence[str],
        *,
        all_replicas: bool = False,
        meta_filter: SearchFilter | None = None,
        start: PointId | None = None,
    ) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Yield every point's id and payload fields.

        A server that asks several replicas for a page drops the points that differ, and then takes
        a page that became shorter for the last. So ids are read from one replica, page by page, and
        their payloads from all of them.
        """
        offset: models.ExtendedPointId | None = None if start is None else from_id(start)
        options = self._read_options(() if all_replicas else fields, all_replicas=False)
        chosen = self._to_filter(meta_filter)

        def read(limits: RequestLimits) -> Any:
            limit, where = at_most(page_size(fields), limits.points), self._where(chosen, limits)
            page = {"limit": limit, "offset": offset, **where, **options}
            return self._call("reading points", self._client.scroll, **page)

        while True:
            records, offset = self.within_limits(read)
            page: Mapping[PointId, dict[str, Any]] = to_payloads(records)
            if all_replicas:
                equal = self.retrieve([*page], fields, all_replicas=True)
                page = {id_: equal[id_] for id_ in page if id_ in equal}
            yield from page.items()
            if offset is None:
                return

    def read_ordered(
        self,
        order: PointOrder,
        fields: Sequence[str],
        *,
        limit: int,
        meta_filter: SearchFilter | None = None,
    ) -> list[OrderedPoint] | None:
        """Return the first points of an order; None without an index for it."""
        direction = models.Direction.DESC if order.is_descending else models.Direction.ASC
        options = self._read_options(fields, all_replicas=False)
        options["order_by"] = models.OrderBy(
            key=order.key, direction=direction, start_from=order.start
        )
        chosen = self._to_filter(meta_filter)

        def read(limits: RequestLimits) -> Any:
            page, scroll = at_most(limit, limits.points), self._client.scroll
            where = self._where(chosen, limits)
            return self._call("reading points", scroll, limit=page, **where, **options)

        try:
            records, _ = self.within_limits(read)
        except StoreError as exc:
            if not lacks_range_index(exc):
                raise
            return None
        return to_ordered(records)

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        ann = self._server.is_remote

        def search(limits: RequestLimits) -> list[list[ScoredPoint]]:
            parts = fit_queries(self._name, queries, limits)
            known = self._known_keys(queries, limits)
            requests = [
                convert.query_request(part, ann=ann, limits=limits, keys=known) for _, part in parts
            ]
            found: list[list[ScoredPoint]] = []
            for batch in split_queries(requests) if self._server.is_rest else [requests]:
                for page in in_batches(batch, at_most(len(batch), limits.queries)):
                    answers = self._call("searching", self._client.query_batch_points, page)
                    found += [to_scored(answer.points) for answer in answers]
            return merge_answers(queries, [position for position, _ in parts], found)

        with outdated_requests():  # a later step of a search has the limits of its beginning
            return self.within_limits(search)

    def flush(self) -> None:
        """Do nothing: every write has waited for the sync."""
        self._server.check_open()

    def optimize(self, *, stall_s: float = INDEX_STALL_S) -> None:
        """Wait until the server has built the indexes, or builds none; see `index_wait`."""
        if not self._server.is_remote:
            return
        if self.read_info().status == "grey":  # it waits for an update, which may be empty
            update, empty = self._client.update_collection, models.OptimizersConfigDiff()
            try:
                self._call("starting the optimizers", update, optimizers_config=empty)
            except StoreAccessError as exc:
                _log.warning("%s. The next write starts them", exc)
                return
        info = wait_for_indexes(self.read_info, self._server.retries.sleep, stall_s)
        report_unfinished(info, self._name, self._server.place, stall_s)

    def read_info(self) -> models.CollectionInfo:
        """Return the state as the engine reports it; its limits apply from now on."""
        info = self._call("reading the collection's state", self._client.get_collection)
        self._limits.learn(info)
        return info

    def limits(self) -> RequestLimits:
        """Return the collection's limits on requests, as they were last read."""
        if not self._server.is_remote:
            return NO_LIMITS
        return self._limits.found or self._limits.learn(self.read_info())

    def within_limits(self, call: Callable[[RequestLimits], _T]) -> _T:
        """Call with the collection's limits; if they have changed, read them and call again.

        Args:
            call: An idempotent call.
        """
        limits = self.limits()
        try:
            return call(limits)
        except StoreError as exc:
            if lacks_shard_key(exc):
                self._limits.keys.forget()
                return call(limits)
            if not is_limit_error(exc):
                raise
            self.read_info()
            if (explained := explain_limit(self._name, exc, self._server.place)) is not None:
                raise explained from exc
            if self.limits() == limits:
                raise
        return call(self.limits())

    def count(self, meta_filter: SearchFilter | None = None, *, exact: bool = True) -> int:
        """Count the points, or those that match a filter."""
        chosen = self._to_filter(meta_filter)
        return self._count(None, chosen, exact)

    def _to_filter(self, meta_filter: SearchFilter | None) -> models.Filter | None:
        """Convert a filter of a read; None without one.

        Raises:
            UsageError: If the server would compare its words wrongly.
        """
        if meta_filter is None:
            return None
        chosen = to_qdrant(meta_filter)
        if self._server.words_need_index and has_words(chosen):
            indexes, place = self.spec().payload_indexes, self._server.place
            refuse_unindexed_words(chosen, indexes, base_name(self._name), place)
        return chosen

    def count_replicas(self, consistency: models.ReadConsistencyType | None) -> int:
        """Count the points, exactly if the collection's limits allow it.

        Args:
            consistency: `ALL` returns the lowest count of any active replica of each shard,
                `MAJORITY` the middle one of all replicas (of two, the higher), None the
                one of a replica that answers.
        """
        return self._count(consistency, None, exact=True)

    def facet(
        self,
        key: str,
        *,
        limit: int,
        meta_filter: SearchFilter | None = None,
        exact: bool = True,
    ) -> list[Facet] | None:
        """Return the most frequent values of a payload key; None without an index for it."""
        if not self._server.is_remote:  # it has no indexes
            return None
        chosen = self._to_filter(meta_filter)

        def call(limits: RequestLimits) -> list[Facet]:
            options = {
                "facet_filter": chosen,
                "limit": limit,
                "exact": self._may_be_exact(limits, exact=exact),
                "shard_key_selector": self._keys.selector(chosen, limits.shard_key),
            }
            found = self._call("counting values", self._client.facet, key, **options)
            return [Facet(hit.value, hit.count) for hit in found.hits]

        try:
            return self.within_limits(call)
        except StoreError as exc:
            if not lacks_facet_index(exc):
                raise
            return None

    def _may_be_exact(self, limits: RequestLimits, *, exact: bool) -> bool:
        if exact and not limits.exact:
            self._limits.warn_of_estimates(self._name)
        return exact and limits.exact

    def _count(
        self,
        consistency: models.ReadConsistencyType | None,
        chosen: models.Filter | None,
        exact: bool,
    ) -> int:
        timeout_s = self._connection.timeout_s

        def call(limits: RequestLimits) -> int:
            keys = self._keys.selector(chosen, limits.shard_key)
            request = CountQuery(self._name, chosen, consistency, keys)
            is_exact = self._may_be_exact(limits, exact=exact)
            return count_points(self._server, request, exact=is_exact, timeout_s=timeout_s)

        return self.within_limits(call)

    def _spec(self, info: models.CollectionInfo) -> CollectionSpec:
        try:
            return convert.to_spec(info)
        except ValueError as exc:
            raise StoreCorruptError(
                f"collection '{self._name}' was not created by msmarco-qdrant: {exc}"
            ) from exc

    def _read_options(self, fields: Sequence[str], *, all_replicas: bool) -> dict[str, Any]:
        """Return the arguments of a read for its fields and its consistency."""
        consistency = models.ReadConsistencyType.ALL if all_replicas else None
        return {"with_payload": list(fields) or False, "consistency": consistency}

    def _call(self, action: str, method: Callable[..., _T], *args: Any, **options: Any) -> _T:
        """Call a method of the client with the collection's name; see `ServerClient.call`."""
        return self._server.call(action, method, self._name, *args, **options)

    def _where(self, chosen: models.Filter | None, limits: RequestLimits) -> dict[str, Any]:
        """Return the arguments of a page for its filter and its shards."""
        keys = self._keys.selector(chosen, limits.shard_key)
        found = {"scroll_filter": chosen, "shard_key_selector": keys}
        return {name: value for name, value in found.items() if value is not None}

    def _known_keys(self, queries: Sequence[PointQuery], limits: RequestLimits) -> KnownKeys | None:
        """Return the known shard keys, read again if one of a query is missing; None without."""
        if limits.shard_key is None:
            return None
        for query in queries:
            self._keys.selector(point_filter(query), limits.shard_key)
        return self._limits.keys

    def _delete(self, chosen: models.FilterSelector, limits: RequestLimits) -> None:
        """Delete the points of a filter from all shards."""
        for where in self._keys.everywhere(limits.shard_key):
            self._call("deleting points", self._client.delete, chosen, wait=True, **where)

    def _update(
        self,
        operations: Callable[[RequestLimits], Sequence[models.UpdateOperation]],
        payloads: Sequence[dict[str, Any]],
    ) -> None:
        """Write payloads, by one operation each; without operations there is nothing to write."""
        update = self._client.batch_update_points

        def write(limits: RequestLimits) -> None:
            if not (found := operations(limits)):
                return
            for start, stop in self._writer.split(map(payload_bytes, payloads), limits):
                self._call("writing payloads", update, found[start:stop], wait=True)

        self.within_limits(write)

    def _last_seq(self, info: models.CollectionInfo) -> int:
        if self._server.is_remote and "seq" not in info.payload_schema:
            return 0  # its creation was interrupted before the index: it has no points
        newest_first = models.OrderBy(key="seq", direction=models.Direction.DESC)
        read, names = self._client.scroll, ["seq"]
        records, _ = self._call(
            "reading the last seq", read, limit=1, order_by=newest_first, with_payload=names
        )
        return int(records[0].payload["seq"]) if records and records[0].payload else 0
