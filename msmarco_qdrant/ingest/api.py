"""Ingest of passages into a collection.

``read → skip unchanged → tokenize → forward → sparse → write and flush → report``: each stage is
an iterator over the one before. Each runs in a thread of its own and prefetches a bounded number
of items; writing runs in the caller's thread. The report contains the time of each stage.

The collection is the checkpoint; no state file exists. A passage whose point has the same
`text_digest` is not encoded again, and one whose meta alone changed gets a new payload. This
gives resumption after a crash, idempotent repetition and incremental updates.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from os import PathLike
from typing import Any, cast

from msmarco_qdrant.collection.bulk import bulk_mode
from msmarco_qdrant.collection.create import (
    check_collection_name,
    drop_if_empty,
)
from msmarco_qdrant.core.arguments import suggest_keywords, to_settings
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    PayloadIndex,
    Quantization,
    ShardSettings,
    StorageSettings,
)
from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.core.records import WINDOW, PrunePolicy, Reject
from msmarco_qdrant.core.reports import IngestProgress, IngestReport
from msmarco_qdrant.core.source_types import Format
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import EncoderChoices, to_encoder_options
from msmarco_qdrant.errors import (
    IngestStoppedError,
    MsmarcoQdrantError,
    PruneRefusedError,
    StoreError,
    UnsupportedError,
    UsageError,
)
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.ingest.progress import IngestDisplay
from msmarco_qdrant.ingest.prune import to_policy
from msmarco_qdrant.ingest.run import IngestRun
from msmarco_qdrant.ingest.target import (
    Destination,
    EncoderChoice,
    no_passages,
    open_target,
    to_payload_keys,
)
from msmarco_qdrant.ingest.windows import Rows as Source
from msmarco_qdrant.ingest.windows import RowStream
from msmarco_qdrant.runtime.progress import with_display
from msmarco_qdrant.sources.corpus import as_rows, require_default_reading
from msmarco_qdrant.sources.python_rows import Rows
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import (
    DEFAULT_CONNECTION,
    INDEX_STALL_S,
    Connection,
    Store,
    redact_dsn,
)
from msmarco_qdrant.stores.connection import is_url

_log = logging.getLogger(__name__)

INDEX_PIECE = 1_000_000
"""Passages of one index build, which takes at least 2 KB of memory for each.

