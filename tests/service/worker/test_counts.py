"""What a batch counts when several attempts were needed, or none succeeded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from msmarco_qdrant.core.reports import IngestProgress, IngestReport
from msmarco_qdrant.errors import IngestStoppedError, StoreUnavailableError
from msmarco_qdrant.service.spool.directory import BatchName
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.worker.apply import BatchAttempt, BatchWriter
from msmarco_qdrant.service.worker.batch import BatchContent, Rejects
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.service.spool.helpers import delete, write

Attempt = tuple[int, int, bool]
"""Written, unchanged, and whether it fails after that."""


class Scripted(BatchWriter):
    """Ingests and deletes as it is told.

    Attributes:
        attempts: What the next ingests come to.
        deleted: How many pids each group of a delete has found; None is a store that went away.
    """

    attempts: list[Attempt]
    deleted: list[list[int | None]]

    def write(
        self,
        content: BatchContent,
        rejects: Rejects,  # noqa: ARG002
        go_on: Callable[[IngestProgress], None],  # noqa: ARG002
    ) -> IngestReport:
        """What the script says."""
        written, unchanged, fails = self.attempts.pop(0)
        report = IngestReport(content.passages, written, unchanged, 0, 0, 0.0)
        if fails:
            raise IngestStoppedError("stopped", report) from StoreUnavailableError("away")
        return report

    def delete(self, content: BatchContent) -> Iterator[int]:  # noqa: ARG002
        """What the script says."""
        for count in self.deleted.pop(0):
            if count is None:
                raise StoreUnavailableError("away")
            yield count


def _counted(
    folder: Path, attempts: list[Attempt], deleted: list[list[int | None]]
) -> tuple[int, int, int]:
    """Written, unchanged and deleted after the last of several attempts."""
    rows = [*(write(str(number), "text") for number in range(20)), delete("gone")]
    path = folder / "batch.ops.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with closing(open_store(":memory:", create=True)) as store:
        applier = Scripted(store, "msmarco", HashingEncoder())
        applier.attempts, applier.deleted = attempts, deleted
        application = BatchAttempt(
            Batch(BatchName(1, "0" * 32, "ops.jsonl"), path, 0, 0.0),
            applier,
            lambda _count: None,
            lambda: None,
        )
        while applier.attempts:
            with suppress(StoreUnavailableError):
                application()
    report = application.report()
    return report.written, report.unchanged, report.deleted


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([(20, 0, False)], (20, 0)),
        ([(12, 8, False)], (12, 8)),
        ([(0, 0, True), (0, 20, False)], (0, 20)),
        ([(10, 0, True), (10, 10, False)], (20, 0)),
        ([(10, 0, True), (5, 10, True), (0, 0, True), (2, 18, False)], (17, 3)),
        ([(10, 0, True), (20, 0, False)], (20, 0)),  # the collection was replaced meanwhile
        ([(10, 4, True)], (10, 4)),
        ([(10, 4, True), (0, 0, True)], (10, 4)),
        ([(10, 4, True), (2, 10, True)], (12, 2)),
    ],
)
def test_passages(tmp_path: Path, attempts: list[Attempt], expected: tuple[int, int]) -> None:
    """Each counts once, as written if any attempt has written it."""
    groups: list[list[int | None]] = [[0] for _ in attempts]
    assert (*expected, 0) == _counted(tmp_path, attempts, groups)


@pytest.mark.parametrize(
    ("deleted", "expected"),
    [([[1000, 7]], 1007), ([[1000, None], [0, 7]], 1007), ([[None], [3, None]], 3)],
)
def test_deletes(tmp_path: Path, deleted: list[list[int | None]], expected: int) -> None:
    """What one attempt has deleted, the next does not find: they are added up."""
    attempts = [(0, 20, False)] * len(deleted)
    assert (0, 20, expected) == _counted(tmp_path, attempts, deleted)
