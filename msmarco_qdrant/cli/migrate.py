"""The command group `migrate`."""

from __future__ import annotations

import shutil
import textwrap
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.cli.command_settings import open_configured_store
from msmarco_qdrant.cli.completion import complete_collections
from msmarco_qdrant.cli.group import CommandGroup
from msmarco_qdrant.cli.options import LocalPath, json_option, settings_options
from msmarco_qdrant.cli.output import echo, print_json, print_result
from msmarco_qdrant.cli.reembed import prune, reembed, rollback
from msmarco_qdrant.cli.signals import exit_on_sigterm
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.core.metadata_types import Generation, LockHolder, UserMigration
    from msmarco_qdrant.migrate.runner import MigrationStep
    from msmarco_qdrant.migrate.status import MigrationStatus
    from msmarco_qdrant.settings import Settings

_NOT_CURRENT = 1
_UNKNOWN = "applied by newer code, or its file is missing in --dir"
_EDITED = "the file was edited after it was applied; write a new migration for the change"


@click.group(cls=CommandGroup)
def migrate() -> None:
    """Migrate a collection while it is in use."""


for _command in (reembed, rollback, prune):
    migrate.add_command(_command)


_directory_option = click.option(
    "--dir",
    "directory",
    type=LocalPath(file_okay=False),
    metavar="DIR",
    help="A folder of your own migrations, which run after the package's.",
)


@migrate.command(examples=["--collection msmarco"])
@settings_options("store", "transport", "collection")
@_directory_option
@json_option
def status(*, settings: Settings, directory: Path | None, as_json: bool) -> None:
    """Show the applied and pending migrations of a collection."""
    from msmarco_qdrant.collection.generations import reembed_command

    found = _status(settings, directory)
    if as_json:
        print_json(_status_json(found))
        return
    echo(f"collection  {found.collection} -> {found.physical} ({found.model})")
    echo(f"applied     {', '.join(found.applied) or 'none'}")
    echo(f"pending     {', '.join(step.name for step in found.pending) or 'none'}")
    if found.unknown:
        echo(f"unknown     {', '.join(found.unknown)}: {_UNKNOWN}")
    if found.edited:
        echo(f"edited      {', '.join(found.edited)}: {_EDITED}")
    if found.users:
        echo(f"your own    {', '.join(map(_user_text, found.users))}")
    for other in found.others:
        state = "being filled" if _is_target(found, other) else "kept"
        echo(f"other       {other.physical} ({other.metadata.encoder.model}), {state}")
    if found.copying is not None and found.locked_by is None:
        model = found.copying.metadata.encoder.model
        resume = reembed_command(settings.store, found.collection, model)
        echo(f"unfinished  resume with {resume}")
    if found.locked_by:
        echo(f"locked by   {_holder_text(found.locked_by)}")


@migrate.command(examples=["--collection msmarco"])
@settings_options("store", "transport", "collection")
@_directory_option
@click.option("--to", metavar="NAME_OR_NUMBER", help="The last one to apply.  [default: all]")
@click.option("--dry-run", is_flag=True, help="Only show the cost of each migration.")
@json_option
def up(
    *, settings: Settings, directory: Path | None, to: str | None, dry_run: bool, as_json: bool
) -> None:
    """Apply the pending migrations, in order.

    It shows the cost of each before it begins. Run the same command again after a failure or an
    interruption: only complete migrations are recorded.
    """
    from msmarco_qdrant.migrate.runner import migrate_collection
    from msmarco_qdrant.runtime.progress import ProgressDisplay

    def announce(step: MigrationStep) -> None:
        display.close()
        if not dry_run:
            echo(*_step_lines(step), err=True)

    with (
        open_configured_store(settings) as store,
        exit_on_sigterm(),
        closing(ProgressDisplay()) as display,
    ):
        steps = migrate_collection(
            store,
            settings.collection,
            directory=directory,
            to=to,
            dry_run=dry_run,
            on_step=announce,
            on_progress=display.show_of,
        )
    lines = [
        f"applied: {', '.join(step.name for step in steps)}" if steps else "nothing is pending"
    ]
    if steps and dry_run:
        lines = [line for step in steps for line in _step_lines(step)]
    print_result({"dry_run": dry_run, "steps": to_json_value(steps)}, *lines, as_json=as_json)


