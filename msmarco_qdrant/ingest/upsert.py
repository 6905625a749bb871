"""Upserts of an application: some passages at a time, into a collection that exists.

They are written as by an ingest, of which each is a small run: unchanged passages are skipped, and
the alias is checked after the flush. Of rows with the same pid the last one is written; an ingest
rejects the later ones instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from msmarco_qdrant.core.records import WINDOW, Passage, Reject
from msmarco_qdrant.core.reports import MAX_REJECTS, IngestProgress, IngestReport, UpsertReport
from msmarco_qdrant.encoding import Bm25Encoder, Encoder
from msmarco_qdrant.encoding.matching import require_same_model
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.ingest.alias_guard import resolve_alias
from msmarco_qdrant.ingest.run import IngestRun
from msmarco_qdrant.ingest.stages import IngestTarget, WindowDiff
from msmarco_qdrant.ingest.windows import RowStream
from msmarco_qdrant.sources.rejects import RejectCount, check_row
from msmarco_qdrant.stores import Store

Outcome: TypeAlias = Literal["written", "unchanged", "superseded"] | Reject
"""What became of one row."""


def upsert_rows(
    store: Store,
    name: str,
    encoder: Encoder,
    rows: Sequence[Passage | Reject],
    *,
    on_progress: Callable[[IngestProgress], None] | None = None,
    on_end: Callable[[IngestReport], None] = lambda _report: None,
) -> list[Outcome]:
    """Write rows durably, without building an index.

    Args:
        store: The store.
        name: The collection's name.
        encoder: Its encoder.
        rows: The rows, which fit into memory.
        on_progress: Called during the write; an error it raises ends the write.
        on_end: Called with the counts and timings of the write, also if an error ended it.

    Returns:
        What became of each row, in their order.

    Raises:
        ModelMismatchError: If the collection now has another model; nothing was written.
        CollectionReplacedError: If it was re-embedded during the write; write all rows again.
        StoreError: If the store fails, or has no such collection.
        EncodingError: If the forward pass fails.
    """
    batch = _Batch(rows)
    if batch.passages:
        guard = resolve_alias(store, name)
        require_same_model(name, guard.metadata.encoder, encoder.info)
        bm25 = Bm25Encoder(guard.metadata.bm25)
        target = IngestTarget(guard.collection, encoder.info, bm25, encoder)
        try:
            rejected = RejectCount(batch.reject)
            run = IngestRun(target, guard, rejected, on_progress, on_durable=batch.finish)
            try:
                run.ingest(RowStream(batch.passages), WINDOW, None)
            finally:
                on_end(run.report())
        except MsmarcoQdrantError as exc:
            reason = guard.root_cause(exc)
            if reason is exc:
                raise
            raise reason from exc
    return batch.outcomes


class _Batch:
    """Rows and what became of them; a passage carries its position as its line."""

    def __init__(self, rows: Sequence[Passage | Reject]) -> None:
        self._rows = rows
        self.outcomes: list[Outcome] = ["superseded"] * len(rows)
        last: dict[str, Passage] = {}
        for position, row in enumerate(rows):
            checked = check_row(row)
            if isinstance(checked, Reject):
                self.outcomes[position] = self._placed(checked, position)
            else:
                last[checked.pid] = replace(checked, line=position)
        self.passages = [*last.values()]

    def finish(self, diff: WindowDiff) -> None:
        """Mark the passages of a window that are durable; rejected ones are marked already."""
        written = {passage.pid for passage in (*diff.encode, *diff.new_meta)}
        for passage in diff.window.passages:
            if not isinstance(self.outcomes[passage.line], Reject):
                self.outcomes[passage.line] = "written" if passage.pid in written else "unchanged"

    def reject(self, reject: Reject) -> None:
        """Mark a passage that has no vector."""
        self.outcomes[reject.line] = self._placed(reject, reject.line)

    def _placed(self, reject: Reject, position: int) -> Reject:
        """Return a reject with the line that the row came with, 0 for none."""
        row = self._rows[position]
        return replace(reject, source=row.source, line=row.line)


def report_outcomes(outcomes: Sequence[Outcome]) -> UpsertReport:
    """Count what became of the rows of one call; rejects without a line get their row number."""
    rejects = [
        replace(outcome, line=outcome.line or row)
        for row, outcome in enumerate(outcomes, start=1)
        if isinstance(outcome, Reject)
    ]
    counts = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
    return UpsertReport(
        written=counts["written"],
        unchanged=counts["unchanged"],
        superseded=counts["superseded"],
        rejected=len(rejects),
        rejects=tuple(rejects[:MAX_REJECTS]),
    )
