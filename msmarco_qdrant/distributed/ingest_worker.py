"""The worker of a distributed ingest: it encodes and writes one split after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.pid_set import UniquePids
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.distributed.machine import named_machine, named_sources
from msmarco_qdrant.distributed.rejects import SpilledRejects
from msmarco_qdrant.distributed.splits import CountedSplit
from msmarco_qdrant.distributed.worker_settings import WorkerSettings
from msmarco_qdrant.encoding import Bm25Encoder, Encoder
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.ingest.alias_guard import AliasGuard, resolve_alias
from msmarco_qdrant.ingest.carry_over import carry_over
from msmarco_qdrant.ingest.checks import CollectionStart
from msmarco_qdrant.ingest.counts import IngestCounts
from msmarco_qdrant.ingest.run import IngestRun
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.ingest.target import EncoderChoice
from msmarco_qdrant.ingest.windows import RowStream
from msmarco_qdrant.sources.corpus import Reading
from msmarco_qdrant.sources.extents import ExtentRows
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.stores import Store


@dataclass(frozen=True, slots=True)
class IngestSettings(WorkerSettings):
    """Settings of every worker of one ingest.

    Attributes:
        collection: Name of the collection.
        reading: How files are read.
        window: Passages that are sorted by length, and flushed, together.
    """

    collection: str
    reading: Reading
    window: int


@dataclass(frozen=True, slots=True)
class IngestJob:
    """The collection of an ingest, as the driver found or created it.

    Attributes:
        physical: Name of the physical collection.
        metadata: Its metadata.
        info: The properties of the encoder under the collection's fingerprint.
        start: Its state before the ingest.
        has_vectors: True if the passages come with their vectors.
    """

    physical: str
    metadata: CollectionMetadata
    info: EncoderInfo
    start: CollectionStart
    has_vectors: bool


@dataclass(frozen=True, slots=True)
class SplitOutcome:
    """Counts of an ingested split, whose passages are durable; seconds of each stage."""

    counts: IngestCounts
    stage_seconds: Mapping[str, float]


class IngestWorker:
    """Loads the encoder once, then ingests splits, also several at once in threads.

    Args:
        settings: The same for all workers.
    """

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._opened: Store | None = None
        self._encoder: Encoder | None = None
        self._job: IngestJob | None = None
        self._runs: list[IngestRun] = []

    def load(self, stored: EncoderInfo | None) -> EncoderInfo:
        """Load the encoder, and return its properties as a collection stores them.

        Args:
            stored: Those of an existing collection; None for a new one.

        Raises:
            ModelError: If it cannot be loaded, or is not the collection's.
        """
        settings = self._settings
        encoder = None if settings.make_encoder is None else settings.make_encoder()
        choice = EncoderChoice(settings.models, encoder)
        with named_machine():
            if stored is None:
                info, self._encoder = choice.for_new()
                return info
            info, self._encoder = choice.for_existing(settings.collection, stored)
        if self._encoder is not None:
            carry_over(resolve_alias(self._store(), settings.collection), self._encoder)
        return info

    def begin(self, job: IngestJob) -> None:
        """Prepare to ingest into a collection; load its encoder unless that is done."""
        if self._encoder is None and not job.has_vectors:
            self.load(job.metadata.encoder)
        if self._encoder is not None:
            self._encoder.warm_up()
        self._job = job
        self._store()

    def run_split(
        self, counted: CountedSplit, attempt: int, *blocks: Any
    ) -> Iterator[list[Reject] | SplitOutcome]:
        """Ingest a split; yield its rejects, then its counts.

        Args:
            counted: The split.
            attempt: Number of the attempt, from 1.
            *blocks: Its tables, if it has no files.

        Raises:
            MsmarcoQdrantError: If it ended early; the same split can be ingested again.
        """
        rejects = SpilledRejects()
        with rejects.file, named_sources():
            rejected = RejectCount(rejects.add)
            run = self._run(attempt, rejected)
            self._runs.append(run)
            try:
                rows = ExtentRows(
                    counted.split.extents,
                    self._settings.reading,
                    counted.lines_before,
                    counted.repeats.tolist(),
                    counted.rows,
                    blocks,
                )
                run.ingest(RowStream(rows), self._settings.window, None)
            except MsmarcoQdrantError as exc:
                reason = run.guard.root_cause(exc)
                raise reason from (exc if reason is not exc else exc.__cause__)
            finally:
                self._runs.remove(run)
            yield from rejects.batches()
        seconds = {stage.name: stage.seconds for stage in run.report().stages}
        yield SplitOutcome(run.counts, seconds)

    def done(self) -> int:
        """Return the rows of unfinished splits that are durable."""
        return sum(run.report().read for run in [*self._runs])

    def _run(self, attempt: int, rejected: RejectCount) -> IngestRun:
        job = self._job
        if job is None:
            raise RuntimeError("begin was not called")
        guard = AliasGuard(self._store(), self._settings.collection, job.physical, job.metadata)
        bm25 = Bm25Encoder(job.metadata.bm25)
        target = IngestTarget(guard.collection, job.info, bm25, self._encoder)
        # An earlier attempt may have written a part of the split.
        start = job.start if attempt == 1 else job.start.as_resumed()
        return IngestRun(target, guard, rejected, None, start=start, seen=UniquePids())

    def _store(self) -> Store:
        if self._opened is None:
            self._opened = self._settings.open_store()
        return self._opened
