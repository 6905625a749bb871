"""Comparison of a window's passages with what the collection holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msmarco_qdrant.collection.tenants import tenants_of
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.field_path import only_string, root_key
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.stages import WindowDiff
from msmarco_qdrant.ingest.windows import Window
from msmarco_qdrant.sources.rejects import (
    no_shard_key_reason,
    other_tenant_reason,
    reject_passage,
)
from msmarco_qdrant.stores import Collection
from msmarco_qdrant.stores.foreign import has_seq
from msmarco_qdrant.stores.payload import DIGEST_FIELDS, check_pid, point_id

# `seq` differs between any two writes, so replicas with the same one hold the same passage.
_WRITE_FIELDS = (*DIGEST_FIELDS, "seq")


class SkipUnchanged:
    """Encode passages that are new or have another text, and skip those that did not change.

    A passage whose replicas differ is encoded, too. An earlier write of it failed on some of them
    and stayed on the others; a lookup in one replica could find it unchanged for ever.

    Args:
        collection: The collection of the passages.
        was_empty: True to skip the lookups: within a run every pid is new.
        replicated: True if the collection has replicas, which may differ.
        tenant_field: The collection's tenant field; passages of other tenants are not replaced.
    """

    def __init__(
        self,
        collection: Collection,
        *,
        was_empty: bool,
        replicated: bool,
        tenant_field: str | None = None,
    ) -> None:
        self._collection = collection
        self._tenant_field = tenant_field
        self._was_empty = was_empty
        self._replicated = replicated

    def __call__(self, window: Window) -> WindowDiff:
        """Compare digests with those of the collection.

        A point that lost its pid or `seq` is written again.
        """
        if self._was_empty or not window.passages:
            return WindowDiff(window, window.passages)
        ids = [point_id(passage.pid) for passage in window.passages]
        tenants = _tenant_keys(self._tenant_field)
        fields = (*_WRITE_FIELDS, *tenants)
        stored = self._collection.retrieve(ids, fields, all_replicas=True)
        # These are new, or their replicas differ; then one replica may show the pid to check.
        missing = [id_ for id_ in ids if id_ not in stored]
        ask_one = self._replicated and missing
        differing = self._collection.retrieve(missing, ("pid", *tenants)) if ask_one else {}
        _reject_others(window, {**differing, **stored}, self._tenant_field)
        encode, new_meta = [], []
        for passage in window.passages:
            id_ = point_id(passage.pid)
            payload = stored.get(id_, {})
            check_pid(passage.pid, payload or differing.get(id_, {}))
            is_ours = payload.get("pid") == passage.pid and has_seq(payload)
            if not is_ours or payload.get("text_digest") != text_digest(passage.text):
                encode.append(passage)
            elif payload.get("meta_digest") != meta_digest(passage.meta):
                new_meta.append(passage)
        return WindowDiff(
            window,
            encode,
            new_meta,
            unchanged=len(window.passages) - len(encode) - len(new_meta),
            rewritten=len(encode) - (len(missing) - len(differing)),
        )


class RewriteAll:
    """Encode every passage, including unchanged ones.

    Needed while a re-embedding copies into the collection. Each passage gets a new `seq`, so that
    no older write of the source replaces it. Payloads are not replaced alone: the copy may bring
    the vector of another text between lookup and write.

    Args:
        collection: The collection of the passages.
        is_being_filled: Returns True while the copy runs; called for each window.
        replicated: As for `SkipUnchanged`, which follows the copy.
        tenant_field: As for `SkipUnchanged`.
    """

    def __init__(
        self,
        collection: Collection,
        is_being_filled: Callable[[], bool],
        *,
        replicated: bool,
        tenant_field: str | None = None,
    ) -> None:
        self._collection = collection
        self._is_being_filled = is_being_filled
        self._tenant_field = tenant_field
        self._skip_unchanged = SkipUnchanged(
            collection, was_empty=False, replicated=replicated, tenant_field=tenant_field
        )

    def __call__(self, window: Window) -> WindowDiff:
        """Count the passages that the collection holds, and check their pids."""
        if not self._is_being_filled():
            return self._skip_unchanged(window)
        ids = {point_id(passage.pid): passage.pid for passage in window.passages}
        # One replica is enough: every passage is written in any case.
        fields = ("pid", *_tenant_keys(self._tenant_field))
        stored = self._collection.retrieve([*ids], fields) if ids else {}
        for id_, payload in stored.items():
            check_pid(ids[id_], payload)
        rejected = _reject_others(window, stored, self._tenant_field)
        return WindowDiff(window, window.passages, rewritten=len(stored) - rejected)


def reject_keyless(window: Window, field: str | None) -> Window:
    """Move the passages without a shard key to the rejects of a window, and return it.

    Args:
        window: The window.
        field: The `meta` field that chooses the shard of a passage; None without.
    """
    if field is not None:
        kept: list[Passage] = []
        for passage in window.passages:
            if only_string(passage.meta, field) is None:
                reason = no_shard_key_reason(passage, field)
                window.rejects.append(reject_passage(passage, reason))
            else:
                kept.append(passage)
        window.passages = kept
    return window


def _tenant_keys(field: str | None) -> Sequence[str]:
    """Return the payload keys of the tenants of a passage."""
    return () if field is None else (root_key(field),)


def _reject_others(
    window: Window, stored: Mapping[PointId, Mapping[str, Any]], field: str | None
) -> int:
    """Reject the passages of a window that would replace one of other tenants; count them.

    Args:
        window: The window; rejected passages are moved to its rejects.
        stored: The payloads of the points with these pids.
        field: The collection's tenant field.
    """
    if field is None:
        return 0
    kept: list[Passage] = []
    for passage in window.passages:
        before = tenants_of(stored.get(point_id(passage.pid), {}).get("meta") or {}, field)
        if before and not before & tenants_of(passage.meta, field):
            window.rejects.append(reject_passage(passage, other_tenant_reason(passage, field)))
        else:
            kept.append(passage)
    count = len(window.passages) - len(kept)
    window.passages = kept
    return count
