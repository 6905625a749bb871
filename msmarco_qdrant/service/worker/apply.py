"""Application of one batch to the store: ingest its passages, delete its pids, count both.

A failed attempt may be followed by another. Passages written by the first are unchanged in the
second, and still count as written. A passage whose deletion the store did not confirm is missing at
the second attempt, and does not count as deleted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from msmarco_qdrant.collection.create import create_if_missing
from msmarco_qdrant.collection.delete import delete_pids
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import Bm25Settings, PayloadIndex, StorageSettings
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import WINDOW, Passage, Reject
from msmarco_qdrant.core.reports import IngestProgress, IngestReport, StageTiming
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.matching import load_collection_encoder
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    IngestStoppedError,
    MsmarcoQdrantError,
    SourceError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.upsert import Outcome, upsert_rows
from msmarco_qdrant.service.interfaces import BatchReport
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.worker.batch import MAX_REJECTS, BatchContent, Rejects
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.filters import index_keys

_log = logging.getLogger(__name__)

_DELETE_BATCH = 1000

Reload: TypeAlias = Callable[[str, EncoderInfo], Encoder]
"""Loads the encoder of a collection, by its name and the info in its metadata."""


@dataclass(slots=True)
class BatchWriter:
    """Writes batches to one collection, with the encoder that fits it.

    Attributes:
        store: The store.
        collection: Name of the collection; made by the first write if missing.
        encoder: Encoder of the collection, or for a new one.
        reload: Loads the encoder of a collection that was re-embedded or made again.
        storage: Vector storage of a new collection; None for the engine's default.
        window: Passages to sort by length and flush together.
        max_line_bytes: A longer line of a user's file is a reject.
        payload_indexes: The meta fields to index in a new collection.
    """

    store: Store
    collection: str
    encoder: Encoder
    reload: Reload = load_collection_encoder
    storage: StorageSettings | None = None
    window: int = WINDOW
    max_line_bytes: int = MAX_LINE_BYTES
    payload_indexes: Mapping[str, PayloadIndex] = field(default_factory=dict)

    def write(
        self, content: BatchContent, rejects: Rejects, go_on: Callable[[IngestProgress], None]
    ) -> IngestReport:
        """Ingest a batch's passages.

        Args:
            content: The batch.
            rejects: Collects passages without a vector.
            go_on: Called during the ingest; an error it raises ends the ingest.

        Raises:
            IngestStoppedError: If the ingest ended early.
            MsmarcoQdrantError: If it could not start.
        """
        self._update_encoder()
        return ingest_passages(
            content.writes(),
            self.store,
            collection=self.collection,
            encoder=self.encoder,
            storage=self.storage,
            window=self.window,
            optimize=False,
            on_reject=rejects.add,
            on_progress=go_on,
        )

    def write_together(
        self,
        passages: Sequence[Passage],
        on_written: Callable[[int], None],
        go_on: Callable[[], None],
    ) -> tuple[Sequence[Outcome], Sequence[StageTiming]]:
        """Write the passages of several batches, each pid once, into the existing collection.

        Args:
            passages: The passages, which fit into memory.
            on_written: Called with the number of passages that were written, also if the write
                failed in between.
            go_on: Called during the write; an error it raises ends the write.

        Returns:
            What became of each passage, and the stage timings.

        Raises:
            MsmarcoQdrantError: If they could not be written.
        """
        self._update_encoder()
        ends: list[IngestReport] = []
        target = (self.store, self.collection, self.encoder, passages)
        try:
            outcomes = upsert_rows(*target, on_progress=lambda _: go_on(), on_end=ends.append)
        finally:
            on_written(sum(end.written for end in ends))
        return outcomes, [timing for end in ends for timing in end.stages]

    def delete(self, content: BatchContent) -> Iterator[int]:
        """Delete a batch's pids in groups, and yield the number of deleted passages of each.

        Raises:
            StoreError: If the store fails.
        """
        for pids in in_batches(content.deletes(), _DELETE_BATCH):
            try:
                yield delete_pids(self.store, self.collection, pids)
            except CollectionNotFoundError:
                yield 0

    def check_store(self) -> None:
        """Check that the store answers, also without the collection.

        Raises:
            StoreError: If it does not.
        """
        try:
            self.store.collection(self.collection).info(all_replicas=False)
        except CollectionNotFoundError:
            return

    def _update_encoder(self) -> None:
        try:
            info = self.store.metadata(self.collection).encoder
        except CollectionNotFoundError:
            if self.payload_indexes:
                indexes = index_keys(self.payload_indexes)
                info, bm25 = self.encoder.info, Bm25Settings()
                create_if_missing(self.store, self.collection, info, bm25, self.storage, indexes)
            return
        if not self.encoder.info.has_same_vectors_as(info):
            fields = (self.collection, info.model, info.similarity)
            _log.info("collection '%s' now has the model %s (%s)", *fields)
            self.encoder = self.reload(self.collection, info)


class BatchAttempt:
    """Attempts at one batch, each a call; the first one reads its file.

    Args:
        batch: The batch.
        writer: Writes it.
        on_written: Called with each number of passages that became durable.
        go_on: Called often; an error it raises ends the attempt.

    Attributes:
        stages: Stage timings of the last ingest.
    """

    def __init__(
        self,
        batch: Batch,
        writer: BatchWriter,
        on_written: Callable[[int], None],
        go_on: Callable[[], None],
    ) -> None:
        self._batch = batch
        self._writer = writer
        self._on_written = on_written
        self._go_on = go_on
        self._content: BatchContent | None = None
        self._written = self._stored = self._reported = self._deleted = 0
        self._rejects = Rejects()
        self._started = time.perf_counter()
        self.stages: Sequence[StageTiming] = ()

    def __call__(self) -> BatchReport:
        """Apply the batch.

        Raises:
            SourceError: If every row was rejected.
            MsmarcoQdrantError: If the batch could not be applied.
        """
        content = self.read()
        self._started = time.perf_counter()
        self._rejects = Rejects()
        if content.passages:
            self._ingest(content)
        return self.finish()

    def read(self) -> BatchContent:
        """Return the content of the batch; its file is read once.

        Raises:
            SourceError: If the file cannot be read.
        """
        if self._content is None:
            path, form = self._batch.path, self._batch.name.form
            self._content = BatchContent(
                path, form, go_on=self._go_on, max_line_bytes=self._writer.max_line_bytes
            )
        return self._content

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Record what became of the batch's passages, which were written with those of others."""
        self._rejects = Rejects()
        for outcome in outcomes:
            if isinstance(outcome, Reject):
                self._rejects.add(outcome)
        self._written = sum(outcome == "written" for outcome in outcomes)
        self._stored = len(outcomes) - self._rejects.count

    def finish(self) -> BatchReport:
        """Apply the deletions, once the passages are written, and return the report.

        Raises:
            SourceError: If every row was rejected.
            MsmarcoQdrantError: If the store fails.
        """
        content = self.read()
        if content.deletions:
            for count in self._writer.delete(content):
                self._deleted += count
                self._go_on()
        report = self.report()
        if report.rejected and not (report.written or report.unchanged or content.deletions):
            raise SourceError(_all_rejected(report))
        return report

    def report(self) -> BatchReport:
        """Return the effect of all attempts so far, also after a failure."""
        content = self._content
        if content is None:
            return BatchReport()
        rows = [*content.rejects.first, *self._rejects.first]
        rows.sort(key=lambda row: row.line)
        return BatchReport(
            written=self._written,
            unchanged=max(0, self._stored - self._written),
            rejected=content.rejects.count + self._rejects.count,
            deleted=self._deleted,
            superseded=content.superseded,
            seconds=time.perf_counter() - self._started,
            rejects=tuple(rows[:MAX_REJECTS]),
        )

    def _ingest(self, content: BatchContent) -> None:
        self._reported = 0
        try:
            report = self._writer.write(content, self._rejects, self._progress)
        except IngestStoppedError as exc:
            self._add(exc.report)
            reason = exc.__cause__
            if isinstance(reason, SourceError) and self._rejects.count:
                return  # the model rejected all passages of a new collection, which was dropped
            if isinstance(reason, MsmarcoQdrantError):
                raise reason from reason.__cause__
            raise
        self._stored = 0  # this attempt has processed all of them
        self._add(report)
        self._written = min(self._written, self._stored)  # the collection may have been replaced
        self.stages = report.stages

    def _add(self, report: IngestReport) -> None:
        self._written += report.written
        self._stored = max(self._stored, report.written + report.unchanged)

    def _progress(self, progress: IngestProgress) -> None:
        self._go_on()
        if progress.report.written > self._reported:
            self._on_written(progress.report.written - self._reported)
            self._reported = progress.report.written


def _all_rejected(report: BatchReport) -> str:
    first = f": row {report.rejects[0].line}: {report.rejects[0].reason}" if report.rejects else ""
    return f"every row was rejected{first}"
