"""Reports and progress of the long operations: frozen and slotted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.report_text import (
    backup_text,
    cut_lines,
    encode_text,
    reembed_details,
    reembed_text,
    report_text,
    restore_text,
    stages_text,
)

ReembedStage: TypeAlias = Literal["copy", "index", "compare", "verify", "swap", "last pass"]

MAX_REJECTS = 100
"""The most rejected rows that a report holds."""

BackupKind: TypeAlias = Literal["edge", "server", "portable"]


@dataclass(frozen=True, slots=True)
class StageTiming:
    """Working time of one stage of an ingest.

    Stages run at the same time in their own threads, so the shares may add up to more than 1.
    The stage with the largest share is the bottleneck.

    Attributes:
        name: "read" (read and parse rows), "skip" (look up stored passages), "tokenize",
            "forward" (the model), "sparse" (BM25 weights), "write" (write to the store and
            flush); at the end "prune" and "index".
        seconds: Working time, without waits for other stages.
        share: Working time as a share of the wall time so far, 0 to 1.
    """

    name: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Counts and times of an ingest.

    Attributes:
        read: Rows read: `written + unchanged + rejected` at the end.
        written: Passages stored or rewritten, counted once they are durable.
        unchanged: Passages stored before with the same text and meta.
        rejected: Rows that could not become a passage.
        encoded: Passages whose text went through the model: not those with only a changed meta,
            nor those that came with a vector.
        pruned: Passages deleted because the source lacks them.
        seconds: Wall time from the first row to the last flush, indexing included.
        mean_tokens: Mean BM25 tokens of the passages with new vectors, None without any.
        stages: Working time of each stage, in pipeline order.
        cut: Encoded passages whose end the model did not read, as they exceed its maximum length.
        sources: The shape of each file that was read, in one line.
        missing: Passages that other clients deleted during the ingest, as far as the count at the
            end shows; it is logged, too.
    """

    read: int
    written: int
    unchanged: int
    rejected: int
    encoded: int
    seconds: float
    mean_tokens: float | None = None
    pruned: int = 0
    stages: tuple[StageTiming, ...] = ()
    cut: int = 0
    sources: tuple[str, ...] = ()
    missing: int = 0

    @property
    def passages_per_second(self) -> float:
        """Rows processed per second."""
        return self.read / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return "\n".join([report_text(self), *cut_lines(self), stages_text(self)])

    def __repr__(self) -> str:
        return f"<IngestReport: {report_text(self)}>"


@dataclass(frozen=True, slots=True)
class UpsertReport:
    """Counts of an upsert; everything that it counts is durable.

    Attributes:
        written: Passages stored or rewritten.
        unchanged: Passages stored before with the same text and meta.
        rejected: Rows that could not become a passage.
        superseded: Rows that a later row of the same pid replaced before they were written.
        rejects: The first hundred rejected rows, with their reasons; `line` counts rows from 1.
    """

    written: int = 0
    unchanged: int = 0
    rejected: int = 0
    superseded: int = 0
    rejects: tuple[Reject, ...] = ()

    def __add__(self, other: UpsertReport) -> UpsertReport:
        return UpsertReport(
            written=self.written + other.written,
            unchanged=self.unchanged + other.unchanged,
            rejected=self.rejected + other.rejected,
            superseded=self.superseded + other.superseded,
            rejects=(*self.rejects, *other.rejects)[:MAX_REJECTS],
        )

    def __str__(self) -> str:
        parts = [f"{self.written:,} written", f"{self.unchanged:,} unchanged"]
        parts += [f"{self.superseded:,} superseded"] if self.superseded else []
        first = ""
        if self.rejects:
            first = f" (the first: row {self.rejects[0].line}: {self.rejects[0].reason})"
        return f"{', '.join(parts)}, {self.rejected:,} rejected{first}"

    def __repr__(self) -> str:
        return f"<UpsertReport: {self}>"


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """Progress of an ingest.

    Attributes:
        stage: "passages" (read, encode and write rows), "prune" (delete passages that the source
            lacks), or "index" (build the index).
        done: Rows processed: written, unchanged or rejected.
        fraction: Processed share of the source, 0 to 1; None if its size is unknown.
        report: Counts so far.
    """

    stage: Literal["passages", "prune", "index"]
    done: int
    fraction: float | None
    report: IngestReport


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """Counts and times of an encode into a folder of vectors.

    Attributes:
        read: Rows read: `encoded + found + rejected`.
        encoded: Passages whose vectors were written.
        found: Passages whose vectors an earlier run wrote.
        rejected: Rows that could not become a passage with a vector, also in earlier runs.
        shards: Files in the folder at the end.
        tokens: Tokens that went through the model.
        seconds: Wall time from the first batch to the last file's fsync, without startup.
            Subprocesses may tokenize passages of the first files before that.
        startup_seconds: Wall time before that: of loading and the first forward pass, or of
            starting processes and tokenizing the first shard, which is done at the same time.
        cut: Encoded passages whose end the model did not read, as they exceed its maximum length.
    """

    read: int
    encoded: int
    found: int
    rejected: int
    shards: int
    tokens: int
    seconds: float
    startup_seconds: float = 0.0
    cut: int = 0

    @property
    def passages_per_second(self) -> float:
        """Passages encoded per second."""
        return self.encoded / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return "\n".join([encode_text(self), *cut_lines(self)])

    def __repr__(self) -> str:
        return f"<EncodeReport: {encode_text(self)}>"


