"""The worker of a distributed ingest: it encodes and writes one split after the other."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import PathLike
from typing import IO, TYPE_CHECKING, Any

from msmarco_qdrant.core.encoder_types import EncoderInfo, Prompts
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.pid_set import UniquePids
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import IngestReport
from msmarco_qdrant.distributed.splits import Split
from msmarco_qdrant.encoding import Bm25Encoder, Encoder
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.ingest.alias_guard import AliasGuard, resolve_alias
from msmarco_qdrant.ingest.carry_over import carry_over
from msmarco_qdrant.ingest.run import CollectionStart, IngestRun
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.ingest.target import EncoderChoice
from msmarco_qdrant.ingest.windows import RowStream
from msmarco_qdrant.sources.corpus import Reading
from msmarco_qdrant.sources.extents import ExtentRows
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.stores import Connection, Store, open_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REJECTS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of every worker of one ingest; they are sent to other machines.

    Attributes:
        url: URL of the server.
        connection: Its settings.
        collection: Name of the collection.
        reading: How files are read.
        window: Passages that are sorted by length, and flushed, together.
        model: The model; None for the collection's.
        default_model: The model of a new collection.
        prompts: Its prompts.
        make_encoder: Makes the encoder, instead of a model.
        encoder_options: Device, precision and backend.
    """

    url: str
    connection: Connection
    collection: str
    reading: Reading
    window: int
    model: str | PathLike[str] | None
    default_model: str
    prompts: Prompts | None
    make_encoder: Callable[[], Encoder] | None
    encoder_options: EncoderOptions


@dataclass(frozen=True, slots=True)
class OpenedCollection:
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


@dataclass(frozen=True, slots=True, eq=False)
class SplitWork:
    """A split to ingest.

    Attributes:
        split: The split.
        lines_before: For each extent, the lines of its file before it.
        rows: Number of its rows.
        repeats: Its rows whose pid came before them, in ascending order.
        attempt: Number of the attempt, from 1.
    """

    split: Split
    lines_before: Sequence[int]
    rows: int
    repeats: NDArray[np.uint64]
    attempt: int


@dataclass(frozen=True, slots=True)
class SplitOutcome:
    """Counts of an ingested split, whose passages are durable.

    Attributes:
        report: The counts.
        added: Passages whose pid the collection lacked.
        vectors: Passages written with vectors.
        tokens: BM25 tokens of these.
    """

    report: IngestReport
    added: int
    vectors: int
    tokens: int


@dataclass(slots=True)
class SpilledRejects:
    """Rejects of a split, in a temporary file until it is done."""

    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    held: list[Reject] = field(default_factory=list)
    spilled: int = 0

    def add(self, reject: Reject) -> None:
        """Keep a reject."""
        self.held.append(reject)
        if len(self.held) >= _REJECTS_AT_ONCE:
            self._spill()

    def batches(self) -> Iterator[list[Reject]]:
        """Yield all of them, some at a time."""
        self._spill()
        self.file.seek(0)
        for _ in range(self.spilled):
            yield pickle.load(self.file)  # noqa: S301  # written below

    def _spill(self) -> None:
        if self.held:
            pickle.dump(self.held, self.file)
            self.spilled += 1
            self.held = []


class IngestWorker:
    """Loads the encoder once, then ingests splits, also several at once in threads.

    Args:
        settings: The same for all workers.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._stack = ExitStack()
        self._opened: Store | None = None
        self._encoder: Encoder | None = None
        self._collection: OpenedCollection | None = None
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
        choice = EncoderChoice(
            source=None,
            model=settings.model,
            default_model=settings.default_model,
            encoder=encoder,
            options=settings.encoder_options,
            prompts=settings.prompts,
        )
        if stored is None:
            info, self._encoder = choice.for_new()
            return info
        info, self._encoder = choice.for_existing(settings.collection, stored)
        if self._encoder is not None:
            carry_over(resolve_alias(self._store(), settings.collection), self._encoder)
        return info

    def begin(self, collection: OpenedCollection) -> None:
        """Prepare to ingest into a collection; load its encoder unless that is done."""
        if self._encoder is None and not collection.has_vectors:
            self.load(collection.metadata.encoder)
        if self._encoder is not None:
            self._encoder.warm_up()
        self._collection = collection
        self._store()

    def run_split(self, work: SplitWork, *blocks: Any) -> Iterator[list[Reject] | SplitOutcome]:
        """Ingest a split; yield its rejects, then its counts.

        Args:
            work: The split.
            *blocks: Its tables, if it has no files.

        Raises:
            MsmarcoQdrantError: If it ended early; the same split can be ingested again.
        """
        rejects = SpilledRejects()
        with rejects.file:
            rejected = RejectCount(rejects.add)
            run = self._run(work, rejected)
            self._runs.append(run)
            try:
                rows = ExtentRows(
                    work.split.extents,
                    self._settings.reading,
                    work.lines_before,
                    work.repeats.tolist(),
                    work.rows,
                    blocks,
                )
                run.ingest(RowStream(rows), self._settings.window, None)
            except MsmarcoQdrantError as exc:
                reason = run.guard.root_cause(exc)
                raise reason from (exc if reason is not exc else exc.__cause__)
            finally:
                self._runs.remove(run)
            yield from rejects.batches()
        yield SplitOutcome(run.report(), run.added, run.vectors, run.tokens)

    def done(self) -> int:
        """Return the rows of unfinished splits that are durable."""
        return sum(run.report().read for run in [*self._runs])

    def _run(self, work: SplitWork, rejected: RejectCount) -> IngestRun:
        collection = self._collection
        if collection is None:
            raise RuntimeError("begin was not called")
        store = self._store()
        guard = AliasGuard(
            store, self._settings.collection, collection.physical, collection.metadata
        )
        bm25 = Bm25Encoder(collection.metadata.bm25)
        target = IngestTarget(guard.collection, collection.info, bm25, self._encoder)
        # An earlier attempt may have written a part of the split.
        start = collection.start if work.attempt == 1 else collection.start.as_resumed()
        return IngestRun(target, guard, rejected, None, start=start, seen=UniquePids())

    def _store(self) -> Store:
        if self._opened is None:
            settings = self._settings
            self._opened = open_store(settings.url, connection=settings.connection)
        return self._opened
