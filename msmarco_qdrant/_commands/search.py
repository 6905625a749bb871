"""The command that searches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from msmarco_qdrant._commands.options import (
    collection_option,
    json_option,
    opened,
    settings_with,
    store_option,
)
from msmarco_qdrant._output import check_output, print_hits, print_json

if TYPE_CHECKING:
    from msmarco_qdrant.records import Scalar
    from msmarco_qdrant.search import SearchClient


@click.command()
@click.argument("phrase", required=False)
@store_option
@collection_option
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    metavar="N",
    help="With a PHRASE: hits wanted.",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Only passages whose meta has this value; several fields must all hold, of several "
    "values of one field any one.",
)
@click.option("--exact", is_flag=True, help="Compare with every passage, without the index.")
@click.option("--model", metavar="NAME_OR_DIR", help="Where to load the collection's model from.")
@click.option(
    "--queries",
    type=click.Path(exists=False, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Search for every query of a file (qid<TAB>text, or JSON lines) instead of PHRASE.",
)
@click.option(
    "--run",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --queries: write the answers as a TREC run.",
)
@click.option(
    "--depth",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="With --queries: hits a query.",
)
@json_option
def search(  # noqa: PLR0913  # one for each option
    *,
    phrase: str | None,
    store: str | None,
    collection: str | None,
    limit: int,
    filters: tuple[str, ...],
    exact: bool,
    model: str | None,
    queries: Path | None,
    run: Path | None,
    depth: int,
    as_json: bool,
) -> None:
    """Find the passages that answer PHRASE: keywords, a phrase or a question."""
    if (phrase is None) == (queries is None) or (queries is None) != (run is None):
        raise click.UsageError("give a PHRASE, or both --queries FILE and --run FILE")
    _refuse_options_of_the_other_form(one_phrase=phrase is not None)
    from msmarco_qdrant.search import SearchClient

    settings = settings_with(store=store, collection=collection)
    meta_filter = parse_filters(filters)
    if queries is not None and run is not None:
        check_output(run, "--run", [str(queries)])
    with opened(settings) as place:
        client = SearchClient.open(
            place,
            collection=settings.collection,
            model=model,
            encoder_options=settings.encoder_options,
        )
        if phrase is not None:
            hits = client.search(phrase, limit=limit, meta_filter=meta_filter, exact=exact)
            print_hits(hits, as_json=as_json)
        elif queries is not None and run is not None:
            _search_many(client, queries, run, depth, exact=exact, as_json=as_json)


def _refuse_options_of_the_other_form(*, one_phrase: bool) -> None:
    """An option without effect is a misunderstanding."""
    context = click.get_current_context()
    for name in ("depth",) if one_phrase else ("limit", "filters"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            form = "--queries" if one_phrase else "a PHRASE"
            raise click.UsageError(f"--{name.removesuffix('s')} goes with {form} only")


def _search_many(
    client: SearchClient, queries: Path, run: Path, depth: int, *, exact: bool, as_json: bool
) -> None:
    from msmarco_qdrant._replacing import replacing_text
    from msmarco_qdrant.corpus import read_queries
    from msmarco_qdrant.evaluate import run_queries, write_run

    answers = run_queries(client, read_queries(queries), depth=depth, exact=exact)
    with replacing_text(run) as file:
        count = write_run(answers, file)
    if as_json:
        print_json({"queries": count, "run": str(run)})
    else:
        click.echo(f"{count:,} queries answered in {run}")


def parse_filters(filters: Sequence[str]) -> dict[str, list[Scalar]] | None:
    """`field=value` pairs; a value matches as a string and as the number or boolean it reads as."""
    parsed: dict[str, list[Scalar]] = {}
    for text in filters:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise click.UsageError(f"--filter {text!r}: expected FIELD=VALUE")
        parsed.setdefault(field, []).extend(_readings(value))
    return parsed or None


def _readings(value: str) -> list[Scalar]:
    readings: list[Scalar] = [value]
    if value in ("true", "false"):
        readings.append(value == "true")
    with suppress(ValueError):
        number = float(value)
        if abs(number) < 2**53:  # where a float equals one integer only, and never for NaN
            readings.append(number)
    with suppress(ValueError):
        integer = int(value)
        if -(2**63) <= integer < 2**63:  # what Qdrant compares with
            readings.append(integer)
    return readings
