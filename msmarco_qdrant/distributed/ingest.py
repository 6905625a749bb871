"""Ingest of files into a collection of a server, by the workers of a Ray cluster.

``list files → cut into splits → read keys (pass 1) → find repeated pids (pass 2) → ingest splits``.
Every worker runs the stages of an ingest by one process over its split. Nothing is kept between
two runs but the collection: a second run reads the keys again, and skips what is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from os import PathLike
from typing import Any, TypeAlias

from msmarco_qdrant.core.arguments import check_counts, suggest_keywords
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    PayloadIndex,
    Quantization,
    ShardSettings,
    StorageSettings,
)
from msmarco_qdrant.core.encoder_types import EncoderInfo, Prompts
from msmarco_qdrant.core.records import WINDOW, PrunePolicy, Reject
from msmarco_qdrant.core.reports import IngestProgress, IngestReport
from msmarco_qdrant.core.source_types import Format
from msmarco_qdrant.distributed.cluster import PoolSize, is_dataset, open_dataset
from msmarco_qdrant.distributed.counting import CountedSource, open_counting
from msmarco_qdrant.distributed.files import SourceFiles, open_files
from msmarco_qdrant.distributed.ingest_run import DistributedIngest
from msmarco_qdrant.distributed.ingest_worker import IngestSettings, IngestWorker, SplitOutcome
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.splits import plan_splits, split_size
from msmarco_qdrant.distributed.values import (
    SPLITS_AT_ONCE_ON_GPU,
    ClusterOptions,
    check_model,
    check_server_url,
    for_workers,
)
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import EncoderChoices
from msmarco_qdrant.errors import CollectionNotFoundError, StoreNotFoundError
from msmarco_qdrant.ingest.checks import CollectionStart
from msmarco_qdrant.ingest.options import IndexOptions, NewCollection
from msmarco_qdrant.ingest.progress import IngestDisplay
from msmarco_qdrant.ingest.prune import to_policy, written_before
from msmarco_qdrant.ingest.steps import report_nothing
from msmarco_qdrant.ingest.target import (
    Destination,
    EncoderOfShards,
    Encoders,
    Opened,
    create_target,
    no_passages,
    open_existing,
    require_own_vectors,
)
from msmarco_qdrant.runtime.progress import add_display
from msmarco_qdrant.sources.corpus import Reading
from msmarco_qdrant.sources.extents import next_line
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection

# Sorted by length, batches for processors have 2 % of padding, and of 8,192 passages 1 %.
_WINDOW_WITHOUT_GPU = 2048

RayDataset: TypeAlias = Any
"""A `ray.data.Dataset`."""


@suggest_keywords
def ingest_dataset(  # noqa: PLR0913  # all but two have defaults
    source: RayDataset | VectorShards | str | PathLike[str] | Sequence[str | PathLike[str]],
    url: str,
    *,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    split_bytes: int | None = None,
    collection: str = "msmarco",
    model: str | PathLike[str] | None = None,
    default_model: str = DEFAULT_MODEL,
    prompts: Prompts | Mapping[str, str] | None = None,
    make_encoder: Callable[[], Encoder] | None = None,
    encoder_options: EncoderChoices | None = None,
    bm25: Bm25Settings | Mapping[str, Any] | str | None = None,
    storage: StorageSettings | Mapping[str, Any] | Quantization | None = None,
    payload_indexes: Mapping[str, PayloadIndex] | None = None,
    sharding: ShardSettings | Mapping[str, Any] | None = None,
    connection: Connection = DEFAULT_CONNECTION,
    prune: PrunePolicy | Mapping[str, Any] | float | None = None,
    window: int | None = None,
    bulk: bool = False,
    optimize: bool = True,
    wait_index: bool = False,
    format: Format = "auto",  # noqa: A002  # the option's name everywhere else
    pid_field: str | None = None,
    text_field: str | None = None,
    title_field: str | None = None,
    skip_field: str | Sequence[str] = (),
    on_reject: Callable[[Reject], None] | None = None,
    on_progress: Callable[[IngestProgress], None] | None = None,
    progress: bool = False,
) -> IngestReport:
    """Ingest passages into a collection of a server, on all machines of a Ray cluster.

    It ends as `ingest_passages` of the same source does: with the same points and the same
    rejects. Run it again to resume, also after this process was killed.

    Args:
        source: One or several paths that every machine can read, a `Corpus`, or `VectorShards`; or
            a `ray.data.Dataset`, whose rows have the fields of a row of a file.
        url: The URL of the server, as every machine reaches it.
        address: The cluster: "auto" for the running one of this machine, "local" to start one in
            it, or HOST:PORT; None for Ray's default. A process that has called `ray.init` keeps
            its connection.
        workers: Processes that encode and write; by default one per GPU, or one per 4 processors.
        cpus_per_worker: Processors of each.
        gpus_per_worker: GPUs of each, 0 for none.
        split_bytes: Bytes of a file that a worker ingests at a time; by default 4 to 256 MiB.
        collection: See `ingest_passages`, also for the next three.
        model: The model; a directory must be on every machine.
        default_model: See `model`.
        prompts: See `ingest_passages`.
        make_encoder: Makes the encoder in each worker, instead of `model`.
        encoder_options: See `ingest_passages`, also for all others.
        bm25: Sparse vectors of a new collection.
        storage: Dense vectors of a new collection.
        payload_indexes: Indexed `meta` fields of a new collection.
        sharding: Shards and replicas of a new collection.
        connection: API key, port, timeouts and request sizes; sent to the workers.
        prune: At the end, remove the passages that were in the collection before the run and are
            not in the source.
        window: Passages that are sorted by length, and flushed, together. By default 8,192 on a
            GPU, whose batches are large, and 2,048 without; a worker holds twelve windows at most.
        bulk: Let the server build the index at the end only.
        optimize: Wait for the index at the end.
        wait_index: Wait for it without a bound.
        format: Format of the paths.
        pid_field: The field with the pid.
        text_field: The field with the text.
        title_field: The field with the title.
        skip_field: Fields to leave out of `meta`.
        on_reject: Called for each rejected row, split after split in the source's order.
        on_progress: Called each second and after each split.
        progress: Show it on standard error.

    Returns:
        The counts. What a lost worker wrote counts as unchanged.

    Raises:
        IngestStoppedError: If it ended early; its `report` contains what was written.
        PruneRefusedError: If everything was written, but the policy forbids to prune.
        SourceError: If the source cannot be read, or has rows but no passage; nothing was created.
        ModelError: If the model cannot be loaded, or is not the collection's; nothing was created.
        StoreError: If the server cannot be reached, or holds other data.
        WorkerError: If no cluster answers.
        MissingExtraError: Without the extra `ray`.
        UsageError: If an argument is invalid, or `url` is not that of a server.
    """
    check_server_url(url, "an ingest")
    cluster = ClusterOptions(address, workers, cpus_per_worker, gpus_per_worker)
    check_counts(split_bytes=split_bytes, window=window)
    models = for_workers(ModelChoice.of(model, encoder_options, default_model, prompts))
    new = NewCollection.of(bm25, storage, payload_indexes, sharding)
    index = IndexOptions(optimize, wait_index, bulk)
    destination = Destination(url, collection, connection, new, index)
    policy = to_policy(prune)
    files = _open_source(source, Reading(format, pid_field, text_field, title_field, skip_field))
    _check_model(files, models, make_encoder)
    with RejectCount(on_reject) as rejected, ExitStack() as stack:
        shown = add_display(stack, IngestDisplay() if progress else None, on_progress)
        size = stack.enter_context(cluster.connected())
        window = window or (WINDOW if size.gpus else _WINDOW_WITHOUT_GPU)
        settings = IngestSettings(
            url, connection, models, make_encoder, collection, files.reading, window
        )
        counted = _cut(stack, source, files, split_bytes, size)
        pool = _open_pool(stack, settings, size)
        found = _open(stack, destination, _encoders(files, pool), counted, policy)
        if found is None:
            return report_nothing(files.descriptions)
        run = DistributedIngest(counted, *found, rejected, shown)
        write = partial(run.ingest, pool, connection.retry_s)
        return run.complete(write, index, policy, is_new=found[0].is_new)


def _open_source(source: Any, reading: Reading) -> SourceFiles:
    """Return the files of a source; of a dataset of Ray none, as its plan has not run."""
    if not is_dataset(source):
        return open_files(source, reading)
    reading.require_default(source, "format")
    return SourceFiles.of_blocks((), 0, reading)


def _cut(
    stack: ExitStack, source: Any, files: SourceFiles, split_bytes: int | None, size: PoolSize
) -> CountedSource:
    """Return the splits of files, or of the blocks that the plan of a dataset of Ray makes."""
    if is_dataset(source):
        files = open_dataset(source, files.reading)
    wanted = split_bytes or split_size(files.bytes, size.workers)
    splits = plan_splits(files.files, wanted, next_line)
    return stack.enter_context(open_counting(files, splits))


def _check_model(files: SourceFiles, models: ModelChoice, make_encoder: object) -> None:
    if files.shards is not None:
        require_own_vectors(files.shards, models, make_encoder, "make_encoder")
    check_model(models, make_encoder)


def _open_pool(
    stack: ExitStack, settings: IngestSettings, size: PoolSize
) -> WorkerPool[SplitOutcome]:
    """Return the workers, which are ended with the stack."""
    splits_at_once = SPLITS_AT_ONCE_ON_GPU if size.gpus else 1
    pool = WorkerPool[SplitOutcome](IngestWorker, settings, size, splits_at_once)
    stack.callback(pool.close)
    return pool


def _encoders(files: SourceFiles, pool: WorkerPool[SplitOutcome]) -> Encoders:
    """Return the encoders of the workers; of vectors, that which made them."""
    return _WorkerEncoders(pool) if files.shards is None else EncoderOfShards(files.shards)


class _WorkerEncoders:
    """The encoders of the workers; this process needs only their properties."""

    def __init__(self, pool: WorkerPool[SplitOutcome]) -> None:
        self.loss_of_vectors = None
        self._pool = pool
        self._new: EncoderInfo | None = None

    def for_new(self) -> tuple[EncoderInfo, Encoder | None]:
        """Load the model of a new collection on a worker, once."""
        if self._new is None:
            found: EncoderInfo = self._pool.load(None)
            self._new = found
        return self._new, None

    def for_existing(
        self,
        collection: str,  # noqa: ARG002  # the workers have it
        stored: EncoderInfo,
    ) -> tuple[EncoderInfo, Encoder | None]:
        """Load a collection's model on a worker."""
        info: EncoderInfo = self._pool.load(stored)
        return info, None


def _open(
    stack: ExitStack,
    destination: Destination,
    encoders: Encoders,
    source: CountedSource,
    policy: PrunePolicy | None,
) -> tuple[Opened, CollectionStart] | None:
    """Open the collection, or create it after everything it needs was found; count the rows.

    With a policy, the passages of an existing collection are found that the source lacks. None if
    it does not exist and no file has a row.
    """
    try:
        opened = open_existing(stack, destination, encoders)
    except (StoreNotFoundError, CollectionNotFoundError):
        destination.check_creatable()
        encoders.for_new()  # a wrong model fails before the source is read
        source.count()
        if not source.rows:
            return None
        if not source.passages:
            raise no_passages(source.rows, source.first_reject) from None
        opened = create_target(stack, destination, encoders)
    else:
        if policy is not None:
            start = CollectionStart.of(opened.guard, opened.target.collection)
            source.count(start.points, written_before(opened.guard, start.last_seq))
            return opened, start
        source.count()
    return opened, CollectionStart.of(opened.guard, opened.target.collection)
