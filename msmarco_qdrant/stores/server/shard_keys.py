"""Shard keys of a collection: one value of a `meta` field a shard, or a few shards.

Qdrant creates no shard by itself in such a collection. A write names the keys whose shards it goes
to, so the same id can be in the shards of two keys; the ingest refuses a pid that another tenant
has. A write that selects points by conditions goes to all keys. A read without a key asks all
shards, which is right for every filter; one whose filter demands a known value asks its shards
only.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

from qdrant_client import QdrantClient, models

from msmarco_qdrant.core.field_path import only_string, payload_keys
from msmarco_qdrant.errors import SchemaError, StoreAccessError, StoreError, UnsupportedError
from msmarco_qdrant.stores.error_mapping import describe_error
from msmarco_qdrant.stores.filters import list_conditions

_log = logging.getLogger(__name__)

SHARD_KEY = "msmarco_qdrant_shard_key"
"""The key of the `meta` field that chooses the shards, among the metadata of a collection."""

_READ_AGAIN_S = 1.0
"""Seconds between two reads of the keys for values that have no shard yet."""

# Qdrant's lib/collection/src/shards/shard_holder and, for the second, src/common/collections.rs
_NOT_FOUND = re.compile(r"Shard key .* not found", re.DOTALL)
_EXISTS = re.compile(r"Shard(?:ing)? key .* already exists", re.DOTALL)


def shard_key(info: models.CollectionInfo) -> str | None:
    """Return the `meta` field that chooses the shards of a passage; None if its id does."""
    if info.config.params.sharding_method != models.ShardingMethod.CUSTOM:
        return None
    found = (info.config.metadata or {}).get(SHARD_KEY)
    return None if found is None else str(found)


def rows_by_key(payloads: Sequence[Mapping[str, Any]], field: str) -> Mapping[str, list[int]]:
    """Group payloads by their shard key; the rows of each are in ascending order.

    Raises:
        SchemaError: If one has none.
    """
    rows: dict[str, list[int]] = {}
    for row, payload in enumerate(payloads):
        value = only_string(payload.get("meta") or {}, field)
        if value is None:
            raise SchemaError(
                f"each passage needs one string in the field '{field}', which chooses its shard, "
                f"got none for the pid {payload.get('pid')!r}"
            )
        rows.setdefault(value, []).append(row)
    return rows


def wanted_values(chosen: models.Filter | None, field: str | None) -> Set[str] | None:
    """Return the values of a field of which a filter demands one; None if it does not."""
    if chosen is None or field is None:
        return None
    (key,) = payload_keys(field)
    return next(_demanded(chosen, key), None)


def _demanded(chosen: models.Filter, key: str) -> Iterator[Set[str]]:
    for condition in list_conditions(chosen.must):
        if isinstance(condition, models.Filter):
            yield from _demanded(condition, key)
        elif isinstance(condition, models.FieldCondition) and condition.key == key:
            match condition.match:
                case models.MatchValue(value=str() as value):
                    yield {value}
                case models.MatchAny(any=values) if all(isinstance(one, str) for one in values):
                    yield {str(one) for one in values}


class KnownKeys:
    """The keys of one collection that were read or created. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: frozenset[str] = frozenset()
        self._read_at = -_READ_AGAIN_S
        self._was_denied = False

    @property
    def keys(self) -> Set[str]:
        """The keys."""
        return self._keys

    def selector(self, wanted: Set[str] | None) -> list[int | str] | None:
        """Return the keys of a read, None for all shards: also if one of them is not known."""
        return sorted(wanted) if wanted and wanted <= self._keys else None

    def should_read(self, wanted: Set[str] | None) -> bool:
        """True if one of the keys is not known, and they were not read just now."""
        if not wanted or wanted <= self._keys:
            return False
        return time.monotonic() - self._read_at >= _READ_AGAIN_S

    def learn(self, info: models.CollectionClusterInfo) -> Sequence[str]:
        """Keep the keys of the shards of a collection, and return them."""
        shards: tuple[Any, ...] = (*info.local_shards, *info.remote_shards)
        found = frozenset(str(one.shard_key) for one in shards if one.shard_key is not None)
        with self._lock:
            self._keys, self._read_at = found, time.monotonic()
        return sorted(found)

    def cannot_read(self, error: StoreError) -> None:
        """Note that a client may not read the keys: it asks all shards, which is as right."""
        with self._lock:
            self._read_at = time.monotonic()
            was_denied, self._was_denied = self._was_denied, True
        if not was_denied:
            _log.warning("%s. So each search asks the shards of every tenant", error)

    def add(self, key: str) -> None:
        """Add a key that was created."""
        with self._lock:
            self._keys |= {key}

    def forget(self) -> None:
        """Forget the keys: the collection, or the one behind an alias, has others now."""
        with self._lock:
            self._keys, self._read_at = frozenset(), -_READ_AGAIN_S


