"""The state of a collection before an ingest, and what is checked against it at the end."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from msmarco_qdrant.collection.replicas import mark_unreachable_replicas
from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.stores import Collection

_log = logging.getLogger(__name__)

_MIN_PASSAGES_FOR_MEAN = 100


@dataclass(frozen=True, slots=True)
class CollectionStart:
    """State of a collection before an ingest.

    Attributes:
        points: Number of its points.
        last_seq: The highest `seq` in it.
        replicated: True if it has replicas, which may differ.
        shard_key: The `meta` field that chooses the shard of a passage; None without.
        may_hold_passages: True if an earlier attempt may have written some of the run's passages.
    """

    points: int
    last_seq: int
    replicated: bool
    shard_key: str | None = None
    may_hold_passages: bool = False

    @classmethod
    def of(cls, guard: AliasGuard, collection: Collection) -> CollectionStart:
        """Read the state of a guarded collection."""
        mark_unreachable_replicas(guard.store, guard.physical)
        info = collection.info()
        replicated = guard.store.request_limits(guard.physical).replicas > 1
        key = None if info.spec.sharding is None else info.spec.sharding.shard_key
        return cls(info.points, guard.last_seq(info.last_seq), replicated, key)

    @property
    def is_empty(self) -> bool:
        """True if no passage of the ingest can be in the collection."""
        return self.points == 0 and not self.may_hold_passages

    def as_resumed(self) -> CollectionStart:
        """Return the state for a part of the ingest that was begun before."""
        return replace(self, may_hold_passages=True)


def count_missing(collection: Collection, before: int, added: int, stored: int) -> int:
    """Return the passages that an ingest wrote and the engine no longer has, and warn of them.

    Each write was confirmed, so another client has deleted them. If the engine has only an
    estimate, nothing is compared.

    Args:
        collection: The collection.
        before: Its points before the ingest.
        added: Points that the ingest added.
        stored: Passages that it wrote or found unchanged.
    """
    info = collection.info()
    expected = max(before + added, stored)
    if not info.is_exact or info.points >= expected:
        return 0
    _log.warning(
        "the collection must hold %s passages (%s before this run, %s added by it), found "
        "%s: another client deleted passages during the ingest. Run the same ingest again "
        "to restore those of its source",
        *(f"{expected:,}", f"{before:,}", f"{added:,}", f"{info.points:,}"),
    )
    return expected - info.points


def check_length(tokens: int, passages: int, settings: Bm25Settings) -> None:
    """Warn if a collection's `avg_len` is far from the mean length of its passages."""
    if passages < _MIN_PASSAGES_FOR_MEAN:
        return
    mean, assumed = tokens / passages, settings.avg_len
    if not assumed / 2 <= mean <= assumed * 2:
        _log.warning(
            "the passages have %.1f BM25 tokens on average, the collection assumes %.1f: "
            "BM25 will weigh length wrongly; fix it with the migration SetBm25(avg_len=%.1f)",
            *(mean, assumed, mean),
        )
