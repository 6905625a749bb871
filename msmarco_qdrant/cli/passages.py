"""The commands `get`, `count`, `facets`, `list`, `delete` and `export`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from msmarco_qdrant.cli.command_settings import open_configured_store
from msmarco_qdrant.cli.completion import complete_files
from msmarco_qdrant.cli.filters import filter_option, parse_filters, parse_for
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    FILE,
    json_option,
    limit_option,
    refuse_unused,
    settings_options,
    tenant_option,
)
from msmarco_qdrant.cli.output import (
    drop_output,
    echo,
    echo_text,
    print_content,
    print_json,
    print_result,
)
from msmarco_qdrant.core.escape import escape_controls
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.search_types import Facet
from msmarco_qdrant.core.short_text import shorten
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.evaluation.tables import format_table

if TYPE_CHECKING:
    from msmarco_qdrant.settings import Settings

_SHOWN_CHARACTERS = 80
_T = TypeVar("_T", str, tuple[str, ...])


estimate_option = click.option(
    "--estimate",
    is_flag=True,
    help="Estimate by the payload indexes instead of counting, faster in a large collection.",
)


def _require_utf8(_context: click.Context, _parameter: click.Parameter, given: _T) -> _T:
    for pid in [given] if isinstance(given, str) else given:
        if any("\ud800" <= character <= "\udfff" for character in pid):
            raise click.BadParameter(f"{pid!r} is not UTF-8")
    return given


@click.command(cls=Command, examples=["7187158"])
@click.argument("pid", callback=_require_utf8)
@settings_options("store", "transport", "collection")
@tenant_option
@json_option
def get(*, pid: str, settings: Settings, tenant: str | None, as_json: bool) -> None:
    """Show the passage PID. Write '--' before a PID that begins with a dash."""
    from msmarco_qdrant.collection.passages import get_passages

    with open_configured_store(settings) as store:
        found = get_passages(store, [pid], tenant=tenant, collection=settings.collection)
        place = f"'{settings.collection}' in {store.dsn}"
    if pid not in found:
        raise click.ClickException(f"no passage {pid!r} in the collection {place}")
    passage = found[pid]
    if as_json:
        print_json({"pid": pid, "text": passage.text, "meta": passage.meta})
    else:
        echo(pid)
        print_content(passage.text, passage.meta)


@click.command(cls=Command, examples=["", "--filter 'year>=2020'"])
@settings_options("store", "transport", "collection")
@filter_option
@tenant_option
@estimate_option
@json_option
def count(
    *,
    settings: Settings,
    filters: tuple[str, ...],
    tenant: str | None,
    estimate: bool,
    as_json: bool,
) -> None:
    """Count the passages of a collection, or those that match a filter."""
    from msmarco_qdrant.collection.passages import count_passages

    name = settings.collection
    parse_filters(filters)  # refuses invalid conditions before a store is opened
    with open_configured_store(settings) as store:
        chosen = parse_for(store, name, filters)
        found = count_passages(
            store, meta_filter=chosen, tenant=tenant, exact=not estimate, collection=name
        )
    print_result({"collection": name, "passages": found}, str(found), as_json=as_json)


@click.command(cls=Command, examples=["lang", "lang -n 3 --filter 'year>=2020' --json"])
@click.argument("field")
@settings_options("store", "transport", "collection")
@limit_option(10, "Number of values.")
@filter_option
@tenant_option
@estimate_option
@json_option
def facets(
    *,
    field: str,
    settings: Settings,
    limit: int,
    filters: tuple[str, ...],
    tenant: str | None,
    estimate: bool,
    as_json: bool,
) -> None:
    """Count the passages of each value of the meta field FIELD, the most frequent first."""
    from msmarco_qdrant.collection.facets import FacetRequest, count_facets

    name = settings.collection
    FacetRequest(field, limit, parse_filters(filters))  # refuses invalid ones early
    with open_configured_store(settings) as store:
        chosen = parse_for(store, name, filters)
        found = count_facets(
            store,
            field,
            limit=limit,
            meta_filter=chosen,
            tenant=tenant,
            exact=not estimate,
            collection=name,
        )
    if as_json:
        print_json([{"value": facet.value, "count": facet.count} for facet in found])
    elif found:
        echo_text(format_table([[field, "passages"], *map(_facet_row, found)]))
    else:
        echo("no passage found")


def _facet_row(facet: Facet) -> list[str]:
    value = facet.value if isinstance(facet.value, str) else json.dumps(facet.value)
    return [escape_controls(shorten(value, _SHOWN_CHARACTERS)), f"{facet.count:,}"]


@click.command("list", cls=Command, examples=["-n 3", "--filter lang=en --json"])
@settings_options("store", "transport", "collection")
@limit_option(10, "Number of passages.")
@filter_option
@tenant_option
@click.option(
    "--order-by",
    metavar="FIELD",
    help="Order by a field with an index of kind integer, float or datetime, lowest first; -FIELD "
    "for the highest first.",
)
@click.option("--after", metavar="PID", help="Continue after this passage, in the same order.")
@json_option
def list_(
    *,
    settings: Settings,
    limit: int,
    filters: tuple[str, ...],
    tenant: str | None,
    order_by: str | None,
    after: str | None,
    as_json: bool,
) -> None:
    """List some passages of a collection, in the order of ids or of a field.

    To list the collections of a store use `collections`.
    """
    from msmarco_qdrant.collection.scroll import ScrollRequest, scroll_passages

    name = settings.collection
    ScrollRequest(parse_filters(filters), order_by, after)  # refuses invalid ones early
    with open_configured_store(settings) as store:
        chosen = parse_for(store, name, filters)
        passages = scroll_passages(
            store,
            meta_filter=chosen,
            tenant=tenant,
            order_by=order_by,
            after=after,
            collection=name,
        )
        found = [*islice(passages, limit)]
    if as_json:
        print_json([{"pid": one.pid, "text": one.text, "meta": one.meta} for one in found])
        return
    for passage in found:
        echo(passage.pid)
        print_content(passage.text, passage.meta)
    if not found:
        echo("no passage found")


@click.command(cls=Command, examples=["7187158 7187157", "--filter lang=de --yes"])
@click.argument("pids", nargs=-1, metavar="[PID]...", callback=_require_utf8)
@click.option(
    "--from",
    "source",
    metavar="FILE",
    shell_complete=complete_files,
    help="Delete the pids of this file, one per line; '-' for standard input.",
)
@settings_options("store", "transport", "collection")
@filter_option
@tenant_option
@click.option(
    "--yes", is_flag=True, help="With --filter or --where: confirm to delete all that match."
)
@json_option
def delete(  # one for each option
    *,
    pids: tuple[str, ...],
    source: str | None,
    settings: Settings,
    filters: tuple[str, ...],
    tenant: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete passages by pid, or all that match a filter. Missing passages are not an error.

    Write '--' before a PID that begins with a dash.
    """
    if bool(pids) + (source is not None) + bool(filters) != 1:
        raise click.UsageError(
            "pass one PID or more, --from FILE, --filter CONDITION or --where EXPRESSION"
        )
    refuse_unused("--filter or --where", used=bool(filters), options=["yes"])
    if filters:
        _delete_matching(settings, filters, tenant, yes=yes, as_json=as_json)
        return
    from msmarco_qdrant.collection.passages import delete_passages
    from msmarco_qdrant.sources.corpus import read_pids

    distinct = _DistinctPids(pids if source is None else read_pids(source))
    with open_configured_store(settings) as store:
        try:
            deleted = delete_passages(
                store, distinct, tenant=tenant, collection=settings.collection
            )
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


