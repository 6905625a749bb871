"""The command `mine`: candidates for hard negatives of training queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.cli.command_settings import open_search_client
from msmarco_qdrant.cli.completion import complete_collections
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.judged_files import (
    check_source,
    click_options,
    file_option,
    min_grade_option,
    out_option,
)
from msmarco_qdrant.cli.options import (
    ENCODER,
    LIMIT,
    json_option,
    model_option,
    refuse_unused,
    settings_options,
    tenant_option,
)
from msmarco_qdrant.cli.output import print_result
from msmarco_qdrant.cli.ray_options import ray_options, refuse_with_ray
from msmarco_qdrant.cli.run_options import depth_option, modes_option
from msmarco_qdrant.cli.signals import advise_resume, exit_on_sigterm
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.core.search_types import SearchMode

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.train import MineReport, Positives
    from msmarco_qdrant.train.mine_systems import Clients


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """The options of `mine`, as given."""

    queries: Path | None
    qrels: Path | None
    min_grade: int
    clicks: Path | None
    min_count: int
    out: Path
    modes: tuple[SearchMode, ...]
    depth: int
    first_rank: int
    also: tuple[str, ...]
    processes: int | None
    tenant: str | None
    model: str | None
    as_json: bool

    def check(self) -> None:
        """Refuse options that exclude each other or have no effect."""
        check_source(self.queries, self.qrels, self.clicks)
        refuse_unused("--qrels", used=self.qrels is not None, options=["min_grade"])
        if self.first_rank > self.depth:
            raise click.UsageError(
                f"--first-rank must be 1 to --depth ({self.depth}), got {self.first_rank}"
            )


@click.command(
    cls=Command,
    examples=[
        "--queries queries.tsv --qrels qrels.txt --out mined",
        "--clicks clicks.tsv --mode dense --mode bm25 --out mined",
        "--queries queries.tsv --qrels qrels.txt --out mined --ray auto",
    ],
)
@settings_options("store", "transport", "collection", *ENCODER)
@file_option("--queries", "Training queries: qid<TAB>text or JSON lines.")
@file_option(
    "--qrels",
    "Their positives: judgments in TREC's or BEIR's format, or pairs qid<TAB>pid.",
)
@min_grade_option("With judgments")
@click_options
@out_option("the negatives")
@modes_option("Mode to search with; repeat it for candidates of several systems.")
@depth_option("The last rank of a candidate. Ranks do not count positives.")
@click.option(
    "--first-rank",
    type=LIMIT,
    default=1,
    show_default=True,
    metavar="N",
    help="The first rank of a candidate.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_collections,
    help="Also search this collection, of another model. Repeat it for several collections.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Processes that search a store in a directory; each has the graph in its own memory.  "
    "[default: one per core, up to 4, where they pay]",
)
@ray_options("Search")
@tenant_option
@model_option("Load the collection's model from here.")
@json_option
def mine(*, settings: Settings, ray: dict[str, Any] | None, **options: object) -> None:
    """Search for candidates for hard negatives.

    They are the passages that rank high for a training query and are not among its positives. Run
    the same command again to resume.
    """
    given = _Given(**options)  # type: ignore[arg-type]
    given.check()
    refuse_with_ray(ray, {"--processes": given.processes is not None}, "mining")
    queries, positives = _read(given)
    with exit_on_sigterm(), advise_resume("Mined queries are kept"), ExitStack() as stack:
        report = _miner(stack, settings, given, ray)(
            queries,
            positives,
            given.out,
            modes=given.modes,
            depth=given.depth,
            first_rank=given.first_rank,
            tenant=given.tenant,
            progress=True,
        )
    if given.clicks is not None:
        _write_queries(given.out / "queries.tsv", queries)
    print_result(to_json_value(report), *str(report).splitlines(), as_json=given.as_json)


def _read(given: _Given) -> tuple[Iterable[Query], Positives]:
    """Read the positives; the queries of a file are read while they are mined."""
    from msmarco_qdrant.sources.corpus import read_queries
    from msmarco_qdrant.sources.files import file_size
    from msmarco_qdrant.train import read_clicks, read_positives

    if given.clicks is not None:
        return read_clicks(given.clicks, min_count=given.min_count)
    file_size(str(given.queries))  # refuse a missing file before the positives are read
    positives = read_positives(str(given.qrels), min_grade=given.min_grade)
    return read_queries(str(given.queries)), positives


def _miner(
    stack: ExitStack, settings: Settings, given: _Given, ray: dict[str, Any] | None
) -> Callable[..., MineReport]:
    """Return the function that mines: in this process, or on a cluster."""
    if ray is None:
        from msmarco_qdrant.train import mine_negatives

        clients = stack.enter_context(_open_clients(settings, given))
        return partial(mine_negatives, clients, processes=given.processes)
    from msmarco_qdrant.distributed import mine_on_ray

    return partial(
        mine_on_ray,
        settings.store,
        collection=settings.collection,
        also=given.also,
        model=given.model,
        encoder_options=settings.encoder_options,
        connection=settings.connection,
        **ray,
    )


@contextmanager
def _open_clients(settings: Settings, given: _Given) -> Iterator[Clients]:
    """Open a client on each collection; without --also, the systems are named by the model."""
    from msmarco_qdrant.search.client import SearchClient

    is_bm25 = {*given.modes} == {"bm25"}
    with open_search_client(settings, given.model, bm25=is_bm25) as first, ExitStack() as stack:
        clients: dict[str, SearchClient] = {first.collection: first}
        for name in given.also:
            if name in clients:
                raise click.UsageError(f"--also must be another collection than {name}")
            clients[name] = stack.enter_context(
                SearchClient.open(
                    first.store,
                    collection=name,
                    encoder_options=settings.encoder_options,
                    bm25_only=is_bm25,
                )
            )
        yield clients if given.also else first


def _write_queries(path: Path, queries: Iterable[Query]) -> None:
    """Write the queries of a log of clicks, whose qids later commands need."""
    from msmarco_qdrant.runtime.atomic_file import atomic_write_text

    with atomic_write_text(path) as file:
        file.writelines(f"{query.qid}\t{query.text}\n" for query in queries)
