"""How much a request may bring, ask for and take, and how many may be under way at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LimitExceededError(Exception):
    """As many as may be are under way."""


class ConcurrencyLimit:
    """Lets so many through at once, and turns the others away instead of letting them queue.

    Of one event loop.

    Args:
        most: How many at once.

    Attributes:
        inside: How many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.inside = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside meanwhile.

        Raises:
            LimitExceededError: If there are as many as may be.
        """
        if self.inside >= self._most:
            raise LimitExceededError
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
