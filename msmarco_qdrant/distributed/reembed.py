"""Re-embedding of a server's collection by the workers of a Ray cluster.

The steps are those of a re-embedding by one process (`reembed.run`); only the passes over all
points run on the workers, each over ranges of point ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike

from msmarco_qdrant.collection.create import check_collection_name
from msmarco_qdrant.core.arguments import check_counts, suggest_keywords
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.reports import ReembedProgress, ReembedReport
from msmarco_qdrant.distributed.copy_run import PassesOnRay
from msmarco_qdrant.distributed.copy_worker import CopyWorker
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.tasks import outage_policy
from msmarco_qdrant.distributed.values import (
    SPLITS_AT_ONCE_ON_GPU,
    ClusterOptions,
    check_model,
    check_server_url,
    for_workers,
)
from msmarco_qdrant.distributed.worker_settings import WorkerSettings
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.checks import check_encoder
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import EncoderChoices, EncoderOptions
from msmarco_qdrant.reembed.api import change_model, stored_model_loader
from msmarco_qdrant.reembed.copy import CopyStats
from msmarco_qdrant.reembed.progress import ReembedDisplay
from msmarco_qdrant.reembed.run import ReembedOptions
from msmarco_qdrant.runtime.progress import add_display
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, use_store


@suggest_keywords
def reembed_on_ray(  # noqa: PLR0913  # all but one have defaults
    url: str,
    collection: str = "msmarco",
    *,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    split_points: int | None = None,
    model: str | PathLike[str] | None = None,
    make_encoder: Callable[[], Encoder] | None = None,
    encoder_options: EncoderChoices | None = None,
    load_old: Callable[[EncoderInfo], Encoder] | None = None,
    allow_rejects: bool = False,
    allow_worse: bool = False,
    on_progress: Callable[[ReembedProgress], None] | None = None,
    progress: bool = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> ReembedReport:
    """Give a server's collection the vectors of another model, on all machines of a Ray cluster.

    It ends as `reembed_collection` does. Run it again after an interruption to resume, on Ray or
    not.

    Args:
        url: The URL of the server, as every machine reaches it.
        collection: The collection's name.
        address: The cluster; see `ingest_dataset`, also for the next three.
        workers: Processes that read, encode and write.
        cpus_per_worker: Processors of each.
        gpus_per_worker: GPUs of each, 0 for none.
        split_points: Points that a worker copies at a time; by default 4,096 to 131,072.
        model: The new model: a directory that is on every machine, a name of the catalog, or a hub
            id.
        make_encoder: Makes the encoder in each worker and in this process, instead of `model`.
        encoder_options: Device, precision and so on of the workers. This process encodes the
            sample queries on its processor.
        load_old: See `reembed_collection`, also for all others.
        allow_rejects: Swap even if some passages have no vector of the new model.
        allow_worse: Swap even if sample queries find less than half of what they found before.
        on_progress: Called each second and after each part.
        progress: Show it on standard error.
        connection: API key, port, timeouts and request sizes; sent to the workers.

    Returns:
        The counts; `copied` lacks what lost workers wrote.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreInUseError: If another process is migrating it, or has taken the lock away.
        ModelError: If the model cannot be loaded, or a machine has another one of this name.
        MigrationError: As in `reembed_collection`; the alias is not changed.
        StoreError: If the engine fails; finished work is kept.
        WorkerError: If no cluster answers, or too many workers are lost.
        MissingExtraError: Without the extra `ray`.
        UsageError: If an argument is invalid, `url` is not that of a server, or another
            re-embedding is unfinished.
    """
    check_server_url(url, "a re-embedding")
    check_collection_name(collection)
    check_counts(split_points=split_points)
    models = for_workers(ModelChoice.of(model, encoder_options))
    check_model(models, make_encoder)
    models.require_one(make_encoder, "make_encoder")
    cluster = ClusterOptions(address, workers, cpus_per_worker, gpus_per_worker)
    settings = WorkerSettings(url, connection, models, make_encoder)
    # Of the sample queries: the GPUs belong to the workers.
    here = replace(models, options=EncoderOptions(device="cpu"))
    started = time.perf_counter()
    with ExitStack() as stack:
        store = stack.enter_context(use_store(url, connection))
        store.metadata(collection)  # fails before a model is loaded
        encoder = here.load() if make_encoder is None else make_encoder()
        check_encoder(encoder)
        size = stack.enter_context(cluster.connected())
        splits_at_once = SPLITS_AT_ONCE_ON_GPU if size.gpus else 1
        pool = WorkerPool[CopyStats](CopyWorker, settings, size, splits_at_once)
        stack.callback(pool.close)
        pool.load(encoder.info)  # a wrong model fails before a collection is created
        policy = outage_policy(connection.retry_s)
        passes = PassesOnRay(pool, size.workers, split_points, policy)
        options = ReembedOptions(
            None,
            load_old or stored_model_loader(collection, here),
            allow_rejects,
            allow_worse,
            add_display(stack, ReembedDisplay("new") if progress else None, on_progress),
            passes.open,
        )
        return change_model(store, collection, encoder, options, started)
