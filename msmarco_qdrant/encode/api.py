"""Passages into vectors on disk: encode on the machine with the GPU, load them anywhere.

What is written is a folder of Parquet shards, each complete and with the encoder's fingerprint,
or not there. Running it again goes on with the shards that are missing; `ingest_passages` of
`VectorShards(folder)` loads them into any store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import get_args

from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.reports import EncodeProgress, EncodeReport
from msmarco_qdrant.encode.feed import Feed, Layout
from msmarco_qdrant.encode.prepare import check_portable
from msmarco_qdrant.encode.run import EncodeRun
from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import ALL_GPUS, EncoderOptions
from msmarco_qdrant.errors import EncodeStoppedError, MsmarcoQdrantError, OutputError, UsageError
from msmarco_qdrant.runtime.subprocesses import SubprocessIterator
from msmarco_qdrant.sources.corpus import Corpus, as_rows
from msmarco_qdrant.sources.parquet import check_extra
from msmarco_qdrant.sources.shard_file import VectorType

# Of 1 MiB of a file each, which is 3,000 passages of MS MARCO, or of 1,024 rows that have no lines.
_CHUNKS_ON_GPU, _CHUNKS = 12, 3
_WORKERS_A_GPU = 6


def encode_corpus(  # noqa: PLR0913  # all but two have defaults
    source: Iterable[Passage | Reject] | str | PathLike[str] | Sequence[str | PathLike[str]],
    folder: str | PathLike[str],
    *,
    model: str | PathLike[str] | None = None,
    encoder: Encoder | None = None,
    encoder_options: EncoderOptions | None = None,
    dtype: VectorType = "float16",
    shard_chunks: int | None = None,
    workers: int | None = None,
    on_reject: Callable[[Reject], None] | None = None,
    on_progress: Callable[[EncodeProgress], None] | None = None,
) -> EncodeReport:
    """Encode the passages of a source into a folder of Parquet shards.

    Args:
        source: A path or several, a `Corpus`, or any iterable of passages, in the same order each
            time; not standard input or a pipe, which cannot be read again to go on.
        folder: Where the shards are or shall be; made if need be.
        model: The model to encode with: a directory, a name of the catalog, or a hub id; by
            default `catalog.DEFAULT_MODEL`.
        encoder: A ready encoder instead of `model`.
        encoder_options: Where and how the model runs; None for what is fastest on all GPUs, or on
            the CPU where there is none.
        dtype: What vectors are kept in; float16 is half as large and within cosine 0.9999.
        shard_chunks: How much a shard covers, in chunks of 1 MiB of a file or 1,024 rows of what
            has no lines; by default 12 on a GPU, else 3. Where shards are already, theirs counts.
        workers: Processes that parse and tokenize, 0 for a thread of this one; by default what
            the encoder's device needs of this machine's processors.
        on_reject: Called for each row that cannot become a passage with a vector.
        on_progress: Called after each shard.

    Returns:
        What was done. Both callbacks are called in the caller's thread.

    Raises:
        EncodeStoppedError: If it ended early; running the same again goes on from there.
        SourceError: If the source cannot be read.
        ModelError: If the model cannot be loaded, or its first forward pass fails.
        WorkerError: If a process ends before it has begun.
        OutputError: If the folder cannot be made or written in.
        MissingExtraError: Without the extra `parquet`.
        UsageError: If the arguments cannot mean anything.
    """
    check_extra("writing vectors")
    if dtype not in get_args(VectorType):
        raise UsageError(
            f"dtype {dtype!r} is unknown: expected {' or '.join(get_args(VectorType))}"
        )
    if (shard_chunks is not None and shard_chunks < 1) or (workers is not None and workers < 0):
        raise UsageError("a shard covers 1 chunk or more, and workers are 0 or more")
    if encoder is not None and (model is not None or encoder_options is not None):
        raise UsageError("pass a ready encoder, or a model and options to load it with, not both")
    rows = as_rows(source)
    if isinstance(rows, Corpus) and rows.size is None:
        raise UsageError(
            "encode reads its source again to go on after an interruption: name files, not "
            "standard input or a pipe"
        )
    begun = time.perf_counter()
    options = encoder_options or EncoderOptions(device=ALL_GPUS)
    encoder = encoder or load_encoder(model or DEFAULT_MODEL, **asdict(options))
    gpus = encoder.gpus if isinstance(encoder, BiEncoder) else 0
    made = _made(Path(folder))
    layout = Layout(made, shard_chunks or (_CHUNKS_ON_GPU if gpus else _CHUNKS), dtype)
    count = _workers_for(encoder, gpus) if workers is None else workers
    if count:
        check_portable(encoder.tokenizer)
    feed = Feed(rows, layout, encoder.info, encoder.tokenizer, count)
    # A GPU's process shall do nothing else in Python: it could not keep the GPU busy.
    apart = SubprocessIterator(feed) if count and isinstance(rows, Corpus) else None
    with ExitStack() as stack:
        if apart is not None:
            stack.callback(apart.close)
        encoder.warm_up()
        if apart is not None:
            apart.wait_until_ready()
        startup = time.perf_counter() - begun
        at_once = 2 if gpus else 1
        run = EncodeRun(encoder, layout, _size_of(rows), at_once, on_reject, on_progress)
        try:
            run.run(feed if apart is None else apart)
        except MsmarcoQdrantError as exc:
            report = replace(run.report(), startup_seconds=startup)
            raise EncodeStoppedError(f"{exc}{_how_far(report)}", report) from exc
        return replace(run.report(), startup_seconds=startup)


def _how_far(report: EncodeReport) -> str:
    if not report.encoded:
        return ""
    return f" ({report.encoded:,} passages had been written; the same encode goes on from there)"


def _size_of(rows: Iterable[Passage | Reject]) -> int | None:
    return rows.size if isinstance(rows, Corpus) else None


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.parquet.*.tmp"):  # by a run that was killed
            left.unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(f"cannot write in the directory {folder}: {exc.strerror}") from exc
    return folder


def _workers_for(encoder: Encoder, gpus: int) -> int:
    """A CPU is busy enough with the forward pass; GPUs need more than one process to feed them."""
    if not gpus or not encoder.tokenizer.portable:
        return 0
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(here - 2, _WORKERS_A_GPU * gpus))
