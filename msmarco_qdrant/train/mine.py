"""Mining: the passages that search ranks high for a training query and that do not answer it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, closing
from os import PathLike
from typing import TypeAlias

from msmarco_qdrant.collection.graph import graph_note
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.coverage import quoted_examples
from msmarco_qdrant.runtime.progress import ProgressDisplay, with_display
from msmarco_qdrant.search.request import check_count
from msmarco_qdrant.train.mine_parts import (
    MinedPart,
    PartCounts,
    PartFiles,
    QueryPart,
    add_counts,
    other_queries,
)
from msmarco_qdrant.train.mine_report import MineReport, read_report, write_report
from msmarco_qdrant.train.mine_search import PartMiner, require_positives
from msmarco_qdrant.train.mine_systems import (
    Clients,
    MiningSystem,
    make_systems,
    mine_settings,
    require_encoders,
)
from msmarco_qdrant.train.negatives_file import NEGATIVES_FILE
from msmarco_qdrant.train.out_folder import OutFolder, digest_of
from msmarco_qdrant.train.records import Positives

OnMined: TypeAlias = Callable[[int, int], None]

QUERIES_PER_PART = 1024
"""A killed run loses the searches for fewer queries than this."""

_log = logging.getLogger(__name__)


@suggest_keywords
def mine_negatives(  # noqa: PLR0913  # all but four have defaults
    client: Clients,
    queries: Iterable[Query],
    positives: Positives,
    out: str | PathLike[str],
    *,
    modes: Sequence[SearchMode] = ("dense",),
    depth: int = 100,
    first_rank: int = 1,
    tenant: str | None = None,
    processes: int | None = None,
    on_progress: OnMined | None = None,
    progress: bool = False,
) -> MineReport:
    """Search for candidates for hard negatives of every training query, without its positives.

    Ranks count the passages that are not positives, from 1. Each collection's own similarity,
    index and search defaults are used. It writes `negatives.jsonl.gz` and `report.json` into the
    folder. Interrupted or killed, the same call resumes; once complete, it returns the report.
    Memory does not grow with the number of queries, except for 18 bytes each.

    Args:
        client: A client of the collection, or several clients by the names that their systems
            have in the file. One client's systems are its model's name, "bm25" and "hybrid".
        queries: The training queries; those without a positive are left out, and counted.
        positives: The pids that answer each query, by qid.
        out: A new folder, or one that the same call has begun.
        modes: Search modes; each is a system in the file.
        depth: The last rank of a candidate, 1 to 10,000.
        first_rank: The first rank of a candidate, 1 to `depth`.
        tenant: Only this tenant's passages, which a collection with a tenant field requires.
        processes: Processes that search a store in a directory; None for one per core, up to 4,
            where they pay. Each has the graph in its own memory. With 1, and during writes to the
            collection by this process, it searches alone.
        on_progress: Called with the number of queries done, and of all; 0 if that is unknown.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.

    Raises:
        UsageError: For an invalid argument, a repeated qid, a query without text, no query with a
            positive, positives that the collection lacks, or a folder of another call.
        ModelMismatchError: If a collection is re-embedded during mining.
        OutputError: If the folder cannot be written, or another process mines into it.
        StoreError: If an engine fails.
    """
    ranks = to_ranks(depth, first_rank)
    systems = make_systems(client, modes, tenant)
    require_encoders(systems)
    miner = PartMiner(systems, ranks, processes)
    warn_without_graph(systems)
    settings = mine_settings(systems, ranks)
    with OutFolder(out, "mine", settings) as folder, closing(miner), ExitStack() as stack:
        if progress:
            on_progress = with_bar(stack, on_progress)
        run = MineRun(systems, positives, folder, ranks, on_progress)

        def complete(parts: Iterator[QueryPart]) -> None:
            for part in parts:
                if part.number == 0:
                    require_positives(systems, part)
                run.add(part, miner.mine(part, run.show))

        return run.mine(queries, complete)


def to_ranks(depth: int, first_rank: int) -> range:
    """Return the ranks of the candidates, from 0.

    Raises:
        UsageError: If they are out of range.
    """
    check_count("depth", depth)
    check_count("first_rank", first_rank)
    if first_rank > depth:
        raise UsageError(f"first_rank must be 1 to depth ({depth}), got {first_rank}")
    return range(first_rank - 1, depth)


def warn_without_graph(systems: Sequence[MiningSystem]) -> None:
    """Warn of a collection that is searched without an index."""
    clients = {id(one.client): one.client for one in systems if one.mode != "bm25"}
    for client in clients.values():
        info = client.session.collection.info(all_replicas=False)
        if (note := graph_note(client.store, client.collection, info)) is not None:
            _log.warning("%s first, or mining takes long", note)


def with_bar(stack: ExitStack, on_progress: OnMined | None) -> OnMined:
    """Return a callback that also shows the progress."""
    display = ProgressDisplay(unit="queries")
    return with_display(stack, display, display.show_of, on_progress)


class MineRun:
    """One call: finds the parts that are missing, and writes the file and the report.

    Args:
        systems: The systems.
        positives: The pids that answer each query, by qid.
        folder: The output folder.
        ranks: The ranks of the candidates, from 0.
        on_progress: Called with the number of queries done, and of all.
    """

    def __init__(
        self,
        systems: Sequence[MiningSystem],
        positives: Positives,
        folder: OutFolder,
        ranks: range,
        on_progress: OnMined | None,
    ) -> None:
        self._systems = systems
        self._positives = positives
        self._folder = folder
        self._ranks = ranks
        self._on_progress = on_progress or (lambda _done, _total: None)
        self._total = self._queries = 0
        self._parts = PartFiles(folder.path / "parts")
        self._counts: list[PartCounts] = []
        self._digests: list[str] = []
        self._qids = PidSet()
        self._skipped = 0
        self._done = 0
        self._example = ""

    def mine(
        self, queries: Iterable[Query], complete: Callable[[Iterator[QueryPart]], None]
    ) -> MineReport:
        """Mine what is missing, and return the report.

        Args:
            queries: The training queries.
            complete: Mines missing parts, and passes each to `add`; it reads all of them.

        Raises:
            UsageError: See `mine_negatives`.
            OutputError: If the folder cannot be written.
        """
        started = time.perf_counter()
        self._total = len(queries) if isinstance(queries, Sized) else 0
        before = read_report(self._folder)
        parts = self._split(queries)
        if before is None:
            complete(part for part in parts if not self._is_done(part))
        for _ in parts:  # of a complete folder, to compare the queries
            pass
        self._check_any()
        inputs = digest_of(self._digests)
        if before is None:
            return self._finish(inputs, started)
        if before.inputs != inputs:
            raise other_queries(self._folder.path)
        self._parts.remove()
        return before.report

    def add(self, part: QueryPart, mined: MinedPart) -> None:
        """Write a part, and count it. Parts may come in any order."""
        self._parts.write(part, mined)
        self._counts.append(mined.counts)

    def show(self, searches: int) -> None:
        """Report the progress in queries; each system searches for each of them."""
        self._done += searches
        self._on_progress(self._done // len(self._systems), self._total)

    def _split(self, queries: Iterable[Query]) -> Iterator[QueryPart]:
        for batch in in_batches(self._with_positives(queries), QUERIES_PER_PART):
            part = QueryPart.of(len(self._digests), batch, self._positives)
            self._digests.append(part.digest)
            self._queries += len(batch)
            yield part
        self._total = self._total or self._queries  # known where parts are mined later

    def _is_done(self, part: QueryPart) -> bool:
        """True if an earlier run has mined a part; count it."""
        counts = self._parts.read_counts(part)
        if counts is None:
            return False
        self._counts.append(counts)
        self.show(len(part.queries) * len(self._systems))
        return True

    def _with_positives(self, queries: Iterable[Query]) -> Iterator[Query]:
        """Yield the queries that have a positive; count the others."""
        for query in queries:
            if not self._qids.add(query.qid):
                raise UsageError(f"each query needs its own qid, got {query.qid!r} twice")
            self._example = self._example or query.qid
            if self._positives.get(query.qid):
                yield query
            else:
                self._skipped += 1

    def _check_any(self) -> None:
        if self._digests:
            return
        if not self._example:
            raise UsageError("queries must be one query or more, got none")
        raise UsageError(
            f"none of the {self._skipped:,} queries has a positive: they have qids such as "
            f"{self._example!r}, the positives {quoted_examples(self._positives.keys())}; pass the "
            "positives of these queries"
        )

    def _finish(self, inputs: str, started: float) -> MineReport:
        """Write the file, then the report, which marks the folder as complete."""
        self._parts.join(len(self._digests), self._folder.path / NEGATIVES_FILE)
        counts = add_counts(self._counts)
        unused = sum(qid not in self._qids for qid in self._positives)
        report = MineReport(
            counts.queries,
            {system.name: counts.candidates[system.name] for system in self._systems},
            {system.name: counts.short[system.name] for system in self._systems},
            len(self._ranks),
            self._skipped,
            unused,
            counts.missing_positives,
            round(time.perf_counter() - started, 3),
        )
        write_report(self._folder, report, inputs)
        self._parts.remove()
        return report
