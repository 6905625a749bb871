"""The commands `migrate reembed`, `migrate rollback` and `migrate prune`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from msmarco_qdrant.cli.command_settings import command_with, open_configured_store
from msmarco_qdrant.cli.completion import complete_encoders
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import ENCODER, json_option, model_option, settings_options
from msmarco_qdrant.cli.output import echo, print_json, print_result
from msmarco_qdrant.cli.ray_options import ray_options, refuse_with_ray
from msmarco_qdrant.cli.signals import advise_resume, exit_on_sigterm
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.core.reports import ReembedProgress, ReembedReport
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.stores import Store

_F = TypeVar("_F", bound=Callable[..., Any])


def _common_options(command: _F) -> Callable[..., Any]:
    rejects = click.option(
        "--allow-rejects",
        is_flag=True,
        help="Swap even if the model has no vector for some passages: they are left out.",
    )
    worse = click.option(
        "--allow-worse",
        is_flag=True,
        help="Swap even if sample queries find less than half of what they found before.",
    )
    options = settings_options("store", "transport", "collection", *ENCODER)
    return options(rejects(worse(json_option(command))))


@click.command(
    cls=Command,
    examples=[
        "--model msmarco-MiniLM-L6-v3",
        "--model msmarco-MiniLM-L6-v3 --store http://localhost --ray auto",
    ],
)
@click.option(
    "--model",
    required=True,
    metavar="NAME_OR_DIR",
    shell_complete=complete_encoders,
    help="Encode with this new model.",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Read unchanged texts from this file instead of the collection; repeat it for several "
    "files.",
)
@model_option(
    "Load the current model from here, for the comparison.  [default: its name in the collection]",
    "--old-model",
)
@ray_options("Encode and write")
@_common_options
def reembed(
    *,
    settings: Settings,
    model: str,
    sources: tuple[str, ...],
    old_model: str | None,
    ray: dict[str, Any] | None,
    as_json: bool,
    **allowed: Any,
) -> None:
    """Change the model of a collection without downtime.

    It fills a second physical collection during searches and writes, then repoints the alias. Run
    the same command again to resume.
    """
    from msmarco_qdrant.encoding.matching import load_collection_encoder

    refuse_with_ray(ray, {"--source": bool(sources)}, "a re-embedding")
    models = settings.encoder_options
    change: Callable[..., ReembedReport]
    if ray is not None:
        from msmarco_qdrant.distributed.values import check_server_url
        from msmarco_qdrant.encoding.options import EncoderOptions

        check_server_url(settings.store, "a re-embedding")  # before a directory is opened
        models = EncoderOptions(device="cpu")  # the GPUs belong to the workers
        change = partial(_reembed_on_ray, settings, ray)
    else:
        from msmarco_qdrant.reembed.api import reembed_collection

        change = partial(reembed_collection, source=sources or None)
    change = partial(
        change,
        model=model,
        load_old=lambda encoder_info: load_collection_encoder(
            settings.collection, encoder_info, old_model, models
        ),
        **allowed,
    )
    _change_model(change, settings, "new", as_json=as_json)


def _reembed_on_ray(
    settings: Settings,
    ray: Mapping[str, Any],
    store: Store,  # noqa: ARG001  # the workers open their own
    collection: str,
    **options: Any,
) -> ReembedReport:
    from msmarco_qdrant.distributed import reembed_on_ray

    place = {"connection": settings.connection, **ray}
    return reembed_on_ray(settings.store, collection, **place, **options)


@click.command(cls=Command, examples=["--collection msmarco"])
@model_option("Load the older model from here.  [default: its name in the collection]")
@_common_options
def rollback(*, settings: Settings, model: str | None, as_json: bool, **allowed: Any) -> None:
    """Return to the physical collection before the last re-embedding.

    It first copies later writes and deletions, so nothing is lost.
    """
    from msmarco_qdrant.reembed.api import rollback_collection

    change = partial(rollback_collection, model=model, **allowed)
    _change_model(change, settings, "older", as_json=as_json)


@click.command(cls=Command, examples=["--yes"])
@settings_options("store", "transport", "collection")
@click.option(
    "--unfinished", is_flag=True, help="Remove only the target of an interrupted re-embedding."
)
@click.option("--yes", is_flag=True, help="Confirm: a removed collection cannot be restored.")
@json_option
def prune(*, settings: Settings, unfinished: bool, yes: bool, as_json: bool) -> None:
    """Remove the physical collections that the alias does not point to.

    Rollback is not possible afterwards. This also abandons an interrupted re-embedding.
    """
    from msmarco_qdrant.reembed.api import prune_collection

    with open_configured_store(settings) as store, exit_on_sigterm():
        labels = _label_others(store, settings.collection) if not yes else {}
        found = prune_collection(store, settings.collection, unfinished=unfinished, dry_run=not yes)
    if found and not yes:
        names = " and ".join(labels.get(name, name) for name in found)
        options = "--unfinished --yes" if unfinished else "--yes"
        raise UsageError(
            f"nothing was removed: no alias points to {names}; pass {options} to confirm"
        )
    text = f"removed: {', '.join(found)}" if found else "nothing to remove"
    print_result({"removed": found}, text, as_json=as_json)


def _label_others(store: Store, collection: str) -> Mapping[str, str]:
    """Return the name with the model of each physical collection that is not live."""
    from msmarco_qdrant.migrate.status import migration_status

    found = migration_status(store, collection)
    target = found.copying.target if found.copying is not None else None
    return {
        other.physical: f"{other.physical} ({other.metadata.encoder.model}"
        f"{', not complete' if other.physical == target else ''})"
        for other in found.others
    }


def _change_model(
    change: Callable[..., ReembedReport], settings: Settings, which: str, *, as_json: bool
) -> None:
    """Change the model of the collection, and print the report."""
    with open_configured_store(settings) as store, exit_on_sigterm(), _show(which) as on_progress:
        report = change(
            store,
            settings.collection,
            encoder_options=settings.encoder_options,
            on_progress=on_progress,
        )
        back = ["rollback"]
        if store.metadata(report.new).previous != report.old:
            back = ["reembed", "--model", store.metadata(report.old).encoder.model]
    if as_json:
        print_json({**to_json_value(report), "seconds": round(report.seconds, 3)})
    else:
        back_command = command_with(settings, "migrate", *back)
        echo(*_report_lines(report, back_command))


@contextmanager
def _show(which: str) -> Iterator[Callable[[ReembedProgress], None]]:
    """Yield a callback that announces each stage and shows its progress."""
    from msmarco_qdrant.reembed.progress import ReembedDisplay

    with closing(ReembedDisplay(which)) as display, advise_resume("Copied passages are kept"):
        yield display


def _report_lines(report: ReembedReport, back_command: str) -> Iterator[str]:
    yield from str(report).splitlines()
    if report.old != report.new:
        yield (
            f"{report.old} is kept: `{back_command}` returns to it, "
            f"{advised_command('migrate', 'prune', '--help')} shows how to remove it"
        )
