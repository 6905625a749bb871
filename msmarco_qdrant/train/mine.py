"""Mining: the passages that search ranks high for a training query and that do not answer it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, closing
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.collection.graph import graph_note
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.coverage import (
    SearchedPassages,
    count_missing_relevant,
    quoted_examples,
)
from msmarco_qdrant.evaluation.plan import check_texts
from msmarco_qdrant.runtime.daemon_executor import DaemonExecutor
from msmarco_qdrant.runtime.progress import ProgressDisplay, with_display
from msmarco_qdrant.search.request import check_count
from msmarco_qdrant.train.mine_parts import (
    PartCounts,
    PartFiles,
    add_counts,
    digest_queries,
    other_queries,
)
from msmarco_qdrant.train.mine_processes import MineProcesses
from msmarco_qdrant.train.mine_report import MineReport, read_report, write_report
from msmarco_qdrant.train.mine_systems import Clients, MiningSystem, limit_for, make_systems
from msmarco_qdrant.train.negatives_file import NEGATIVES_FILE
from msmarco_qdrant.train.out_folder import OutFolder, digest_of
from msmarco_qdrant.train.records import MinedQuery, Positives

if TYPE_CHECKING:
    from concurrent.futures import Future

OnMined: TypeAlias = Callable[[int, int], None]

QUERIES_PER_PART = 1024
"""A killed run loses the searches for fewer queries than this."""

_QUERIES_PER_BATCH = 32
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
    _check_ranks(depth, first_rank)
    systems = make_systems(client, modes, tenant)
    settings = {
        "depth": depth,
        "first_rank": first_rank,
        "systems": {system.name: system.settings() for system in systems},
    }
    searching = MineProcesses(systems, processes)
    _warn_without_graph(systems)
    with OutFolder(out, "mine", settings) as folder, closing(searching), ExitStack() as stack:
        if progress:
            display = ProgressDisplay(unit="queries")
            on_progress = with_display(stack, display, display.show_of, on_progress)
        total = len(queries) if isinstance(queries, Sized) else 0
        ranks = range(first_rank - 1, depth)
        run = _MineRun(systems, searching, positives, folder, ranks, on_progress, total)
        return run.mine(queries)


def _warn_without_graph(systems: Sequence[MiningSystem]) -> None:
    clients = {id(one.client): one.client for one in systems if one.mode != "bm25"}
    for client in clients.values():
        info = client.session.collection.info(all_replicas=False)
        if (note := graph_note(client.store, client.collection, info)) is not None:
            _log.warning("%s first, or mining takes long", note)


def _check_ranks(depth: int, first_rank: int) -> None:
    check_count("depth", depth)
    check_count("first_rank", first_rank)
    if first_rank > depth:
        raise UsageError(f"first_rank must be 1 to depth ({depth}), got {first_rank}")


class _MineRun:
    """One call: mines the parts that are missing, and then writes the file and the report."""

    def __init__(
        self,
        systems: Sequence[MiningSystem],
        searching: MineProcesses,
        positives: Positives,
        folder: OutFolder,
        ranks: range,
        on_progress: OnMined | None,
        total: int,
    ) -> None:
        self._systems = systems
        self._searching = searching
        self._positives = positives
        self._folder = folder
        self._ranks = ranks
        self._on_progress = on_progress or (lambda _done, _total: None)
        self._total = total
        self._parts = PartFiles(folder.path / "parts")
        self._qids = PidSet()
        self._skipped = 0
        self._done = 0
        self._example = ""

    def mine(self, queries: Iterable[Query]) -> MineReport:
        """Mine what is missing, and return the report."""
        started = time.perf_counter()
        before = read_report(self._folder)
        counts: list[PartCounts] = []
        digests: list[str] = []
        executor = DaemonExecutor(self._searching.threads, "msmarco-qdrant-mine")
        try:
            for batch in in_batches(self._with_positives(queries), QUERIES_PER_PART):
                digests.append(digest_queries(batch, self._positives))
                if before is None:
                    counts.append(self._complete(len(counts), digests[-1], batch, executor))
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
        self._check_any(bool(digests))
        inputs = digest_of(digests)
        if before is not None:
            if before.inputs != inputs:
                raise other_queries(self._folder.path)
            self._parts.remove()
            return before.report
        return self._finish(add_counts(counts), inputs, len(counts), started)

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

    def _check_any(self, is_any: bool) -> None:
        if is_any:
            return
        if not self._example:
            raise UsageError("queries must be one query or more, got none")
        raise UsageError(
            f"none of the {self._skipped:,} queries has a positive: they have qids such as "
            f"{self._example!r}, the positives {quoted_examples(self._positives.keys())}; pass the "
            "positives of these queries"
        )

    def _complete(
        self, number: int, digest: str, batch: Sequence[Query], executor: DaemonExecutor
    ) -> PartCounts:
        """Mine a part, unless an earlier run has; return its counts."""
        counts = self._parts.read_counts(number, digest)
        if counts is None:
            check_texts(batch)
            missing = self._count_missing(batch, is_first=number == 0)
            mined = self._search(batch, executor)
            counts = self._count(mined, missing)
            self._parts.write(number, digest, counts, mined)
        else:
            self._show(len(batch) * len(self._systems))
        return counts

    def _count_missing(self, batch: Sequence[Query], *, is_first: bool) -> int:
        """Count the positives that the first collection lacks; refuse if one has none at all."""
        pids = {pid: 1 for query in batch for pid in self._positives[query.qid]}
        if is_first:
            for system in {id(one.client): one for one in self._systems}.values():
                passages = SearchedPassages(system.client, system.tenant)
                count_missing_relevant(passages, {"": pids})
        first = self._systems[0]
        return len(pids) - len(SearchedPassages(first.client, first.tenant).find(pids))

    def _search(self, batch: Sequence[Query], executor: DaemonExecutor) -> list[MinedQuery]:
        """Return the candidates of each query. Batches of searches run at the same time."""
        self._searching.start(len(batch) * len(self._systems))
        tasks: list[tuple[MiningSystem, list[Query], Future[list[list[str]]]]] = []
        for system in self._systems:
            for limit, group in self._by_limit(batch).items():
                for some in in_batches(group, _QUERIES_PER_BATCH):
                    texts = [query.text for query in some]
                    future = executor.submit(self._searching.search, system, texts, limit)
                    tasks.append((system, some, future))
        found: dict[str, dict[str, tuple[str, ...]]] = {query.qid: {} for query in batch}
        for system, some, future in tasks:
            for query, pids in zip(some, future.result(), strict=True):
                found[query.qid][system.name] = self._choose(query, pids)
            self._show(len(some))
        return [
            MinedQuery(query.qid, tuple(self._positives[query.qid]), found[query.qid])
            for query in batch
        ]

    def _by_limit(self, batch: Sequence[Query]) -> dict[int, list[Query]]:
        """Return the queries by the number of hits to search for."""
        groups: dict[int, list[Query]] = {}
        for query in batch:
            limit = limit_for(self._ranks.stop, len(self._positives[query.qid]))
            groups.setdefault(limit, []).append(query)
        return groups

    def _choose(self, query: Query, pids: Sequence[str]) -> tuple[str, ...]:
        """Return the candidates of the ranks, counted without positives."""
        positives = {*self._positives[query.qid]}
        others = [pid for pid in pids if pid not in positives]
        return tuple(others[self._ranks.start : self._ranks.stop])

    def _count(self, mined: Sequence[MinedQuery], missing: int) -> PartCounts:
        sizes = {
            system.name: [len(one.negatives[system.name]) for one in mined]
            for system in self._systems
        }
        return PartCounts(
            len(mined),
            missing,
            {name: sum(each) for name, each in sizes.items()},
            {name: sum(size < len(self._ranks) for size in each) for name, each in sizes.items()},
        )

    def _show(self, searches: int) -> None:
        """Report the progress in queries; each system searches for each of them."""
        self._done += searches
        self._on_progress(self._done // len(self._systems), self._total)

    def _finish(self, counts: PartCounts, inputs: str, parts: int, started: float) -> MineReport:
        """Write the file, then the report, which marks the folder as complete."""
        self._parts.join(parts, self._folder.path / NEGATIVES_FILE)
        unused = sum(qid not in self._qids for qid in self._positives)
        report = MineReport(
            counts.queries,
            counts.candidates,
            counts.short,
            len(self._ranks),
            self._skipped,
            unused,
            counts.missing_positives,
            round(time.perf_counter() - started, 3),
        )
        write_report(self._folder, report, inputs)
        self._parts.remove()
        return report
