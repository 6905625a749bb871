"""What the loopback server holds: local mode underneath, and what local mode does not keep.

Nothing here locks: the server calls it under its one lock.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from qdrant_client import QdrantClient, grpc, models

from tests.loopback.sharding import KeyedShards, of_config
from tests.loopback.statuses import Mistake

_FACET_TYPES = frozenset(
    {
        grpc.PayloadSchemaType.Keyword,
        grpc.PayloadSchemaType.Integer,
        grpc.PayloadSchemaType.Bool,
        grpc.PayloadSchemaType.Uuid,
    }
)
_RANGE_TYPES = frozenset(
    {
        grpc.PayloadSchemaType.Integer,
        grpc.PayloadSchemaType.Float,
        grpc.PayloadSchemaType.Datetime,
    }
)


class Health(NamedTuple):
    """What Get collection answers about the state of a collection."""

    status: str = "Green"
    optimizer_error: str = ""
    indexed_vectors_count: int | None = None


@dataclass(slots=True)
class Shelf:
    """What is kept of a collection beside its points."""

    config: grpc.CollectionConfig
    indexes: dict[str, grpc.PayloadSchemaInfo] = field(default_factory=dict)
    health: list[tuple[Health, int | None]] = field(default_factory=list)
    operations: int = 0
    keyed: KeyedShards = field(default_factory=lambda: KeyedShards(is_custom=False))

    def next_health(self) -> Health:
        """What the next answer says: the first set one, taken down when its calls are used up."""
        if not self.health:
            return Health()
        health, left = self.health[0]
        if left is not None:
            self.health[0] = (health, left - 1)
            if left <= 1:
                self.health.pop(0)
        return health

    def set_health(self, health: Health, calls: int | None) -> None:
        """Say `health` after what was set for a number of calls; None is until the next time."""
        self.health = [one for one in self.health if one[1] is not None]
        self.health.append((health, calls))

    def optimize(self) -> None:
        """Start the optimizers: what was grey, because nothing had, is no longer."""
        self.health = [one for one in self.health if one[0].status != "Grey"]


class Engine:
    """Collections in memory, by physical name, with the configs and indexes they were given."""

    version = "1.20.0"

    def __init__(self) -> None:
        self.shelves: dict[str, Shelf] = {}
        # local mode's aliases are not used: it refuses renames that the server accepts
        self.aliases: dict[str, str] = {}

    @cached_property
    def client(self) -> QdrantClient:
        """Local mode, made when it is needed."""
        return QdrantClient(":memory:")

    def complete(self, config: grpc.CollectionConfig, request: grpc.CreateCollection) -> None:
        """Fill in what a node alone does not decide; nothing where there is one."""

    def resolve(self, name: str) -> str:
        """The physical name for an alias or a physical name.

        Raises:
            RefusalError: there is neither.
        """
        physical = self.aliases.get(name, name)
        if physical not in self.shelves:
            raise Mistake.NO_COLLECTION.refusal(name=physical)
        return physical

    def shelf(self, name: str) -> Shelf:
        """What is kept of a collection, by alias or physical name."""
        return self.shelves[self.resolve(name)]

    def create(
        self, name: str, params: models.CreateCollection, config: grpc.CollectionConfig
    ) -> None:
        """Make a collection; the names were checked before."""
        self.create_points(name, params)
        self.shelves[name] = Shelf(config, keyed=of_config(config))

    def create_points(self, name: str, params: models.CreateCollection) -> None:
        """Make the place of a collection's points."""
        self.client.create_collection(
            name,
            vectors_config=params.vectors or {},
            sparse_vectors_config=params.sparse_vectors,
        )
        # local mode warns above this size, and a warning is an error in these tests
        local: Any = self.client._client
        local.collections[name].LARGE_DATA_THRESHOLD = sys.maxsize

    def delete(self, name: str) -> bool:
        """Remove a collection and its aliases; whether it was there. An alias is not one."""
        for alias in [one for one, of in self.aliases.items() if of == name]:
            del self.aliases[alias]
        if self.shelves.pop(name, None) is None:
            return False
        self.delete_points(name)
        return True

    def delete_points(self, name: str) -> None:
        """Remove the place of a collection's points, and them."""
        self.client.delete_collection(name)

    def count(self, name: str, count_filter: models.Filter | None = None) -> int:
        """How many points a collection holds, or how many fit a filter."""
        return self.client.count(name, count_filter=count_filter).count

    def indexed_points(self, name: str, key: str) -> int:
        """How many points have a value for an indexed field; every Get collection info asks."""
        local: Any = self.client._client
        if (stored := local.collections.get(name)) is not None and key.isidentifier():
            # local mode's filter takes some microseconds a point
            pairs = zip(stored.payload, stored.deleted.tolist(), strict=True)
            return sum(payload.get(key) not in (None, []) for payload, gone in pairs if not gone)
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        return self.count(name, models.Filter(must_not=[empty]))

    def require_range_index(self, name: str, key: str) -> None:
        """Refuse to order by a field without an index that knows an order."""
        index = self.shelves[name].indexes.get(key)
        if index is None or index.data_type not in _RANGE_TYPES:
            raise Mistake.NO_RANGE_INDEX.refusal(key=key)

    def require_facet_index(self, name: str, key: str) -> None:
        """Refuse to count the values of a key without an index that has them."""
        index = self.shelves[name].indexes.get(key)
        if index is None or index.data_type not in _FACET_TYPES:
            raise Mistake.NO_FACET_INDEX.refusal(key=key)