@migrate.command(examples=["--collection msmarco"])
@settings_options("store", "transport", "collection")
@_directory_option
@json_option
def check(*, settings: Settings, directory: Path | None, as_json: bool) -> int:
    """Exit with 0 if no migration is pending, unknown or edited, else with 1.

    Without --dir, only the package's own migrations count.
    """
    found = _status(settings, directory)
    pending, unknown = [step.name for step in found.pending], list(found.unknown)
    if as_json:
        lists = {"pending": pending, "unknown": unknown, "edited": found.edited}
        print_json({"current": found.is_current, **lists})
    elif found.is_current:
        echo("nothing is pending")
    else:
        if pending:
            echo(f"pending: {', '.join(pending)}")
        if unknown:
            echo(f"unknown: {', '.join(unknown)}: {_UNKNOWN}")
        if found.edited:
            echo(f"edited: {', '.join(found.edited)}: {_EDITED}")
    return 0 if found.is_current else _NOT_CURRENT


@migrate.command(examples=["--collection msmarco"])
@settings_options("store", "transport", "collection")
@click.option("--token", metavar="TOKEN", help="Release the lock if it still has this token.")
@json_option
def unlock(*, settings: Settings, token: str | None, as_json: bool) -> None:
    """Release the lock of a migration or restore whose process has ended.

    Without --token it shows the holder. The lock of a directory ends with its process and needs no
    release.
    """
    from msmarco_qdrant.migrate.status import lock_holder, unlock_migrations

    with open_configured_store(settings) as store:
        holder = lock_holder(store, settings.collection)
        if holder is not None and token is None:
            raise UsageError(
                f"nothing was unlocked: '{settings.collection}' is being migrated or restored by "
                f"{_holder_text(holder)}; if that process has ended, pass --token {holder.token}"
            )
        if holder is not None and token is not None:
            unlock_migrations(store, settings.collection, token)
    text = f"'{settings.collection}' is not locked"
    if holder is not None:
        text = f"unlocked: '{settings.collection}' was locked by {_holder_text(holder)}"
    print_result({"unlocked": to_json_value(holder) if holder else None}, text, as_json=as_json)


@migrate.command(examples=["msmarco"])
@click.argument("name", shell_complete=complete_collections)
@settings_options("store", "transport")
@click.option("--to", metavar="PHYSICAL", help="The physical collection, if NAME has several.")
@json_option
def link(*, name: str, settings: Settings, to: str | None, as_json: bool) -> None:
    """Point the missing alias NAME to its collection again.

    A server's snapshot contains no alias, so a restored collection has none.
    """
    from msmarco_qdrant.collection.link import link_collection

    with open_configured_store(settings) as store:
        physical = link_collection(store, name, to=to)
    print_result(
        {"collection": name, "physical": physical}, f"{name} -> {physical}", as_json=as_json
    )


def _status(settings: Settings, directory: Path | None) -> MigrationStatus:
    from msmarco_qdrant.migrate.status import migration_status

    with open_configured_store(settings) as store:
        return migration_status(store, settings.collection, directory=directory)


def _status_json(found: MigrationStatus) -> dict[str, Any]:
    return {
        "collection": found.collection,
        "physical": found.physical,
        "model": found.model,
        "others": [
            {
                "physical": other.physical,
                "model": other.metadata.encoder.model,
                "being_filled": _is_target(found, other),
            }
            for other in found.others
        ],
        "is_unfinished": found.copying is not None,
        "applied": found.applied,
        "pending": [{"name": step.name, "description": step.description} for step in found.pending],
        "unknown": found.unknown,
        "edited": found.edited,
        "user_migrations": to_json_value(found.users),
        "locked_by": to_json_value(found.locked_by) if found.locked_by else None,
    }


def _is_target(found: MigrationStatus, other: Generation) -> bool:
    return found.copying is not None and found.copying.target == other.physical


def _user_text(one: UserMigration) -> str:
    return f"{one.name} ({one.folder})" if one.folder else one.name


def _step_lines(step: MigrationStep) -> list[str]:
    width = min(shutil.get_terminal_size().columns, 100)
    cost = textwrap.wrap(step.cost, width, initial_indent="  ", subsequent_indent="  ")
    return [f"{step.name}: {step.description}", *cost]


def _holder_text(holder: LockHolder) -> str:
    from msmarco_qdrant.stores.migration_locks import describe_holder

    return f"{describe_holder(holder)} (token {holder.token})"
