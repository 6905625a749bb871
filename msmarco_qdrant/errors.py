"""Every error this package raises on purpose.

The tree::

    MsmarcoQdrantError
    ├── UsageError                 the call cannot mean anything: a bad name, a bad option
    │   └── MissingExtraError      an optional dependency is not installed
    ├── SourceError                a source of passages or queries cannot be read
    ├── OutputError                a file of rejects or answers cannot be written
    ├── ModelError
    │   ├── ModelNotFoundError     a model name or directory leads nowhere
    │   ├── ModelMismatchError     the model is not the one that filled the collection
    │   └── EncodingError          a query has no finite vector, or the forward pass failed
    ├── StoreError
    │   ├── StoreNotFoundError     nothing is stored there
    │   ├── StoreUnavailableError  the place cannot be written or reached
    │   ├── StoreAccessError       the server wants another API key
    │   ├── StoreInUseError        another process holds the directory, or migrates the collection
    │   ├── StoreCorruptError      what is stored there cannot be understood
    │   ├── UnsupportedError       this engine cannot do that
    │   ├── CollectionNotFoundError
    │   ├── CollectionReplacedError    another model's took its place during an ingest
    │   ├── SchemaError            a vector of a wrong name or dimension, a second creation
    │   └── PidCollisionError      a point holds another pid than its id stands for
    ├── SpoolError                 the sidecar's spool cannot be used
    │   └── SpoolFullError         it holds as many batches as it may; later there is room
    ├── MigrationError             a migration cannot be applied, or failed
    ├── WorkerError                a process that tokenized has ended
    ├── EncodeStoppedError         an encode into a folder ended early; `report` says how far
    └── IngestStoppedError         an ingest ended early; `report` says how far it got
        └── PruneRefusedError      the source lacks too much of the collection to remove it

A message says what was found, what was expected, and the next step. Exceptions of third-party
libraries are mapped into this tree in the one module that talks to that library, with the
original as ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msmarco_qdrant.core.reports import EncodeReport, IngestReport


class MsmarcoQdrantError(Exception):
    """The root: `except MsmarcoQdrantError` catches everything raised here on purpose."""


class UsageError(MsmarcoQdrantError):
    """The call cannot mean anything: a bad name or value, or two that exclude each other."""


class MissingExtraError(UsageError):
    """An optional dependency is needed and not installed.

    Args:
        feature: What was asked for, as the subject of a sentence ("reading Parquet").
        extra: The extra of this distribution that brings it ("parquet").
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the extra '{extra}': pip install 'msmarco-qdrant[{extra}]'"
        )
        self.feature = feature
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.feature, self.extra)  # so that it can come from another process


class SourceError(MsmarcoQdrantError):
    """A source of passages or queries is missing, unreadable, or of another form than said."""


class OutputError(MsmarcoQdrantError):
    """A file of rejects or answers cannot be written."""


class ModelError(MsmarcoQdrantError):
    """Something is wrong with a model."""


class ModelNotFoundError(ModelError):
    """A model name or directory leads nowhere."""


class ModelMismatchError(ModelError):
    """The model offered is not the one whose vectors the collection holds."""


class EncodingError(ModelError):
    """A query has no finite, non-zero vector, not even in float32; or the forward pass failed."""


class StoreError(MsmarcoQdrantError):
    """Something is wrong with the place where passages are kept."""


class StoreNotFoundError(StoreError):
    """Nothing is stored at that path or URL."""


class StoreUnavailableError(StoreError):
    """The place exists in principle, but cannot be written or reached."""


class StoreAccessError(StoreError):
    """The server does not let us do that: the API key is missing, wrong, or may only read."""


class StoreInUseError(StoreError):
    """Another process holds the store's directory, or is migrating the collection."""


class StoreCorruptError(StoreError):
    """What lies in the store cannot be understood by this version."""


class UnsupportedError(StoreError):
    """This engine cannot do what was asked; its `capabilities` say so beforehand."""


class CollectionNotFoundError(StoreError):
    """The store holds no collection of that name."""


class CollectionReplacedError(StoreError):
    """The name was led to another physical collection, or there and back, since a write began."""


class SchemaError(StoreError):
    """A vector of a name or dimension that the collection does not hold, or a second creation."""


class PidCollisionError(StoreError):
    """A stored point carries another pid than the one its point id was derived from."""


class SpoolError(MsmarcoQdrantError):
    """The directory of the sidecar's spool cannot be written, or another process uses it."""


class SpoolFullError(SpoolError):
    """The spool holds as many batches or bytes as it may; there is room when some are done."""


class MigrationError(MsmarcoQdrantError):
    """A migration cannot be applied to a collection, or failed; those before it are recorded."""


class IngestStoppedError(MsmarcoQdrantError):
    """An ingest ended before its source did.

    Attributes:
        report: What was read and durably written until then. Running the same ingest again goes
            on from there.
    """

    def __init__(self, message: str, report: IngestReport) -> None:
        super().__init__(message)
        self.report = report


class WorkerError(MsmarcoQdrantError):
    """A process that worked for this one has ended before its time."""


class EncodeStoppedError(MsmarcoQdrantError):
    """An encode into a folder ended before its source did.

    Attributes:
        report: What was encoded and is on disk. Running the same encode again goes on from there.
    """

    def __init__(self, message: str, report: EncodeReport) -> None:
        super().__init__(message)
        self.report = report


class PruneRefusedError(IngestStoppedError):
    """All of the source went in, but what it did not hold was left in the collection."""