@dataclass(frozen=True, slots=True)
class EncodeProgress:
    """Progress of an encode.

    Attributes:
        done: Rows processed.
        fraction: Processed share of the source, 0 to 1; None if its size is unknown.
        report: Counts so far.
    """

    done: int
    fraction: float | None
    report: EncodeReport


@dataclass(frozen=True, slots=True)
class BackupReport:
    """The result of a backup.

    Attributes:
        collection: The name that users see.
        physical: The physical collection that was copied.
        kind: "edge" or "server", the engine's own format with its indexes, or "portable".
        folder: The directory of the backup.
        passages: Passages in the backup.
        files: Files of the backup, without its manifest.
        bytes: Size of these files.
        seconds: Wall time.
    """

    collection: str
    physical: str
    kind: BackupKind
    folder: str
    passages: int
    files: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return backup_text(self)

    def __repr__(self) -> str:
        return f"<BackupReport: {backup_text(self)}>"


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """The result of a restore.

    Attributes:
        collection: The name that users see.
        physical: The physical collection that it points to.
        kind: See `BackupReport`.
        passages: Passages in the collection.
        folder: The directory of the backup.
        seconds: Wall time.
    """

    collection: str
    physical: str
    kind: BackupKind
    passages: int
    folder: str
    seconds: float

    def __str__(self) -> str:
        return restore_text(self)

    def __repr__(self) -> str:
        return f"<RestoreReport: {restore_text(self)}>"


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """The results of sample queries in two collections; each query is the start of a passage.

    Attributes:
        queries: Number of queries searched in both.
        found_before: Queries that found their passage among the ten best of the old collection;
            None if its model could not be loaded.
        found_after: The same for the new collection.
        overlap: Mean share of the old ten best that are among the new ten best, 0 to 1; None if
            the old collection was not searched.
    """

    queries: int
    found_before: int | None
    found_after: int
    overlap: float | None

    @property
    def is_worse(self) -> bool:
        """True if the new collection finds less than half of what the old one finds."""
        return self.found_before is not None and 2 * self.found_after < self.found_before


@dataclass(frozen=True, slots=True)
class ReembedProgress:
    """The progress of a re-embedding.

    Attributes:
        stage: "copy" (compare, encode and write passages), "index", "compare" (search a sample),
            "verify" (compare both collections again), "swap" or "last pass".
        done: Passages of the old collection done in this stage.
        total: Passages of the old collection.
    """

    stage: ReembedStage
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """The result of a re-embedding.

    Attributes:
        collection: The name that users see.
        old: The physical collection that it pointed to before.
        new: The physical collection that it points to now; `old` if its vectors are of this model.
        model: The model of the new collection.
        passages: Passages in the new collection.
        copied: Passages that this run encoded and wrote.
        removed: Passages that other clients deleted during the run, deleted from the copy, too.
        without_vector: Pids of passages without a vector, which are missing from the new one.
        comparison: The results of sample queries; None if the swap was done by an earlier run.
        seconds: Wall time.
    """

    collection: str
    old: str
    new: str
    model: str
    passages: int
    copied: int
    removed: int
    without_vector: tuple[str, ...]
    comparison: ModelComparison | None
    seconds: float

    def __str__(self) -> str:
        return "\n".join([reembed_text(self), *reembed_details(self)])

    def __repr__(self) -> str:
        return f"<ReembedReport: {reembed_text(self)}>"
