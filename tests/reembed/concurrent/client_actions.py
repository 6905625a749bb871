"""Writes and deletes of another client while the model of a collection changes."""

from __future__ import annotations

import random

from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.errors import PruneRefusedError
from msmarco_qdrant.stores import Store
from tests.reembed.concurrent.expected_passages import ExpectedPassages, make_passage
from tests.reembed.concurrent.scenario import MODELS, NAME
from tests.reembed.concurrent.traffic import Caller

ROWS = 3
"""Number of `second` steps that can follow `first`, each with its own passages."""


class ClientActions:
    """Another client; each acknowledged change is recorded in the expected passages."""

    def __init__(self, store: Store, expected: ExpectedPassages) -> None:
        self._expected = expected
        self._caller = Caller(store, NAME, MODELS)
        self._rng = random.Random(0)

    def write(self, *passages: Passage) -> None:
        """Write passages."""
        self._caller.write(passages)
        for passage in passages:
            self._expected.entry(passage.pid).record(passage)

    def delete(self, *pids: str) -> None:
        """Delete passages."""
        self._caller.delete(pids)
        for pid in pids:
            self._expected.entry(pid).record(None)

    def prune(self, *pids: str) -> None:
        """Delete passages by an ingest with prune, or directly where a last pass forbids it."""
        kept = [one for pid, one in self._expected.passages.items() if pid not in pids]
        try:
            self._caller.write(kept, prune=PrunePolicy())
        except PruneRefusedError:
            self._caller.delete(pids)
        for pid in pids:
            self._expected.entry(pid).record(None)

    def version(self, pid: str, version: int) -> Passage:
        """Return a version of a passage; 0 is the first."""
        versions = self._expected.entry(pid).versions
        if version < len(versions):
            return versions[version]
        return make_passage(pid, version, self._rng)

    def first(self) -> None:
        """Write new passages, new texts and another meta; delete some, most for `second`."""
        moved = self.version("p1", 0)
        self.write(
            self.version("0", 1),
            Passage(moved.pid, moved.text, {"moved": True}),
            *(self.version(f"p{3 * row + 4}", 1) for row in range(ROWS)),
            *(self.version(f"fresh{row}", 0) for row in range(ROWS)),
        )
        self.delete("3", *(str(3 * row + 6) for row in range(ROWS)))

    def second(self, row: int) -> None:
        """Write an older text, write a deleted passage again, delete a new one."""
        self.write(self.version(f"p{3 * row + 4}", 0), self.version(str(3 * row + 6), 0))
        self.delete(f"fresh{row}")
