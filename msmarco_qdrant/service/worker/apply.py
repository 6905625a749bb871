"""One batch into the store: its passages are ingested, its pids deleted, and both counted.

An attempt that fails may be followed by another: what the first one wrote is found unchanged by the
second, and still counts as written. A passage whose removal the store did not confirm is not there
any more at the second attempt, and does not count as deleted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from msmarco_qdrant.collection.delete import delete_pids
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import EncoderInfo, StorageSettings
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
from msmarco_qdrant.service.interfaces import BatchReport
from msmarco_qdrant.service.worker.batch import KEPT_REJECTS, BatchContent, Rejects
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)

_DELETED_AT_ONCE = 1000

Reload: TypeAlias = Callable[[str, EncoderInfo], Encoder]
"""The encoder of a collection of that name whose metadata holds that info."""


class BatchWriter:
    """Applies batches to one collection, with the encoder that fits it.

    Args:
        store: Where.
        collection: The collection's name; it is made when there is something to write.
        encoder: The collection's, or for a new one.
        reload: Loads another encoder when the collection has been re-embedded, or made again.
        storage: How a collection that is made keeps its vectors; None for what the engine can.

    Attributes:
        encoder: The one in use.
    """

    def __init__(
        self,
        store: Store,
        collection: str,
        encoder: Encoder,
        reload: Reload = load_collection_encoder,
        *,
        storage: StorageSettings | None = None,
    ) -> None:
        self._store = store
        self._collection = collection
        self._reload = reload
        self._storage = storage
        self.encoder = encoder

    def write(
        self, content: BatchContent, rejects: Rejects, go_on: Callable[[IngestProgress], None]
    ) -> IngestReport:
        """Ingest a batch's passages.

        Args:
            content: The batch.
            rejects: Takes those that have no vector.
            go_on: Called now and then; what it raises ends the ingest.

        Raises:
            IngestStoppedError: If it ended early.
            MsmarcoQdrantError: If it could not begin.
        """
        self._fit_encoder()
        return ingest_passages(
            content.writes(),
            self._store,
            collection=self._collection,
            encoder=self.encoder,
            storage=self._storage,
            optimize=False,
            on_reject=rejects.add,
            on_progress=go_on,
        )

    def delete(self, content: BatchContent) -> Iterator[int]:
        """Delete a batch's pids, some at a time; how many of them were there.

        Raises:
            StoreError: If the store cannot.
        """
        for pids in in_batches(content.deletes(), _DELETED_AT_ONCE):
            try:
                yield delete_pids(self._store, self._collection, pids)
            except CollectionNotFoundError:
                yield 0  # where there is no collection, there is none of them

    def check_store(self) -> None:
        """Ask the store for something that it knows in any case.

        Raises:
            StoreError: If it cannot say.
        """
        try:
            self._store.collection(self._collection).info()
        except CollectionNotFoundError:
            return

    def _fit_encoder(self) -> None:
        try:
            encoder_info = self._store.metadata(self._collection).encoder
        except CollectionNotFoundError:
            return
        if not self.encoder.info.has_same_vectors_as(encoder_info):
            told = (self._collection, encoder_info.model, encoder_info.similarity)
            _log.info("collection '%s' has the model %s (%s) now", *told)
            self.encoder = self._reload(self._collection, encoder_info)


class BatchAttempt:
    """The attempts at one batch.

    Args:
        content: The batch.
        applier: What applies it.
        on_written: Called with each number of passages that have become durable.
        go_on: Called often; what it raises ends the attempt.

    Attributes:
        stages: How long each stage of the last ingest was at work.
    """

    def __init__(
        self,
        content: BatchContent,
        applier: BatchWriter,
        on_written: Callable[[int], None],
        go_on: Callable[[], None],
    ) -> None:
        self._content = content
        self._applier = applier
        self._on_written = on_written
        self._go_on = go_on
        self._written = self._there = self._told = self._deleted = 0
        self._rejects = Rejects()
        self._started = time.perf_counter()
        self.stages: tuple[StageTiming, ...] = ()

    def attempt(self) -> BatchReport:
        """Apply the batch, again if need be.

        Raises:
            SourceError: If all that it says was rejected.
            MsmarcoQdrantError: Why it could not be applied.
        """
        self._started = time.perf_counter()
        self._rejects = Rejects()
        if self._content.passages:
            self._ingest()
        if self._content.deletions:
            for count in self._applier.delete(self._content):
                self._deleted += count
                self._go_on()
        report = self.report()
        if report.rejected and not (report.written or report.unchanged or self._content.deletions):
            raise SourceError(_useless(report))
        return report

    def report(self) -> BatchReport:
        """What the attempts have done so far, whether the last has succeeded or not."""
        content, late = self._content.rejects, self._rejects
        rows = sorted([*content.first, *late.first], key=lambda row: row.line)
        return BatchReport(
            written=self._written,
            unchanged=max(0, self._there - self._written),
            rejected=content.count + late.count,
            deleted=self._deleted,
            superseded=self._content.superseded,
            seconds=time.perf_counter() - self._started,
            rejects=tuple(rows[:KEPT_REJECTS]),
        )

    def _ingest(self) -> None:
        self._told = 0
        try:
            report = self._applier.write(self._content, self._rejects, self._progress)
        except IngestStoppedError as exc:
            self._count(exc.report)
            reason = exc.__cause__
            if isinstance(reason, MsmarcoQdrantError):
                raise reason from reason.__cause__
            raise
        self._there = 0  # this attempt has seen all of them
        self._count(report)
        self._written = min(self._written, self._there)  # a collection may have been replaced
        self.stages = report.stages

    def _count(self, report: IngestReport) -> None:
        self._written += report.written
        self._there = max(self._there, report.written + report.unchanged)

    def _progress(self, progress: IngestProgress) -> None:
        self._go_on()
        if progress.report.written > self._told:
            self._on_written(progress.report.written - self._told)
            self._told = progress.report.written


def _useless(report: BatchReport) -> str:
    told = f": row {report.rejects[0].line}: {report.rejects[0].reason}" if report.rejects else ""
    return f"no row of it can be applied{told}"
