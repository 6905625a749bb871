"""Encode passages into a folder of vectors, to load them on any machine.

The folder contains Parquet shards, each complete and with the encoder's fingerprint. Run the same
encode again to resume with the missing shards. `ingest_passages` of `VectorShards(folder)` loads
them into any store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from os import PathLike
from typing import Any, get_args

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.reports import EncodeProgress, EncodeReport
from msmarco_qdrant.encode.counts import ended_by_errors
from msmarco_qdrant.encode.feed import ExistingShard, Feed, Layout, TokenizedShard
from msmarco_qdrant.encode.progress import EncodeDisplay
from msmarco_qdrant.encode.run import EncodeRun
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.backends.processor import usable_cores
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.checks import check_encoder
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import ALL_GPUS, EncoderChoices
from msmarco_qdrant.errors import OutputError, UsageError
from msmarco_qdrant.runtime.progress import add_display
from msmarco_qdrant.runtime.subprocesses import SubprocessIterator
from msmarco_qdrant.sources.corpus import Corpus, as_rows
from msmarco_qdrant.sources.file_path import FilePath, make_folder, to_path
from msmarco_qdrant.sources.parquet import check_extra
from msmarco_qdrant.sources.python_rows import Rows
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.shard_file import VectorType, read_footer, shard_paths

# Of 1 MiB of a file each, which is 3,000 passages of MS MARCO, or of 1,024 rows that have no lines.
_CHUNKS_ON_GPU, _CHUNKS = 12, 3
_WORKERS_PER_GPU = 8
# So many cores work on so many batches of a shard that they would wait for the last ones. Fewer
# lose less by that than an interruption would with two unfinished shards.
_MANY_CORES = 8


@suggest_keywords
def encode_corpus(  # noqa: PLR0913  # all but two have defaults
    source: Rows | str | PathLike[str] | Sequence[str | PathLike[str]],
    folder: str | PathLike[str],
    *,
    model: str | PathLike[str] | None = None,
    encoder: Encoder | None = None,
    encoder_options: EncoderChoices | None = None,
    dtype: VectorType = "float16",
    shard_chunks: int | None = None,
    workers: int | None = None,
    on_reject: Callable[[Reject], None] | None = None,
    on_progress: Callable[[EncodeProgress], None] | None = None,
    progress: bool = False,
) -> EncodeReport:
    """Encode the passages of a source into a folder of Parquet shards.

    Args:
        source: A path or several, a `Corpus`, or passages as `ingest_passages` takes them, with the
            same order at each iteration; not standard input or a pipe, which cannot be read again
            to resume.
        folder: The folder of the shards, a path or a URL such as ``s3://bucket/folder``; created
            if missing.
        model: The model to encode with: a directory, a name of the catalog, or a hub id; by
            default `catalog.DEFAULT_MODEL`.
        encoder: A loaded encoder instead of `model`.
        encoder_options: An `EncoderOptions`, a dictionary of its fields, or a device such as
            "cuda:1"; None for the fastest on all GPUs, or on the CPU without one.
        dtype: Type of the stored vectors; float16 is half as large and within cosine 0.9999.
        shard_chunks: Size of a shard, in chunks of 1 MiB of a file or 1,024 rows of an iterable;
            by default 12 on a GPU, else 3. A folder with shards keeps their size.
        workers: Processes that parse and tokenize, 0 for a thread of this one; by default chosen
            for the encoder's device and this machine's processors.
        on_reject: Called for each row that cannot become a passage with a vector. By default their
            number and the first are logged.
        on_progress: Called after each shard.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.

    Returns:
        The counts. Both callbacks are called in the caller's thread.

    Raises:
        EncodeStoppedError: If it ended early; run the same encode again to resume.
        SourceError: If the source cannot be read.
        ModelError: If the model cannot be loaded, or its first forward pass fails.
        WorkerError: If a process ends during startup.
        OutputError: If the folder cannot be created or written.
        MissingExtraError: Without the extra `parquet`.
        UsageError: For invalid arguments.
    """
    check_layout(dtype, shard_chunks)
    path = to_path(folder)
    if workers is not None and workers < 0:
        raise UsageError(f"workers must be 0 or more, got {workers}")
    models = ModelChoice.of(model, encoder_options, device=ALL_GPUS)
    models.require_instead_of(encoder)
    if encoder is not None:
        check_encoder(encoder)
    rows, size = _open_rows(source)
    started = time.perf_counter()
    loaded = encoder or models.open()
    gpus = loaded.gpus if isinstance(loaded, BiEncoder) else 0
    full = shard_chunks or default_chunks(gpus)
    layout = Layout(path, full, dtype)
    info = info_of_shards(layout.folder, loaded.info)
    feed = Feed(rows, layout, info, loaded.tokenizer, _feed_workers(workers, loaded, gpus))
    with RejectCount(on_reject) as rejected, ExitStack() as stack:
        shards = _start(stack, feed, loaded, is_corpus=size is not None)
        shown = add_display(stack, EncodeDisplay() if progress else None, on_progress)
        startup = time.perf_counter() - started
        at_once = 2 if gpus or usable_cores() >= _MANY_CORES else 1
        run = EncodeRun(loaded, info, layout, size, at_once, rejected, shown, startup)
        with ended_by_errors(run.report):
            run.run(shards)
        return run.report()


def _open_rows(source: Any) -> tuple[Iterable[Passage | Reject], int | None]:
    """Return the rows of a source, and the bytes of its files; None for rows made in Python."""
    rows = as_rows(source)
    if not isinstance(rows, Corpus):
        return rows, None
    if rows.size is None:
        raise UsageError(
            "source must be files, got standard input or a pipe: encode reads it again to resume"
        )
    return rows, rows.size


def _start(
    stack: ExitStack, feed: Feed, encoder: Encoder, *, is_corpus: bool
) -> Iterable[TokenizedShard | ExistingShard]:
    """Make the forward pass while the feed reads; create the folder, and return the shards."""
    # The feed runs in its own process, because Python work here would leave the GPU idle.
    feeder = SubprocessIterator(feed) if feed.workers and is_corpus else None
    if feeder is not None:
        stack.callback(feeder.close)
    encoder.warm_up()
    open_folder(feed.layout.folder)
    if feeder is None:
        return feed
    feeder.wait_for_item()
    return feeder


def check_layout(dtype: str, shard_chunks: int | None) -> None:
    """Refuse a type or a size of shards that is out of range.

    Raises:
        MissingExtraError: Without the extra `parquet`.
        UsageError: If one is.
    """
    check_extra("writing vectors")
    if dtype not in get_args(VectorType):
        raise UsageError(f"dtype must be {' or '.join(get_args(VectorType))}, got {dtype!r}")
    if shard_chunks is not None and shard_chunks < 1:
        raise UsageError(f"shard_chunks must be 1 or more, got {shard_chunks}")


def open_folder(folder: FilePath) -> FilePath:
    """Create a folder for shards, and remove what a killed encode left in it.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        make_folder(folder)
        for leftover in folder.glob(".*.parquet.*.tmp"):  # left by a killed run
            leftover.unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(f"cannot write in the directory {folder}: {exc.strerror}") from exc
    return folder


def info_of_shards(folder: FilePath, info: EncoderInfo) -> EncoderInfo:
    """Return the encoder's info under the fingerprint of existing shards of the same model.

    So an encode that version 0.1 began is finished under one fingerprint.
    """
    for path in shard_paths(folder)[:1]:
        stored = read_footer(path).header.encoder
        if info.is_same_model_as(stored):
            return info.stored_as(stored)
    return info


def default_chunks(gpus: float) -> int:
    """Return the chunks of a shard for this number of GPUs."""
    return _CHUNKS_ON_GPU if gpus else _CHUNKS


def _feed_workers(workers: int | None, encoder: Encoder, gpus: int) -> int:
    """Return the given number; by default 0 for a CPU, busy with the forward pass, else several."""
    is_portable = encoder.tokenizer.portable
    if workers is None:
        most = max(1, min(usable_cores() - 2, _WORKERS_PER_GPU * gpus))
        return most if gpus and is_portable else 0
    if workers and not is_portable:
        raise UsageError("this model's tokenizer cannot be sent to other processes: pass workers=0")
    return workers