def _delete_matching(
    settings: Settings, filters: tuple[str, ...], tenant: str | None, *, yes: bool, as_json: bool
) -> None:
    """Delete the passages that match, or show how many there are without `yes`."""
    from msmarco_qdrant.collection.delete import require_fields
    from msmarco_qdrant.collection.passages import delete_passages, read_count
    from msmarco_qdrant.collection.tenants import tenant_filter

    name = settings.collection
    parse_filters(filters)
    with open_configured_store(settings) as store:
        chosen = parse_for(store, name, filters)
        scope = None
        if tenant is not None:
            scope = tenant_filter(store.metadata(name), name, tenant, store.dsn)
        if chosen is not None and not yes and require_fields(store, name, chosen, scope):
            found = read_count(store.collection(name), chosen, exact=True, scope=scope)
            raise UsageError(
                f"nothing was deleted: {found:,} passages of '{name}' in {store.dsn} match; pass "
                "--yes to delete them"
            )
        deleted = delete_passages(store, meta_filter=chosen, tenant=tenant, collection=name)
    print_result({"deleted": deleted}, f"{deleted:,} deleted", as_json=as_json)


class _DistinctPids:
    """Pids without repeats; its length is the number of pids up to now."""

    def __init__(self, pids: Iterable[str]) -> None:
        self._pids = pids
        self._seen = PidSet()

    def __len__(self) -> int:
        return len(self._seen)

    def __iter__(self) -> Iterator[str]:
        return (pid for pid in self._pids if self._seen.add(pid))


@click.command(cls=Command, examples=["passages.jsonl.gz", "- | head -3"])
@click.argument("file", type=FILE, metavar="FILE")
@settings_options("store", "transport", "collection")
@json_option
def export(*, file: Path, settings: Settings, as_json: bool) -> None:
    """Export every passage to FILE, for `ingest`.

    The name decides the format: .jsonl, .ndjson, .jsonl.gz, .ndjson.gz or .parquet. For '-', JSON
    lines are written to standard output.
    """
    from msmarco_qdrant.collection.passages import export_passages

    is_stdout = str(file) == "-"
    refuse_unused(
        "a FILE; '-' writes passages to standard output", used=not is_stdout, options=["as_json"]
    )
    try:
        count = export_passages(
            settings.store,
            sys.stdout.buffer if is_stdout else file,
            collection=settings.collection,
            connection=settings.connection,
            progress=not is_stdout,
        )
        if is_stdout:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has enough
        drop_output(sys.stdout)
        return
    if not is_stdout:
        print_result(
            {"exported": count, "file": str(file)},
            f"{count:,} passages exported to {file}",
            as_json=as_json,
        )