Seen in a build of 1 million passages of 384 dimensions, before its end (benchmarks/RESULTS.md).
"""


@suggest_keywords
def ingest_passages(  # noqa: PLR0913  # all but two have defaults
    source: Rows | VectorShards | str | PathLike[str] | Sequence[str | PathLike[str]],
    store: Store | str | PathLike[str],
    *,
    collection: str = "msmarco",
    model: str | PathLike[str] | None = None,
    default_model: str = DEFAULT_MODEL,
    prompts: Prompts | Mapping[str, str] | None = None,
    encoder: Encoder | None = None,
    encoder_options: EncoderChoices | None = None,
    bm25: Bm25Settings | Mapping[str, Any] | str | None = None,
    storage: StorageSettings | Mapping[str, Any] | Quantization | None = None,
    payload_indexes: Mapping[str, PayloadIndex] | None = None,
    sharding: ShardSettings | Mapping[str, Any] | None = None,
    connection: Connection = DEFAULT_CONNECTION,
    max_passages: int | None = None,
    prune: PrunePolicy | Mapping[str, Any] | float | None = None,
    window: int = WINDOW,
    optimize: bool = True,
    wait_index: bool = False,
    bulk: bool = False,
    index_every: int | None = None,
    format: Format = "auto",  # noqa: A002  # the option's name everywhere else
    pid_field: str | None = None,
    text_field: str | None = None,
    title_field: str | None = None,
    skip_field: str | Sequence[str] = (),
    on_reject: Callable[[Reject], None] | None = None,
    on_progress: Callable[[IngestProgress], None] | None = None,
    progress: bool = False,
) -> IngestReport:
    """Ingest passages into a collection, and create the collection if it does not exist.

    Run it again to resume after a crash or an interruption. With the same source, a second run
    encodes and writes nothing. For files without any row nothing is created; an empty list creates
    an empty collection.

    Args:
        source: One or several paths, a `Corpus`, or `VectorShards`, whose vectors are written
            without loading a model; or an iterable of `Passage` values, dictionaries with the
            fields of a row, or tuples `(pid, text)` or `(pid, text, meta)`; or a DataFrame of
            pandas or Polars, an Arrow table, a dataset of Hugging Face, or an iterable of these.
            A thread of its own iterates over it; if it waits for input when the ingest ends, that
            thread is left behind.
        store: An open store, or the path or URL of one.
        collection: The name of the collection.
        model: The model to encode with: a directory, a name of the catalog, or a hub id. The
            default is the collection's own, or `default_model` for a new collection.
        default_model: See `model`.
        prompts: Texts that the model of a new collection needs in front of queries and passages;
            a `Prompts`, or a dictionary with "query" and "passage". They are stored with the
            collection, and searches use them. By default those of the catalog or of the model's
            configuration. An existing collection must have the same.
        encoder: A loaded encoder instead of `model`.
        encoder_options: An `EncoderOptions`, a dictionary of its fields, or a device such as
            "cuda:1"; None for the fastest here.
        bm25: The sparse vectors of a new collection: a `Bm25Settings`, a dictionary of its fields,
            or a language such as "german". An existing collection keeps its own.
        storage: The dense vectors of a new collection: a `StorageSettings`, a dictionary of its
            fields, or "int8", "turbo4" or "none". An existing collection keeps its own.
        payload_indexes: The `meta` fields that a new collection indexes, for fast filters, such as
            `{"lang": "keyword", "year": "integer"}`. An existing collection must have them. An
            index covers values of its kind only.
        sharding: The shards and replicas of a new collection on a server: a `ShardSettings`, or a
            dictionary of its fields. An existing collection must have the same.
        connection: API key, port, timeouts and request sizes, if `store` is a URL.
        max_passages: Stop after this number of passages.
        prune: At the end, remove the passages that were in the collection before the run and are
            not in the source: True, the largest share to remove, a `PrunePolicy`, or a dictionary
            of its fields. By default nothing is removed.
        window: Passages that are sorted by length, and flushed, together.
        optimize: Build the index at the end. Without it, new passages are found by exact scan.
        wait_index: Wait for a server's index without a bound. By default the ingest ends with a
            warning if the server builds no index.
        bulk: Let a server build the index at the end only, which is faster for many passages. If
            the run is interrupted, the next ingest or the command `optimize` ends it.
        index_every: Build the index of a directory after each so many written passages, not only at
            the end: an interruption then loses one build at most, and the memory of a build is that
            of so many passages. Graphs that the engine does not merge are searched one by one. By
            default after each million; a larger number for one graph of more.
        format: Format of the paths in `source`; see `Corpus`, also for the next four.
        pid_field: The field with the pid, also of dictionaries and tables.
        text_field: The field with the text.
        title_field: The field with the title.
        skip_field: Fields to leave out of `meta`.
        on_reject: Called for each row that cannot become a passage, in the caller's thread. By
            default their number and the first are logged.
        on_progress: Called after each batch and each stage, in the caller's thread.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.

    Returns:
        The counts and timings of the run.

    Raises:
        IngestStoppedError: If it ended early; its `report` contains what was written.
        PruneRefusedError: If everything was written, but the policy forbids to prune.
        SourceError: If the source cannot be read, or has rows but no passage; nothing was created.
        ModelError: If the model cannot be loaded, or is not the collection's; nothing was created.
        StoreError: If the store cannot be opened or created, or holds other data.
        UnsupportedError: If `sharding` or `bulk` is passed and the store is not a server, or
            `index_every` and it is not a directory.
        UsageError: If an argument is invalid.
    """
    options = to_encoder_options(encoder_options)
    texts = None if prompts is None else to_settings(Prompts, prompts, "prompts")
    encoders = EncoderChoice(source, model, default_model, encoder, options, texts)
    sparse = None if bm25 is None else to_settings(Bm25Settings, bm25, "bm25", "language")
    dense = (
        None
        if storage is None
        else to_settings(StorageSettings, storage, "storage", "quantization")
    )
    shards = None if sharding is None else to_settings(ShardSettings, sharding, "sharding")
    policy = to_policy(prune)
    _check_index_options({"bulk": bulk, "index_every": index_every}, optimize=optimize)
    _check_bounds(window, max_passages, policy)
    _check_index_every(store, index_every)
    check_collection_name(collection)
    indexes = to_payload_keys(payload_indexes or {})
    reading = {
        "format": format,
        "pid_field": pid_field,
        "text_field": text_field,
        "title_field": title_field,
        "skip_field": skip_field,
    }
    rows = RowStream(_open_rows(source, reading))
    rejected = RejectCount(on_reject)
    with ExitStack() as stack:
        stack.callback(rejected.log)
        if progress:
            display = IngestDisplay()
            on_progress = with_display(stack, display, display, on_progress)
        destination = Destination(store, collection, connection, dense, indexes, shards, bulk)
        opened = open_target(stack, destination, encoders, sparse, rows, rejected)
        if opened is None:
            _log.warning("the source has no passages: no collection was created")
            return IngestReport(0, 0, 0, 0, 0, 0.0, sources=rows.descriptions)
        target, guard, is_new = opened
        guard.warn_if_unfinished()
        mode = stack.enter_context(bulk_mode(guard.store, guard.physical, begin=bulk))
        run = IngestRun(target, guard, rejected, on_progress)
        if optimize:
            run.index_every = index_every or default_piece(guard.store)
        with _ended_by_errors(run, guard, is_new=is_new):
            run.ingest(rows, window, max_passages)
            if is_new and rejected.count:
                _require_passages(run, rejected)
            run.check_count()
            if optimize:
                run.index(mode, stall_s=math.inf if wait_index else INDEX_STALL_S)
            run.check_bm25()
            if policy is not None:
                run.prune(policy)
        return _report(run, rows)


def _report(run: IngestRun, rows: RowStream) -> IngestReport:
    """Return the report of a complete run; warn of files without any row."""
    report = run.report()
    if rows.is_stored and not report.read:
        _log.warning("the source has no passages")
    return report


@contextmanager
def _ended_by_errors(run: IngestRun, guard: AliasGuard, *, is_new: bool) -> Iterator[None]:
    """Report how far a failing run got; a new collection without passages is dropped."""
    try:
        yield
    except PruneRefusedError:
        raise
    except MsmarcoQdrantError as exc:
        raise _stopped(run, guard, exc, is_new=is_new)  # noqa: B904  # it has its cause
    except Exception:  # of the caller's encoder, source or callback
        if is_new:
            _drop_unwritten(run, guard)
        raise


def _check_bounds(window: int, max_passages: int | None, prune: PrunePolicy | None) -> None:
    if window < 1:
        raise UsageError(f"window must be 1 or more, got {window}")
    if max_passages is not None and max_passages < 1:
        raise UsageError(f"max_passages must be 1 or more, or None for all, got {max_passages}")
    if max_passages is not None and prune is not None:
        raise UsageError("prune needs the whole source: omit max_passages")


def _check_index_options(options: Mapping[str, object], *, optimize: bool) -> None:
    """Refuse options of the index without one."""
    for name, given in options.items():
        if given and not optimize:
            raise UsageError(f"{name} needs the index at the end: omit optimize=False")


def default_piece(store: Store) -> int | None:
    """Return the passages after which a directory builds its index; None for a server."""
    can = store.capabilities
    return INDEX_PIECE if can.ann and not can.multi_process else None


def _check_index_every(store: Store | str | PathLike[str], every: int | None) -> None:
    """Refuse an invalid number, and an engine that builds no index on request."""
    if every is None:
        return
    if not isinstance(every, int) or every < 1:
        raise UsageError(f"index_every must be 1 or more, or None for a million, got {every!r}")
    if isinstance(store, str | PathLike):
        is_directory = not is_url(str(store)) and str(store) != ":memory:"
        place = redact_dsn(str(store))
    else:
        is_directory = store.capabilities.ann and not store.capabilities.multi_process
        place = store.dsn
    if not is_directory:
        raise UnsupportedError(
            f"index_every needs a directory, got {place}: omit it, a server builds its index itself"
        )


def _open_rows(source: object, reading: Mapping[str, Any]) -> Source:
    if isinstance(source, VectorShards):
        require_default_reading(source, reading)
        return source
    return as_rows(cast("Rows", source), **reading)


def _stopped(
    run: IngestRun, guard: AliasGuard, error: MsmarcoQdrantError, *, is_new: bool
) -> IngestStoppedError:
    """Return the error of a run that ended early; a new collection without passages is dropped."""
    reason = guard.root_cause(error)
    done = f"{run.written:,} passages were written; the same ingest resumes there"
    if is_new and _drop_unwritten(run, guard):
        done = "nothing was written"
    stopped = IngestStoppedError(f"{reason} ({done})", run.report())
    stopped.__cause__ = reason
    return stopped


def _drop_unwritten(run: IngestRun, guard: AliasGuard) -> bool:
    """Drop a new collection if it holds no passage; True if it was dropped."""
    if not run.written:
        with suppress(StoreError):  # the reason is the error to report
            return drop_if_empty(guard.store, guard.name, guard.physical)
    return False


def _require_passages(run: IngestRun, rejected: RejectCount) -> None:
    """Refuse a source of a new collection whose passages all were rejected by the model."""
    if not run.written:
        raise no_passages(rejected.count, rejected.first)
