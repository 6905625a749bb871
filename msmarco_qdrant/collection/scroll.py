"""All passages of a collection one after the other, in the order of ids or of a `meta` field.

An engine orders points by a payload index, page by page, but not those of the same value. So a page
is used up to its last value, with which the next page begins. If a page has one value only, its
passages are read in the order of ids instead. The order is thus the same each time, on every
engine, however many passages have the same value, and nothing of what was returned has to be
remembered.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from os import PathLike
from typing import Any, TypeAlias

from msmarco_qdrant.collection.filter_notes import log_filter_notes
from msmarco_qdrant.collection.tenants import tenant_filter
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.collection_types import PayloadIndex, PointId
from msmarco_qdrant.core.fast_init import fast_init
from msmarco_qdrant.core.field_path import check_field, field_values, payload_keys
from msmarco_qdrant.core.limits import at_most
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import OrderedPoint, PointOrder
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import Exists, SearchFilter, check_filter
from msmarco_qdrant.stores import (
    DEFAULT_CONNECTION,
    AliasedCollection,
    Connection,
    Store,
    use_store,
)
from msmarco_qdrant.stores.filters import combine, has_ids, has_order_value, index_kind
from msmarco_qdrant.stores.foreign import ForeignPoints
from msmarco_qdrant.stores.payload import HIT_FIELDS, page_size, point_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS = ("integer", "float", "datetime")
_SINGLE = {int, float, str}
_MOST_KEYS = 2

_Point: TypeAlias = tuple[PointId, dict[str, Any]]
_Place: TypeAlias = tuple[float, bool, Any]
"""The value of a point and its id, as they order points; the value negated if it descends.

