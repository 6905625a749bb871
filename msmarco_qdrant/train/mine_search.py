"""Mining of one part after the other, in this process or in a worker on another machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.evaluation.coverage import SearchedPassages, count_missing_relevant
from msmarco_qdrant.evaluation.plan import check_texts
from msmarco_qdrant.runtime.daemon_executor import DaemonExecutor
from msmarco_qdrant.train.mine_parts import MinedPart, PartCounts, QueryPart
from msmarco_qdrant.train.mine_processes import MineProcesses
from msmarco_qdrant.train.mine_systems import MiningSystem, limit_for
from msmarco_qdrant.train.records import MinedQuery

if TYPE_CHECKING:
    from concurrent.futures import Future

_QUERIES_PER_BATCH = 32


class PartMiner:
    """Finds the candidates of parts.

    Args:
        systems: The systems.
        ranks: The ranks of the candidates, from 0.
        processes: Processes that search; see `MineProcesses`.

    Raises:
        UsageError: For an invalid number of processes.
    """

    def __init__(
        self, systems: Sequence[MiningSystem], ranks: range, processes: int | None = None
    ) -> None:
        self._systems = systems
        self._ranks = ranks
        self._searching = MineProcesses(systems, processes)
        self._executor = DaemonExecutor(self._searching.threads, "msmarco-qdrant-mine")

    def mine(
        self, part: QueryPart, on_searches: Callable[[int], None] = lambda _searches: None
    ) -> MinedPart:
        """Return the candidates of a part.

        Args:
            part: The part.
            on_searches: Called with the number of searches of each batch.

        Raises:
            UsageError: For a query without text.
            ModelMismatchError: If a collection was re-embedded since mining began.
            StoreError: If the engine fails.
        """
        check_texts(part.queries)
        missing = self._count_missing(part)
        mined = self._search(part, on_searches)
        return MinedPart.of(self._count(mined, missing), mined)

    def close(self) -> None:
        """End the threads and the processes, and remove their files."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._searching.close()

    def _count_missing(self, part: QueryPart) -> int:
        """Count the positives that the first collection lacks."""
        pids, first = _pids_of(part), self._systems[0]
        return len(pids) - len(SearchedPassages(first.client, first.tenant).find(pids))

    def _search(self, part: QueryPart, on_searches: Callable[[int], None]) -> list[MinedQuery]:
        """Return the candidates of each query. Batches of searches run at the same time."""
        self._searching.expect(len(part.queries) * len(self._systems))
        tasks: list[tuple[MiningSystem, list[Query], Future[list[list[str]]]]] = []
        for system in self._systems:
            for limit, group in self._by_limit(part).items():
                for some in in_batches(group, _QUERIES_PER_BATCH):
                    texts = [query.text for query in some]
                    future = self._executor.submit(self._searching.search, system, texts, limit)
                    tasks.append((system, some, future))
        found: dict[str, dict[str, tuple[str, ...]]] = {query.qid: {} for query in part.queries}
        for system, some, future in tasks:
            for query, pids in zip(some, future.result(), strict=True):
                found[query.qid][system.name] = self._choose(part.positives[query.qid], pids)
            on_searches(len(some))
        return [
            MinedQuery(query.qid, tuple(part.positives[query.qid]), found[query.qid])
            for query in part.queries
        ]

    def _by_limit(self, part: QueryPart) -> dict[int, list[Query]]:
        """Return the queries by the number of hits to search for."""
        groups: dict[int, list[Query]] = {}
        for query in part.queries:
            limit = limit_for(self._ranks.stop, len(part.positives[query.qid]))
            groups.setdefault(limit, []).append(query)
        return groups

    def _choose(self, positives: Sequence[str], pids: Sequence[str]) -> tuple[str, ...]:
        """Return the candidates of the ranks, counted without positives."""
        own = {*positives}
        others = [pid for pid in pids if pid not in own]
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


def require_positives(systems: Sequence[MiningSystem], part: QueryPart) -> None:
    """Refuse positives of which a collection has none at all.

    Args:
        systems: The systems.
        part: The first part; the positives of others are only counted.

    Raises:
        UsageError: If one lacks all of them.
        StoreError: If the engine fails.
    """
    pids = dict.fromkeys(_pids_of(part), 1)
    for system in {id(one.client): one for one in systems}.values():
        count_missing_relevant(SearchedPassages(system.client, system.tenant), {"": pids})


def _pids_of(part: QueryPart) -> list[str]:
    """Return the different positives of a part."""
    return [*dict.fromkeys(pid for pids in part.positives.values() for pid in pids)]
