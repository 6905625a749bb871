"""The commands `ingest` and `quickstart`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.cli.command_settings import (
    command_with,
    load_command_settings,
    open_search_client,
)
from msmarco_qdrant.cli.completion import complete_files
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.ingest_options import (
    HAS_REJECTS,
    bulk_option,
    index_every_option,
    index_option,
    ingest_and_print,
    prompt_options,
    prune_options,
    run_ingest,
    to_prompts,
    to_prune_policy,
)
from msmarco_qdrant.cli.options import (
    ENCODER,
    READING,
    json_option,
    log_shapes,
    model_option,
    refuse_unused,
    settings_options,
    shard_options,
    source_options,
    store_option,
    transport_option,
    wait_index_option,
)
from msmarco_qdrant.cli.output import echo, print_hits, rejects_path
from msmarco_qdrant.cli.ray_options import ray_options, refuse_with_ray

if TYPE_CHECKING:
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.sources.corpus import Corpus
    from msmarco_qdrant.sources.vector_shards import VectorShards

_FAILED = 1
_OF_MODEL = ("model", "query_prompt", "passage_prompt")


@click.command(
    cls=Command,
    examples=[
        "passages.tsv",
        "films.jsonl --collection films --model all-MiniLM-L6-v2",
        "--vectors vectors",
        "collection.tsv --store http://localhost --ray auto",
    ],
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", shell_complete=complete_files)
@click.option(
    "--vectors",
    type=click.Path(),
    metavar="DIR",
    help="Instead of a SOURCE: a folder of passages with vectors, made by `encode`; a path or a "
    "URL. No model is loaded.",
)
@settings_options("store", "transport", "collection", *ENCODER)
@model_option(
    "Encode with this model.  [default: the collection's model; for a new collection "
    "MSMARCO_QDRANT_MODEL or msmarco-distilbert-base-v3]"
)
@prompt_options
@source_options
@click.option(
    "--allow-rejects",
    is_flag=True,
    help="Exit with 0 even if rows were rejected; with --prune, also remove the passages of "
    "rejected rows.",
)
@index_option
@shard_options
@bulk_option
@index_every_option
@click.option(
    *("--limit", "-n"), type=click.IntRange(min=1), metavar="N", help="Stop after N passages."
)
@prune_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only read and parse the sources: show how they are read, their first rows, counts and "
    "rejects. Nothing is written and no model is loaded.",
)
@ray_options("Encode and write")
@wait_index_option
@json_option
def ingest(  # noqa: PLR0913  # one for each option
    *,
    sources: tuple[str, ...],
    vectors: str | None,
    settings: Settings,
    model: str | None,
    query_prompt: str | None,
    passage_prompt: str | None,
    reading: dict[str, Any],
    rejects: Path | None,
    allow_rejects: bool,
    indexes: tuple[str, ...],
    sharding: dict[str, Any] | None,
    bulk: bool,
    index_every: int | None,
    limit: int | None,
    prune: bool,
    yes: bool,
    dry_run: bool,
    ray: dict[str, Any] | None,
    wait_index: bool,
    as_json: bool,
) -> int:
    """Encode and store passages; create the collection if missing.

    SOURCE is a file of passages as TSV, CSV, JSON lines, Parquet or Arrow, plain or compressed, or
    '-' for standard input. Its content decides how it is read. Run the same command again to
    resume: unchanged passages are not written again. Empty lines are skipped.
    """
    from msmarco_qdrant.collection.create import parse_indexes
    from msmarco_qdrant.sources.corpus import Corpus
    from msmarco_qdrant.sources.rejects import RejectsFile

    _check_sources(sources, vectors)
    refuse_unused("--prune", used=prune, options=["yes"])
    alone = {"--limit": limit, "--dry-run": dry_run, "--index-every": index_every}
    refuse_with_ray(ray, {option: bool(given) for option, given in alone.items()})
    payload_indexes = parse_indexes(indexes, "--index")
    prompts = to_prompts(query_prompt, passage_prompt)
    if dry_run:
        reading["max_line_bytes"] = settings.max_line_bytes
        return _preview(sources, limit, reading, allow_rejects=allow_rejects, as_json=as_json)
    log_shapes()
    source, inputs = _open_source(sources, vectors, reading, settings)
    size = source.size if isinstance(source, Corpus) else None
    return ingest_and_print(
        settings,
        source,
        RejectsFile(rejects_path(rejects, inputs), source_bytes=size),
        allow_rejects=allow_rejects,
        as_json=as_json,
        model=model,
        prompts=prompts,
        **(
            {"ray": ray}
            if ray
            else {
                "max_passages": limit,
                "index_every": index_every,
            }
        ),
        prune=to_prune_policy(yes=yes, allow_rejects=allow_rejects) if prune else None,
        wait_index=wait_index,
        payload_indexes=payload_indexes,
        sharding=sharding,
        bulk=bulk,
    )


def _preview(
    sources: tuple[str, ...],
    max_passages: int | None,
    reading: dict[str, Any],
    *,
    allow_rejects: bool,
    as_json: bool,
) -> int:
    """Print what the sources hold, and return the status that an ingest would end with."""
    from msmarco_qdrant.cli.preview import print_previews
    from msmarco_qdrant.sources.preview import preview_sources

    if not sources:
        raise click.UsageError("--dry-run needs a SOURCE")
    previews = preview_sources(sources, max_passages=max_passages, **reading)
    print_previews(previews, as_json=as_json)
    if any(preview.error is not None for preview in previews):
        return _FAILED
    is_rejected = any(preview.rejected for preview in previews)
    return HAS_REJECTS if is_rejected and not allow_rejects else 0


def _check_sources(sources: tuple[str, ...], vectors: str | None) -> None:
    """Require either a SOURCE or --vectors; refuse options of a SOURCE with --vectors."""
    if vectors is None and not sources:
        raise click.UsageError(
            "nothing to ingest: pass a SOURCE ('-' for standard input), or --vectors DIR"
        )
    if vectors is not None and sources:
        raise click.UsageError(
            "pass a SOURCE or --vectors, got both: --vectors DIR contains its passages, so ingest "
            "the SOURCE separately"
        )
    needed = "a SOURCE; --vectors DIR has vectors already"
    refuse_unused(needed, used=vectors is None, options=[*_OF_MODEL, *READING, *ENCODER])


def _open_source(
    sources: tuple[str, ...], vectors: str | None, reading: dict[str, Any], settings: Settings
) -> tuple[Corpus | VectorShards, Sequence[str]]:
    """Return the source, and the files that it reads."""
    from msmarco_qdrant.sources.corpus import Corpus
    from msmarco_qdrant.sources.vector_shards import VectorShards

    if vectors is not None:
        shards = VectorShards(vectors)
        return shards, [str(path) for path in shards.paths]
    return Corpus(sources, max_line_bytes=settings.max_line_bytes, **reading), sources


@click.command(cls=Command, examples=["--store demo --model all-MiniLM-L6-v2"])
@store_option
@transport_option
@model_option(
    "Encode the sample with this model.  [default: the collection's model; for a new collection "
    "MSMARCO_QDRANT_MODEL or msmarco-distilbert-base-v3]"
)
def quickstart(*, store: str | None, transport: str | None, model: str | None) -> None:
    """Ingest a sample of 300 passages and search it.

    It ends with three commands for passages of your own.
    """
    from msmarco_qdrant.cli.quickstart import COLLECTION, QUESTIONS, sample_passages
    from msmarco_qdrant.sources.corpus import Corpus

    settings = load_command_settings(store=store, transport=transport, collection=COLLECTION)
    with sample_passages() as path:
        report = run_ingest(settings, Corpus(path), model=model)
    echo(*str(report).splitlines())
    with open_search_client(settings) as client:
        for question in QUESTIONS:
            echo("", f"$ {command_with(settings, 'search', question, '--limit', '2')}")
            print_hits(client.search(question, limit=2), as_json=False)
        model = client.metadata.encoder.model
    _print_own_commands(settings, model)


def _print_own_commands(settings: Settings, model: str) -> None:
    """Print commands for a file of the user's own, with this store and model."""
    from msmarco_qdrant.cli.quickstart import (
        OWN_COLLECTION,
        OWN_QUESTION,
        own_commands,
        own_file,
    )

    own, file = settings.model_copy(update={"collection": OWN_COLLECTION}), own_file()
    encoder = [] if model == load_command_settings().model else ["--model", model]
    echo("", "Your own passages: put an id, a tab and a text on each line of a file.")
    for line in own_commands(
        file,
        command_with(own, "ingest", str(file), *encoder),
        command_with(own, "search", OWN_QUESTION),
    ):
        echo(f"    {line}")
