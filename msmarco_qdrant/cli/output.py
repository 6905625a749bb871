"""How the command line shows what it found."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.encoding.catalog import PUBLISHED_MODELS, PublishedModel
from msmarco_qdrant.errors import OutputError, UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.collection.describe import CollectionDescription, StoreDescription
    from msmarco_qdrant.core.records import CollectionSpec, Meta, Passage
    from msmarco_qdrant.core.reports import EncodeReport, IngestReport
    from msmarco_qdrant.core.search_types import Hit
    from msmarco_qdrant.sources.rejects import RejectsFile

# Of each stage of an ingest, whom to blame.
_HOLDER = {
    "read": "the source",
    "skip": "asking the store what is there",
    "tokenize": "the tokenizer",
    "forward": "the model",
    "sparse": "computing the BM25 weights",
    "write": "the store",
    "prune": "looking for what to remove",
    "index": "building the index",
}


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def report_json(report: IngestReport) -> dict[str, Any]:
    """Return an ingest's report as JSON values."""
    return {
        "read": report.read,
        "written": report.written,
        "unchanged": report.unchanged,
        "rejected": report.rejected,
        "pruned": report.pruned,
        "seconds": round(report.seconds, 3),
        "passages_per_second": round(report.passages_per_second, 1),
        "stages": [
            {
                "name": stage.name,
                "seconds": round(stage.seconds, 3),
                "share": round(stage.share, 4),
            }
            for stage in report.stages
        ],
    }


def report_text(report: IngestReport, *, pruning: bool = False) -> str:
    """Return an ingest's report as lines for people."""
    pruned = f", {report.pruned:,} pruned" if pruning else ""
    return (
        f"{report.read:,} read: {report.written:,} written, {report.unchanged:,} unchanged, "
        f"{report.rejected:,} rejected{pruned}; {report.seconds:.1f} s, "
        f"{report.passages_per_second:,.1f} passages/s"
    )


def stages_text(report: IngestReport) -> str:
    """Where the time went, the longest first: `time: forward 97 %, ... (the model holds ...)`."""
    stages = sorted(report.stages, key=lambda stage: stage.seconds, reverse=True)
    shares = [f"{stage.name} {stage.share:.0%}" for stage in stages if stage.share >= 0.005]
    if not shares:
        return "time: too short to tell"
    return f"time: {', '.join(shares)} ({_HOLDER[stages[0].name]} holds it back)"


def encode_json(report: EncodeReport) -> dict[str, Any]:
    """An encode's report, with its rate."""
    return {**asdict(report), "passages_per_second": round(report.passages_per_second, 1)}


def encode_text(report: EncodeReport) -> str:
    """What an encode did, start-up apart."""
    found = f" ({report.found:,} were there)" if report.found else ""
    return (
        f"{report.read:,} read: {report.encoded:,} encoded{found}, {report.rejected:,} rejected; "
        f"{report.shards} files; {report.seconds:.1f} s, {report.passages_per_second:,.1f} "
        f"passages/s, after {report.startup_seconds:.1f} s of start-up"
    )


def tell_rejects(told: RejectsFile, earlier: int = 0) -> None:
    """Where rows that did not go in are told, on standard error.

    Args:
        told: The file that this run has written, if any did not go in.
        earlier: How many an earlier run has told.
    """
    if told.count:
        click.echo(f"rows that did not go in: {told.count:,}, written to {told.path}", err=True)
        click.echo(f"the first of them: {told.first}", err=True)
    if earlier:
        click.echo(
            f"rows that did not go in, told by the runs that read them: {earlier:,}", err=True
        )


def print_hits(hits: Sequence[Hit], *, as_json: bool) -> None:
    """Print ranked hits as text or JSON."""
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    for hit in hits:
        click.echo(f"{hit.rank:>3}  {hit.score:.4f}  {hit.pid}")
        _print_content(hit.text, hit.meta)
    if not hits:
        click.echo("no passage found")


def print_passage(passage: Passage) -> None:
    """Print one passage as text."""
    click.echo(passage.pid)
    _print_content(passage.text, passage.meta)


