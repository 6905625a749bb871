"""The commands that give a collection another model, and go back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from msmarco_qdrant.cli.options import (
    collection_option,
    encoder_options,
    json_option,
    opened,
    settings_with,
    store_option,
)
from msmarco_qdrant.cli.output import print_json
from msmarco_qdrant.cli.signals import ended_in_order
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.core.reports import ModelComparison, ReembedProgress, ReembedReport
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.stores import Store

_F = TypeVar("_F", bound=Callable[..., Any])
_NOTICES = {
    "copy": "copying what the {which} collection lacks",
    "index": "building the index of the {which} collection",
    "compare": "asking both collections a sample of queries",
    "verify": "comparing every passage of both collections",
    "swap": "leading the name to the {which} collection",
    "last pass": "copying what was written until the swap",
}


def _common_options(command: _F) -> _F:
    rejects = click.option(
        "--allow-rejects",
        is_flag=True,
        help="Swap even if the model gives some passages no vector: they are left out.",
    )
    worse = click.option(
        "--allow-worse",
        is_flag=True,
        help="Swap even if a sample of queries finds less than half of what it did.",
    )
    return store_option(collection_option(encoder_options(rejects(worse(json_option(command))))))


@click.command()
@click.option("--model", required=True, metavar="NAME_OR_DIR", help="The new model to encode with.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take texts from this file instead of reading them from the collection, as far as both "
    "have the same; once for each file.",
)
@click.option(
    "--old-model",
    metavar="NAME_OR_DIR",
    help="Where to load the present model from, to compare with, if not by the name that the "
    "collection remembers.",
)
@_common_options
def reembed(  # noqa: PLR0913  # one for each option
    *,
    store: str | None,
    collection: str | None,
    model: str,
    sources: tuple[Path, ...],
    old_model: str | None,
    backend: str | None,
    device: str | None,
    precision: str | None,
    allow_rejects: bool,
    allow_worse: bool,
    as_json: bool,
) -> None:
    """Give a collection the vectors of another model while it is searched and written to.

    A second physical collection is filled beside the live one, and the name is led to it when it
    holds everything. What is interrupted goes on when the same command runs again.
    """
    from msmarco_qdrant.encoding.matching import load_collection_encoder
    from msmarco_qdrant.reembed.api import reembed_collection

    settings = settings_with(
        store=store, collection=collection, backend=backend, device=device, precision=precision
    )
    change = partial(
        reembed_collection,
        model=model,
        source=sources or None,
        load_old=lambda encoder_info: load_collection_encoder(
            settings.collection, encoder_info, old_model, settings.encoder_options
        ),
        allow_rejects=allow_rejects,
        allow_worse=allow_worse,
    )
    _do(change, settings, "new", as_json=as_json)


@click.command()
@click.option(
    "--model",
    metavar="NAME_OR_DIR",
    help="Where to load the older model from, if not by the name that its collection remembers.",
)
@_common_options
def rollback(  # noqa: PLR0913  # one for each option
    *,
    store: str | None,
    collection: str | None,
    model: str | None,
    backend: str | None,
    device: str | None,
    precision: str | None,
    allow_rejects: bool,
    allow_worse: bool,
    as_json: bool,
) -> None:
    """Go back to the physical collection that was there before the last re-embedding.

    What was written and deleted since is brought into it first, so nothing is lost.
    """
    from msmarco_qdrant.reembed.api import rollback_collection

    settings = settings_with(
        store=store, collection=collection, backend=backend, device=device, precision=precision
    )
    change = partial(
        rollback_collection, model=model, allow_rejects=allow_rejects, allow_worse=allow_worse
    )
    _do(change, settings, "older", as_json=as_json)


@click.command()
@store_option
@collection_option
@click.option(
    "--unfinished",
    is_flag=True,
    help="Only give up a re-embedding that was interrupted before its swap.",
)
@click.option("--yes", is_flag=True, help="Do it: what is removed cannot be brought back.")
@json_option
def prune(
    *, store: str | None, collection: str | None, unfinished: bool, yes: bool, as_json: bool
) -> None:
    """Remove the physical collections of a name that nothing leads to.

    Afterwards there is no way back. A re-embedding that was interrupted before its swap is given up
    by it.
    """
    from msmarco_qdrant.reembed.api import prune_collection

    settings = settings_with(store=store, collection=collection)
    with opened(settings) as place, ended_in_order():
        told = _told_apart(place, settings.collection) if not yes else {}
        found = prune_collection(place, settings.collection, unfinished=unfinished, dry_run=not yes)
    if found and not yes:
        names = " and ".join(told.get(name, name) for name in found)
        options = "--unfinished --yes" if unfinished else "--yes"
        raise UsageError(
            f"nothing was removed: nothing leads to {names}; to remove what is in there for good, "
            f"pass {options}"
        )
    if as_json:
        print_json({"removed": found})
    else:
        click.echo(f"removed: {', '.join(found)}" if found else "there is nothing to remove")


def _told_apart(place: Store, collection: str) -> Mapping[str, str]:
    """What to call the physical collections beside the live one."""
    from msmarco_qdrant.migrate.runner import migration_status

    found = migration_status(place, collection)
    filled = found.copying.target if found.copying is not None else None
    return {
        other.physical: f"{other.physical} ({other.metadata.encoder.model}"
        f"{', not filled yet' if other.physical == filled else ''})"
        for other in found.others
    }


def _do(
    change: Callable[..., ReembedReport], settings: Settings, which: str, *, as_json: bool
) -> None:
    """Change the model of the settings' collection, and tell what was done."""
    with opened(settings) as place, ended_in_order(), _shown(which) as progress:
        report = change(
            place,
            settings.collection,
            encoder_options=settings.encoder_options,
            on_progress=progress,
        )
        goes_back = place.metadata(report.new).previous == report.old
    _tell(report, as_json=as_json, goes_back=goes_back)


