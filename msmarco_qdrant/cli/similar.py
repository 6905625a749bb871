"""The command `similar`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.command_settings import open_search_client
from msmarco_qdrant.cli.filters import filter_option, parse_filters, parse_for
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.hit_options import (
    check_vectors,
    content_options,
    diversity_option,
    ef_option,
    group_by_option,
    score_threshold_option,
    several_options,
    wanted_meta,
)
from msmarco_qdrant.cli.options import (
    exact_option,
    json_option,
    limit_option,
    model_option,
    page_options,
    refuse_unused,
    settings_options,
    tenant_option,
)
from msmarco_qdrant.cli.output import print_hits, print_next_page

if TYPE_CHECKING:
    from msmarco_qdrant.core.search_types import Merge
    from msmarco_qdrant.search.options import SimilarOptions
    from msmarco_qdrant.settings import Settings


@click.command(
    cls=Command,
    examples=["7187158 -n 3", "7187158 --negative 7187157", "--text 'a city on a river' --json"],
)
@click.argument("pids", nargs=-1, metavar="[PID]...")
@click.option("--text", metavar="TEXT", help="Search for passages similar to this text, too.")
@click.option(
    "--negative",
    multiple=True,
    metavar="PID",
    help="Prefer passages that differ from this one; repeat it for several.",
)
@settings_options("store", "transport", "collection")
@limit_option(10, "Number of hits.")
@page_options
@score_threshold_option
@filter_option
@tenant_option
@group_by_option
@diversity_option
@ef_option
@exact_option
@content_options
@several_options
@model_option("With --text: load the collection's model from here.")
@json_option
def similar(  # noqa: PLR0913  # one for each option
    *,
    pids: tuple[str, ...],
    text: str | None,
    negative: tuple[str, ...],
    settings: Settings,
    limit: int,
    offset: int | None,
    cursor: str | None,
    score_threshold: float | None,
    filters: tuple[str, ...],
    tenant: str | None,
    group_by: str | None,
    diversity: float | None,
    ef: int | None,
    exact: bool,
    with_vectors: bool,
    with_meta: tuple[str, ...],
    without_meta: bool,
    without_text: bool,
    also: tuple[str, ...],
    merge: Merge,
    model: str | None,
    as_json: bool,
) -> None:
    """Search for passages similar to the passages PID, which are not among the hits.

    No model is loaded, except for --text.
    """
    if not pids and text is None:
        raise click.UsageError("pass a PID or more, or --text TEXT")
    check_vectors(as_json=as_json)
    refuse_unused("--text", used=text is not None, options=["model"])
    refuse_unused("--also", used=bool(also), options=["merge"])
    refuse_unused("the index, not --exact", used=not exact, options=["ef"])
    from msmarco_qdrant.search.options import to_request
    from msmarco_qdrant.search.similar import to_examples

    options: SimilarOptions = {
        "limit": limit,
        "offset": offset,
        "cursor": cursor,
        "score_threshold": score_threshold,
        "meta_filter": parse_filters(filters),
        "tenant": tenant,
        "group_by": group_by,
        "diversity": diversity,
        "ef": ef,
        "exact": exact,
        "with_vectors": with_vectors,
        "with_meta": wanted_meta(with_meta, without=without_meta),
        "with_text": not without_text,
        "collections": [settings.collection, *also] if also else None,
        "merge": merge,
    }
    to_request(options)  # refuses invalid options and examples before a store is opened
    to_examples(None, text, None, pids, negative)
    with open_search_client(settings, model, bm25=text is None) as client:
        options["meta_filter"] = parse_for(client.store, client.collection, filters)
        hits = client.similar(text=text, positive=pids, negative=negative, **options)
        print_hits(hits, as_json=as_json)
        if offset is not None or cursor is not None:
            print_next_page(hits)
