"""The command `search`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    FILE,
    chosen_fusion,
    exact_option,
    json_option,
    limit_option,
    model_option,
    page_options,
    ranking_options,
    refuse_unused,
    settings_options,
    tenant_option,
)
from msmarco_qdrant.cli.output import check_output, print_hits, print_next_page, print_result
from msmarco_qdrant.cli.program import NAME, as_typed
from msmarco_qdrant.cli.run_options import mode_option
from msmarco_qdrant.core.search_types import DEFAULT_EFFORT, FusionMethod, Merge, SearchMode
from msmarco_qdrant.errors import SourceError

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.core.search_defaults import SearchDefaults
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.search.options import RerankDepth, SearchOptions
    from msmarco_qdrant.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """The options of `search`, as given."""

    words: tuple[str, ...]
    limit: int | None
    offset: int | None
    cursor: str | None
    mode: SearchMode
    fusion: FusionMethod | None
    dense_weight: float | None
    reranker: str | None
    rerank_depth: RerankDepth
    score_threshold: float | None
    rerank_sigmoid: bool
    filters: tuple[str, ...]
    tenant: str | None
    group_by: str | None
    diversity: float | None
    ef: int | None
    oversampling: float
    exact: bool
    with_vectors: bool
    with_meta: tuple[str, ...]
    without_meta: bool
    without_text: bool
    snippets: int
    also: tuple[str, ...]
    merge: Merge
    model: str | None
    queries: Path | None
    run: Path | None
    as_json: bool

    @property
    def query(self) -> str | None:
        """QUERY; several words are one without quotes, which is refused."""
        if len(self.words) > 1:
            command = as_typed(shlex.join([NAME, "search", " ".join(self.words)]))
            raise click.UsageError(f"QUERY must be one argument: put it in quotes, {command}")
        return self.words[0] if self.words else None

    @property
    def depth(self) -> int | None:
        """The number of hits to rerank, if it is given as a number."""
        return None if self.rerank_depth == "auto" else self.rerank_depth

    def check(self) -> None:
        """Refuse options that exclude each other or have no effect."""
        is_single, has_queries = self.query is not None, self.queries is not None
        if is_single == has_queries or has_queries != (self.run is not None):
            raise click.UsageError("pass a QUERY, or both --queries FILE and --run FILE")
        reranking = ["rerank_depth", "rerank_sigmoid"]
        refuse_unused("--reranker", used=self.reranker is not None, options=reranking)
        of_hits = ["with_vectors", "with_meta", "without_meta", "without_text", "snippets"]
        # A run has pids and scores, and is sorted by score.
        alone = ["cursor", "diversity", "also", *of_hits]
        refuse_unused("QUERY", used=is_single, options=alone)
        check_vectors(as_json=self.as_json)
        refuse_unused("--also", used=bool(self.also), options=["merge"])
        graph = ["ef", "oversampling"]
        refuse_unused("the index, not --exact", used=not self.exact, options=graph)
        fusing = ["fusion", "dense_weight"]
        refuse_unused("--mode hybrid", used=self.mode == "hybrid", options=fusing)

    def to_options(self, collection: str) -> SearchOptions:
        """Return the options of a search; the limit of a run is not known yet."""
        return {
            "limit": self.limit or (10 if self.query is not None else self.depth or 1),
            "offset": self.offset,
            "cursor": self.cursor,
            "mode": self.mode,
            "fusion": chosen_fusion(self.fusion, self.dense_weight),
            "score_threshold": self.score_threshold,
            "rerank_depth": (self.rerank_depth or "auto") if self.reranker is not None else None,
            "rerank_sigmoid": self.rerank_sigmoid,
            "meta_filter": parse_filters(self.filters),  # refuses invalid conditions early
            "tenant": self.tenant,
            "group_by": self.group_by,
            "diversity": self.diversity,
            "ef": self.ef,
            "oversampling": self.oversampling,
            "exact": self.exact,
            "with_vectors": self.with_vectors,
            "with_meta": wanted_meta(self.with_meta, without=self.without_meta),
            "with_text": not self.without_text,
            "snippets": self.snippets,
            "collections": [collection, *self.also] if self.also else None,
            "merge": self.merge,
        }


@click.command(
    cls=Command,
    examples=[
        "'how big is london' -n 3",
        "'old film' --mode hybrid --filter 'year<1960' --json",
        "--queries queries.tsv --run run.trec",
    ],
)
@click.argument("words", nargs=-1, metavar="[QUERY]")
@settings_options("store", "transport", "collection")
@limit_option(
    None,
    "Number of hits, of each query.  [default: 10; with --queries 1000, or the --rerank-depth of "
    "--reranker]",
)
@page_options
@mode_option("Compare vectors (dense), words (bm25), or both (hybrid).")
@ranking_options
@score_threshold_option
@click.option(
    "--rerank-sigmoid",
    is_flag=True,
    help="With --reranker: convert its scores to 0 to 1.",
)
@filter_option
@tenant_option
@group_by_option
@diversity_option
@ef_option
@click.option(
    "--oversampling",
    type=click.FloatRange(1),
    default=DEFAULT_EFFORT.oversampling,
    show_default=True,
    metavar="X",
    help="With quantized vectors: rescore so many times the hits with the original vectors.",
)
@exact_option
@content_options
@click.option(
    "--snippets",
    type=click.IntRange(0, 20),
    default=0,
    metavar="N",
    help="Print the N sentences of each hit that are most similar to the query.",
)
@several_options
@model_option("Load the collection's model from here.")
@click.option(
    "--queries",
    type=FILE,
    metavar="FILE",
    help="Search for every query of a file (qid<TAB>text, or JSON lines) instead of QUERY.",
)
@click.option(
    "--run", type=FILE, metavar="FILE", help="With --queries: write the hits as a TREC run."
)
@json_option
def search(*, settings: Settings, **options: Any) -> None:
    """Search for QUERY, a question or keywords."""
    from msmarco_qdrant.search.options import check_queries, to_request

    given = _Given(**options)
    given.check()
    chosen = given.to_options(settings.collection)
    to_request(chosen)  # refuses invalid options before a model is loaded
    check_queries([given.query] if given.query is not None else [])
    queries = _read_queries(given)
    bm25_only = given.mode == "bm25" and not given.snippets
    with open_search_client(settings, given.model, given.reranker, bm25=bm25_only) as client:
        chosen["meta_filter"] = parse_for(client.store, client.collection, given.filters)
        if given.query is not None:
            hits = client.search(given.query, **chosen)
            print_hits(hits, as_json=given.as_json)
            if given.offset is not None or given.cursor is not None:
                print_next_page(hits)
        elif given.run is not None:
            defaults = client.metadata.search_defaults
            chosen["limit"] = given.limit or given.depth or _run_depth(defaults, given.reranker)
            _search_many(client, queries, given.run, chosen, as_json=given.as_json)


def _run_depth(defaults: SearchDefaults, reranker: str | None) -> int:
    """Return the number of hits of each query in a run for which no option names it."""
    from msmarco_qdrant.search.options import RERANK_DEPTH

    return 1000 if reranker is None else defaults.rerank_depth or RERANK_DEPTH


def _read_queries(given: _Given) -> list[Query]:
    """Read and check the file of queries, so that none fails after an hour of searching."""
    path, run = given.queries, given.run
    if path is None or run is None:
        return []
    check_output(run, "--run", [str(path)])
    from msmarco_qdrant.evaluation.plan import check_texts
    from msmarco_qdrant.evaluation.runs import check_id
    from msmarco_qdrant.sources.corpus import read_queries

    queries = list(read_queries(path))
    if not queries:
        raise SourceError(f"{path} has no queries; expected a line qid<TAB>text per query")
    for query in queries:
        check_id(query.qid)
    check_texts(queries)
    return queries


def _search_many(
    client: SearchClient, queries: list[Query], run: Path, options: SearchOptions, *, as_json: bool
) -> None:
    from msmarco_qdrant.evaluation import run_queries, save_run

    answers = run_queries(client, queries, options)
    rankings = ((query.qid, [(hit.pid, hit.score) for hit in hits]) for query, hits in answers)
    count = save_run(run, rankings)
    print_result(
        {"queries": count, "run": str(run)},
        f"answers for {count:,} queries written to {run}",
        as_json=as_json,
    )
