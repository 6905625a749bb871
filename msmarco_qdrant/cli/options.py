"""Options that several commands share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from msmarco_qdrant.cli.command_settings import load_command_settings
from msmarco_qdrant.cli.completion import (
    complete_collections,
    complete_encoders,
    complete_files,
    complete_rerankers,
)
from msmarco_qdrant.core.search_types import Fusion, FusionMethod
from msmarco_qdrant.core.source_types import Format

_F = TypeVar("_F", bound=Callable[..., Any])
_log = logging.getLogger(__name__)

LIMIT = click.IntRange(1, 10_000)


class LocalPath(click.Path):
    """A path on this machine, as a `Path`, which would make a folder named "s3:" of a URL."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; refuse a URL, of which only the scheme is shown."""
        scheme, separator, _ = str(value).partition("://")
        if separator:
            self.fail(f"must be a path on this machine, got a URL ({scheme}://...)", param, ctx)
        return super().convert(value, param, ctx)


FILE = LocalPath(dir_okay=False)


class LimitOrAuto(click.IntRange):
    """A number in the range, or "auto"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or "auto" as it is."""
        return value if value == "auto" else super().convert(value, param, ctx)


store_option = click.option(
    "--store",
    metavar="PATH_OR_URL",
    shell_complete=complete_files,
    help="A directory, or the URL of a Qdrant server.  "
    "[default: MSMARCO_QDRANT_STORE or ./qdrant_data]",
)
transport_option = click.option(
    "--transport",
    type=click.Choice(["auto", "grpc", "rest"]),
    help="Protocol of a server; auto takes gRPC where it answers, else REST, which is slower.  "
    "[default: MSMARCO_QDRANT_TRANSPORT or auto]",
)
collection_option = click.option(
    "--collection",
    metavar="NAME",
    shell_complete=complete_collections,
    help="Name of the collection.  [default: MSMARCO_QDRANT_COLLECTION or msmarco]",
)


def limit_option(default: int | None, help_text: str) -> Callable[[_F], _F]:
    """Make `-n/--limit`; without a default the help has to name it."""
    return click.option(
        *("--limit", "-n"),
        type=LIMIT,
        default=default,
        show_default=default is not None,
        metavar="N",
        help=help_text,
    )


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)
wait_index_option = click.option(
    "--wait-index",
    is_flag=True,
    help="Wait until a server has built its index, however long it makes no progress.",
)
tenant_option = click.option(
    "--tenant",
    metavar="NAME",
    help="Only passages of this tenant; a collection with a tenant field requires it.",
)
_PAGE_OPTIONS = (
    click.option(
        "--offset",
        type=click.IntRange(0, 9_999),
        metavar="N",
        help="Skip the N best hits, 0 for the first of several pages. Prints the next page's "
        "cursor.",
    ),
    click.option(
        "--cursor",
        metavar="CURSOR",
        help="Print the page after that of this cursor; repeat the other arguments and options.",
    ),
)
exact_option = click.option(
    "--exact", is_flag=True, help="Compare with every passage, without the index."
)
_ENCODER_OPTIONS = {
    "device": click.option(
        "--device",
        metavar="NAME",
        help="cpu, cuda, cuda:1, several separated by commas, or all for all GPUs.  [default: "
        "MSMARCO_QDRANT_DEVICE, or the best; for encode, all GPUs]",
    ),
    "precision": click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "float16", "int8", "fp8"]),
        help="Precision of the model; fp8 on new NVIDIA GPUs only.  [default: the fastest of the "
        "device whose vectors have a cosine of 0.999 or more with float32]",
    ),
}
_SETTINGS = {
    "store": store_option,
    "transport": transport_option,
    "collection": collection_option,
    **_ENCODER_OPTIONS,
}
ENCODER = tuple(_ENCODER_OPTIONS)
"""Names of the options that select how a model runs."""


