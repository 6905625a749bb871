"""The command group `index`: payload indexes of meta fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.command_settings import open_configured_store
from msmarco_qdrant.cli.group import CommandGroup
from msmarco_qdrant.cli.options import json_option, settings_options
from msmarco_qdrant.cli.output import print_result

if TYPE_CHECKING:
    from msmarco_qdrant.settings import Settings


@click.group(cls=CommandGroup)
def index() -> None:
    """Add, remove or list the payload indexes that make filters fast."""


@index.command(examples=["year=integer lang=keyword"])
@click.argument("fields", nargs=-1, required=True, metavar="FIELD=KIND...")
@settings_options("store", "transport", "collection")
@json_option
def add(*, fields: tuple[str, ...], settings: Settings, as_json: bool) -> None:
    """Index meta fields of a collection.

    KIND is keyword, integer, float, bool, datetime, text (words), geo or tenant (keywords that
    separate tenants). An index that exists stays. A change of the model and its rollback keep the
    indexes.
    """
    from msmarco_qdrant.collection.create import parse_indexes
    from msmarco_qdrant.migrate.indexes import add_index

    wanted = parse_indexes(fields, "an index")
    effects = {}
    with open_configured_store(settings) as store:
        for field, kind in wanted.items():
            effects[field] = add_index(store, settings.collection, field, kind)
    done = [
        {"field": field, "kind": wanted[field], "effect": effect}
        for field, effect in effects.items()
    ]
    _print(settings, "added", done, as_json=as_json)


@index.command(examples=["year"])
@click.argument("fields", nargs=-1, required=True, metavar="FIELD...")
@settings_options("store", "transport", "collection")
@json_option
def remove(*, fields: tuple[str, ...], settings: Settings, as_json: bool) -> None:
    """Remove indexes; a filter on such a field then reads every passage."""
    from msmarco_qdrant.migrate.indexes import remove_index

    done = []
    with open_configured_store(settings) as store:
        for field in dict.fromkeys(fields):
            effect = remove_index(store, settings.collection, field)
            done.append({"field": field, "effect": effect})
    _print(settings, "removed", done, as_json=as_json)


@index.command(examples=["customer", "--none"])
@click.argument("field", required=False)
@click.option("--none", "is_none", is_flag=True, help="The collection has no tenants any more.")
@settings_options("store", "transport", "collection")
@json_option
def tenant(*, field: str | None, is_none: bool, settings: Settings, as_json: bool) -> None:
    """Choose the meta field FIELD whose values are the tenants of a collection.

    It gets an index of kind tenant. Every search, count and lookup then has to name a tenant with
    --tenant, and finds only its passages.
    """
    from msmarco_qdrant.migrate.tenants import set_tenant_field

    if (field is None) != is_none:
        raise click.UsageError("pass either FIELD or --none")
    with open_configured_store(settings) as store:
        set_tenant_field(store, settings.collection, field)
    shown = "no tenants" if field is None else f"tenants by {field}: pass --tenant to read them"
    print_result({"collection": settings.collection, "tenant_field": field}, shown, as_json=as_json)


@index.command("list", examples=["--collection msmarco"])
@settings_options("store", "transport", "collection")
@json_option
def list_(*, settings: Settings, as_json: bool) -> None:
    """List the indexed meta fields, each with its kind."""
    from msmarco_qdrant.migrate.indexes import list_indexes

    with open_configured_store(settings) as store:
        found = list_indexes(store, settings.collection)
        field = store.metadata(settings.collection).tenant_field
    lines = [f"{field}={kind}" for field, kind in found.items()] or ["no indexes"]
    print_result(
        {"collection": settings.collection, "indexes": dict(found), "tenant_field": field},
        *(lines if field is None else [*lines, f"tenants by {field}"]),
        as_json=as_json,
    )


def _print(settings: Settings, name: str, done: list[dict[str, str]], *, as_json: bool) -> None:
    lines = [f"{one['field']}: {one['effect']}" for one in done]
    print_result({"collection": settings.collection, name: done}, *lines, as_json=as_json)