class ShardKeys:
    """The shard keys of one collection on a server.

    Args:
        client: The client of the server.
        call: Calls one of its methods for the collection; see `ServerCollection`.
        known: The keys that are known.
    """

    def __init__(self, client: QdrantClient, call: Callable[..., Any], known: KnownKeys) -> None:
        self._client = client
        self._call = call
        self._known = known

    def read(self) -> Sequence[str]:
        """Return all keys, as the server has them now."""
        info = self._call("reading the shard keys", self._client.collection_cluster_info)
        return self._known.learn(info)

    def selector(self, chosen: models.Filter | None, field: str | None) -> list[int | str] | None:
        """Return the keys of the shards that a filter needs; None for all."""
        wanted = wanted_values(chosen, field)
        if self._known.should_read(wanted):
            try:
                self.read()
            except (StoreAccessError, UnsupportedError) as exc:
                self._known.cannot_read(exc)
        return self._known.selector(wanted)

    def rows(
        self, payloads: Sequence[Mapping[str, Any]], field: str
    ) -> Mapping[str, Sequence[int]]:
        """Group payloads by their keys, all of which exist then; the rows of each ascend.

        Raises:
            SchemaError: If one has none.
            StoreError: See `require`.
        """
        found = rows_by_key(payloads, field)
        self.require(found.keys())
        return found

    def of_rows(
        self, payloads: Sequence[Mapping[str, Any]], field: str | None
    ) -> Sequence[str | None]:
        """Return the key of each payload, see `rows`; None for a collection without keys."""
        keys: list[str | None] = [None] * len(payloads)
        groups = {} if field is None else self.rows(payloads, field)
        for key, rows in groups.items():
            for row in rows:
                keys[row] = key
        return keys

    def everywhere(self, field: str | None) -> Iterator[dict[str, Any]]:
        """Yield the arguments of a write that a filter selects the points of, unless none can be.

        All keys are in one request.
        """
        if field is None:
            yield {}
        elif keys := self.read():
            yield {"shard_key_selector": keys}

    def require(self, wanted: Set[str]) -> None:
        """Create the keys that do not exist.

        Raises:
            StoreError: If the server fails, or is not in cluster mode, which shard keys need.
        """
        if wanted <= self._known.keys:
            return
        for key in sorted(wanted - {*self.read()}):
            create = partial(self._client.create_shard_key, shard_key=key)
            try:
                self._call(f"creating the shard key {key!r}", create)
            except StoreError as exc:
                if not _EXISTS.search(_server_message(exc)):
                    raise
            self._known.add(key)


def lacks_shard_key(error: StoreError) -> bool:
    """True if a server refused a request because a shard key does not exist."""
    return bool(_NOT_FOUND.search(_server_message(error)))


def lacks_shards(error: StoreError) -> bool:
    """True if a server refused a request without a shard key to a collection that has such keys."""
    return "Shard key not specified" in _server_message(error)


def _server_message(error: StoreError) -> str:
    return "" if error.__cause__ is None else describe_error(error.__cause__)
