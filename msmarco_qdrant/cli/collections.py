"""The commands about a store and its collections."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from msmarco_qdrant.cli.options import (
    collection_option,
    json_option,
    opened,
    settings_with,
    store_option,
)
from msmarco_qdrant.cli.output import (
    collection_json,
    description_json,
    print_collections,
    print_description,
    print_json,
)
from msmarco_qdrant.errors import UsageError


@click.command()
@store_option
@collection_option
@json_option
def info(*, store: str | None, collection: str | None, as_json: bool) -> None:
    """Tell what a store holds: each collection's size, index, model and settings."""
    from msmarco_qdrant.collection.describe import describe_store

    with opened(settings_with(store=store)) as place:
        description = describe_store(place, collection)
    if as_json:
        print_json(description_json(description))
    else:
        print_description(description)


@click.command()
@store_option
@json_option
def collections(*, store: str | None, as_json: bool) -> None:
    """List the collections of a store."""
    from msmarco_qdrant.collection.describe import describe_store

    with opened(settings_with(store=store)) as place:
        found = describe_store(place).collections
    if as_json:
        print_json([collection_json(entry) for entry in found])
    else:
        print_collections(found)


@click.command()
@click.argument("name")
@store_option
@click.option("--yes", is_flag=True, help="Do it: what is dropped cannot be brought back.")
@json_option
def drop(*, name: str, store: str | None, yes: bool, as_json: bool) -> None:
    """Remove the collection NAME with every passage in it."""
    from msmarco_qdrant.collection.create import drop_collection, to_be_dropped

    with opened(settings_with(store=store)) as place:
        if not yes:
            points = to_be_dropped(place, name)[-1].points
            raise UsageError(
                f"nothing was dropped: '{name}' in {place.dsn} holds {points:,} passages; pass "
                "--yes to remove it with all of them"
            )
        dropped = drop_collection(place, name)
    if as_json:
        print_json({"dropped": name, "passages": dropped})
    else:
        click.echo(f"'{name}' was dropped with {dropped:,} passages")


@click.command()
@store_option
@collection_option
@json_option
def optimize(*, store: str | None, collection: str | None, as_json: bool) -> None:
    """Build the index over what was written since it was last built.

    `ingest` does this at its end; this is for after an interruption. Until it is done, new
    passages are found by comparing with each of them.
    """
    from msmarco_qdrant.cli.progress import INDEX_NOTICE

    settings = settings_with(store=store, collection=collection)
    with opened(settings) as place:
        target = place.collection(settings.collection)
        click.echo(INDEX_NOTICE, err=True)
        started = time.perf_counter()
        target.optimize()
        state, seconds = target.info(), time.perf_counter() - started
    if as_json:
        print_json({**asdict(state), "seconds": seconds})
    else:
        click.echo(f"{state.points:,} passages, {state.indexed:,} vectors indexed, {seconds:.1f} s")
