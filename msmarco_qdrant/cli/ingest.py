"""The commands that bring passages in."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from msmarco_qdrant.cli.options import (
    collection_option,
    encoder_options,
    json_option,
    settings_with,
    source_options,
    store_option,
)
from msmarco_qdrant.cli.output import (
    check_output,
    print_hits,
    print_json,
    report_json,
    report_text,
    stages_text,
    tell_rejects,
)
from msmarco_qdrant.errors import PruneRefusedError

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import PayloadIndex, PrunePolicy
    from msmarco_qdrant.core.reports import IngestReport
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.sources.corpus import Corpus, Format
    from msmarco_qdrant.sources.rejects import RejectsFile
    from msmarco_qdrant.sources.vector_shards import VectorShards

_REJECTS = 3


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Instead of a SOURCE: a folder of passages with their vectors, made by `encode`. No model "
    "is loaded.",
)
@store_option
@collection_option
@click.option(
    "--model",
    metavar="NAME_OR_DIR",
    help="The model to encode with.  [default: the collection's own, or for a new one "
    "MSMARCO_QDRANT_MODEL or msmarco-distilbert-base-v3]",
)
@encoder_options
@source_options
@click.option(
    "--allow-rejects",
    is_flag=True,
    help="Exit with 0 even if rows were rejected; with --prune, remove the passages that they "
    "stand for as well.",
)
@click.option(
    "--index",
    "indexes",
    multiple=True,
    metavar="FIELD=KIND",
    help="For a new collection: index this meta field, so that filters on it are fast. KIND is "
    "keyword, integer, float, bool or datetime; give the option once for each field.",
)
@click.option("--max-passages", type=click.IntRange(min=1), metavar="N", help="Stop after N.")
@click.option(
    "--prune",
    is_flag=True,
    help="At the end, remove the passages that the sources do not hold, if they are no more than "
    "a fifth of the collection and no row was rejected.",
)
@click.option("--yes", is_flag=True, help="With --prune: remove them however many they are.")
@json_option
def ingest(  # noqa: PLR0913  # one for each option
    *,
    sources: tuple[str, ...],
    vectors: Path | None,
    store: str | None,
    collection: str | None,
    model: str | None,
    backend: str | None,
    device: str | None,
    precision: str | None,
    form: Format,
    rejects: Path | None,
    allow_rejects: bool,
    indexes: tuple[str, ...],
    max_passages: int | None,
    prune: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Encode passages and keep them, creating the collection if need be.

    SOURCE is a file of passages as TSV (pid<TAB>text), JSON lines or Parquet, gzipped or not, or
    '-' for standard input; or pass --vectors instead. Running the same command again writes nothing
    twice, and goes on where an earlier run was interrupted. An empty line holds no passage and is
    skipped.
    """
    from msmarco_qdrant.sources.rejects import RejectsFile

    _check_sources(
        sources,
        vectors,
        {
            "--model": model,
            "--format": None if form == "auto" else form,
            "--backend": backend,
            "--device": device,
            "--precision": precision,
        },
    )
    payload_indexes = parse_indexes(indexes)
    policy = _prune_policy(prune=prune, yes=yes, allow_rejects=allow_rejects)
    settings = settings_with(
        store=store, collection=collection, backend=backend, device=device, precision=precision
    )
    source, inputs = _source_of(sources, vectors, form, settings)
    path = rejects or Path(time.strftime("rejects-%Y%m%d-%H%M%S.jsonl"))
    check_output(path, "--rejects", inputs)
    refused = None
    with RejectsFile(path) as rejected:
        try:
            report = _bring_in(
                settings, source, model, max_passages, policy, rejected, payload_indexes
            )
        except PruneRefusedError as exc:  # all the rest was done
            report, refused = exc.report, exc
    _tell(report, rejected, as_json=as_json, pruning=prune)
    if refused is not None:
        raise refused
    return _REJECTS if report.rejected and not allow_rejects else 0


def _check_sources(
    sources: tuple[str, ...], vectors: Path | None, others: Mapping[str, str | None]
) -> None:
    """Refuse both of SOURCE and --vectors, none of them, and what only a SOURCE can have."""
    if vectors is None:
        if not sources:
            raise click.UsageError(
                "nothing to ingest: name a SOURCE ('-' for standard input), or pass --vectors DIR"
            )
        return
    if sources:
        raise click.UsageError(
            f"--vectors {vectors} holds its passages already: leave out {sources[0]!r}, or ingest "
            "it by itself"
        )
    for option, value in others.items():
        if value is not None:
            raise click.UsageError(
                f"{option} goes with a SOURCE only: what --vectors {vectors} holds is encoded "
                "already"
            )


