"""The settings of a command, and the store and client that they select."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.program import as_typed, given_env_file
from msmarco_qdrant.core.advice import command_line
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)


def load_command_settings(**given: str | None) -> Settings:
    """Load the settings, with the given options in place of the environment's."""
    from msmarco_qdrant.settings import load_settings

    values = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(values, command_env_file())
    refuse_memory(settings)
    return settings


def refuse_memory(settings: Settings) -> None:
    """Refuse a store that ends with the command."""
    if settings.store == ":memory:":
        raise UsageError(
            "a store in memory ends with the command: pass a directory or the URL of a server"
        )


def command_env_file() -> Path | None:
    """Return the file of variables that a command reads: that of `--env-file`, or the default.

    The default is `.env` in the current directory if a compose file of this project is next to
    it. Another `.env` there that has variables of this package is not read, with one warning.
    """
    from msmarco_qdrant.settings import find_env_file, variables_in

    path = given_env_file() or find_env_file(Path.cwd())
    context = click.get_current_context(silent=True)
    ignored = Path.cwd() / ".env"
    if path is None and context is not None and ignored.is_file():
        names = context.meta.setdefault("variables_not_read", [])
        if not names and (found := variables_in(ignored)):
            names += found
            _log.warning(
                "the file .env here is not read, no compose file of this project is next to it; "
                "pass --env-file .env before the command to read %s",
                ", ".join(found),
            )
    return path


def command_with(settings: Settings, *words: str) -> str:
    """Return a command line with these settings' collection and store, for a message.

    An option is left out if a command has the same value without it.
    """
    given = {name: getattr(settings, name) for name in ("transport", "collection", "store")}
    try:
        usual = load_command_settings()
    except UsageError:  # an option replaces an invalid variable
        usual = None
    changed = {name: value for name, value in given.items() if value != getattr(usual, name, None)}
    if transport := changed.pop("transport", None):
        words = (*words, "--transport", transport)
    return as_typed(command_line(*words, **changed))


def index_notice(settings: Settings) -> str:
    """Return the line that announces an index build."""
    from msmarco_qdrant.ingest.progress import INDEX_NOTICE

    return f"{INDEX_NOTICE}; if interrupted, `{command_with(settings, 'optimize')}` builds it later"


def open_configured_store(settings: Settings) -> AbstractContextManager[Store]:
    """Open the store of the settings; leaving the context closes it."""
    from msmarco_qdrant.stores import open_store

    return closing(open_store(settings.store, connection=settings.connection))


@contextmanager
def open_search_client(
    settings: Settings, model: str | None = None, reranker: str | None = None, *, bm25: bool = False
) -> Iterator[SearchClient]:
    """Open a client on the collection of the settings; for `bm25` without a model, load none."""
    from msmarco_qdrant.search.client import SearchClient

    with open_configured_store(settings) as store:
        yield SearchClient.open(
            store,
            collection=settings.collection,
            model=model,
            encoder_options=settings.encoder_options,
            reranker=reranker,
            bm25_only=bm25 and model is None,
        )
