"""What must be in a collection, as far as those who wrote to it can know.

Whoever has his answer is certain. Whoever has not, because the connection broke, may have been
heard or not: both are right, until the next answer about that pid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from msmarco_qdrant.core.records import Passage

Changes: TypeAlias = Mapping[str, Passage | None]
"""By pid, what it is to be; None for not there."""


@dataclass(slots=True)
class Known:
    """What is known of a pid: what it was at the last answer, and what was asked for since."""

    certain: Passage | None = None
    possible: list[Passage | None] = field(default_factory=list)


class Oracle:
    """What one writer knows of the pids that are his alone."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def asked(self, changes: Changes) -> None:
        """They are about to be asked for."""
        for pid, passage in changes.items():
            self._known.setdefault(pid, Known()).possible.append(passage)

    def refused(self, changes: Changes) -> None:
        """What was asked for last will not be."""
        for pid in changes:
            self._known[pid].possible.pop()

    def accepted(self, changes: Changes) -> None:
        """What was asked for last will be, whatever came of what was asked for before."""
        for pid, passage in changes.items():
            self._known[pid] = Known(passage)

    def last(self, pid: str) -> Passage | None:
        """What a pid was at the last answer."""
        return self._known.get(pid, Known()).certain

    @property
    def allowed(self) -> Mapping[str, Sequence[Passage | None]]:
        """By pid, all that may be there."""
        return {pid: [one.certain, *one.possible] for pid, one in self._known.items()}


def wrong(
    allowed: Mapping[str, Collection[Passage | None]], found: Mapping[str, Passage]
) -> Mapping[str, tuple[Passage | None, Collection[Passage | None]]]:
    """By pid, what is there and must not be, or the other way round, and what may be there."""
    return {
        pid: (found.get(pid), allowed.get(pid, ()))
        for pid in {*allowed, *found}
        if found.get(pid) not in allowed.get(pid, ())
    }
