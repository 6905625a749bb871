"""The command that searches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from msmarco_qdrant.cli.filters import parse_filters
from msmarco_qdrant.cli.options import (
    collection_option,
    json_option,
    opened,
    ranking_options,
    refuse_without,
    settings_with,
    store_option,
)
from msmarco_qdrant.cli.output import check_output, print_hits, print_json
from msmarco_qdrant.core.search_types import DEFAULT_EFFORT, Fusion, FusionMethod, SearchMode

if TYPE_CHECKING:
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.search.options import SearchOptions


@click.command()
@click.argument("query", required=False)
@store_option
@collection_option
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    metavar="N",
    help="With a QUERY: hits wanted.",
)
@click.option(
    "--mode",
    type=click.Choice(get_args(SearchMode)),
    default="dense",
    show_default=True,
    help="Compare vectors, words (bm25), or both.",
)
@ranking_options
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="CONDITION",
    help="Only passages whose meta has FIELD=VALUE, FIELD!=VALUE, FIELD>=N (or >, <=, <; a number "
    "or a date), FIELD (it is there) or !FIELD (it is not). All must hold; of several FIELD=VALUE "
    "of one field any one.",
)
@click.option("--group-by", metavar="FIELD", help="Only the best passage of each of its values.")
@click.option(
    "--ef",
    type=click.IntRange(1, 10_000),
    default=DEFAULT_EFFORT.ef,
    show_default=True,
    metavar="N",
    help="Candidates considered in the graph.",
)
@click.option(
    "--oversampling",
    type=click.FloatRange(1),
    default=DEFAULT_EFFORT.oversampling,
    show_default=True,
    metavar="X",
    help="Of quantized vectors, score so many times the hits again by the vectors themselves.",
)
@click.option("--exact", is_flag=True, help="Compare with every passage, without the index.")
@click.option("--model", metavar="NAME_OR_DIR", help="Where to load the collection's model from.")
@click.option(
    "--queries",
    type=click.Path(exists=False, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Search for every query of a file (qid<TAB>text, or JSON lines) instead of QUERY.",
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
    metavar="N",
    help="With --queries: hits a query.  [default: 1000; with --rerank, its depth]",
)
@json_option
def search(  # noqa: PLR0913  # one for each option
    *,
    query: str | None,
    store: str | None,
    collection: str | None,
    limit: int,
    mode: SearchMode,
    fusion: FusionMethod,
    dense_weight: float | None,
    rerank: str | None,
    rerank_depth: int,
    filters: tuple[str, ...],
    group_by: str | None,
    ef: int,
    oversampling: float,
    exact: bool,
    model: str | None,
    queries: Path | None,
    run: Path | None,
    depth: int | None,
    as_json: bool,
) -> None:
    """Find the passages that answer QUERY: keywords, a query or a question."""
    if (query is None) == (queries is None) or (queries is None) != (run is None):
        raise click.UsageError("give a QUERY, or both --queries FILE and --run FILE")
    refuse_without("a QUERY", given=query is not None, options=["limit"])
    refuse_without("--queries", given=query is None, options=["depth"])
    refuse_without("--rerank", given=rerank is not None, options=["rerank_depth"])
    refuse_without("the index, not --exact,", given=not exact, options=["ef", "oversampling"])
    refuse_without("--mode hybrid", given=mode == "hybrid", options=["fusion", "dense_weight"])
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.search.options import SearchRequest, check_queries

    settings = settings_with(store=store, collection=collection)
    options: SearchOptions = {
        "limit": limit if query is not None else depth or (rerank_depth if rerank else 1000),
        "mode": mode,
        "fusion": Fusion(fusion, dense_weight),
        "rerank_depth": rerank_depth if rerank is not None else None,
        "meta_filter": parse_filters(filters),  # what means nothing is refused at once
        "group_by": group_by,
        "ef": ef,
        "oversampling": oversampling,
        "exact": exact,
    }
    SearchRequest(**options)  # what cannot be asked is refused before a model is loaded
    check_queries([query] if query is not None else [])
    if queries is not None and run is not None:
        check_output(run, "--run", [str(queries)])
    with opened(settings) as place:
        client = SearchClient.open(
            place,
            collection=settings.collection,
            model=model,
            encoder_options=settings.encoder_options,
            reranker=rerank,
            bm25_only=mode == "bm25" and model is None,
        )
        if filters:  # a value is read as what the field's index holds, or the index were no use
            indexes = place.collection(settings.collection).info().spec.payload_indexes
            options["meta_filter"] = parse_filters(filters, indexes)
        if query is not None:
            print_hits(client.search(query, **options), as_json=as_json)
        elif queries is not None and run is not None:
            _search_many(client, queries, run, options, as_json=as_json)


def _search_many(
    client: SearchClient, queries: Path, run: Path, options: SearchOptions, *, as_json: bool
) -> None:
    from msmarco_qdrant.evaluation import run_queries, save_run
    from msmarco_qdrant.sources.corpus import read_queries

    answers = run_queries(client, read_queries(queries), options)
    rankings = ((query.qid, [(hit.pid, hit.score) for hit in hits]) for query, hits in answers)
    count = save_run(run, rankings)
    if as_json:
        print_json({"queries": count, "run": str(run)})
    else:
        click.echo(f"{count:,} queries answered in {run}")
