"""The errors that this package raises.

The tree::

    MsmarcoQdrantError
    ├── UsageError                 an argument or option is invalid
    │   ├── MissingExtraError      an optional dependency is not installed
    │   ├── PassageNotFoundError   the collection lacks a passage that a call names
    │   ├── UnknownArgumentError   a keyword argument of that name does not exist
    │   └── WeakJudgeError         a judge ranks no better than the search that it judges
    ├── SourceError                a source of passages or queries cannot be read
    ├── OutputError                a file of rejects or results cannot be written
    ├── ModelError
    │   ├── ModelNotFoundError     no model of that name or in that directory
    │   ├── ModelMismatchError     the model is not the one that filled the collection
    │   └── EncodingError          a query has no finite vector, or the forward pass failed
    ├── StoreError
    │   ├── StoreNotFoundError     the path or URL holds no store
    │   ├── StoreUnavailableError  the store cannot be reached or written
    │   ├── StoreAccessError       the server refuses the API key
    │   ├── StoreInUseError        another process holds the directory, or migrates the collection
    │   ├── StoreCorruptError      the store's content cannot be read
    │   ├── UnsupportedError       this engine does not support the operation
    │   ├── CollectionNotFoundError
    │   ├── CollectionReplacedError    the alias was repointed during a write
    │   ├── SchemaError            wrong vector name or dimension, or the collection exists already
    │   └── PidCollisionError      the point of a pid holds another pid
    ├── SpoolError                 the sidecar's spool cannot be used
    │   └── SpoolFullError         the spool's quota is used up; try again later
    ├── MigrationError             a migration cannot be applied, or failed
    ├── WorkerError                a subprocess ended unexpectedly
    ├── EncodeStoppedError         an encode into a folder ended early; `report` has the counts
    └── IngestStoppedError         an ingest ended early; `report` has the counts
        └── PruneRefusedError      the source lacks too much of the collection to prune it

The sidecar adds `ShuttingDownError` (`service.interfaces`) and `StartupStoppedError`
(`service.startup`).

A message contains what was found, what was expected, and the next step. The one module that
calls a third-party library maps its exceptions into this tree, with the original as
``__cause__``.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msmarco_qdrant.core.reports import EncodeReport, IngestReport


class MsmarcoQdrantError(Exception):
    """Base class: `except MsmarcoQdrantError` catches every error raised on purpose.

    Errors can be pickled, as by process pools, and copied: attributes and notes stay. So does
    ``__cause__``, except for one that cannot be pickled itself.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the parts for pickle; a subclass may have any arguments."""
        return _restore, (type(self), self.args), (self.__dict__, _picklable(self.__cause__))

    def __setstate__(self, state: Any) -> None:
        """Set attributes and cause."""
        attributes, cause = state
        self.__dict__.update(attributes)
        if cause is not None:
            self.__cause__ = cause


def _restore(kind: type[MsmarcoQdrantError], args: tuple[Any, ...]) -> MsmarcoQdrantError:
    return kind.__new__(kind, *args)


def _picklable(cause: BaseException | None) -> BaseException | None:
    """Return a cause that another process can load, else None: some library errors cannot."""
    try:
        pickle.loads(pickle.dumps(cause))  # noqa: S301  # made in this process
    except Exception:  # noqa: BLE001  # a library's `__reduce__` may raise anything
        return None
    return cause


class UsageError(MsmarcoQdrantError):
    """An argument or option is invalid, or two of them exclude each other."""


class MissingExtraError(UsageError):
    """An optional dependency is needed and not installed.

    Args:
        feature: The feature, as the subject of a sentence ("reading Parquet").
        extra: The extra of this distribution that installs the dependency ("parquet").
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(feature, extra)  # pickle passes the same arguments
        self.feature = feature
        self.extra = extra

    def __str__(self) -> str:
        return (
            f"{self.feature} needs the extra '{self.extra}': "
            f"pip install 'msmarco-qdrant[{self.extra}]'"
        )


class UnknownArgumentError(UsageError, TypeError):
    """A function has no keyword argument of that name; a `TypeError`, too, as Python raises."""


class PassageNotFoundError(UsageError):
    """The collection lacks a passage that a call needs, such as an example of `similar`."""


class WeakJudgeError(UsageError):
    """A judge does not rank candidates better than the search that found them.

    Attributes:
        judge: Mean nDCG@10 of the candidates in the judge's order.
        search: Mean nDCG@10 of the search.
    """

    def __init__(self, message: str, judge: float, search: float) -> None:
        super().__init__(message)
        self.judge = judge
        self.search = search


class SourceError(MsmarcoQdrantError):
    """A source of passages or queries is missing, unreadable, or in another format."""


class OutputError(MsmarcoQdrantError):
    """A file of rejects or results cannot be written."""


class ModelError(MsmarcoQdrantError):
    """Base class for errors of models."""


class ModelNotFoundError(ModelError):
    """No model has that name or lies in that directory."""


class ModelMismatchError(ModelError):
    """The model is not the one that made the collection's vectors."""


class EncodingError(ModelError):
    """A query has no finite, non-zero vector, even in float32; or the forward pass failed."""


class StoreError(MsmarcoQdrantError):
    """Base class for errors of stores."""


class StoreNotFoundError(StoreError):
    """The path or URL holds no store."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached or written."""


class StoreAccessError(StoreError):
    """The server refuses the request: the API key is missing, wrong, or read-only."""


class StoreInUseError(StoreError):
    """Another process holds the store's directory, or migrates the collection."""


class StoreCorruptError(StoreError):
    """This version cannot read what the store contains."""


class UnsupportedError(StoreError):
    """This engine does not support the operation; see its `capabilities`."""


class CollectionNotFoundError(StoreError):
    """The store holds no collection of that name."""


class CollectionReplacedError(StoreError):
    """The alias was repointed to another physical collection during a write."""


class SchemaError(StoreError):
    """The vector name or dimension is not in the collection, or the collection exists already."""


class PidCollisionError(StoreError):
    """A stored point carries another pid than the one that its id was derived from."""


class SpoolError(MsmarcoQdrantError):
    """The sidecar's spool directory cannot be written, or another process uses it."""


class SpoolFullError(SpoolError):
    """The spool's quota of batches or bytes is used up; finished batches free it."""


class MigrationError(MsmarcoQdrantError):
    """A migration cannot be applied, or failed; the ledger has those before it."""


class IngestStoppedError(MsmarcoQdrantError):
    """An ingest ended before its source did.

    Attributes:
        report: Counts of what was read and durably written. Run the same ingest again to resume.
    """

    def __init__(self, message: str, report: IngestReport) -> None:
        super().__init__(message)
        self.report = report


class WorkerError(MsmarcoQdrantError):
    """A subprocess of this process ended unexpectedly."""


class EncodeStoppedError(MsmarcoQdrantError):
    """An encode into a folder ended before its source did.

    Attributes:
        report: Counts of what was encoded and is on disk. Run the same encode again to resume.
    """

    def __init__(self, message: str, report: EncodeReport) -> None:
        super().__init__(message)
        self.report = report


class PruneRefusedError(IngestStoppedError):
    """The whole source was ingested, but the passages that it lacks were not deleted."""
