"""How the command line shows what it found."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from msmarco_qdrant.catalog import PUBLISHED_MODELS, PublishedModel
from msmarco_qdrant.errors import OutputError, UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.inspection import StoreDescription
    from msmarco_qdrant.records import Hit, IngestReport


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def report_json(report: IngestReport) -> dict[str, Any]:
    return {
        "read": report.read,
        "written": report.written,
        "unchanged": report.unchanged,
        "rejected": report.rejected,
        "seconds": round(report.seconds, 3),
        "passages_per_second": round(report.passages_per_second, 1),
    }


def report_text(report: IngestReport) -> str:
    return (
        f"{report.read:,} read: {report.written:,} written, {report.unchanged:,} unchanged, "
        f"{report.rejected:,} rejected; {report.seconds:.1f} s, "
        f"{report.passages_per_second:,.1f} passages/s"
    )


def print_hits(hits: Sequence[Hit], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    width = min(shutil.get_terminal_size().columns, 100)
    for hit in hits:
        click.echo(f"{hit.rank:>3}  {hit.score:.4f}  {hit.pid}")
        click.echo(
            textwrap.fill(hit.text, width, initial_indent="     ", subsequent_indent="     ")
        )
        if hit.meta:
            click.echo(f"     {json.dumps(hit.meta, ensure_ascii=False)}")
    if not hits:
        click.echo("no passage found")


def print_models() -> None:
    """The catalog as a table."""
    head = ("model", "kind", "similarity", "dim", "DL19", "DL20", "dev", "passages/s GPU")
    rows = [head, *(_model_row(model) for model in PUBLISHED_MODELS)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        click.echo("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
    click.echo(
        "\nDL19, DL20: NDCG@10 on TREC DL 2019 and 2020; dev: MRR@10 on MS MARCO dev; in percent"
    )


def model_json(model: PublishedModel) -> dict[str, Any]:
    entry = asdict(model)
    for name in entry:
        value = getattr(model, name)
        if hasattr(value, "_asdict"):  # a figure with its source, or a package
            entry[name] = value._asdict()
    return entry


def _model_row(model: PublishedModel) -> tuple[str, ...]:
    figures = (
        model.ndcg10_dl19,
        model.ndcg10_dl20,
        model.mrr10_dev,
        model.passages_per_second_gpu,
    )
    return (
        model.name,
        model.kind,
        model.similarity or "-",
        str(model.dimension or "-"),
        *("-" if figure is None else f"{figure.value:g}" for figure in figures),
    )


def print_description(description: StoreDescription) -> None:
    """What a store holds, a line a fact."""
    click.echo(f"store       {description.store} ({description.engine})")
    click.echo("versions    " + ", ".join(f"{k} {v}" for k, v in description.versions.items()))
    for entry in description.collections:
        card, bm25 = entry.metadata.encoder, entry.metadata.bm25
        click.echo(f"\ncollection  {entry.name} -> {entry.info.name}")
        click.echo(f"passages    {entry.info.points:,}")
        click.echo(f"index       {entry.info.indexed:,} vectors, segments: {entry.info.segments}")
        click.echo(f"model       {card.model} ({card.dimension}, {card.similarity})")
        click.echo(f"fingerprint {card.fingerprint}")
        click.echo(f"bm25        k={bm25.k} b={bm25.b} avg_len={bm25.avg_len} {bm25.language}")
        click.echo(f"migrations  {', '.join(entry.metadata.migrations)}")
    if not description.collections:
        click.echo("\nno collections yet")


def check_output(path: Path, option: str, inputs: Sequence[str]) -> None:
    """Refuse now to write what cannot be written, or what is being read.

    Raises:
        UsageError: If it is one of the inputs.
        OutputError: If its directory cannot be written, or it is a directory.
    """
    if str(path) == "-":
        raise UsageError(f"{option} takes the name of a file; standard output is for the summary")
    if any(Path(name).exists() and path.exists() and path.samefile(name) for name in inputs):
        raise UsageError(f"{option} {path} is what is read; name another file")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: pass {option} with a place you may write")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A file that appears under its name when it is complete, or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
        temporary.replace(path)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {exc.strerror}; name another file") from exc
    finally:
        temporary.unlink(missing_ok=True)
