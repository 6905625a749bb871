"""Ingest of files into a collection of a server, by the workers of a Ray cluster.

``list files → cut into splits → read keys (pass 1) → find repeated pids (pass 2) → ingest splits``.
Every worker runs the stages of an ingest by one process over its split. Nothing is kept between
two runs but the collection: a second run reads the keys again, and skips what is unchanged.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from msmarco_qdrant.collection.bulk import bulk_mode
from msmarco_qdrant.collection.create import check_collection_name
from msmarco_qdrant.core.arguments import suggest_keywords, to_settings
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
from msmarco_qdrant.distributed.cluster import (
    PoolSize,
    check_address,
    connected,
    is_dataset,
    open_dataset,
)
from msmarco_qdrant.distributed.files import SourceFiles, open_files
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.run import DistributedRun, ended_by_errors
from msmarco_qdrant.distributed.split_files import SplitFiles
from msmarco_qdrant.distributed.splits import plan_splits, split_size
from msmarco_qdrant.distributed.values import (
    absolute_model,
    check_counts,
    check_model,
    check_share,
)
from msmarco_qdrant.distributed.worker import IngestWorker, SplitOutcome, WorkerSettings
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import EncoderChoices, to_encoder_options
from msmarco_qdrant.errors import CollectionNotFoundError, StoreNotFoundError, UsageError
from msmarco_qdrant.ingest.alias_guard import AliasGuard
from msmarco_qdrant.ingest.progress import IngestDisplay
from msmarco_qdrant.ingest.prune import to_policy
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.ingest.target import (
    Destination,
    EncoderChoice,
    Encoders,
    create_target,
    no_passages,
    open_existing,
    to_payload_keys,
)
from msmarco_qdrant.runtime.progress import with_display
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES, Reading
from msmarco_qdrant.sources.extents import next_line
from msmarco_qdrant.sources.fields import passage_fields
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import DEFAULT_CONNECTION, INDEX_STALL_S, Connection
from msmarco_qdrant.stores.connection import hide_secret, is_url, parse_address

RayDataset: TypeAlias = Any
"""A `ray.data.Dataset`."""

_log = logging.getLogger(__name__)

_SPLITS_AT_ONCE_ON_GPU = 2  # the card has batches while one split begins or ends


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
    window: int = WINDOW,
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
        window: Passages that are sorted by length, and flushed, together.
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
    _check(url, workers, split_bytes, window)
    check_share("cpus_per_worker", cpus_per_worker, least="more than 0")
    check_share("gpus_per_worker", gpus_per_worker, least="0 or more")
    check_collection_name(collection)
    check_address(address)
    reading = {
        "format": format,
        "pid_field": pid_field,
        "text_field": text_field,
        "title_field": title_field,
        "skip_field": skip_field,
    }
    files = _open_source(source, reading)
    _check_model(files, model, make_encoder)
    settings = WorkerSettings(
        url=url,
        connection=connection,
        collection=collection,
        reading=files.reading,
        window=window,
        model=None if model is None else absolute_model(model),
        default_model=str(absolute_model(default_model)),
        prompts=None if prompts is None else to_settings(Prompts, prompts, "prompts"),
        make_encoder=make_encoder,
        encoder_options=to_encoder_options(encoder_options),
    )
    dense = (
        None
        if storage is None
        else to_settings(StorageSettings, storage, "storage", "quantization")
    )
    indexes = to_payload_keys(payload_indexes or {})
    shards = None if sharding is None else to_settings(ShardSettings, sharding, "sharding")
    policy = to_policy(prune)
    if bulk and not optimize:
        raise UsageError("bulk needs the index at the end: omit optimize=False")
    destination = Destination(url, collection, connection, dense, indexes, shards, bulk)
    sparse = None if bm25 is None else to_settings(Bm25Settings, bm25, "bm25", "language")
    rejected = RejectCount(on_reject)
    with ExitStack() as stack:
        stack.callback(rejected.log)
        if progress:
            display = IngestDisplay()
            on_progress = with_display(stack, display, display, on_progress)
        stack.enter_context(connected(address))
        if is_dataset(source):
            files = open_dataset(source, files.reading)
        size = PoolSize.of_cluster(workers, cpus_per_worker, gpus_per_worker)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msmarco-qdrant-")))
        splits_at_once = _SPLITS_AT_ONCE_ON_GPU if size.gpus else 1
        pool = WorkerPool[SplitOutcome](IngestWorker, settings, size, splits_at_once)
        stack.callback(pool.close)
        wanted = split_bytes or split_size(files.bytes, size.workers)
        splits = plan_splits(files.files, wanted, next_line)
        run = DistributedRun(files, splits, SplitFiles(folder), rejected, on_progress)
        opened = _open(stack, destination, _encoders(files, pool), sparse, run, policy)
        if opened is None:
            _log.warning("the source has no passages: no collection was created")
            return run.report()
        target, guard, is_new = opened
        guard.warn_if_unfinished()
        mode = stack.enter_context(bulk_mode(guard.store, guard.physical, begin=bulk))
        with ended_by_errors(run, guard, is_new=is_new), closing(pool):
            run.ingest(pool, target, guard, retry_s=connection.retry_s)
            run.check(target, is_new=is_new)
            pool.close()  # the index needs no workers
            if optimize:
                run.index(mode, guard, stall_s=math.inf if wait_index else INDEX_STALL_S)
            if policy is not None:
                run.prune(policy, guard)
        return run.report()


def _open_source(source: Any, reading: Mapping[str, Any]) -> SourceFiles:
    """Return the files of a source; of a dataset of Ray none, as its plan has not run."""
    if not is_dataset(source):
        return open_files(source, reading)
    fields = {**reading}
    if fields.pop("format") != "auto":
        raise UsageError("format needs paths, got a dataset of Ray: omit it")
    return SourceFiles.of_blocks((), 0, Reading("auto", MAX_LINE_BYTES, passage_fields(**fields)))


def _check_model(
    files: SourceFiles, model: str | PathLike[str] | None, make_encoder: object
) -> None:
    if files.shards is not None and (model is not None or make_encoder is not None):
        raise UsageError(
            f"{files.shards.folder} already holds vectors: omit model and make_encoder"
        )
    check_model(model, make_encoder)


def _check(url: object, workers: int | None, split_bytes: int | None, window: int) -> None:
    if not isinstance(url, str) or not is_url(url):
        raise UsageError(
            "an ingest on Ray needs the URL of a server, as several processes cannot write to a "
            f"directory, got {hide_secret(str(url))!r}: pass http://HOST, or ingest without Ray"
        )
    parse_address(url, DEFAULT_CONNECTION)
    check_counts(workers=workers, split_bytes=split_bytes, window=window)


def _encoders(files: SourceFiles, pool: WorkerPool[SplitOutcome]) -> Encoders:
    """Return the encoders of the workers; of vectors, that which made them."""
    if files.shards is None:
        return _WorkerEncoders(pool)
    return EncoderChoice(
        source=files.shards,
        model=None,
        default_model=DEFAULT_MODEL,
        encoder=None,
        options=to_encoder_options(None),
        prompts=None,
    )


class _WorkerEncoders:
    """The encoders of the workers; this process needs only their properties."""

    def __init__(self, pool: WorkerPool[SplitOutcome]) -> None:
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
    bm25: Bm25Settings | None,
    run: DistributedRun,
    policy: PrunePolicy | None,
) -> tuple[IngestTarget, AliasGuard, bool] | None:
    """Open the collection, or create it after everything it needs was found; count the rows.

    With a policy, the passages of an existing collection are found that the source lacks. The last
    value is True if it was created. None if it does not exist and no file has a row.
    """
    try:
        target, guard = open_existing(stack, destination, encoders, bm25)
    except (StoreNotFoundError, CollectionNotFoundError):
        destination.check_creatable()
        encoders.for_new()  # a wrong model fails before the source is read
        run.count()
        if run.rows and not run.passages:
            raise no_passages(run.rows, run.first_reject) from None
        return create_target(stack, destination, encoders, bm25) if run.rows else None
    run.count(None if policy is None else guard)
    return target, guard, False
