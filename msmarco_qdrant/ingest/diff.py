"""What an ingest does with a window's passages, by what its collection holds of them already."""

from __future__ import annotations

from collections.abc import Callable

from msmarco_qdrant.core.records import meta_digest, text_digest
from msmarco_qdrant.ingest.stages import WindowDiff
from msmarco_qdrant.ingest.windows import Window
from msmarco_qdrant.stores import Collection
from msmarco_qdrant.stores.payload import DIGEST_FIELDS, check_pid, point_id


class SkipUnchanged:
    """Encodes what is new or has another text, and leaves what is there as it would be written.

    Args:
        collection: Where the passages go.
        was_empty: Whether nothing is there, so that nothing has to be asked: within a run every
            pid is new.
    """

    def __init__(self, collection: Collection, *, was_empty: bool) -> None:
        self._collection = collection
        self._was_empty = was_empty

    def __call__(self, window: Window) -> WindowDiff:
        """Ask the collection which passages it has already."""
        if self._was_empty or not window.passages:
            return WindowDiff(window, window.passages, [], 0, 0)
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
    """Encodes every passage, whatever is there of it.

    For a collection that a re-embedding still copies into: what looks unchanged gets its new `seq`
    this way, so that no older write of the source wins over it. Its payload is not replaced alone:
    the copy may bring another text's vector between the question and the write.

    Args:
        collection: Where the passages go.
        is_being_filled: Whether it still does; asked for each window.
    """

    def __init__(self, collection: Collection, is_being_filled: Callable[[], bool]) -> None:
        self._collection = collection
        self._is_being_filled = is_being_filled
        self._skipping = SkipUnchanged(collection, was_empty=False)

    def __call__(self, window: Window) -> WindowDiff:
        """Ask the collection which passages it has already, to count them and check their pids."""
        if not self._is_being_filled():
            return self._skipping(window)
        ids = {point_id(passage.pid): passage.pid for passage in window.passages}
        stored = self._collection.retrieve([*ids], ("pid",)) if ids else {}
        for id_, payload in stored.items():
            check_pid(ids[id_], payload)
        return WindowDiff(window, window.passages, [], unchanged=0, rewritten=len(stored))
