"""The command that encodes passages into vectors on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.options import encoder_options, json_option, settings_with, source_options
from msmarco_qdrant.cli.output import (
    check_output,
    encode_json,
    encode_text,
    print_json,
    tell_rejects,
)

if TYPE_CHECKING:
    from msmarco_qdrant.core.reports import EncodeProgress
    from msmarco_qdrant.sources.corpus import Format
    from msmarco_qdrant.sources.shard_file import VectorType

_REJECTS = 3


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where the vectors are written, as Parquet files; made if need be.",
)
@click.option(
    "--model",
    metavar="NAME_OR_DIR",
    help="The model to encode with.  [default: MSMARCO_QDRANT_MODEL or msmarco-distilbert-base-v3]",
)
@encoder_options
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="What the vectors are kept in.",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Let torch compile the model for the GPU: takes a while, pays for millions of passages.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    help="Processes that parse and tokenize.  [default: what the device needs]",
)
@source_options
@click.option("--allow-rejects", is_flag=True, help="Exit with 0 even if rows were rejected.")
@json_option
def encode(  # noqa: PLR0913  # one for each option
    *,
    sources: tuple[str, ...],
    out: Path,
    model: str | None,
    backend: str | None,
    device: str | None,
    precision: str | None,
    dtype: VectorType,
    compiled: bool,
    workers: int | None,
    form: Format,
    rejects: Path | None,
    allow_rejects: bool,
    as_json: bool,
) -> int:
    """Encode passages into a folder of vectors, to be loaded with `ingest --vectors`.

    SOURCE is what `ingest` takes. Running the same command again goes on with the files that are
    missing. Every GPU of the machine is used, or the CPU where there is none.
    """
    from msmarco_qdrant.encode.api import encode_corpus
    from msmarco_qdrant.encoding.options import ALL_GPUS, EncoderOptions
    from msmarco_qdrant.sources.corpus import Corpus
    from msmarco_qdrant.sources.rejects import RejectsFile

    settings = settings_with(backend=backend, device=device, precision=precision)
    corpus = Corpus(sources, format=form, max_line_bytes=settings.max_line_bytes)
    path = rejects or Path(time.strftime("rejects-%Y%m%d-%H%M%S.jsonl"))
    check_output(path, "--rejects", sources)
    logging.getLogger("msmarco_qdrant.encoding").setLevel(logging.INFO)  # which backend it is
    click.echo(f"encoding into {out}", err=True)
    with RejectsFile(path, append=True) as rejected, _shown_progress() as progress:
        report = encode_corpus(
            corpus,
            out,
            model=model or settings.model,
            encoder_options=EncoderOptions(
                backend=settings.backend,
                device=settings.device or ALL_GPUS,
                precision=settings.precision,
                compiled=compiled,
            ),
            dtype=dtype,
            workers=workers,
            on_reject=rejected.write,
            on_progress=progress,
        )
    print_json(encode_json(report)) if as_json else click.echo(encode_text(report))
    tell_rejects(rejected, earlier=report.rejected - rejected.count)
    return _REJECTS if report.rejected and not allow_rejects else 0


@contextmanager
def _shown_progress() -> Iterator[Callable[[EncodeProgress], None]]:
    """A display that each progress is handed to; what is done is told if it is interrupted."""
    from msmarco_qdrant.cli.progress import ProgressDisplay

    display = ProgressDisplay()
    try:
        yield lambda progress: display.show(progress.done, progress.fraction)
    except KeyboardInterrupt:
        click.echo("\nwhat is written stays; run the same command again to go on.", err=True)
        raise
    finally:
        display.close()