def passage_json(passage: Passage) -> dict[str, Any]:
    """Return a passage as JSON values."""
    return {"pid": passage.pid, "text": passage.text, "meta": passage.meta}


def _print_content(text: str, meta: Meta) -> None:
    width = min(shutil.get_terminal_size().columns, 100)
    click.echo(textwrap.fill(text, width, initial_indent="     ", subsequent_indent="     "))
    if meta:
        click.echo(f"     {json.dumps(meta, ensure_ascii=False)}")


def print_models() -> None:
    """The catalog as a table."""
    head = ("model", "kind", "similarity", "dim", "DL19", "DL20", "dev", "passages/s GPU")
    _print_table([head, *(_model_row(model) for model in PUBLISHED_MODELS)])
    click.echo(
        "\nDL19, DL20: NDCG@10 on TREC DL 2019 and 2020; dev: MRR@10 on MS MARCO dev; in percent"
    )


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        click.echo("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


def model_json(model: PublishedModel) -> dict[str, Any]:
    """Return a published model as JSON values."""
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
        info, encoder_info, bm25 = entry.info, entry.metadata.encoder, entry.metadata.bm25
        click.echo(f"\ncollection  {entry.name} -> {info.name}")
        click.echo(f"passages    {info.points:,}")
        click.echo(f"last write  {_time(entry.last_write) or 'never'}")
        click.echo(f"index       {info.indexed:,} vectors, segments: {info.segments}, {info.state}")
        click.echo(f"settings    {_settings(info.spec)}")
        click.echo(
            f"model       {encoder_info.model} ({encoder_info.dimension}, {encoder_info.similarity})"
        )
        click.echo(f"fingerprint {encoder_info.fingerprint}")
        click.echo(f"bm25        k={bm25.k} b={bm25.b} avg_len={bm25.avg_len} {bm25.language}")
        click.echo(f"migrations  {', '.join(entry.metadata.migrations)}")
    if not description.collections:
        click.echo("\nno collections yet")


def _settings(spec: CollectionSpec) -> str:
    indexes = ", ".join(f"{field} ({kind})" for field, kind in spec.payload_indexes.items())
    return (
        f"hnsw m={spec.hnsw.m} ef_construct={spec.hnsw.ef_construct}, "
        f"vectors {'on disk' if spec.storage.on_disk else 'in memory'}, "
        f"quantization: {spec.storage.quantization}, payload indexes: {indexes or 'none'}"
    )


def description_json(description: StoreDescription) -> dict[str, Any]:
    """Return a store's description as JSON values."""
    entry = asdict(description)
    for collection in entry["collections"]:
        collection["last_write"] = _time(collection["last_write"])
    return entry


def print_collections(found: Sequence[CollectionDescription]) -> None:
    """The collections of a store as a table."""
    rows = [
        (
            entry.name,
            f"{entry.info.points:,}",
            entry.metadata.encoder.model,
            entry.info.name,
            _time(entry.last_write) or "never",
        )
        for entry in found
    ]
    if rows:
        _print_table([("collection", "passages", "model", "physical name", "last write"), *rows])
    else:
        click.echo("no collections yet")


def collection_json(entry: CollectionDescription) -> dict[str, Any]:
    """Return a collection's description as JSON values."""
    return {
        "name": entry.name,
        "passages": entry.info.points,
        "model": entry.metadata.encoder.model,
        "physical": entry.info.name,
        "last_write": _time(entry.last_write),
    }


def _time(moment: datetime | None) -> str | None:
    """ISO 8601, to the second."""
    return moment.isoformat(timespec="seconds") if moment else None


def check_output(path: Path, option: str, inputs: Sequence[str]) -> None:
    """Refuse now to write what cannot be written, or what is being read.

    Raises:
        UsageError: If it is one of the inputs.
        OutputError: If its directory cannot be written, or it is no regular file.
    """
    if str(path) == "-":
        raise UsageError(f"{option} takes the name of a file; standard output is for the summary")
    if any(Path(name).exists() and path.exists() and path.samefile(name) for name in inputs):
        raise UsageError(f"{option} {path} is what is read; name another file")
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise OutputError(f"{path} is no regular file: pass {option} with the name of one")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: pass {option} with a place you may write")