@contextmanager
def _shown(which: str) -> Iterator[Callable[[ReembedProgress], None]]:
    """A display that each progress is handed to; each stage is told once as it begins."""
    from msmarco_qdrant.cli.progress import ProgressDisplay

    display, told = ProgressDisplay(), ""

    def show(progress: ReembedProgress) -> None:
        nonlocal display, told
        if progress.stage != told:
            display.close()
            display = ProgressDisplay()  # with this stage's own speed
            click.echo(_NOTICES[progress.stage].format(which=which), err=True)
            told = progress.stage
        if progress.done:
            display.show(progress.done, progress.done / max(progress.total, 1))

    try:
        yield show
    except (KeyboardInterrupt, SystemExit):  # of SIGTERM
        click.echo("\nwhat is copied stays; run the same command again to go on.", err=True)
        raise
    finally:
        display.close()


def _tell(report: ReembedReport, *, as_json: bool, goes_back: bool) -> None:
    if as_json:
        print_json({**asdict(report), "seconds": round(report.seconds, 3)})
        return
    if report.old == report.new:
        click.echo(f"'{report.collection}' holds vectors of {report.model} already")
        return
    click.echo(
        f"{report.collection} -> {report.new}: {report.passages:,} passages with vectors of "
        f"{report.model}, {report.copied:,} encoded now, {report.seconds:.1f} s"
    )
    if report.without_vector:
        click.echo(f"left out, as they have no vector: {', '.join(report.without_vector)}")
    if report.comparison is not None and report.comparison.queries:
        click.echo(_comparison_text(report.comparison))
    back = (
        "`migrate rollback` goes back to it"
        if goes_back
        else "`migrate reembed` with its model goes there again"
    )
    click.echo(f"{report.old} is kept: {back}, `migrate prune` removes it")


def _comparison_text(found: ModelComparison) -> str:
    asked = f"{found.queries} passages asked for by the words they begin with"
    if found.found_before is None or found.overlap is None:
        return f"{asked}: {found.found_after} among the ten best"
    return (
        f"{asked}: {found.found_after} among the ten best, before {found.found_before}; "
        f"{found.overlap:.0%} of the ten best are the same"
    )
