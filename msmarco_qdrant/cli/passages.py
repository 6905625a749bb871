"""The commands `get`, `delete` and `export`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from msmarco_qdrant.cli.options import FILE, json_option, open_configured_store, settings_options
from msmarco_qdrant.cli.output import echo, print_content, print_json, print_result
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.errors import SourceError

if TYPE_CHECKING:
    from msmarco_qdrant.settings import Settings

_T = TypeVar("_T", str, tuple[str, ...])


def _require_utf8(_context: click.Context, _parameter: click.Parameter, given: _T) -> _T:
    for pid in [given] if isinstance(given, str) else given:
        if any("\ud800" <= character <= "\udfff" for character in pid):
            raise click.BadParameter(f"{pid!r} is not UTF-8")
    return given


@click.command()
@click.argument("pid", callback=_require_utf8)
@settings_options("store", "transport", "collection")
@json_option
def get(*, pid: str, settings: Settings, as_json: bool) -> None:
    """Show the passage PID. Write '--' before a PID that begins with a dash."""
    from msmarco_qdrant.collection.passages import get_passages

    with open_configured_store(settings) as store:
        found = get_passages(store, [pid], collection=settings.collection)
        place = f"'{settings.collection}' in {store.dsn}"
    if pid not in found:
        raise click.ClickException(f"no passage {pid!r} in the collection {place}")
    passage = found[pid]
    if as_json:
        print_json({"pid": pid, "text": passage.text, "meta": passage.meta})
    else:
        echo(pid)
        print_content(passage.text, passage.meta)


@click.command()
@click.argument("pids", nargs=-1, metavar="PID...", callback=_require_utf8)
@click.option(
    "--from",
    "source",
    metavar="FILE",
    help="Delete the pids of this file, one per line; '-' for standard input.",
)
@settings_options("store", "transport", "collection")
@json_option
def delete(*, pids: tuple[str, ...], source: str | None, settings: Settings, as_json: bool) -> None:
    """Delete passages. Missing passages are not an error.

    Write '--' before a PID that begins with a dash.
    """
    if bool(pids) == (source is not None):
        raise click.UsageError("pass one PID or more, or --from FILE")
    from msmarco_qdrant.collection.passages import delete_passages
    from msmarco_qdrant.sources.corpus import read_pids

    distinct = _DistinctPids(pids if source is None else read_pids(source))
    with open_configured_store(settings) as store:
        try:
            deleted = delete_passages(store, distinct, collection=settings.collection)
        except SourceError as exc:
            if not len(distinct):
                raise
            raise SourceError(
                f"{exc}. Passages of earlier lines may be deleted already; fix the line and run "
                "the same command again"
            ) from exc
    missing = len(distinct) - deleted
    print_result(
        {"deleted": deleted, "missing": missing},
        f"{deleted:,} deleted, {missing:,} missing",
        as_json=as_json,
    )


class _DistinctPids:
    """Pids without repeats; its length is the number of pids up to now."""

    def __init__(self, pids: Iterable[str]) -> None:
        self._pids = pids
        self._seen = PidSet()

    def __len__(self) -> int:
        return len(self._seen)

    def __iter__(self) -> Iterator[str]:
        return (pid for pid in self._pids if self._seen.add(pid))


@click.command()
@click.argument("file", type=FILE, metavar="FILE")
@settings_options("store", "transport", "collection")
@json_option
def export(*, file: Path, settings: Settings, as_json: bool) -> None:
    """Export every passage to FILE, for `ingest`.

    The name decides the format: .jsonl, .ndjson, .jsonl.gz, .ndjson.gz or .parquet.
    """
    from msmarco_qdrant.cli.progress import ProgressDisplay
    from msmarco_qdrant.collection.passages import export_passages

    with closing(ProgressDisplay()) as display:
        count = export_passages(
            settings.store,
            file,
            collection=settings.collection,
            connection=settings.connection,
            on_progress=display.show_of,
        )
    print_result(
        {"exported": count, "file": str(file)},
        f"{count:,} passages exported to {file}",
        as_json=as_json,
    )
