"""Comparison of a window's passages with what the collection holds."""

from __future__ import annotations

from collections.abc import Callable

from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.ingest.stages import WindowDiff
from msmarco_qdrant.ingest.windows import Window
from msmarco_qdrant.stores import Collection
from msmarco_qdrant.stores.payload import DIGEST_FIELDS, check_pid, point_id


class SkipUnchanged:
    """Encode passages that are new or have another text, and skip those that did not change.

    Args:
        collection: The collection of the passages.
        was_empty: True to skip the lookups: within a run every pid is new.
    """

    def __init__(self, collection: Collection, *, was_empty: bool) -> None:
        self._collection = collection
        self._was_empty = was_empty

    def __call__(self, window: Window) -> WindowDiff:
        """Compare digests with those of the collection."""
        if self._was_empty or not window.passages:
            return WindowDiff(window, window.passages)
        ids = [point_id(passage.pid) for passage in window.passages]
        stored = self._collection.retrieve(ids, DIGEST_FIELDS)
        encode, new_meta = [], []
        for passage, id_ in zip(window.passages, ids, strict=True):
            payload = stored.get(id_)
            if payload is not None:
                check_pid(passage.pid, payload)
            if payload is None or payload.get("text_digest") != text_digest(passage.text):
                encode.append(passage)
            elif payload.get("meta_digest") != meta_digest(passage.meta):
                new_meta.append(passage)
        return WindowDiff(
            window,
            encode,
            new_meta,
            unchanged=len(ids) - len(encode) - len(new_meta),
            rewritten=len(encode) - sum(id_ not in stored for id_ in ids),
        )


class RewriteAll:
    """Encode every passage, including unchanged ones.

    Needed while a re-embedding copies into the collection. Each passage gets a new `seq`, so that
    no older write of the source replaces it. Payloads are not replaced alone: the copy may bring
    the vector of another text between lookup and write.

    Args:
        collection: The collection of the passages.
        is_being_filled: Returns True while the copy runs; called for each window.
    """

    def __init__(self, collection: Collection, is_being_filled: Callable[[], bool]) -> None:
        self._collection = collection
        self._is_being_filled = is_being_filled
        self._skip_unchanged = SkipUnchanged(collection, was_empty=False)

    def __call__(self, window: Window) -> WindowDiff:
        """Count the passages that the collection holds, and check their pids."""
        if not self._is_being_filled():
            return self._skip_unchanged(window)
        ids = {point_id(passage.pid): passage.pid for passage in window.passages}
        stored = self._collection.retrieve([*ids], ("pid",)) if ids else {}
        for id_, payload in stored.items():
            check_pid(ids[id_], payload)
        return WindowDiff(window, window.passages, rewritten=len(stored))
