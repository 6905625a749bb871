"""The commands about passages that are there: read one, remove some, export all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from msmarco_qdrant.cli.options import (
    collection_option,
    json_option,
    opened,
    settings_with,
    store_option,
)
from msmarco_qdrant.cli.output import passage_json, print_json, print_passage
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.errors import SourceError

_T = TypeVar("_T", str, tuple[str, ...])


def _text(_context: click.Context, _parameter: click.Parameter, given: _T) -> _T:
    """Refuse what the shell gave that is no UTF-8."""
    for pid in [given] if isinstance(given, str) else given:
        if any("\ud800" <= character <= "\udfff" for character in pid):
            raise click.BadParameter(f"{pid!r} is not UTF-8")
    return given


@click.command()
@click.argument("pid", callback=_text)
@store_option
@collection_option
@json_option
def get(*, pid: str, store: str | None, collection: str | None, as_json: bool) -> None:
    """Show the passage PID. One that begins with a dash goes behind '--'."""
    from msmarco_qdrant.collection.passages import get_passages

    settings = settings_with(store=store, collection=collection)
    with opened(settings) as place:
        found = get_passages(place, [pid], collection=settings.collection)
        where = f"'{settings.collection}' in {place.dsn}"
    if pid not in found:
        raise click.ClickException(f"no passage {pid!r} in the collection {where}")
    if as_json:
        print_json(passage_json(found[pid]))
    else:
        print_passage(found[pid])


@click.command()
@click.argument("pids", nargs=-1, metavar="PID...", callback=_text)
@click.option(
    "--from",
    "source",
    metavar="FILE",
    help="Remove the passages whose pids stand in a file, one a line; '-' for standard input.",
)
@store_option
@collection_option
@json_option
def delete(
    *,
    pids: tuple[str, ...],
    source: str | None,
    store: str | None,
    collection: str | None,
    as_json: bool,
) -> None:
    """Remove passages. Removing again what is gone is no error.

    A PID that begins with a dash goes behind '--'.
    """
    if bool(pids) == (source is not None):
        raise click.UsageError("give one or more PIDs, or --from FILE")
    from msmarco_qdrant.collection.passages import delete_passages
    from msmarco_qdrant.sources.corpus import read_pids

    settings = settings_with(store=store, collection=collection)
    asked = _Distinct(pids if source is None else read_pids(source))
    with opened(settings) as place:
        try:
            deleted = delete_passages(place, asked, collection=settings.collection)
        except SourceError as exc:
            if not len(asked):
                raise
            raise SourceError(
                f"{exc}. The passages of the lines before it may be gone already; mend the line "
                "and run the same command again"
            ) from exc
    missing = len(asked) - deleted
    if as_json:
        print_json({"deleted": deleted, "missing": missing})
    else:
        click.echo(f"{deleted:,} deleted, {missing:,} were not there")


class _Distinct:
    """Pids without repeats, counted on their way."""

    def __init__(self, pids: Iterable[str]) -> None:
        self._pids = pids
        self._seen = PidSet()

    def __len__(self) -> int:
        return len(self._seen)

    def __iter__(self) -> Iterator[str]:
        return (pid for pid in self._pids if self._seen.add(pid))


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@store_option
@collection_option
@json_option
def export(*, file: Path, store: str | None, collection: str | None, as_json: bool) -> None:
    """Write every passage to FILE, which `ingest` reads back unchanged.

    Its name chooses the form: .jsonl or .ndjson, either with .gz behind it, or .parquet.
    """
    from msmarco_qdrant.cli.progress import ProgressDisplay
    from msmarco_qdrant.collection.passages import export_passages

    settings = settings_with(store=store, collection=collection)
    progress = ProgressDisplay()
    try:
        count = export_passages(
            settings.store,
            file,
            collection=settings.collection,
            connection=settings.connection,
            on_progress=lambda done, total: progress.show(done, done / total if total else None),
        )
    finally:
        progress.close()
    if as_json:
        print_json({"exported": count, "file": str(file)})
    else:
        click.echo(f"{count:,} passages exported to {file}")