def _source_of(
    sources: tuple[str, ...], vectors: Path | None, form: Format, settings: Settings
) -> tuple[Corpus | VectorShards, Sequence[str]]:
    """What is to be ingested, and the files that are read for it."""
    from msmarco_qdrant.sources.corpus import Corpus
    from msmarco_qdrant.sources.vector_shards import VectorShards

    if vectors is not None:
        shards = VectorShards(vectors)
        return shards, [str(path) for path in shards.paths]
    return Corpus(sources, format=form, max_line_bytes=settings.max_line_bytes), sources


def _prune_policy(*, prune: bool, yes: bool, allow_rejects: bool) -> PrunePolicy | None:
    from msmarco_qdrant.core.records import PrunePolicy

    if not prune:
        if yes:
            raise click.UsageError("--yes goes with --prune only")
        return None
    share = 1.0 if yes else PrunePolicy().max_share
    return PrunePolicy(max_share=share, allow_rejects=allow_rejects)


def parse_indexes(texts: Sequence[str]) -> Mapping[str, PayloadIndex]:
    """The meta fields to index, each with its kind; the kind stands after the last `=`.

    Raises:
        click.UsageError: For another form, and for two kinds of one field.
    """
    from msmarco_qdrant.core.records import PayloadIndex

    kinds = get_args(PayloadIndex)
    parsed: dict[str, PayloadIndex] = {}
    for text in texts:
        kind: Any  # one of `kinds` once it is checked
        field, _, kind = text.rpartition("=")
        if not field or kind not in kinds:
            raise click.UsageError(
                f"--index {text!r}: expected FIELD=KIND, with one of the kinds {', '.join(kinds)}"
            )
        if parsed.setdefault(field, kind) != kind:
            raise click.UsageError(
                f"--index asks for {parsed[field]} and {kind} of '{field}': a field has one index, "
                "leave the other out"
            )
    return parsed


def _bring_in(
    settings: Settings,
    source: Corpus | VectorShards,
    model: str | None,
    max_passages: int | None = None,
    prune: PrunePolicy | None = None,
    rejected: RejectsFile | None = None,
    payload_indexes: Mapping[str, PayloadIndex] | None = None,
) -> IngestReport:
    from msmarco_qdrant.cli.progress import ProgressDisplay
    from msmarco_qdrant.collection.create import check_collection_name
    from msmarco_qdrant.ingest.api import ingest_passages
    from msmarco_qdrant.stores import redact_dsn

    check_collection_name(settings.collection)
    logging.getLogger("msmarco_qdrant.encoding").setLevel(logging.INFO)  # which backend it is
    progress = ProgressDisplay()
    click.echo(f"ingesting into '{settings.collection}' in {redact_dsn(settings.store)}", err=True)
    try:
        return ingest_passages(
            source,
            settings.store,
            collection=settings.collection,
            model=model,
            default_model=settings.model,
            encoder_options=settings.encoder_options,
            storage=settings.storage,
            payload_indexes=payload_indexes,
            connection=settings.connection,
            max_passages=max_passages,
            prune=prune,
            window=settings.window,
            on_reject=rejected.write if rejected else None,
            on_progress=progress,
        )
    except KeyboardInterrupt:
        written = progress.last.report.written if progress.last else 0
        click.echo(
            f"\n{written:,} passages were written; run the same command again to go on.", err=True
        )
        raise
    finally:
        progress.close()


def _tell(report: IngestReport, rejected: RejectsFile, *, as_json: bool, pruning: bool) -> None:
    if as_json:
        print_json(report_json(report))
    else:
        click.echo(report_text(report, pruning=pruning))
        click.echo(stages_text(report))
    tell_rejects(rejected)
    if not report.read:
        click.echo("the source holds no passage", err=True)


@click.command()
@store_option
@click.option("--model", metavar="NAME_OR_DIR", help="The model to encode the sample with.")
def quickstart(*, store: str | None, model: str | None) -> None:
    """Ingest a sample of 300 passages, ask it three questions, and show the answers."""
    from msmarco_qdrant.cli.quickstart import COLLECTION, QUESTIONS, default_model, sample_passages
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.sources.corpus import Corpus

    settings = settings_with(store=store, collection=COLLECTION)
    with sample_passages() as path:
        report = _bring_in(settings, Corpus(path), model or default_model())
    click.echo(report_text(report))
    click.echo(stages_text(report))
    with SearchClient.open(
        settings.store,
        collection=COLLECTION,
        encoder_options=settings.encoder_options,
        connection=settings.connection,
    ) as client:
        for question in QUESTIONS:
            click.echo(f"\n$ msmarco-qdrant search {question!r} --limit 2")
            print_hits(client.search(question, limit=2), as_json=False)
    click.echo(
        f"\nYour own: msmarco-qdrant ingest FILE --store {settings.store}, then "
        f"msmarco-qdrant search 'a query' --store {settings.store}"
    )
