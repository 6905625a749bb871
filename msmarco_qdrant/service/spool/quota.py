"""Quota of a spool: most bytes and batches, including batches that are being accepted."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from msmarco_qdrant.errors import SpoolFullError, UsageError

MAX_BYTES = 1 << 30
MAX_BATCHES = 10_000


@dataclass(slots=True)
class Reservation:
    """Quota of a batch that is being accepted; the block's end releases it unless committed.

    Attributes:
        quota: The quota.
        size: Bytes reserved so far.
        is_committed: True once the batch is accepted.
    """

    quota: SpoolQuota
    size: int = 0
    is_committed: bool = False

    def reserve(self, size: int, *, force: bool = False) -> None:
        """Reserve more bytes; with `force` also beyond the quota.

        Raises:
            SpoolFullError: If the quota is exceeded.
        """
        self.quota.reserve(size, force=force)
        self.size += size

    def commit(self) -> None:
        """Keep the reservation until `SpoolQuota.release`: the batch is accepted."""
        self.is_committed = True

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_committed:
            self.quota.release(self.size)


class SpoolQuota:
    """Bytes and batches of a spool, and their limits. Thread-safe.

    Args:
        max_bytes: Most bytes.
        max_batches: Most batches.

    Attributes:
        bytes: Current bytes.
        batches: Current batches.

    Raises:
        UsageError: For a limit below 1.
    """

    def __init__(self, max_bytes: int, max_batches: int) -> None:
        if min(max_bytes, max_batches) < 1:
            raise UsageError(
                "spool_bytes and spool_batches must be 1 or more, "
                f"got {max_bytes:,} and {max_batches:,}"
            )
        self._max_bytes, self._max_batches = max_bytes, max_batches
        self._lock = threading.Lock()
        self.bytes = self.batches = 0

    def begin(self) -> Reservation:
        """Reserve one batch, of no bytes yet.

        Raises:
            SpoolFullError: If the spool is full.
        """
        with self._lock:
            if self.batches >= self._max_batches:
                raise SpoolFullError(_full("batch", self.batches, self._max_batches))
            if self.bytes >= self._max_bytes:
                raise SpoolFullError(_full("byte", self.bytes, self._max_bytes))
            self.batches += 1
        return Reservation(self)

    def reserve(self, size: int, *, force: bool = False) -> None:
        """Reserve bytes of a batch that is being accepted; see `Reservation.reserve`."""
        with self._lock:
            if self.bytes + size > self._max_bytes and not force:
                raise SpoolFullError(_full("byte", self.bytes, self._max_bytes))
            self.bytes += size

    def add(self, size: int) -> None:
        """Count a batch of an earlier process, also beyond the quota."""
        with self._lock:
            self.bytes += size
            self.batches += 1

    def release(self, size: int) -> None:
        """Release the quota of a batch."""
        with self._lock:
            self.bytes -= size
            self.batches -= 1


def _full(unit: str, found: int, most: int) -> str:
    plural = {"batch": "batches", "byte": "bytes"}[unit]
    return f"the spool holds {found:,} {unit if found == 1 else plural} of {most:,}: retry later"
