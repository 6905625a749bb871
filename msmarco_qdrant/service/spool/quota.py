"""How much a spool holds, what is on its way in included, and when that is enough."""

from __future__ import annotations

import threading

from msmarco_qdrant.errors import SpoolFullError, UsageError


class Reservation:
    """A batch on its way in. Its room is given back at the end of the block, unless it is in then.

    Attributes:
        held: Its bytes so far.
    """

    def __init__(self, room: SpoolQuota) -> None:
        self._room = room
        self._is_in = False
        self.held = 0

    def hold(self, size: int) -> None:
        """Count more bytes of it.

        Raises:
            SpoolFullError: If there is no room for them.
        """
        self._room.grow(size)
        self.held += size

    def hold_all(self, size: int) -> None:
        """Count all the bytes of it, whether there is room or not."""
        self._room.grow(size, beyond=True)
        self.held += size

    def commit(self) -> None:
        """It is in: from now on it holds its room until `SpoolQuota.remove`."""
        self._is_in = True

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_in:
            self._room.remove(self.held)


class SpoolQuota:
    """The room of a spool. Safe to use from several threads.

    Args:
        max_bytes: Most bytes.
        max_batches: Most batches.

    Attributes:
        bytes: How many there are.
        batches: How many there are.

    Raises:
        UsageError: For limits that would take nothing.
    """

    def __init__(self, max_bytes: int, max_batches: int) -> None:
        if min(max_bytes, max_batches) < 1:
            raise UsageError("a spool of no bytes or batches takes nothing: pass 1 or more")
        self._max_bytes, self._max_batches = max_bytes, max_batches
        self._lock = threading.Lock()
        self.bytes = self.batches = 0

    def enter(self) -> Reservation:
        """Let a batch begin to come in.

        Raises:
            SpoolFullError: If there is room for none.
        """
        with self._lock:
            if self.batches >= self._max_batches:
                raise SpoolFullError(_full("batch", self.batches, self._max_batches))
            if self.bytes >= self._max_bytes:
                raise SpoolFullError(_full("byte", self.bytes, self._max_bytes))
            self.batches += 1
        return Reservation(self)

    def grow(self, size: int, *, beyond: bool = False) -> None:
        """Count bytes of a batch that is on its way.

        Args:
            size: How many.
            beyond: Whether they count although there is no room for them.

        Raises:
            SpoolFullError: If there is no room for them.
        """
        with self._lock:
            if self.bytes + size > self._max_bytes and not beyond:
                raise SpoolFullError(_full("byte", self.bytes, self._max_bytes))
            self.bytes += size

    def add(self, size: int) -> None:
        """Count a batch that was in before, whether there is room or not."""
        with self._lock:
            self.bytes += size
            self.batches += 1

    def remove(self, size: int) -> None:
        """A batch is out."""
        with self._lock:
            self.bytes -= size
            self.batches -= 1


def _full(kind: str, found: int, most: int) -> str:
    what = kind if found == 1 else f"{kind}{'es' if kind.endswith('ch') else 's'}"
    return f"the spool holds {found:,} {what}, and may hold {most:,}: try again later"
