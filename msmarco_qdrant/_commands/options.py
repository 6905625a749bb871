"""What several commands share: options, the settings they make, the store they open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Any, TypeVar

import click

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
