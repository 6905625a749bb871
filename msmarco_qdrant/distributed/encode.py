"""Encode of files into a folder of vectors, by the workers of a Ray cluster.

``list files → cut into shards → read keys (pass 1) → find repeated pids (pass 2) → encode shards``.
The shards are those of an encode by one process, and a later run, on Ray or not, resumes with the
missing ones. With GPUs, tasks parse and tokenize the chunks of the next shards at the same time.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import EncodeProgress, EncodeReport
from msmarco_qdrant.core.source_types import Format
from msmarco_qdrant.distributed.cluster import PoolSize, check_address, connected
from msmarco_qdrant.distributed.encode_run import DistributedEncode
from msmarco_qdrant.distributed.encode_worker import EncodeJob, EncodeSettings, EncodeWorker
from msmarco_qdrant.distributed.files import SourceFiles, is_files, open_files
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.preparing import Preparers, read_digests
from msmarco_qdrant.distributed.shards import ShardPlan, plan_shards
from msmarco_qdrant.distributed.shared_folder import marked
from msmarco_qdrant.distributed.split_files import SplitFiles
from msmarco_qdrant.distributed.tasks import TaskBoard, TaskPolicy
from msmarco_qdrant.distributed.values import (
    absolute_model,
    check_counts,
    check_model,
    check_share,
)
from msmarco_qdrant.encode.api import (
    CHUNKS,
    CHUNKS_ON_GPU,
    check_layout,
    info_of_shards,
    make_folder,
)
from msmarco_qdrant.encode.feed import (
    Layout,
    chunks_of_full,
    read_matching_header,
    require_no_shards_beyond,
    require_same_rows,
)
from msmarco_qdrant.encoding import Encoder, Tokenizer
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import ALL_GPUS, EncoderChoices, to_encoder_options
from msmarco_qdrant.errors import (
    EncodeStoppedError,
    MsmarcoQdrantError,
    OutputError,
    UsageError,
)
from msmarco_qdrant.runtime.progress import ProgressDisplay, with_display
from msmarco_qdrant.sources.chunk_extents import chunk_extents
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.extents import Extent
from msmarco_qdrant.sources.parquet import check_extra
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.shard_file import (
    Manifest,
    ShardHeader,
    VectorType,
    remove_manifest,
    shard_path,
    shard_paths,
    write_manifest,
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
        folder: The folder of the shards, which every machine can write; created if missing.
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
    check_extra("writing vectors")
    check_layout(dtype, shard_chunks)
    check_counts(workers=workers)
    check_share("cpus_per_worker", cpus_per_worker, least="more than 0")
    check_share("gpus_per_worker", gpus_per_worker, least="0 or more")
    check_model(model, make_encoder)
    check_address(address)
    reading = {
        "format": format,
        "pid_field": pid_field,
        "text_field": text_field,
        "title_field": title_field,
        "skip_field": skip_field,
    }
    files = _open_source(source, reading)
    chunks = [chunk for file in files.files for chunk in chunk_extents(file, files.reading)]
    settings = EncodeSettings(
        reading=files.reading,
        model=absolute_model(model or DEFAULT_MODEL),
        make_encoder=make_encoder,
        encoder_options=to_encoder_options(encoder_options),
        at_once=_FORWARDS,
    )
    started = time.perf_counter()
    rejected = RejectCount(on_reject)
    with ExitStack() as stack:
        stack.callback(rejected.log)
        if progress:
            display = ProgressDisplay()
            on_progress = with_display(
                stack, display, lambda one: display.show(one.done, one.fraction), on_progress
            )
        stack.enter_context(connected(address))
        size = PoolSize.of_cluster(workers, cpus_per_worker, gpus_per_worker, feeds_gpus=True)
        full = shard_chunks or (CHUNKS_ON_GPU if size.gpus else CHUNKS)
        layout = Layout(make_folder(Path(folder).absolute()), full, dtype)
        marker = stack.enter_context(marked(layout.folder))
        pool = _make_pool(settings, size)
        stack.callback(pool.close)
        loaded: tuple[EncoderInfo, Tokenizer | None] = pool.load()
        job = EncodeJob(info_of_shards(layout.folder, loaded[0]), layout, marker)
        existing = _read_headers(job)
        plans = _plan(chunks, layout, existing)
        startup = time.perf_counter() - started
        kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msmarco-qdrant-")))
        run = DistributedEncode(files, plans, existing, SplitFiles(kept), rejected, on_progress)
        try:
            run.count()
            _require_same_rows(run, files, existing, layout)
            if size.gpus and loaded[1] is not None:
                run.prepare_with(Preparers(loaded[1], files.reading, size))
            if run.missing:
                # Not by the workers: one that the driver has lost may end after the others.
                remove_manifest(layout.folder)
            board = TaskBoard(run.missing, TaskPolicy(), random.random, time.monotonic())
            pool.run(job, board, run)
        except MsmarcoQdrantError as exc:
            report = replace(run.report(), startup_seconds=startup)
            done = f"{report.encoded:,} passages were written; run the same encode again to resume"
            message = f"{exc} ({done})" if report.encoded else str(exc)
            raise EncodeStoppedError(message, report) from exc
        return _complete(replace(run.report(), startup_seconds=startup), job)


def _make_pool(settings: EncodeSettings, size: PoolSize) -> WorkerPool[EncodeReport]:
    """Return the workers; on GPUs each reads and writes some shards while it encodes others."""
    if not size.gpus:
        return WorkerPool(EncodeWorker, settings, size, _SHARDS)
    options = settings.encoder_options
    if size.gpus > 1 and options.device is None:
        options = replace(options, device=ALL_GPUS)
    settings = replace(settings, at_once=_FORWARDS_ON_GPU, encoder_options=options)
    return WorkerPool(EncodeWorker, settings, size, _SHARDS_ON_GPU)


def _plan(
    chunks: Sequence[Extent], layout: Layout, existing: Mapping[int, ShardHeader]
) -> list[ShardPlan]:
    """Return all shards, existing ones as they are."""
    covered = {number: header.chunks for number, header in existing.items()}
    plans = plan_shards(chunks, chunks_of_full(layout), covered)
    require_no_shards_beyond(layout.folder, len(plans))
    return plans


def _open_source(source: object, reading: Mapping[str, Any]) -> SourceFiles:
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
    run: DistributedEncode,
    files: SourceFiles,
    existing: dict[int, ShardHeader],
    layout: Layout,
) -> None:
    """Refuse existing shards of other rows than those of the source."""
    numbers = sorted(existing)
    works = [run.shard_work(number) for number in numbers]
    for number, digests in zip(numbers, read_digests(works, files.reading), strict=True):
        require_same_rows(shard_path(layout.folder, number), existing[number], digests)


def _complete(report: EncodeReport, job: EncodeJob) -> EncodeReport:
    """Mark the folder as complete."""
    manifest = Manifest(
        shards=report.shards,
        passages=report.encoded + report.found,
        rejected=report.rejected,
        fingerprint=job.info.fingerprint,
        dtype=job.layout.dtype,
    )
    write_manifest(job.layout.folder, manifest)
    return report
