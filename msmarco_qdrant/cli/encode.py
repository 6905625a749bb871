"""The command `encode`: passages to vectors on disk."""

from __future__ import annotations

import logging
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.cli.completion import complete_files
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    ENCODER,
    json_option,
    log_shapes,
    model_option,
    settings_options,
    source_options,
)
from msmarco_qdrant.cli.output import (
    echo,
    encode_json,
    print_rejects,
    print_result,
    rejects_path,
)
from msmarco_qdrant.cli.ray_options import ray_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from msmarco_qdrant.core.reports import EncodeReport
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.sources.shard_file import VectorType

_REJECTS = 3


@click.command(
    cls=Command,
    examples=[
        "passages.tsv --out vectors",
        "collection.tsv.gz --out vectors --device all",
        "collection.tsv --out s3://bucket/vectors --ray auto",
    ],
)
@click.argument(
    "sources", nargs=-1, required=True, metavar="SOURCE...", shell_complete=complete_files
)
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    required=True,
    metavar="DIR",
    help="Write the vectors to this folder, as Parquet files: a path, or a URL such as "
    "s3://BUCKET/FOLDER.",
)
@model_option(
    "Encode with this model.  [default: MSMARCO_QDRANT_MODEL or msmarco-distilbert-base-v3]"
)
@settings_options(*ENCODER)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Type of the vectors on disk.",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the model for the GPU with torch, if it is not of the shape of BERT, DistilBERT "
    "or RoBERTa: slow to start, fast for millions of passages.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    help="Processes that parse and tokenize.  [default: depends on the device]",
)
@ray_options("Encode", cpus="4, with a GPU 2")
@source_options
@click.option("--allow-rejects", is_flag=True, help="Exit with 0 even if rows were rejected.")
@json_option
def encode(  # noqa: PLR0913  # one for each option
    *,
    sources: tuple[str, ...],
    out: str,
    model: str | None,
    settings: Settings,
    dtype: VectorType,
    compiled: bool,
    workers: int | None,
    ray: dict[str, Any] | None,
    reading: dict[str, Any],
    rejects: Path | None,
    allow_rejects: bool,
    as_json: bool,
) -> int:
    """Encode passages into a folder for `ingest --vectors`.

    SOURCE is as in `ingest`. Run the same command again to resume. It uses every GPU, or the CPU if
    there is none.
    """
    from msmarco_qdrant.encode.progress import EncodeDisplay
    from msmarco_qdrant.encoding.options import ALL_GPUS, EncoderOptions
    from msmarco_qdrant.sources.corpus import Corpus
    from msmarco_qdrant.sources.file_path import to_path
    from msmarco_qdrant.sources.rejects import RejectsFile

    if ray is not None and workers is not None:
        raise click.UsageError(
            "--workers needs an encode by one process: omit it, or pass --ray-workers"
        )
    log_shapes()
    corpus = Corpus(sources, max_line_bytes=settings.max_line_bytes, **reading)
    path = rejects_path(rejects, sources)
    logging.getLogger("msmarco_qdrant.encoding").setLevel(logging.INFO)  # logs the backend
    echo(f"encoding into {to_path(out)}", err=True)
    with (
        RejectsFile(path, append=True, source_bytes=corpus.size) as rejected,
        closing(EncodeDisplay()) as display,
    ):
        try:
            report = _encoder(ray, workers)(
                corpus,
                out,
                model=model or settings.model,
                encoder_options=EncoderOptions(
                    device=settings.device or (ALL_GPUS if ray is None else None),
                    precision=settings.precision,
                    compiled=compiled,
                ),
                dtype=dtype,
                on_reject=rejected.write,
                on_progress=display,
            )
        except KeyboardInterrupt:
            echo("", "Written files are kept; run the same command again to resume.", err=True)
            raise
    print_result(encode_json(report), *str(report).splitlines(), as_json=as_json)
    print_rejects(rejected, earlier=report.rejected - rejected.count)
    return _REJECTS if report.rejected and not allow_rejects else 0


def _encoder(ray: dict[str, Any] | None, workers: int | None) -> Callable[..., EncodeReport]:
    """Return the function that encodes: in this process, or on a cluster."""
    if ray is not None:
        from msmarco_qdrant.distributed import encode_dataset

        return partial(encode_dataset, **ray)
    from msmarco_qdrant.encode.api import encode_corpus

    return partial(encode_corpus, workers=workers)
