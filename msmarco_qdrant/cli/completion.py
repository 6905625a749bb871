"""Completion of values in a shell: files, collections and models.

The shell calls the program at each TAB, through the variable that click reads. Completion creates
nothing, takes no lock, and offers nothing rather than fail.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from msmarco_qdrant.encoding.catalog import PUBLISHED_MODELS, ModelKind
from msmarco_qdrant.errors import MsmarcoQdrantError

_ANSWER_S = 2.0  # a user waits for it


def complete_files(_ctx: click.Context, _param: object, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a path."""
    return [CompletionItem(incomplete, type="file")]


def complete_collections(ctx: click.Context, _param: object, incomplete: str) -> list[str]:
    """Return the collections of the store of `--store`, else of the settings."""
    with suppress(MsmarcoQdrantError):
        return sorted(name for name in _collections(ctx) if name.startswith(incomplete))
    return []


def complete_encoders(
    _ctx: click.Context, _param: object, incomplete: str
) -> list[str | CompletionItem]:
    """Return the published bi-encoders; without a match, let the shell complete a directory."""
    return _models("bi-encoder", incomplete)


def complete_rerankers(
    _ctx: click.Context, _param: object, incomplete: str
) -> list[str | CompletionItem]:
    """Return the published cross-encoders; without a match, let the shell complete a directory."""
    return _models("cross-encoder", incomplete)


def _models(kind: ModelKind, incomplete: str) -> list[str | CompletionItem]:
    names = [model.name for model in PUBLISHED_MODELS if model.kind == kind]
    found: list[str | CompletionItem] = [name for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="dir")]


def _collections(ctx: click.Context) -> list[str]:
    from msmarco_qdrant.cli.command_settings import load_command_settings
    from msmarco_qdrant.stores import open_store
    from msmarco_qdrant.stores.connection import is_url

    given = {name: ctx.params.get(name) for name in ("store", "transport")}
    settings = load_command_settings(**given)
    if not is_url(settings.store):
        from msmarco_qdrant.stores.edge.directory import read_aliases

        return read_aliases(Path(settings.store).expanduser())
    connection = replace(settings.connection, timeout_s=_ANSWER_S, retry_s=0.0)
    with closing(open_store(settings.store, connection=connection)) as store:
        return [*store.aliases()]
