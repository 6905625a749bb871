"""What several commands share: options, the settings they make, the store they open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click
from click.core import ParameterSource

from msmarco_qdrant.core.search_types import FusionMethod
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.stores import Store

_F = TypeVar("_F", bound=Callable[..., Any])


def store_option(command: _F) -> _F:
    """`--store`."""
    return click.option(
        "--store",
        metavar="PATH_OR_URL",
        help="Where the passages are kept: a directory, or the URL of a Qdrant server.  "
        "[default: MSMARCO_QDRANT_STORE or ./qdrant_data]",
    )(command)


def collection_option(command: _F) -> _F:
    """`--collection`."""
    return click.option(
        "--collection",
        metavar="NAME",
        help="The collection's name.  [default: MSMARCO_QDRANT_COLLECTION or msmarco]",
    )(command)


def encoder_options(command: _F) -> _F:
    """`--backend`, `--device` and `--precision`: how a model runs."""
    backend = click.option(
        "--backend",
        type=click.Choice(["auto", "torch", "openvino"]),
        help="What runs the model; auto takes the fastest that is installed.  [default: "
        "MSMARCO_QDRANT_BACKEND or auto]",
    )
    device = click.option(
        "--device",
        metavar="NAME",
        help="cpu, cuda, cuda:1, several with commas between them, or all GPUs.  [default: "
        "MSMARCO_QDRANT_DEVICE, or the best; of encode, all GPUs]",
    )
    precision = click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "float16", "int8"]),
        help="What the model computes in.  [default: what the device is fast in while vectors "
        "stay within cosine 0.999 of float32]",
    )
    return backend(device(precision(command)))


def source_options(command: _F) -> _F:
    """`--format` and `--rejects`: how a source is read."""
    form = click.option(
        "--format",
        "form",
        type=click.Choice(["auto", "tsv", "jsonl", "parquet"]),
        default="auto",
        show_default=True,
        help="How the sources are written.",
    )
    rejects = click.option(
        "--rejects",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Where rows that cannot go in are written.  [default: rejects-<time>.jsonl]",
    )
    return form(rejects(command))


def ranking_options(command: _F) -> _F:
    """`--fusion`, `--dense-weight`, `--rerank` and `--rerank-depth`: how passages are ranked."""
    fusion = click.option(
        "--fusion",
        type=click.Choice(get_args(FusionMethod)),
        default="convex",
        show_default=True,
        help="How hybrid makes one ranking of the dense and the BM25 scores.",
    )
    weight = click.option(
        "--dense-weight",
        type=click.FloatRange(0, 1),
        metavar="W",
        help="Of hybrid: the dense ranking's weight, 0 to 1.  [default: 0.8 for convex, else 0.5]",
    )
    rerank = click.option(
        "--rerank",
        metavar="NAME_OR_DIR",
        help="Score the best again with this cross-encoder, such as ms-marco-MiniLM-L6-v2.",
    )
    depth = click.option(
        "--rerank-depth",
        type=click.IntRange(1, 10_000),
        default=100,
        show_default=True,
        metavar="N",
        help="With --rerank: how many of the best.",
    )
    return fusion(weight(rerank(depth(command))))


def refuse_without(needed: str, *, given: bool, options: Sequence[str]) -> None:
    """Refuse options that have no effect, as nothing needs them: a misunderstanding.

    Args:
        needed: What they go with, for the message.
        given: Whether that is there.
        options: Their parameters' names.
    """
    context = click.get_current_context()
    for name in options:
        if not given and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = next(p for p in context.command.params if p.name == name).opts[0]
            raise click.UsageError(f"{option} goes with {needed} only")


def json_option(command: _F) -> _F:
    """`--json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
    )(command)


def settings_with(**given: str | None) -> Settings:
    """The environment's settings, with what was given on the command line on top."""
    from msmarco_qdrant.settings import load_settings

    settings = load_settings({name: value for name, value in given.items() if value is not None})
    if settings.store == ":memory:":
        raise UsageError(
            "a store in memory ends with the command: pass a directory or the URL of a server"
        )
    return settings


def opened(settings: Settings) -> AbstractContextManager[Store]:
    """The store of the settings, closed at the end."""
    from msmarco_qdrant.stores import open_store

    return closing(open_store(settings.store, connection=settings.connection))
