"""One batch into the store: its passages are ingested, its pids deleted, and both counted.

An attempt that fails may be followed by another: what the first one wrote is found unchanged by the
second, and still counts as written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from msmarco_qdrant.deleting import delete_pids
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.matching import encoder_of
from msmarco_qdrant.errors import CollectionNotFoundError, IngestStoppedError, MsmarcoQdrantError
from msmarco_qdrant.ingest import ingest_passages
from msmarco_qdrant.records import EncoderCard
from msmarco_qdrant.reports import IngestProgress, IngestReport, StageShare
from msmarco_qdrant.service.batches import KEPT_REJECTS, BatchContent, Rejects
from msmarco_qdrant.service.outcomes import BatchReport
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)

Reload: TypeAlias = Callable[[str, EncoderCard], Encoder]
"""The encoder of a collection of that name whose metadata hold that card."""


class Applier:
    """Applies batches to one collection, with the encoder that fits it.

    Args:
        store: Where.
        collection: The collection's name; it is made when there is something to write.
        encoder: The collection's, or for a new one.
        reload: Loads another encoder when the collection has been re-embedded.

    Attributes:
        encoder: The one in use.
    """

    def __init__(
        self, store: Store, collection: str, encoder: Encoder, reload: Reload = encoder_of
    ) -> None:
        self._store = store
        self._collection = collection
        self._reload = reload
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
            optimize=False,
            on_reject=rejects.add,
            on_progress=go_on,
        )

    def delete(self, content: BatchContent, go_on: Callable[[], None]) -> int:
        """Delete a batch's pids; how many were there.

        Raises:
            StoreError: If the store cannot.
        """
        try:
            return delete_pids(self._store, self._collection, _watched(content.deletes(), go_on))
        except CollectionNotFoundError:
            return 0  # where there is no collection, there is none of them

    def optimize(self) -> None:
        """Build the collection's indexes.

        Raises:
            StoreError: If the store cannot.
        """
        self._store.collection(self._collection).optimize()

    def _fit_encoder(self) -> None:
        try:
            card = self._store.metadata(self._collection).encoder
        except CollectionNotFoundError:
            return
        if card.fingerprint != self.encoder.card.fingerprint:
            _log.info("collection '%s' has the model %s now", self._collection, card.model)
            self.encoder = self._reload(self._collection, card)


class Application:
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
        applier: Applier,
        on_written: Callable[[int], None],
        go_on: Callable[[], None],
    ) -> None:
        self._content = content
        self._applier = applier
        self._on_written = on_written
        self._go_on = go_on
        self._written = self._told = self._deleted = 0
        self.stages: tuple[StageShare, ...] = ()

    def attempt(self) -> BatchReport:
        """Apply the batch, again if need be.

        Raises:
            MsmarcoQdrantError: Why it could not be.
        """
        started = time.perf_counter()
        rejects, unchanged = Rejects(), 0
        if self._content.passages:
            report = self._ingested(rejects)
            there = report.written + report.unchanged
            self._written = min(self._written, there)  # a collection may have been replaced
            unchanged = there - self._written
        if self._content.deletions:
            self._deleted += self._applier.delete(self._content, self._go_on)
        rows = sorted([*self._content.rejects.first, *rejects.first], key=lambda row: row.line)
        return BatchReport(
            written=self._written,
            unchanged=unchanged,
            rejected=self._content.rejects.count + rejects.count,
            deleted=self._deleted,
            superseded=self._content.superseded,
            seconds=time.perf_counter() - started,
            rejects=tuple(rows[:KEPT_REJECTS]),
        )

    @property
    def failed(self) -> BatchReport:
        """What a batch has done that is given up."""
        return BatchReport(
            written=self._written,
            rejected=self._content.rejects.count,
            superseded=self._content.superseded,
            rejects=tuple(self._content.rejects.first),
        )

    def _ingested(self, rejects: Rejects) -> IngestReport:
        self._told = 0
        try:
            report = self._applier.write(self._content, rejects, self._progress)
        except IngestStoppedError as exc:
            self._written += exc.report.written
            if isinstance(exc.__cause__, MsmarcoQdrantError):
                raise exc.__cause__ from exc
            raise
        self._written += report.written
        self.stages = report.stages
        return report

    def _progress(self, progress: IngestProgress) -> None:
        self._go_on()
        if progress.report.written > self._told:
            self._on_written(progress.report.written - self._told)
            self._told = progress.report.written


def _watched(pids: Iterator[str], go_on: Callable[[], None]) -> Iterator[str]:
    for pid in pids:
        go_on()
        yield pid
