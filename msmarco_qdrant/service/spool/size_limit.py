"""Limit on the bytes of a spool with its ended batches, which are removed beyond it."""

from __future__ import annotations

import logging

from msmarco_qdrant.errors import SpoolError, UsageError
from msmarco_qdrant.service.interfaces import SpoolUse
from msmarco_qdrant.service.spool.archive import Archive
from msmarco_qdrant.service.spool.quota import SpoolQuota

_log = logging.getLogger(__name__)


class SizeLimit:
    """Removes ended batches from the archive, so that all batches keep to a size.

    Args:
        archive: The batches that have ended.
        quota: Counts the bytes of the others, which are never removed.
        max_bytes: Most bytes of the others.
        total_bytes: Most bytes of all batches; None for twice `max_bytes`.

    Raises:
        UsageError: If `total_bytes` is less than `max_bytes`.
    """

    def __init__(
        self, archive: Archive, quota: SpoolQuota, max_bytes: int, total_bytes: int | None
    ) -> None:
        self._archive = archive
        self._quota = quota
        self._total_bytes = 2 * max_bytes if total_bytes is None else total_bytes
        self._dropped = 0
        if self._total_bytes < max_bytes:
            raise UsageError(
                f"spool_total_bytes must be spool_bytes ({max_bytes:,}) or more, got "
                f"{self._total_bytes:,}"
            )

    @property
    def use(self) -> SpoolUse:
        """Bytes of all batches, and counts of failed ones."""
        archive = self._archive
        return SpoolUse(self._quota.bytes + archive.bytes, archive.failed, self._dropped)

    def enforce(self) -> None:
        """Remove ended batches beyond the limit, the oldest first; log each failed one."""
        try:
            dropped = self._archive.shrink(max(0, self._total_bytes - self._quota.bytes))
        except SpoolError as exc:
            _log.warning("old batches of the spool stay for now: %s", exc)
            return
        for name, reason in dropped:
            self._dropped += 1
            _log.error(
                "the failed batch %s is removed, as the spool exceeds %d bytes in all "
                "(MSMARCO_QDRANT_SPOOL_TOTAL_BYTES); its failure was: %s",
                *(name.id, self._total_bytes, reason),
                extra={"fields": {"batch": name.id, "state": "removed"}},
            )
