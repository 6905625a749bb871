"""The command `adopt`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.cli.completion import complete_files
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.ingest_options import (
    HAS_REJECTS,
    bulk_option,
    index_option,
    ingest_and_print,
    prompt_options,
    prune_options,
    to_prompts,
    to_prune_policy,
)
from msmarco_qdrant.cli.options import (
    ENCODER,
    FILE,
    json_option,
    model_option,
    refuse_unused,
    rejects_option,
    settings_options,
    shard_options,
    wait_index_option,
)
from msmarco_qdrant.cli.output import print_result, rejects_path
from msmarco_qdrant.cli.preview import passage_json, show_passage
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.collection.foreign_passages import ForeignPassages
    from msmarco_qdrant.settings import Settings

_SHOWN = 3
_NAMES = {
    "langchain": "LangChain",
    "llamaindex": "LlamaIndex",
    "haystack": "Haystack",
    "plain": "no framework",
}


@click.command(
    cls=Command,
    examples=[
        "docs --store http://localhost:6333 --collection articles --model all-MiniLM-L6-v2",
        "docs --from ./local_qdrant --dry-run",
    ],
)
@click.argument("name", metavar="SOURCE")
@click.option(
    "--from",
    "origin",
    metavar="PATH_OR_URL",
    shell_complete=complete_files,
    help="The server, or the folder of QdrantClient(path=...), that has SOURCE. A server gets the "
    "API key of --store, unless it has its own.  [default: that of --store]",
)
@click.option(
    "--from-key-file",
    type=FILE,
    metavar="FILE",
    help="File with the API key of the server of --from.",
)
@settings_options("store", "transport", "collection", *ENCODER)
@model_option(
    "Encode with this model.  [default: the collection's model; for a new collection "
    "MSMARCO_QDRANT_MODEL or msmarco-distilbert-base-v3]"
)
@prompt_options
@click.option(
    "--text-field",
    metavar="NAME",
    help="Points of no framework: the field with the text.  [default: text, passage, document and "
    "others, else the only field with sentences]",
)
@click.option(
    "--pid-field",
    metavar="NAME",
    help="The field of the metadata with the pid.  [default: the framework's id, or the point's]",
)
@click.option(
    "--pids",
    type=click.Choice(["point", "content"]),
    default="point",
    show_default=True,
    help="content derives the pids from text and metadata, for point ids that change with each "
    "import.",
)
@rejects_option
@click.option(
    "--allow-rejects",
    is_flag=True,
    help="Exit with 0 even if points were rejected; with --prune, also remove their passages.",
)
@index_option
@shard_options
@bulk_option
@prune_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only read SOURCE: show the shapes found, the first passages and the counts. Nothing is "
    "written and no model is loaded.",
)
@wait_index_option
@json_option
def adopt(  # noqa: PLR0913  # one for each option
    *,
    name: str,
    origin: str | None,
    from_key_file: Path | None,
    settings: Settings,
    model: str | None,
    query_prompt: str | None,
    passage_prompt: str | None,
    text_field: str | None,
    pid_field: str | None,
    pids: Any,
    rejects: Path | None,
    allow_rejects: bool,
    indexes: tuple[str, ...],
    sharding: dict[str, Any] | None,
    bulk: bool,
    prune: bool,
    yes: bool,
    dry_run: bool,
    wait_index: bool,
    as_json: bool,
) -> int:
    """Encode the texts of another program's collection into one of this package.

    SOURCE is a collection that LangChain, LlamaIndex, Haystack or qdrant-client wrote; the shape
    of its payloads is detected. It is only read. Run the same command again to write what is new
    or changed there; unchanged passages are not written again.
    """
    from msmarco_qdrant.collection.create import parse_indexes
    from msmarco_qdrant.collection.foreign_passages import ForeignPassages
    from msmarco_qdrant.sources.rejects import RejectsFile

    refuse_unused("--prune", used=prune, options=["yes"])
    options = {
        "prompts": to_prompts(query_prompt, passage_prompt),
        "payload_indexes": parse_indexes(indexes, "--index"),
        "prune": to_prune_policy(yes=yes, allow_rejects=allow_rejects) if prune else None,
    }
    _check_names(name, origin, settings)
    reading = {"text_field": text_field, "pid_field": pid_field, "pids": pids}
    store, connection = origin or settings.store, settings.connection
    if from_key_file is not None:
        connection = replace(connection, api_key=_read_key(from_key_file, origin))
    with ForeignPassages.open(name, store, connection=connection, **reading) as source:
        if dry_run:
            return _preview(source, allow_rejects=allow_rejects, as_json=as_json)
        return ingest_and_print(
            settings,
            source,
            RejectsFile(rejects_path(rejects, [])),
            allow_rejects=allow_rejects,
            as_json=as_json,
            add=lambda: (_fields(source), _lines(source)),
            model=model,
            wait_index=wait_index,
            sharding=sharding,
            bulk=bulk,
            **options,
        )


def _check_names(name: str, origin: str | None, settings: Settings) -> None:
    """Refuse a collection that would be adopted into itself."""
    if name == settings.collection and origin in (None, settings.store):
        raise UsageError(
            f"SOURCE and --collection are both '{name}': choose another name for the new collection"
        )


def _read_key(path: Path, origin: str | None) -> str:
    """Return the API key in a file, without the white space around it.

    Raises:
        UsageError: If --from does not name a server, or the file cannot be read or is empty.
    """
    from msmarco_qdrant.stores.connection import is_url

    if origin is None or not is_url(origin):
        raise UsageError(
            f"--from-key-file needs the URL of a server in --from, got {origin or 'no --from'}"
        )
    try:
        key = path.read_text("utf-8", errors="replace").strip()
    except OSError as exc:
        raise UsageError(f"cannot read --from-key-file {path}: {exc.strerror}") from exc
    if not key:
        raise UsageError(f"--from-key-file must contain an API key, and {path} is empty")
    return key


def _preview(source: ForeignPassages, *, allow_rejects: bool, as_json: bool) -> int:
    """Print the first passages and the counts, and return the status of an `adopt`."""
    from msmarco_qdrant.sources.rejects import describe_reject, reject_to_json

    found: dict[type, list[Any]] = {Passage: [], Reject: []}
    counts: Counter[type] = Counter()
    for row in _each_pid_once(source):
        counts[type(row)] += 1
        if counts[type(row)] <= _SHOWN:
            found[type(row)].append(row)
    value = {
        "dry_run": True,
        "passages": counts[Passage],
        "rejected": counts[Reject],
        **_fields(source),
        "first": [passage_json(passage) for passage in found[Passage]],
        "rejects": [reject_to_json(reject) for reject in found[Reject]],
    }
    lines = [
        *_lines(source),
        *(f"  {show_passage(passage)}" for passage in found[Passage]),
        *(f"  rejected: {describe_reject(reject)}" for reject in found[Reject]),
        f"{counts[Passage]:,} passages, {counts[Reject]:,} rejected",
        "nothing was written (--dry-run)",
    ]
    print_result(value, *lines, as_json=as_json)
    return HAS_REJECTS if counts[Reject] and not allow_rejects else 0


def _each_pid_once(source: ForeignPassages) -> Iterator[Passage | Reject]:
    """Yield rows as an ingest takes them: a pid that was read before is a reject."""
    from msmarco_qdrant.core.pid_set import PidSet
    from msmarco_qdrant.sources.rejects import duplicate_pid_reason, reject_passage

    seen = PidSet()
    for row in source:
        if isinstance(row, Passage) and not seen.add(row.pid):
            yield reject_passage(row, duplicate_pid_reason(row))
        else:
            yield row


def _fields(source: ForeignPassages) -> dict[str, Any]:
    return {"shapes": source.shapes, "duplicates": source.duplicates}


def _lines(source: ForeignPassages) -> Sequence[str]:
    """Return what was found in the source, for people."""
    found = ", ".join(f"{count:,} of {_NAMES[shape]}" for shape, count in source.shapes.items())
    lines = [f"points: {found or 'none'}"]
    if source.duplicates:
        lines.append(
            f"{source.duplicates:,} points repeat the text and the metadata of another, and are "
            "not passages of their own; --pids content keeps pids the same after each import"
        )
    return lines
