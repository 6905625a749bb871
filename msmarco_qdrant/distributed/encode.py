"""Encode of files into a folder of vectors, by the workers of a Ray cluster.

``list files → cut into shards → read keys (pass 1) → find repeated pids (pass 2) → encode shards``.
The shards are those of an encode by one process, and a later run, on Ray or not, resumes with the
missing ones. With GPUs, tasks parse and tokenize the chunks of the next shards at the same time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import EncodeProgress, EncodeReport
from msmarco_qdrant.core.source_types import Format
from msmarco_qdrant.distributed.cluster import PoolSize
from msmarco_qdrant.distributed.counting import CountedSource, open_counting
from msmarco_qdrant.distributed.encode_run import DistributedEncode
from msmarco_qdrant.distributed.encode_worker import EncodeJob, EncodeSettings, EncodeWorker
from msmarco_qdrant.distributed.files import SourceFiles, is_files, open_files
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.preparers import Preparers, read_digests
from msmarco_qdrant.distributed.shards import ShardPlan, plan_shards
from msmarco_qdrant.distributed.shared_folder import marked
from msmarco_qdrant.distributed.tasks import TaskBoard, TaskPolicy
from msmarco_qdrant.distributed.values import ClusterOptions, check_model, for_workers
from msmarco_qdrant.encode.api import check_layout, default_chunks, info_of_shards, open_folder
from msmarco_qdrant.encode.counts import ended_by_errors
from msmarco_qdrant.encode.feed import (
    Layout,
    chunks_of_full,
    read_matching_header,
    require_no_shards_beyond,
    require_same_rows,
)
from msmarco_qdrant.encode.progress import EncodeDisplay
from msmarco_qdrant.encode.run import complete_folder
from msmarco_qdrant.encoding import Encoder, Tokenizer
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import ALL_GPUS, EncoderChoices
from msmarco_qdrant.errors import OutputError, UsageError
from msmarco_qdrant.runtime.progress import add_display
from msmarco_qdrant.sources.chunk_extents import chunk_extents
from msmarco_qdrant.sources.corpus import Corpus, Reading
from msmarco_qdrant.sources.extents import Extent
from msmarco_qdrant.sources.file_path import FilePath, to_path
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.shard_file import (
    ShardHeader,
    VectorType,
    remove_manifest,
    shard_path,
    shard_paths,
)

_SHARDS_ON_GPU, _SHARDS = 3, 2  # of which one is read, joined or written
_FORWARDS_ON_GPU, _FORWARDS = 3, 1


@suggest_keywords
def encode_dataset(  # noqa: PLR0913  # all but two have defaults
    source: Corpus | str | PathLike[str] | Sequence[str | PathLike[str]],
    folder: str | PathLike[str],
    *,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    model: str | PathLike[str] | None = None,
    make_encoder: Callable[[], Encoder] | None = None,
    encoder_options: EncoderChoices | None = None,
    dtype: VectorType = "float16",
    shard_chunks: int | None = None,
    format: Format = "auto",  # noqa: A002  # the option's name everywhere else
    pid_field: str | None = None,
    text_field: str | None = None,
    title_field: str | None = None,
    skip_field: str | Sequence[str] = (),
    on_reject: Callable[[Reject], None] | None = None,
    on_progress: Callable[[EncodeProgress], None] | None = None,
    progress: bool = False,
) -> EncodeReport:
    """Encode passages into a folder of Parquet shards, on all machines of a Ray cluster.

    The folder ends as that of `encode_corpus` does, with the same files. Run it again to resume.

    Args:
        source: One or several paths that every machine can read, or a `Corpus`: TSV, JSON lines or
            Parquet, not compressed.
        folder: The folder of the shards, which every machine can write: a path that all of them
            share, or a URL such as ``s3://bucket/folder``; created if missing.
        address: The cluster; see `ingest_dataset`.
        workers: Processes that encode; by default one per GPU, or one per 4 processors.
        cpus_per_worker: Processors of each. With GPUs, other processors parse and tokenize.
        gpus_per_worker: GPUs of each, 0 for none.
        model: The model, by default `catalog.DEFAULT_MODEL`; a directory must be on every machine.
        make_encoder: Makes the encoder in each worker, instead of `model`.
        encoder_options: See `encode_corpus`, also for the next two.
        dtype: Type of the stored vectors.
        shard_chunks: Size of a shard.
        format: Format of the paths.
        pid_field: The field with the pid.
        text_field: The field with the text.
        title_field: The field with the title.
        skip_field: Fields to leave out of `meta`.
        on_reject: Called for each rejected row, shard after shard in the source's order.
        on_progress: Called after each shard.
        progress: Show it on standard error.

    Returns:
        The counts; `seconds` includes the reading of all pids.

    Raises:
        EncodeStoppedError: If it ended early; run the same encode again to resume.
        SourceError: If the source cannot be read.
        ModelError: If the model cannot be loaded.
        OutputError: If the folder cannot be written, or has shards of another encode.
        WorkerError: If no cluster answers.
        MissingExtraError: Without the extra `ray`.
        UsageError: If an argument is invalid.
    """
    check_layout(dtype, shard_chunks)
    path = to_path(folder).absolute()
    cluster = ClusterOptions(address, workers, cpus_per_worker, gpus_per_worker)
    models = for_workers(ModelChoice.of(model, encoder_options))
    check_model(models, make_encoder)
    files = _open_source(source, Reading(format, pid_field, text_field, title_field, skip_field))
    chunks = [chunk for file in files.files for chunk in chunk_extents(file, files.reading)]
    settings = EncodeSettings(files.reading, models, make_encoder, _FORWARDS)
    started = time.perf_counter()
    with RejectCount(on_reject) as rejected, ExitStack() as stack:
        shown = add_display(stack, EncodeDisplay() if progress else None, on_progress)
        size = stack.enter_context(cluster.connected(feeds_gpus=True))
        full = shard_chunks or default_chunks(size.gpus)
        layout = Layout(open_folder(path), full, dtype)
        job, preparers, pool = _load(stack, settings, size, layout)
        existing, plans = _plan(chunks, job)
        counted = stack.enter_context(open_counting(files, [plan.split for plan in plans]))
        startup = time.perf_counter() - started
        run = DistributedEncode(counted, plans, existing, preparers, rejected, shown, startup)
        with ended_by_errors(run.report):
            counted.count()
            _require_same_rows(counted, existing, layout.folder)
            _encode_missing(run, pool, job)
        complete_folder(layout, job.info, run.report())
        return run.report()


def _load(
    stack: ExitStack, settings: EncodeSettings, size: PoolSize, layout: Layout
) -> tuple[EncodeJob, Preparers | None, WorkerPool[EncodeReport]]:
    """Load the model on a worker.

    Returns:
        The job; the tasks that tokenize, if the workers have GPUs; and the workers.
    """
    marker = stack.enter_context(marked(layout.folder))
    pool = _make_pool(settings, size)
    stack.callback(pool.close)
    info: EncoderInfo
    tokenizer: Tokenizer | None
    info, tokenizer = pool.load()
    job = EncodeJob(info_of_shards(layout.folder, info), layout, marker)
    if not size.gpus or tokenizer is None:
        return job, None, pool
    return job, Preparers(tokenizer, settings.reading, size), pool


def _encode_missing(run: DistributedEncode, pool: WorkerPool[EncodeReport], job: EncodeJob) -> None:
    if run.missing:
        # Not by the workers: one that the driver has lost may end after the others.
        remove_manifest(job.layout.folder)
    run.prepare_ahead()
    board = TaskBoard(run.missing, TaskPolicy(), random.random, time.monotonic())
    pool.run(job, board, run)


def _make_pool(settings: EncodeSettings, size: PoolSize) -> WorkerPool[EncodeReport]:
    """Return the workers; on GPUs each reads and writes some shards while it encodes others."""
    if not size.gpus:
        return WorkerPool(EncodeWorker, settings, size, _SHARDS)
    options = settings.models.options
    if size.gpus > 1 and options.device is None:
        options = replace(options, device=ALL_GPUS)
    models = replace(settings.models, options=options)
    settings = replace(settings, at_once=_FORWARDS_ON_GPU, models=models)
    return WorkerPool(EncodeWorker, settings, size, _SHARDS_ON_GPU)


def _plan(
    chunks: Sequence[Extent], job: EncodeJob
) -> tuple[Mapping[int, ShardHeader], list[ShardPlan]]:
    """Return the headers of existing shards, and all shards, existing ones as they are."""
    existing = _read_headers(job)
    covered = {number: header.chunks for number, header in existing.items()}
    plans = plan_shards(chunks, chunks_of_full(job.layout), covered)
    require_no_shards_beyond(job.layout.folder, len(plans))
    return existing, plans


def _open_source(source: object, reading: Reading) -> SourceFiles:
    """Return the files of a source; anything else is refused."""
    if not is_files(source):
        raise UsageError(
            "source must be files of passages that every machine can read, got "
            f"{with_article(type(source).__name__)}: write it as Parquet first, or pass a dataset "
            "of Ray and vectors to ingest_dataset, and rows of Python to encode_corpus"
        )
    return open_files(source, reading)


def _read_headers(job: EncodeJob) -> dict[int, ShardHeader]:
    """Return the headers of existing shards; refuse those that cannot belong to this encode."""
    folder, headers = job.layout.folder, dict[int, ShardHeader]()
    for path in shard_paths(folder):
        header = read_matching_header(path, job.info, job.layout.dtype)
        right = shard_path(folder, header.number)
        if path != right:  # it would be replaced by the shard of its name
            raise OutputError(
                f"{path} must be named {right.name}, as it was written: rename it, or use another "
                "directory"
            )
        headers[header.number] = header
    return headers


def _require_same_rows(
    source: CountedSource, existing: Mapping[int, ShardHeader], folder: FilePath
) -> None:
    """Refuse existing shards of other rows than those of the source."""
    numbers = sorted(existing)
    digests = read_digests([source.split(number) for number in numbers], source.source.reading)
    for number, found in zip(numbers, digests, strict=True):
        require_same_rows(shard_path(folder, number), existing[number], found)
