"""The commands `backup` and `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.completion import complete_collections
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    LocalPath,
    json_option,
    settings_options,
)
from msmarco_qdrant.cli.output import print_result
from msmarco_qdrant.cli.signals import exit_on_sigterm
from msmarco_qdrant.core.json_value import to_json_value

if TYPE_CHECKING:
    from msmarco_qdrant.settings import Settings

_FOLDER = LocalPath(file_okay=False)


@click.command(cls=Command, examples=["msmarco --out backup"])
@click.argument("name", shell_complete=complete_collections)
@click.option(
    "--out",
    "folder",
    type=_FOLDER,
    metavar="DIR",
    required=True,
    help="The directory of the backup, new or empty.",
)
@click.option(
    "--portable",
    is_flag=True,
    help="Write points that any store can be filled from, without indexes.",
)
@settings_options("store", "transport")
@json_option
def backup(*, name: str, folder: Path, portable: bool, settings: Settings, as_json: bool) -> None:
    """Back up the collection NAME with its vectors and settings.

    The collection stays in use. A server makes a snapshot, and a directory is copied; both contain
    the indexes, and can be restored into a store of the same kind.
    """
    from msmarco_qdrant.collection.backup import backup_collection

    with exit_on_sigterm():
        report = backup_collection(
            settings.store,
            name,
            folder,
            portable=portable,
            connection=settings.connection,
            progress=True,
        )
    print_result(
        to_json_value(report),
        str(report),
        as_json=as_json,
    )


@click.command(cls=Command, examples=["backup", "backup --name msmarco2"])
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--name", metavar="NAME", help="Another name for the collection.")
@settings_options("store", "transport")
@json_option
def restore(*, folder: Path, name: str | None, settings: Settings, as_json: bool) -> None:
    """Restore a collection from the backup DIR.

    It is found by its name only when it is complete. Run the same command again after an
    interruption.
    """
    from msmarco_qdrant.collection.restore import restore_collection

    with exit_on_sigterm():
        report = restore_collection(
            settings.store,
            folder,
            name=name,
            connection=settings.connection,
            progress=True,
        )
    print_result(
        to_json_value(report),
        str(report),
        as_json=as_json,
    )
