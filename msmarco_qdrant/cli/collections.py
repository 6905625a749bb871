"""Commands for a store and its collections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.command_settings import index_notice, open_configured_store
from msmarco_qdrant.cli.completion import complete_collections
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    collection_option,
    json_option,
    settings_options,
    wait_index_option,
)
from msmarco_qdrant.cli.output import (
    collection_json,
    description_json,
    echo,
    print_collections,
    print_description,
    print_json,
    print_result,
)
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.settings import Settings


@click.command(cls=Command, examples=["", "--collection msmarco --json"])
@settings_options("store", "transport")
@collection_option
@json_option
def info(*, settings: Settings, collection: str | None, as_json: bool) -> None:
    """Show the size, index, model and settings of each collection."""
    from msmarco_qdrant.collection.describe import describe_store

    with open_configured_store(settings) as store:
        description = describe_store(store, collection)
    if as_json:
        print_json(description_json(description))
    else:
        print_description(description)


@click.command(cls=Command, examples=["--store ./qdrant_data"])
@settings_options("store", "transport")
@json_option
def collections(*, settings: Settings, as_json: bool) -> None:
    """List the collections of a store."""
    from msmarco_qdrant.collection.describe import describe_store

    with open_configured_store(settings) as store:
        found = describe_store(store, server=False).collections
    if as_json:
        print_json([collection_json(entry) for entry in found])
    else:
        print_collections(found)


@click.command(cls=Command, examples=["msmarco --yes"])
@click.argument("name", shell_complete=complete_collections)
@settings_options("store", "transport")
@click.option("--yes", is_flag=True, help="Confirm: a dropped collection cannot be restored.")
@json_option
def drop(*, name: str, settings: Settings, yes: bool, as_json: bool) -> None:
    """Drop the collection NAME with all its passages."""
    from msmarco_qdrant.collection.create import drop_collection, list_collections_to_drop

    with open_configured_store(settings) as store:
        if not yes:
            points = list_collections_to_drop(store, name)[-1].points
            raise UsageError(
                f"nothing was dropped: '{name}' in {store.dsn} has {points:,} passages; pass "
                "--yes to drop it"
            )
        dropped = drop_collection(store, name)
    print_result(
        {"dropped": name, "passages": dropped},
        f"dropped '{name}' with {dropped:,} passages",
        as_json=as_json,
    )


@click.command(cls=Command, examples=["--collection msmarco"])
@settings_options("store", "transport", "collection")
@wait_index_option
@json_option
def optimize(*, settings: Settings, wait_index: bool, as_json: bool) -> None:
    """Build the index over vectors written since the last build.

    `ingest` builds it at its end; use this after an interruption, also of `ingest --bulk`. Until
    then, a search compares with each new passage.
    """
    from msmarco_qdrant.collection.optimize import build_index

    with open_configured_store(settings) as store:
        store.metadata(settings.collection)  # raises for another program's collection
        echo(index_notice(settings), err=True)
        started = time.perf_counter()
        state = build_index(store, settings.collection, wait_index=wait_index)
        seconds = time.perf_counter() - started
    print_result(
        {**to_json_value(state), "in_graph": state.in_graph, "seconds": seconds},
        f"{state.points:,} passages, {state.in_graph:,} in the graph, {seconds:.1f} s",
        as_json=as_json,
    )
