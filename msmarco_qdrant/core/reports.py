"""What the long commands did, and how far they are: frozen and slotted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ReembedStage: TypeAlias = Literal["copy", "index", "compare", "verify", "swap", "last pass"]


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How long one stage of an ingest was at work.

    Stages work at the same time, each in a thread of its own, so the shares may add up to more
    than 1. The one with the largest holds the others back.

    Attributes:
        name: "read" (take and parse rows), "skip" (ask the store what is there already),
            "tokenize", "forward" (the model), "sparse" (BM25 weights), "write" (to the store,
            with its flush); at the end "prune" and "index".
        seconds: Time it worked, without its waits for the stages beside it.
        share: The same as a share of the wall time so far, 0 to 1.
    """

    name: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        read: Rows read, of whatever outcome: `written + unchanged + rejected` at the end.
        written: Passages stored or rewritten, counted once they are durable.
        unchanged: Passages that were there already, with the same text and meta.
        rejected: Rows that could not become a passage.
        encoded: Passages whose text went through the model (a changed meta alone does not, nor
            does a passage that came with its vector).
        pruned: Passages removed because the source did not hold them.
        seconds: Wall time from the first row to the last flush, indexing included.
        mean_tokens: Mean length in BM25 tokens of the passages that got new vectors, None if none
            did.
        stages: How long each stage was at work, in the order in which a passage meets them.
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

    @property
    def passages_per_second(self) -> float:
        """Rows handled a second."""
        return self.read / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far an ingest is.

    Attributes:
        stage: "passages" while rows are read, encoded and written; "prune" while those that the
            source did not hold are removed; "index" while it is built.
        done: Rows that are through, whether written, unchanged or rejected.
        fraction: Share of the source that is through, 0 to 1, None when its size is unknown.
        report: The counts so far.
    """

    stage: Literal["passages", "prune", "index"]
    done: int
    fraction: float | None
    report: IngestReport


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What an encode into a folder of vectors did.

    Attributes:
        read: Rows read: `encoded + found + rejected`.
        encoded: Passages whose vectors were written.
        found: Passages whose vectors an earlier run had written.
        rejected: Rows that could not become a passage with a vector, of earlier runs too.
        shards: Files that are there at the end.
        tokens: Tokens that went through the model.
        seconds: Wall time from when the first batch may begin to the last file's fsync; loading
            the model and starting processes is not in it. Where processes tokenize, the first
            files' passages may be tokenized before.
        startup_seconds: Wall time of loading, starting processes, and the first forward pass.
    """

    read: int
    encoded: int
    found: int
    rejected: int
    shards: int
    tokens: int
    seconds: float
    startup_seconds: float = 0.0

    @property
    def passages_per_second(self) -> float:
        """Passages encoded a second."""
        return self.encoded / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class EncodeProgress:
    """How far an encode is.

    Attributes:
        done: Rows that are through.
        fraction: Share of the source that is through, 0 to 1, None when its size is unknown.
        report: The counts so far.
    """

    done: int
    fraction: float | None
    report: EncodeReport


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
        new: The physical collection that it points to now; the same if it had these vectors.
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
