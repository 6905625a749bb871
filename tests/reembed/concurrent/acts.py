"""What others do to a collection while its model changes, in small steps that a test chooses."""

from __future__ import annotations

import random

from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.errors import PruneRefusedError
from msmarco_qdrant.stores import Store
from tests.reembed.concurrent.ledger import Ledger, make_passage
from tests.reembed.concurrent.running import MODELS, NAME
from tests.reembed.concurrent.traffic import Caller

ROWS = 3
"""How often `second` can be done after `first`, each time with other passages."""


class Acts:
    """What others do to a collection, noted in its ledger.

    Args:
        store: Where it is.
        ledger: What it holds.
    """

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._ledger = ledger
        self._caller = Caller(store, NAME, MODELS)
        self._rng = random.Random(0)

    def write(self, *passages: Passage) -> None:
        """Write passages."""
        self._caller.write(passages)
        for passage in passages:
            self._ledger.entry(passage.pid).become(passage)

    def delete(self, *pids: str) -> None:
        """Remove passages."""
        self._caller.delete(pids)
        for pid in pids:
            self._ledger.entry(pid).become(None)

    def prune(self, *pids: str) -> None:
        """Ingest all but some passages, and let those be removed.

        A last pass refuses that, perhaps when a try before the swap has removed some: then they are
        deleted.
        """
        kept = [one for pid, one in self._ledger.expected.items() if pid not in pids]
        try:
            self._caller.write(kept, prune=PrunePolicy())
        except PruneRefusedError:
            self._caller.delete(pids)
        for pid in pids:
            self._ledger.entry(pid).become(None)

    def version(self, pid: str, version: int) -> Passage:
        """A version of a passage; 0 is its first."""
        versions = self._ledger.entry(pid).versions
        if version < len(versions):
            return versions[version]
        return make_passage(pid, version, self._rng)

    def first(self) -> None:
        """New passages, new texts, another meta; some are removed, most are for `second`."""
        moved = self.version("p1", 0)
        self.write(
            self.version("0", 1),
            Passage(moved.pid, moved.text, {"moved": True}),
            *(self.version(f"p{3 * row + 4}", 1) for row in range(ROWS)),
            *(self.version(f"fresh{row}", 0) for row in range(ROWS)),
        )
        self.delete("3", *(str(3 * row + 6) for row in range(ROWS)))

    def second(self, row: int) -> None:
        """A text is what it was before, one that was removed is back, one that came is gone."""
        self.write(self.version(f"p{3 * row + 4}", 0), self.version(str(3 * row + 6), 0))
        self.delete(f"fresh{row}")