Qdrant has integers before UUIDs: True for these.
"""

_new_passage = fast_init(Passage)
_id, _value, _point = attrgetter("id"), attrgetter("value"), attrgetter("id", "payload")


@dataclass(frozen=True, slots=True)
class ScrollRequest:
    """A checked request for passages one after the other.

    Attributes:
        meta_filter: Only passages that match.
        order_by: The field that orders them, with "-" in front for the highest first; None for
            the order of ids.
        after: The pid of the passage to continue behind.
        scope: The passages of which the filter chooses; None for all.

    Raises:
        UsageError: For an invalid filter, field or pid.
    """

    meta_filter: SearchFilter | None = None
    order_by: str | None = None
    after: str | None = None
    scope: SearchFilter | None = None

    def __post_init__(self) -> None:
        check_filter(self.meta_filter)
        if self.order_by is not None:
            if not isinstance(self.order_by, str) or self.field == "":
                raise UsageError(
                    "order_by must be the name of a field of meta, with a dash in front for the "
                    f"highest first, got {self.order_by!r}"
                )
            check_field(self.field)
            if len(payload_keys(self.field)) > _MOST_KEYS:
                raise UsageError(f"order_by must have at most one dot, got {self.field!r}")
        if self.after is not None and (not isinstance(self.after, str) or self.after == ""):
            raise UsageError(f"after must be a non-empty pid, got {self.after!r}")

    @property
    def chosen(self) -> SearchFilter | None:
        """The filter of the passages to read."""
        return combine(self.scope, self.meta_filter)

    @property
    def field(self) -> str:
        """The field that orders the passages."""
        return (self.order_by or "").removeprefix("-")

    @property
    def is_descending(self) -> bool:
        """True for the highest value first."""
        return (self.order_by or "").startswith("-")


@suggest_keywords
def scroll_passages(
    store: Store | str | PathLike[str],
    *,
    meta_filter: SearchFilter | None = None,
    tenant: str | None = None,
    order_by: str | None = None,
    after: str | None = None,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
) -> Iterator[Passage]:
    """Read all passages, or those that match, one after the other.

    They are read page by page while you iterate. One that is written or deleted then may be
    missing; every other is returned once. To stop and continue later, keep the last pid.

    Args:
        store: An open store, which is not closed, or a path or URL, which is opened until the
            last passage.
        meta_filter: Only passages that match, as in `SearchClient.search`.
        tenant: Only this tenant's; see `set_tenant_field`.
        order_by: A `meta` field of numbers or moments that orders them, lowest first, or "-year"
            for the highest first; passages without a value are left out, and those of the same
            value are in the order of ids. It needs a payload index of kind integer, float or
            datetime. None for the order of ids.
        after: The pid of a passage to continue behind, for the same `order_by`.
        collection: The collection's name.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Raises:
        UsageError: For an invalid argument, or an `order_by` without an index.
        StoreError: If the store cannot be opened or read, or has no such collection.
    """
    request = ScrollRequest(meta_filter, order_by, after)
    with ExitStack() as stack:
        opened = stack.enter_context(use_store(store, connection))
        metadata = opened.metadata(collection)  # raises for another program's collection
        scope = tenant_filter(metadata, collection, tenant, opened.dsn)
        request = replace(request, scope=scope)
        foreign = ForeignPoints(collection, opened.dsn)
        source = AliasedCollection(opened, collection)
        found = read_scroll(opened, source, collection, foreign, request)
        return _closing(found, stack.pop_all())


def read_scroll(
    store: Store,
    source: AliasedCollection,
    name: str,
    foreign: ForeignPoints,
    request: ScrollRequest,
) -> Iterator[Passage]:
    """Read passages one after the other; see `scroll_passages`.

    Args:
        store: The store.
        source: The collection.
        name: The collection's name.
        foreign: Counts the points that are not passages.
        request: The checked request.
    """
    points = (
        _by_id(source, request)
        if request.order_by is None
        else _by_value(store, source, name, request)
    )
    return _to_passages(source, foreign, request, points)


def _closing(found: Iterator[Passage], opened: ExitStack) -> Iterator[Passage]:
    with opened:
        yield from found


def _to_passages(
    source: AliasedCollection,
    foreign: ForeignPoints,
    request: ScrollRequest,
    points: Iterator[_Point],
) -> Iterator[Passage]:
    has_match, is_passage = request.after is not None, foreign.is_passage
    for id_, payload in points:
        if is_passage(id_, payload):
            has_match = True
            yield _new_passage(payload["pid"], payload["text"], payload["meta"])
    if request.meta_filter is not None and not has_match:
        log_filter_notes(source, request.meta_filter, has_match=False, scope=request.scope)


def _by_id(source: AliasedCollection, request: ScrollRequest) -> Iterator[_Point]:
    if request.after is None:
        return source.scan(HIT_FIELDS, meta_filter=request.chosen)
    start = point_id(request.after)
    points = source.scan(HIT_FIELDS, meta_filter=request.chosen, start=start)
    return ((id_, payload) for id_, payload in points if id_ != start)


def _by_value(
    store: Store, source: AliasedCollection, name: str, request: ScrollRequest
) -> Iterator[_Point]:
    """Return the points in the order of a field: of its key, and of the one inside of a list."""
    indexes = source.spec().payload_indexes if store.capabilities.payload_indexes else {}
    orders = [
        _KeyOrder(store, source, name, request, key, index_kind(indexes, key))
        for key in payload_keys(request.field)
    ]
    for order in orders:
        if store.capabilities.payload_indexes and order.kind not in _KINDS:
            raise _no_index(store, source, name, request.field, order.kind, request.scope)
    behind = None if request.after is None else _place_of(orders, request.after, name)
    streams = [order.points(behind) for order in orders]
    merged = heapq.merge(*streams, key=orders[0].place) if len(streams) > 1 else streams[0]
    return map(_point, merged)


def _place_of(orders: Sequence[_KeyOrder], pid: str, name: str) -> _Place:
    for order in orders:
        for one in order.first_values([point_id(pid)]):
            return order.place(one)
    raise UsageError(
        f"after must be the pid of a passage of '{name}' with a value of '{orders[0].field}', "
        f"got {pid!r}"
    )


@dataclass(frozen=True, slots=True)
class _KeyOrder:
    """Reads the points of a collection in the order of one payload key."""

    store: Store
    source: AliasedCollection
    name: str
    request: ScrollRequest
    key: str
    kind: PayloadIndex | None

    @property
    def field(self) -> str:
        return self.request.field

    def place(self, point: OrderedPoint) -> _Place:
        """Return the key by which points are sorted."""
        id_, value = point.id, point.value
        return -value if self.request.is_descending else value, type(id_) is not int, id_

    def first_values(self, ids: Sequence[PointId]) -> list[OrderedPoint]:
        """Return some points with the value that is the first in this order; not all have one."""
        order = PointOrder(self.key, self.request.is_descending)
        return [
            point for id_ in ids for point in self._read(order, ("pid",), self._of(id_), limit=1)
        ]

    def _of(self, id_: PointId) -> SearchFilter | None:
        return combine(self.request.scope, has_ids([id_]))

    def points(self, behind: _Place | None) -> Iterator[OrderedPoint]:
        """Yield each point once, by its first value."""
        start = None
        if behind is not None:
            start = self._start(-behind[0] if self.request.is_descending else behind[0])
        chosen = self.request.chosen
        while True:
            size = self._page_size
            order = PointOrder(self.key, self.request.is_descending, start)
            page = self._read(order, HIT_FIELDS, chosen, limit=size)
            is_last = len(page) < size == self._page_size
            last = page[-1].value if page else 0.0
            whole = page if is_last else [one for one in page if one.value != last]
            yield from self._sorted(whole, behind)
            if is_last:
                return
            if whole:  # the next page has all points of the last value, or begins with them
                start = self._start(last)
            else:
                yield from self._with_value(last, behind)
                start = self._start(self._next(last))

    @property
    def _page_size(self) -> int:
        return at_most(page_size(HIT_FIELDS), self.store.request_limits(self.name).points)

    def _read(
        self,
        order: PointOrder,
        fields: Sequence[str],
        meta_filter: SearchFilter | None,
        limit: int,
    ) -> Sequence[OrderedPoint]:
        found = self.source.read_ordered(order, fields, limit=limit, meta_filter=meta_filter)
        if found is None:
            raise _no_index(
                self.store, self.source, self.name, self.field, self.kind, self.request.scope
            )
        return found

    def _with_value(self, value: float, behind: _Place | None) -> Iterator[OrderedPoint]:
        """Yield the points of one value, page by page in the order of ids."""
        chosen = combine(self.request.chosen, has_order_value(self.key, value, self.kind))
        for id_, payload in self.source.scan(HIT_FIELDS, meta_filter=chosen):
            yield from self._sorted([OrderedPoint(id_, value, payload)], behind)

    def _sorted(self, points: Sequence[OrderedPoint], behind: _Place | None) -> list[OrderedPoint]:
        """Return points in this order, without those that an earlier value returned."""
        if several := self._with_several(points):
            firsts = {one.id: one.value for one in self.first_values(several)}
            points = [one for one in points if firsts.get(one.id, one.value) == one.value]
        if behind is not None:
            points = [one for one in points if self.place(one) > behind]
        if not {*map(type, map(_id, points))} <= {int}:
            return sorted(points, key=self.place)
        by_id = sorted(points, key=_id)  # most points: the key above takes five times as long
        return sorted(by_id, key=_value, reverse=self.request.is_descending)

    def _with_several(self, points: Sequence[OrderedPoint]) -> list[PointId]:
        """Return the ids of points that may have several values."""
        field = self.field
        metas: list[Any] = [one.payload.get("meta") for one in points]
        if (
            field.isidentifier()
            and {*map(type, metas)} <= {dict}
            and {type(meta.get(field)) for meta in metas} <= _SINGLE
        ):
            return []  # most pages: the path of a field takes longer
        found = [field_values(meta, field) if isinstance(meta, dict) else () for meta in metas]
        return [
            one.id
            for one, values in zip(points, found, strict=True)
            if len(values) != 1 or isinstance(values[0], list)
        ]

    def _next(self, value: float) -> float:
        """Return the value behind another in this order."""
        step = -1 if self.request.is_descending else 1
        return value + step if isinstance(value, int) else math.nextafter(value, step * math.inf)

    def _start(self, value: float) -> float | datetime:
        return _EPOCH + timedelta(microseconds=value) if self.kind == "datetime" else value


def _no_index(
    store: Store,
    source: AliasedCollection,
    name: str,
    field: str,
    kind: PayloadIndex | None,
    scope: SearchFilter | None,
) -> UsageError:
    """Return the error for a field without an index that orders it."""
    payloads = source.scan(("meta",), meta_filter=combine(scope, {field: Exists()}))
    _, payload = next(payloads, (0, {}))
    values = field_values(payload.get("meta") or {}, field)
    if kind is None and not values:
        return UsageError(
            f"order_by must be a field of meta that some passages have, got {field!r}"
        )
    sample = values[0] if values else None
    if sample is not None and not _has_order(sample):
        return UsageError(
            f"order_by must be a field of numbers or moments, and '{field}' has values such as "
            f"{str(sample)[:80]}"
        )
    wanted = {int: "integer", float: "float", str: "datetime"}.get(type(sample), "integer")
    command = advised_command("index", "add", f"{field}={wanted}", collection=name, store=store.dsn)
    found = f"one of kind {kind}" if kind else "none"
    return UsageError(
        f"order_by needs a payload index of kind integer, float or datetime, and '{field}' has "
        f"{found}: add the index with {command}"
    )


def _has_order(value: object) -> bool:
    """True for a number, and for a string that is a moment."""
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)
