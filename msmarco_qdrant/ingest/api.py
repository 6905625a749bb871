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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from os import PathLike
from typing import Any, cast

from msmarco_qdrant.core.arguments import suggest_keywords
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
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import EncoderChoices
from msmarco_qdrant.ingest.options import IndexOptions, NewCollection, check_amounts
from msmarco_qdrant.ingest.progress import IngestDisplay
from msmarco_qdrant.ingest.prune import to_policy
from msmarco_qdrant.ingest.run import IngestRun
from msmarco_qdrant.ingest.steps import report_nothing
from msmarco_qdrant.ingest.target import Destination, choose_encoders, open_target
from msmarco_qdrant.ingest.windows import Rows as Source
from msmarco_qdrant.ingest.windows import RowStream
from msmarco_qdrant.runtime.progress import add_display
from msmarco_qdrant.sources.corpus import Reading, as_rows
from msmarco_qdrant.sources.python_rows import Rows
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store

_log = logging.getLogger(__name__)


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
    models = ModelChoice.of(model, encoder_options, default_model, prompts)
    encoders = choose_encoders(source, models, encoder)
    new = NewCollection.of(bm25, storage, payload_indexes, sharding)
    index = IndexOptions(optimize, wait_index, bulk, index_every)
    destination = Destination(store, collection, connection, new, index)
    policy = to_policy(prune)
    check_amounts(window, max_passages, policy)
    reading = Reading(format, pid_field, text_field, title_field, skip_field)
    rows = RowStream(_open_rows(source, reading))
    with RejectCount(on_reject) as rejected, ExitStack() as stack:
        shown = add_display(stack, IngestDisplay() if progress else None, on_progress)
        opened = open_target(stack, destination, encoders, rows, rejected)
        if opened is None:
            return report_nothing(rows.descriptions)
        run = IngestRun(opened.target, opened.guard, rejected, shown)
        run.index_every = index.piece(opened.guard.store)
        write = partial(_write, run, rows, window, max_passages)
        return run.complete(write, index, policy, is_new=opened.is_new)


def _write(run: IngestRun, rows: RowStream, window: int, max_passages: int | None) -> None:
    """Write the rows; warn of files without any."""
    run.ingest(rows, window, max_passages)
    if rows.is_stored and not run.report().read:
        _log.warning("the source has no passages")


def _open_rows(source: object, reading: Reading) -> Source:
    if isinstance(source, VectorShards):
        reading.require_default(source)
        return source
    return as_rows(cast("Rows", source), reading)