def chain_options(*decorators: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Combine decorators; the first is the first in the help."""

    def decorate(command: _F) -> _F:
        """Add the options to a command."""
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def page_options(command: _F) -> _F:
    """Add `--offset` and `--cursor`."""
    return chain_options(*_PAGE_OPTIONS)(command)


def settings_options(*names: str) -> Callable[[_F], Callable[..., Any]]:
    """Add options that override settings; the command gets `settings` in their place."""

    def decorate(command: _F) -> Callable[..., Any]:
        @wraps(command)
        def run(**given: Any) -> Any:
            values = {name: given.pop(name) for name in names}
            return command(settings=load_command_settings(**values), **given)

        add: Callable[[Callable[..., Any]], Callable[..., Any]]
        add = chain_options(*(_SETTINGS[name] for name in names))
        return add(run)

    return decorate


def model_option(help_text: str, name: str = "--model") -> Callable[[_F], _F]:
    """Make `--model`, with the given help."""
    return click.option(
        name, metavar="NAME_OR_DIR", help=help_text, shell_complete=complete_encoders
    )


encoder_options = chain_options(*_ENCODER_OPTIONS.values())
_SOURCE_OPTIONS = (
    click.option(
        "--format",
        type=click.Choice(get_args(Format)),
        default="auto",
        show_default=True,
        help="Format of the sources; auto detects it by their content.",
    ),
    click.option(
        "--pid-field",
        metavar="NAME",
        help="Field or column with the pid; a number is a column without a name.  [default: pid, "
        "_id, id, docid and others]",
    ),
    click.option(
        "--text-field",
        metavar="NAME",
        help="The same for the text.  [default: text, passage, contents, segment, body, content]",
    ),
    click.option(
        "--title-field",
        metavar="NAME",
        help="The same for the title, which is joined in front of the text.  [default: title]",
    ),
    click.option(
        "--skip-field",
        multiple=True,
        metavar="NAME",
        help="Leave this field out of the passages' meta. Repeat it for several fields.",
    ),
)
READING = ("format", "pid_field", "text_field", "title_field", "skip_field")
"""Names of the options that select how a source is read."""

rejects_option = click.option(
    "--rejects",
    type=FILE,
    metavar="FILE",
    help="Write rejected rows to this file.  [default: rejects-<time>.jsonl]",
)


_SHARD_OPTIONS = (
    click.option(
        "--shards",
        type=click.IntRange(min=1),
        metavar="N",
        help="For a new collection on a server: its number of shards, the parts that nodes share.",
    ),
    click.option(
        "--replication",
        type=click.IntRange(min=1),
        metavar="N",
        help="For a new collection on a server: copies of each shard, on different nodes.",
    ),
    click.option(
        "--write-consistency",
        type=click.IntRange(min=1),
        metavar="N",
        help="For a new collection on a server: copies that must accept a write.",
    ),
    click.option(
        "--shard-key",
        metavar="FIELD",
        help="For a new collection on a server in cluster mode: the meta field whose values are "
        "its tenants, each with shards of its own.",
    ),
)


def shard_options(command: _F) -> Callable[..., Any]:
    """Add options of shards; the command gets `sharding`, fields of `ShardSettings`, or None."""

    @wraps(command)
    def run(**given: Any) -> Any:
        names = ("shards", "replication", "write_consistency", "shard_key")
        chosen = {name: given.pop(name) for name in names}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        return command(sharding=chosen or None, **given)

    add: Callable[[Callable[..., Any]], Callable[..., Any]]
    add = chain_options(*_SHARD_OPTIONS)
    return add(run)


def source_options(command: _F) -> Callable[..., Any]:
    """Add options of how sources are read; the command gets `reading`, arguments of `Corpus`."""

    @wraps(command)
    def run(**given: Any) -> Any:
        reading = {name: given.pop(name) for name in READING}
        return command(reading=reading, **given)

    add: Callable[[Callable[..., Any]], Callable[..., Any]]
    add = chain_options(*_SOURCE_OPTIONS, rejects_option)
    return add(run)


def log_shapes() -> None:
    """Show the shape of each source in one line, as it is detected."""
    logging.getLogger("msmarco_qdrant.sources").setLevel(logging.INFO)


ranking_options = chain_options(
    click.option(
        "--fusion",
        type=click.Choice(get_args(FusionMethod)),
        help="Fusion of the dense and the BM25 ranking, for hybrid.  [default: the collection's, "
        "else convex]",
    ),
    click.option(
        "--dense-weight",
        type=click.FloatRange(0, 1),
        metavar="W",
        help="Weight of the dense ranking, 0 to 1, for hybrid.  "
        "[default: the collection's; with --fusion, or if it has none, 0.8 for convex, else 0.5]",
    ),
    click.option(
        "--reranker",
        metavar="NAME_OR_DIR",
        shell_complete=complete_rerankers,
        help="Rerank the best hits with this cross-encoder, such as ms-marco-MiniLM-L6-v2.",
    ),
    click.option(
        "--rerank-depth",
        type=LimitOrAuto(1, 10_000),
        metavar="N",
        help="With --reranker: number of hits to rerank; auto (the default) for the collection's, "
        "else 100.",
    ),
)


def chosen_fusion(method: FusionMethod | None, dense_weight: float | None) -> Fusion | None:
    """Return the fusion of the options; None without any, for the collection's default."""
    if method is None and dense_weight is None:
        return None
    return Fusion(method or "convex", dense_weight)


def refuse_unused(needed: str, *, used: bool, options: Sequence[str]) -> None:
    """Refuse options, by the names of their parameters, that have no effect without `needed`."""
    context = click.get_current_context()
    for name in options:
        if not used and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = next(p for p in context.command.params if p.name == name).opts[0]
            raise click.UsageError(f"{option} needs {needed}")
