"""Shards by key, as a collection with custom sharding has them.

A write names its keys, else it is refused; a read may name some. Read from the server's own
sources: lib/collection/src/shards/shard_holder, lib/storage/src/content_manager/toc/point_ops.rs,
src/common/collections.rs.
There the same id can be in the shards of two keys. Here that is refused, so that a test fails: this
package never writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qdrant_client import grpc, models

from tests.loopback.statuses import Mistake


@dataclass(slots=True)
class KeyedShards:
    """The keys of a collection, and the key of each point that was written."""

    is_custom: bool
    keys: list[str] = field(default_factory=list)
    key_of: dict[Any, str] = field(default_factory=dict)

    def create(self, key: str, collection: str) -> None:
        """Create the shards of a key."""
        if not self.is_custom:
            raise Mistake.BAD_REQUEST.refusal(
                description="Shard Key cannot be created with Auto sharding method"
            )
        if key in self.keys:
            raise Mistake.BAD_REQUEST.refusal(
                description=f'Sharding key "{key}" already exists for collection {collection}'
            )
        self.keys.append(key)

    def lacks_shards(self, version: str) -> bool:
        """Whether the payload schema is empty, and a change of it fails after it was recorded.

        So it was before 1.17: https://github.com/qdrant/qdrant/pull/7856
        """
        return self.is_custom and not self.keys and tuple(map(int, version.split("."))) < (1, 17)

    def written(self, request: Any) -> Sequence[str] | None:
        """The keys that a write names; None for a collection that has none."""
        named = _named(request)
        if not self.is_custom and not named:
            return None
        if not named:
            raise Mistake.BAD_INPUT.refusal(description="Shard key not specified")
        self._require(named)
        return named

    def put(self, keys: Sequence[str] | None, ids: Sequence[Any], stored: Sequence[Any]) -> None:
        """Keep the key of points to be written; `stored` are those of them that exist."""
        if keys is None:
            return
        (key,) = keys
        for one in ids:
            if one in stored and self.key_of.get(one, key) != key:
                raise Mistake.INTERNAL.refusal(
                    description=f"point {one} would be in {self.key_of[one]} and in {key}"
                )
            self.key_of[one] = key

    def inside(self, keys: Sequence[str] | None, chosen: models.Filter | None) -> Any:
        """A filter within the shards of some keys; None is all of them."""
        if keys is None:
            return chosen
        here = [one for one, key in self.key_of.items() if key in keys]
        within = models.HasIdCondition(has_id=here)
        return models.Filter(must=[within, *([] if chosen is None else [chosen])])

    def read(self, request: Any, chosen: models.Filter | None) -> Any:
        """The filter of a read, within the shards it names."""
        named = _named(request)
        self._require(named)
        return self.inside(named or None, chosen)

    def select(self, keys: Sequence[str] | None, chosen: models.PointsSelector) -> Any:
        """A selector of points within the shards of some keys."""
        if keys is None:
            return chosen
        if isinstance(chosen, models.PointIdsList):
            for one in chosen.points:
                if self.key_of.get(one) not in keys:
                    raise Mistake.NO_POINT.refusal(id=one)
            return chosen
        return models.FilterSelector(filter=self.inside(keys, chosen.filter))

    def _require(self, named: Sequence[str]) -> None:
        for key in named:
            if key not in self.keys:
                raise Mistake.BAD_REQUEST.refusal(description=f'Shard key "{key}" not found')


def _named(request: Any) -> list[str]:
    return [one.keyword for one in request.shard_key_selector.shard_keys]


def of_config(config: grpc.CollectionConfig) -> KeyedShards:
    """The shards of a new collection."""
    return KeyedShards(config.params.sharding_method == grpc.ShardingMethod.Custom)
