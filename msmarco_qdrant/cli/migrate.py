"""The commands that change a collection in steps which it remembers."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from msmarco_qdrant.cli.group import CommandGroup
from msmarco_qdrant.cli.options import (
    collection_option,
    json_option,
    opened,
    settings_with,
    store_option,
)
from msmarco_qdrant.cli.output import print_json
from msmarco_qdrant.cli.reembed import prune, reembed, rollback
from msmarco_qdrant.cli.signals import ended_in_order
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Generation, LockHolder
    from msmarco_qdrant.migrate.runner import MigrationStatus, MigrationStep

_F = TypeVar("_F", bound=Callable[..., Any])
_NOT_CURRENT = 1
_UNKNOWN = "newer code, or another --dir, was here"


@click.group(cls=CommandGroup)
def migrate() -> None:
    """Change a collection while it is searched, in steps that it remembers."""


for _command in (reembed, rollback, prune):
    migrate.add_command(_command)


def _directory_option(command: _F) -> _F:
    return click.option(
        "--dir",
        "directory",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="A folder of migrations of your own, which come after the package's.",
    )(command)


@migrate.command()
@store_option
@collection_option
@_directory_option
@json_option
def status(
    *, store: str | None, collection: str | None, directory: Path | None, as_json: bool
) -> None:
    """Tell which migrations a collection has had, and which are pending."""
    from msmarco_qdrant.collection.generations import reembedding_command

    found = _status(store, collection, directory)
    if as_json:
        print_json(_status_json(found))
        return
    click.echo(f"collection  {found.collection} -> {found.physical} ({found.model})")
    click.echo(f"applied     {', '.join(found.applied) or 'none'}")
    click.echo(f"pending     {', '.join(one.name for one in found.pending) or 'none'}")
    if found.unknown:
        click.echo(f"unknown     {', '.join(found.unknown)}: {_UNKNOWN}")
    for other in found.others:
        state = "being filled" if _is_filled(found, other) else "kept"
        click.echo(f"beside it   {other.physical} ({other.metadata.encoder.model}), {state}")
    if found.copying is not None and found.locked_by is None:
        again = reembedding_command(found.collection, found.copying.metadata.encoder.model)
        click.echo(f"unfinished  {again} goes on with it")
    if found.locked_by:
        click.echo(f"locked by   {_holder_text(found.locked_by)}")


@migrate.command()
@store_option
@collection_option
@_directory_option
@click.option("--to", metavar="NAME_OR_NUMBER", help="The last one to apply.  [default: all]")
@click.option("--dry-run", is_flag=True, help="Only tell what each would take.")
@json_option
def up(
    *,
    store: str | None,
    collection: str | None,
    directory: Path | None,
    to: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Apply the pending migrations, in order.

    What each takes is told before it begins. One that fails, or is interrupted, is not recorded;
    the same command runs it again.
    """
    from msmarco_qdrant.cli.progress import ProgressDisplay
    from msmarco_qdrant.migrate.runner import migrate_collection

    settings = settings_with(store=store, collection=collection)
    progress = ProgressDisplay()

    def tell(step: MigrationStep) -> None:
        progress.close()
        click.echo(_step_text(step), err=True)

    with opened(settings) as place, ended_in_order():
        try:
            steps = migrate_collection(
                place,
                settings.collection,
                directory=directory,
                to=to,
                dry_run=dry_run,
                on_step=(lambda _step: None) if dry_run else tell,
                on_progress=lambda done, total: progress.show(
                    done, done / total if total else None
                ),
            )
        finally:
            progress.close()
    if as_json:
        print_json({"dry_run": dry_run, "steps": [asdict(step) for step in steps]})
    elif not steps:
        click.echo("nothing is pending")
    elif dry_run:
        click.echo("\n".join(map(_step_text, steps)))
    else:
        click.echo(f"applied: {', '.join(step.name for step in steps)}")


@migrate.command()
@store_option
@collection_option
@_directory_option
@json_option
def check(
    *, store: str | None, collection: str | None, directory: Path | None, as_json: bool
) -> int:
    """Exit with 0 if nothing is pending or unknown, else with 1 and the names. Changes nothing."""
    found = _status(store, collection, directory)
    pending, unknown = [one.name for one in found.pending], list(found.unknown)
    if as_json:
        print_json({"current": found.is_current, "pending": pending, "unknown": unknown})
    elif found.is_current:
        click.echo("nothing is pending")
    else:
        if pending:
            click.echo(f"pending: {', '.join(pending)}")
        if unknown:
            click.echo(f"unknown: {', '.join(unknown)}: {_UNKNOWN}")
    return 0 if found.is_current else _NOT_CURRENT


@migrate.command()
@store_option
@collection_option
@click.option(
    "--token", metavar="TOKEN", help="Do it, if the lock is still the one with this token."
)
@json_option
def unlock(*, store: str | None, collection: str | None, token: str | None, as_json: bool) -> None:
    """Take the lock away from a migration whose process is gone.

    Without --token it tells who holds it. A directory needs no unlocking: its lock ends with its
    process.
    """
    from msmarco_qdrant.migrate.runner import migration_status, unlock_migrations

    settings = settings_with(store=store, collection=collection)
    with opened(settings) as place:
        holder = migration_status(place, settings.collection).locked_by
        if holder is not None and token is None:
            raise UsageError(
                f"nothing was unlocked: '{settings.collection}' is being migrated by "
                f"{_holder_text(holder)}; if that process is gone, pass --token {holder.token}"
            )
        if holder is not None and token is not None:
            unlock_migrations(place, settings.collection, token)
    if as_json:
        print_json({"unlocked": asdict(holder) if holder else None})
    elif holder is None:
        click.echo(f"nobody is migrating '{settings.collection}'")
    else:
        click.echo(f"unlocked: '{settings.collection}' was held by {_holder_text(holder)}")


def _status(store: str | None, collection: str | None, directory: Path | None) -> MigrationStatus:
    from msmarco_qdrant.migrate.runner import migration_status

    settings = settings_with(store=store, collection=collection)
    with opened(settings) as place:
        return migration_status(place, settings.collection, directory=directory)


def _status_json(found: MigrationStatus) -> dict[str, Any]:
    return {
        "collection": found.collection,
        "physical": found.physical,
        "model": found.model,
        "others": [
            {
                "physical": other.physical,
                "model": other.metadata.encoder.model,
                "being_filled": _is_filled(found, other),
            }
            for other in found.others
        ],
        "is_unfinished": found.copying is not None,
        "applied": found.applied,
        "pending": [{"name": one.name, "description": one.description} for one in found.pending],
        "unknown": found.unknown,
        "locked_by": asdict(found.locked_by) if found.locked_by else None,
    }


def _is_filled(found: MigrationStatus, other: Generation) -> bool:
    return found.copying is not None and found.copying.target == other.physical


def _step_text(step: MigrationStep) -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    cost = textwrap.fill(step.cost, width, initial_indent="  ", subsequent_indent="  ")
    return f"{step.name}: {step.description}\n{cost}"


def _holder_text(holder: LockHolder) -> str:
    from msmarco_qdrant.stores.migration_locks import describe_holder

    return f"{describe_holder(holder)} (token {holder.token})"
